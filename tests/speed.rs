//! How fast the programs are, each beside others that do the same, in one run. The bench asks the same
//! (`cargo bench -p tests`), of more; here two at a time take turns, which tells small differences, and one
//! that has become clearly slower fails.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::servers::{Peer, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM, named};
use harness::{Server, loads, median_ratio, program};

/// What is asked, the load and how much of it, ours, the other, and the least that their ratio may be.
///
/// A slow or busy machine slows both alike. Yet it is never quiet, so the least is well below what is seen.
type Row = (&'static str, fn(&str, u64) -> Duration, u64, &'static str, &'static str, f64);

fn assert_ratios(peers: &[Peer], rows: &[Row]) {
    for (question, load, count, ours, other, at_least) in rows {
        let [ours, other] = [ours, other].map(|name| named(peers, name));
        if !other.is_installed() {
            continue;
        }
        // Started anew each time: on which processor it finds itself is luck, and lasts as long as the process.
        let rate = |peer: Peer| {
            let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
            let server = peer.start(&folder.path().join("server"), 100);
            load(&server.addr, *count).as_secs_f64().recip()
        };
        let ratio = median_ratio(|| rate(ours), || rate(other));
        println!("{question}, {} to {}: {ratio}", ours.name, other.name);
        assert!(ratio.median > *at_least, "{question}, {} to {}: {ratio}", ours.name, other.name);
    }
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn the_udp_servers_keep_up() {
    let one_by_one = |addr: &str, count| loads::udp_stop_and_wait(addr.parse().unwrap(), count);
    let many = |addr: &str, count| loads::udp_window(addr.parse().unwrap(), count);
    let rows: [Row; 6] = [
        ("datagrams one by one", one_by_one, 2000, "udp-server", "c_loop", 0.85),
        ("datagrams one by one", one_by_one, 2000, "udp-server", "tokio", 1.0),
        ("datagrams one by one", one_by_one, 2000, "batch", "udp-server", 0.8),
        ("128 datagrams on their way", many, 10_000, "udp-server", "c_loop", 0.85),
        ("128 datagrams on their way", many, 10_000, "batch", "udp-server", 1.05),
        ("128 datagrams on their way", many, 10_000, "batch", "c_batch", 0.85),
    ];
    assert_ratios(&UDP, &rows);
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn the_tcp_servers_keep_up() {
    let one = |addr: &str, count| loads::one_connection(addr.parse().unwrap(), count);
    let many = |addr: &str, count| loads::many_connections(addr.parse().unwrap(), count);
    let bulk = |addr: &str, count| loads::bulk(addr.parse().unwrap(), count);
    let connects = |addr: &str, count| loads::short_connections(addr.parse().unwrap(), count);
    let of_four = |addr: &str, count| loads::short_connections_at_once(addr.parse().unwrap(), count);
    let rows: [Row; 16] = [
        ("messages on one connection", one, 2000, "tcp-server", "c_threads", 0.85),
        ("messages on one connection", one, 2000, "event_loop", "tokio", 0.85),
        ("messages on 50 connections", many, 100, "tcp-server", "c_threads", 0.85),
        ("messages on 50 connections", many, 100, "event_loop", "tcp-server", 1.0),
        ("messages on 50 connections", many, 100, "event_loop", "tokio", 0.85),
        ("messages on 50 connections", many, 100, "event_loop", "epoll", 0.85),
        ("one stream of 64 MiB", bulk, 64, "tcp-server", "c_threads", 0.65),
        ("one stream of 64 MiB", bulk, 64, "tcp-server", "tokio_64k", 0.65),
        ("one stream of 64 MiB", bulk, 64, "event_loop", "epoll", 0.65),
        ("connect, echo, close", connects, 1000, "tcp-server", "c_threads", 0.95),
        ("connect, echo, close", connects, 1000, "tcp-server", "tokio", 1.0),
        ("connect, echo, close", connects, 1000, "event_loop", "tokio", 1.0),
        ("connect, echo, close", connects, 1000, "event_loop", "epoll", 0.75),
        ("connect, echo, close, by four", of_four, 500, "tcp-server", "c_threads", 0.9),
        ("connect, echo, close, by four", of_four, 500, "tcp-server", "tokio", 0.7),
        ("connect, echo, close, by four", of_four, 500, "event_loop", "epoll", 0.8),
    ];
    assert_ratios(&TCP, &rows);
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn unix_echo_keeps_up() {
    let one = |path: &str, count| loads::unix::one_connection(Path::new(path), count);
    let bulk = |path: &str, count| loads::unix::bulk(Path::new(path), count);
    let datagrams = |path: &str, count| loads::unix::datagrams(Path::new(path), count);
    let rows: [Row; 3] = [
        ("messages on one connection", one, 2000, "unix-echo", "plain", 0.85),
        ("one stream of 64 MiB", bulk, 64, "unix-echo", "plain", 0.65),
        ("one stream of 64 MiB", bulk, 64, "unix-echo", "tokio_64k", 0.65),
    ];
    assert_ratios(&UNIX_STREAM, &rows);
    assert_ratios(&UNIX_DATAGRAM, &[("datagrams", datagrams, 2000, "unix-echo", "plain", 0.85)]);
}

/// std lets 128 wait to be accepted. The rest ask again after a second.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn a_burst_of_a_thousand_connects_does_not_wait_for_the_event_loop() {
    const CLIENTS: usize = 1000;
    if harness::allow_descriptors(CLIENTS as u64 + 100).is_none() {
        return harness::not_run("no right to so many descriptors");
    }
    let [event_loop, threads] =
        ["event_loop", "tcp-server"].map(|name| named(&TCP, name).start(Path::new(""), CLIENTS));
    let burst = |addr: &str| loads::burst(addr.parse().unwrap(), CLIENTS);
    let (quick, slow) = (burst(&event_loop.addr), burst(&threads.addr));
    println!("a burst of {CLIENTS} connects: event_loop {quick:?}, tcp-server {slow:?}");
    assert!(quick < slow, "event_loop {quick:?}, tcp-server {slow:?}");
}

/// As one copies a file over the network: input and output by files or by pipes.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn tcp_client_copies_faster_than_other_clients() {
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
    let (tcp, port) = (format!("TCP:{}", server.addr), port.as_str());
    // -N: nc half-closes at the end. -t: socat then waits for the rest, and not just half a second.
    let others: [(&str, &[&str]); 3] = [
        ("nc", &["-N", "127.0.0.1", port]),
        ("ncat", &["-n", "127.0.0.1", port]),
        ("socat", &["-t", "30", "-", &tcp]),
    ];
    for (name, args) in others {
        let Some(mut other) = harness::foreign(name) else { continue };
        other.args(args);
        for (way, script) in ways {
            let ratio = median_ratio(|| rate(script, &ours), || rate(script, &other));
            println!("64 MiB {way}, tcp-client to {name}: {ratio}");
            assert!(ratio.median > 0.8, "{name}, {way}: {ratio}");
        }
    }
}
