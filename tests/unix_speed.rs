//! How fast `unix-echo` is, beside the plainest servers that std allows, in one run.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::loads::unix;
use harness::{Running, example, median_ratio, program};

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
    type Load = fn(&Path, u64) -> Duration;
    let questions: [(&str, Load, u64, &[&str], f64); 3] = [
        ("stream round trips", unix::one_connection, 5000, &[], 0.85),
        ("one stream of 64 MiB", unix::bulk, 64, &[], 0.75),
        ("datagram round trips", unix::datagrams, 5000, &["--datagram"], 0.85),
    ];
    for (number, (question, load, count, options, at_least)) in questions.into_iter().enumerate() {
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(format!("{name}{number}")));
        let _ours = start(program("unix-echo").args(["server", "-q", "--path"]), &ours, options);
        let _plain = start(&mut example("plain_unix_echo"), &plain, options);
        let rate = |path: &Path| load(path, count).as_secs_f64().recip();
        let ratio = median_ratio(|| rate(&ours), || rate(&plain));
        println!("{question}, unix-echo to the plainest: {ratio}");
        assert!(ratio.median > at_least, "{question}: {ratio}");
    }
}
