//! How fast the TCP pair is, beside the plainest thread for each connection that std allows, in one run,
//! and what an idle connection costs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use harness::{Server, example, median_ratio, program};

const CONNECTIONS: usize = 50;

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn round_trips(mut stream: &TcpStream, count: usize) {
    let mut buffer = [b'x'; 512];
    for _ in 0..count {
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
    }
}

/// One connection, one message after the other.
fn one_connection(addr: SocketAddr) {
    round_trips(&connect(addr), 4000);
}

/// Fifty connections, one message after the other on each, by two threads.
fn many_connections(addr: SocketAddr) {
    let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(addr)).collect();
    thread::scope(|scope| {
        for half in streams.chunks(CONNECTIONS / 2) {
            scope.spawn(move || {
                for _ in 0..100 {
                    half.iter().for_each(|mut stream| stream.write_all(&[b'x'; 512]).unwrap());
                    half.iter().for_each(|mut stream| stream.read_exact(&mut [0; 512]).unwrap());
                }
            });
        }
    });
}

/// One stream of 64 MiB.
fn bulk(addr: SocketAddr) {
    let stream = connect(addr);
    let bytes = vec![b'x'; 64 << 20];
    assert_eq!(
        harness::echo_all(&stream, &bytes, |stream| stream.shutdown(Shutdown::Write)).len(),
        bytes.len()
    );
}

/// Connect, one message, close; by four clients at once.
fn short_connections(addr: SocketAddr) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || (0..500).for_each(|_| round_trips(&connect(addr), 1)));
        }
    });
}

/// A slow or busy machine slows both alike, so only ratios are judged, and loosely.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test tcp_speed -- --ignored --nocapture"]
fn tcp_server_keeps_up_with_the_plainest_one() {
    let ours = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let plain = Server::start(&mut example("plain_tcp_echo"));
    type Work = fn(SocketAddr);
    let questions: [(&str, Work, f64); 4] = [
        ("round trips on one connection", one_connection, 0.85),
        ("round trips on 50 connections", many_connections, 0.85),
        ("one stream of 64 MiB", bulk, 0.75),
        ("connect, echo, close", short_connections, 1.1),
    ];
    for (question, work, at_least) in questions {
        let rate = |server: &Server| {
            let started = Instant::now();
            work(server.addr);
            started.elapsed().as_secs_f64().recip()
        };
        let ratio = median_ratio(|| rate(&ours), || rate(&plain));
        println!("{question}, tcp-server to the plainest: {ratio}");
        assert!(ratio.median > at_least, "{question}: {ratio}");
    }
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "a measurement, of use in a release build: cargo test --release --test tcp_speed -- --ignored --nocapture"]
fn an_idle_connection_costs_less_than_24_kib() {
    const CLIENTS: usize = 1000;
    if harness::allow_descriptors(CLIENTS as u64 + 100).is_none() {
        return harness::not_run("no right to so many descriptors");
    }
    let clients = CLIENTS.to_string();
    let server = Server::start(program("tcp-server").args([
        "--addr",
        "127.0.0.1:0",
        "-q",
        "--max-connections",
        &clients,
    ]));
    let small =
        Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "-q", "--max-connections", "1"]));
    let memory = |server: &Server| harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.addr)).collect();
    streams.iter().for_each(|stream| round_trips(stream, 1));
    let each = (memory(&server) - memory(&small)) as f64 / CLIENTS as f64;
    println!("an idle connection, its thread included, costs the server {each:.1} KiB");
    assert!(each < 24.0, "{each} KiB");
}

/// As one copies a file over the network: input and output by files or by pipes.
#[test]
#[cfg(unix)]
#[ignore = "a measurement, of use in a release build: cargo test --release --test tcp_speed -- --ignored --nocapture"]
fn tcp_client_copies_faster_than_other_clients() {
    use std::process::Command;
    let server = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let port = server.addr.port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    std::fs::write(&input, vec![b'x'; 64 << 20]).unwrap();

    // `$0` and `$@` are the client, `$IN` and `$OUT` the files.
    let ways = [
        ("pipe to pipe", r#"cat "$IN" | "$0" "$@" | cat > "$OUT""#),
        ("file to file", r#""$0" "$@" < "$IN" > "$OUT""#),
    ];
    let rate = |script: &str, client: &Command| {
        let started = Instant::now();
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).arg(client.get_program()).args(client.get_args());
        assert!(sh.env("IN", &input).env("OUT", &output).status().unwrap().success(), "{client:?}");
        let rate = started.elapsed().as_secs_f64().recip();
        assert_eq!(std::fs::metadata(&output).unwrap().len(), 64 << 20, "{client:?}");
        rate
    };
    let mut ours = program("tcp-client");
    ours.args(["--addr", &server.addr.to_string()]);
    for (name, option) in [("nc", "-N"), ("ncat", "-n")] {
        let mut other = Command::new(name);
        other.args([option, "127.0.0.1", &port]);
        if Command::new(name).arg("-h").output().is_err() {
            harness::not_run(&format!("{name} is not installed"));
            continue;
        }
        for (way, script) in ways {
            let ratio = median_ratio(|| rate(script, &ours), || rate(script, &other));
            println!("64 MiB {way}, tcp-client to {name} {option}: {ratio}");
            assert!(ratio.median > 0.8, "{name}, {way}: {ratio}");
        }
    }
}
