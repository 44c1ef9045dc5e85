//! How fast the programs are, each beside others that do the same, in one run. The bench asks the same
//! (`cargo bench -p tests`), of more; here two at a time take turns, which tells small differences, and one
//! that has become clearly slower fails.

use std::process::Command;
use std::time::Instant;

use harness::measure::median_ratio;
use harness::measure::questions::{self, Asked};
use harness::measure::servers::{Peer, named};
use harness::{Server, program};

/// The question, how much of it, ours, the other, and the least that their ratio may be.
///
/// A slow or busy machine slows both alike. Yet it is never quiet, so the least is well below what is seen.
type Row = (&'static str, u64, &'static str, &'static str, f64);

fn assert_ratios(rows: &[Row]) {
    for (question, count, ours, other, at_least) in rows {
        let question = questions::named(question);
        let [ours, other] = [ours, other].map(|name| named(question.peers, name));
        if !other.is_installed() {
            continue;
        }
        // Started anew each time: where its memory lies is luck, and lasts as long as the process.
        let rate = |peer: &Peer| {
            Asked::start(peer, question)
                .time(*count)
                .as_secs_f64()
                .recip()
        };
        let ratio = median_ratio(|| rate(&ours), || rate(&other));
        println!(
            "{}, {} to {}: {ratio}",
            question.title, ours.name, other.name
        );
        assert!(
            ratio.median > *at_least,
            "{}, {} to {}: {ratio}",
            question.title,
            ours.name,
            other.name
        );
    }
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn the_udp_servers_keep_up() {
    assert_ratios(&[
        ("udp_stop_and_wait", 2000, "udp-server", "c_loop", 0.85),
        ("udp_stop_and_wait", 2000, "udp-server", "tokio", 1.0),
        ("udp_stop_and_wait", 2000, "batch", "udp-server", 0.8),
        ("udp_128_on_their_way", 10, "udp-server", "c_loop", 0.85),
        ("udp_128_on_their_way", 10, "batch", "udp-server", 1.5),
        ("udp_128_on_their_way", 10, "batch", "c_batch", 1.3),
        ("udp_128_on_their_way", 10, "batch", "c_segment", 0.75),
    ]);
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn the_tcp_servers_keep_up() {
    assert_ratios(&[
        ("tcp_one_connection", 2000, "tcp-server", "c_threads", 0.85),
        ("tcp_one_connection", 2000, "event_loop", "tokio", 0.85),
        ("tcp_50_connections", 100, "tcp-server", "c_threads", 0.85),
        ("tcp_50_connections", 100, "event_loop", "tcp-server", 1.0),
        ("tcp_50_connections", 100, "event_loop", "tokio", 0.9),
        ("tcp_50_connections", 100, "event_loop", "epoll", 0.85),
        ("tcp_16k_messages", 100, "event_loop", "tokio_48k", 0.85),
        ("tcp_bulk", 8, "tcp-server", "c_threads", 0.65),
        ("tcp_bulk", 8, "tcp-server", "tokio_48k", 0.65),
        ("tcp_bulk", 8, "event_loop", "epoll", 0.65),
        ("tcp_connects", 1000, "tcp-server", "c_threads", 0.95),
        ("tcp_connects", 1000, "tcp-server", "tokio", 1.05),
        ("tcp_connects", 1000, "event_loop", "tokio", 1.0),
        ("tcp_connects", 1000, "event_loop", "epoll", 0.75),
        ("tcp_connects_of_four", 125, "tcp-server", "c_threads", 0.9),
        ("tcp_connects_of_four", 125, "tcp-server", "tokio", 0.7),
        ("tcp_connects_of_four", 125, "event_loop", "tokio", 0.9),
        ("tcp_connects_of_four", 125, "event_loop", "epoll", 0.8),
    ]);
}

#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn unix_echo_keeps_up() {
    assert_ratios(&[
        ("unix_one_connection", 2000, "unix-echo", "plain", 0.85),
        ("unix_one_connection", 2000, "unix-echo", "tokio_32k", 0.95),
        ("unix_bulk", 4, "unix-echo", "plain", 0.65),
        ("unix_bulk", 4, "unix-echo", "tokio_32k", 0.65),
        ("unix_datagrams", 2000, "unix-echo", "plain", 0.85),
    ]);
}

/// std lets 128 wait to be accepted. The rest ask again after a second.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn a_burst_of_a_thousand_connects_does_not_wait_for_the_event_loop() {
    if harness::allow_descriptors(questions::BURST as u64 + 100).is_none() {
        return harness::not_run("no right to so many descriptors");
    }
    let burst = questions::named("tcp_connects_of_1000");
    let [quick, slow] = ["event_loop", "tcp-server"]
        .map(|name| Asked::start(&named(burst.peers, name), burst).time(1));
    println!("{}: event_loop {quick:?}, tcp-server {slow:?}", burst.title);
    assert!(quick < slow, "event_loop {quick:?}, tcp-server {slow:?}");
}

/// As one copies a file over the network: input and output by files or by pipes.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test speed -- --ignored --nocapture --test-threads 1"]
fn tcp_client_copies_faster_than_other_clients() {
    let server = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let port = server.addr.port().to_string();
    let folder = harness::folder();
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
        sh.args(["-c", script])
            .arg(client.get_program())
            .args(client.get_args());
        assert!(
            sh.env("IN", &input)
                .env("OUT", &output)
                .status()
                .unwrap()
                .success(),
            "{client:?}"
        );
        let rate = started.elapsed().as_secs_f64().recip();
        assert_eq!(
            std::fs::metadata(&output).unwrap().len(),
            64 << 20,
            "{client:?}"
        );
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
        let Some(mut other) = harness::foreign(name) else {
            continue;
        };
        other.args(args);
        for (way, script) in ways {
            let ratio = median_ratio(|| rate(script, &ours), || rate(script, &other));
            println!("64 MiB {way}, tcp-client to {name}: {ratio}");
            assert!(ratio.median > 0.8, "{name}, {way}: {ratio}");
        }
    }
}
