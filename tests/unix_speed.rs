//! How fast `unix-echo` is, beside the plainest servers that std allows, in one run.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use harness::{Running, example, median_ratio, program};

fn round_trips(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    let mut buffer = [b'x'; 512];
    for _ in 0..5000 {
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
    }
}

/// One stream of 64 MiB.
fn bulk(path: &Path) {
    let stream = UnixStream::connect(path).unwrap();
    let bytes = vec![b'x'; 64 << 20];
    assert_eq!(
        harness::echo_all(&stream, &bytes, |stream| stream.shutdown(Shutdown::Write)).len(),
        bytes.len()
    );
}

fn datagrams(path: &Path) {
    let name = path.with_extension("client");
    let _ = std::fs::remove_file(&name);
    let socket = UnixDatagram::bind(name).unwrap();
    socket.connect(path).unwrap();
    let mut buffer = [b'x'; 512];
    for _ in 0..5000 {
        socket.send(&buffer).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 512);
    }
}

/// A slow or busy machine slows both alike, so only ratios are judged, and loosely.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test unix_speed -- --ignored --nocapture"]
fn unix_echo_keeps_up_with_the_plainest_ones() {
    let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
    let start = |command: &mut Command, path: &Path, options: &[&str]| {
        let mut server = Running::start(command.arg(path).args(options));
        server.announced();
        server
    };
    type Work = fn(&Path);
    let questions: [(&str, Work, &[&str], f64); 3] = [
        ("stream round trips", round_trips, &[], 0.85),
        ("one stream of 64 MiB", bulk, &[], 0.75),
        ("datagram round trips", datagrams, &["--datagram"], 0.85),
    ];
    for (number, (question, work, options, at_least)) in questions.into_iter().enumerate() {
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(format!("{name}{number}")));
        let _ours = start(program("unix-echo").args(["server", "-q", "--path"]), &ours, options);
        let _plain = start(&mut example("plain_unix_echo"), &plain, options);
        let rate = |path: &Path| {
            let started = Instant::now();
            work(path);
            started.elapsed().as_secs_f64().recip()
        };
        let ratio = median_ratio(|| rate(&ours), || rate(&plain));
        println!("{question}, unix-echo to the plainest: {ratio}");
        assert!(ratio.median > at_least, "{question}: {ratio}");
    }
}
