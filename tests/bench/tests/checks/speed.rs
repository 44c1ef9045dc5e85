//! How fast the programs are, each beside another that does the same. The bench asks the same
//! questions of more servers (`cargo bench -p bench`). Here only two servers take turns, which
//! shows smaller differences, and a program that has become clearly slower fails.
//!
//! ```console
//! $ cargo test --release -p bench speed:: -- --ignored --nocapture --test-threads 1
//! ```

use std::fmt;
use std::process::Command;
use std::time::Instant;

use bench::questions;
use bench::servers::{Peer, called, named};
use promises::catalog::{
    BATCH, EVENT_LOOP, Program, TCP_CLIENT, TCP_SERVER, UDP_SERVER, UNIX_DATAGRAM, UNIX_ECHO,
};

/// How one of two compares with the other.
struct Ratio {
    /// The median of all rounds.
    median: f64,
    range: (f64, f64),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (least, most) = self.range;
        write!(f, "{:.3} (from {least:.3} to {most:.3})", self.median)
    }
}

/// Measures two rates in turn, so that if the machine is slow for a while, both are slow.
fn median_ratio(ours: impl Fn() -> f64, other: impl Fn() -> f64) -> Ratio {
    const ROUNDS: usize = 11;
    // The first in a round has the colder caches, so each of them is first once.
    let round = |_| {
        let [a, b, c, d] = [ours(), other(), other(), ours()];
        (a + d) / (b + c)
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(round).collect();
    ratios.sort_by(f64::total_cmp);
    Ratio {
        median: ratios[ROUNDS / 2],
        range: (ratios[0], ratios[ROUNDS - 1]),
    }
}

/// A question, the number of repetitions, our server, the other, and the least that the ratio of
/// their rates may be.
///
/// The least is well below what we see, because a machine is never quiet.
type Row = (&'static str, u64, &'static Program, &'static str, f64);

fn assert_ratios(rows: &[Row]) {
    for (question, count, ours, other, at_least) in rows {
        let question = questions::named(question);
        let [ours, other] = [called(ours), other].map(|name| named(question.peers, name));
        if !ours.is_available() || !other.is_available() {
            continue;
        }
        // Started anew each time: see questions.rs.
        let rate = |peer: &Peer| question.start(peer)(*count).as_secs_f64().recip();
        let ratio = median_ratio(|| rate(ours), || rate(other));
        let (name, ours, other) = (question.name, ours.name, other.name);
        let result = format!("{name}, {ours} to {other}: {ratio}");
        println!("{result}");
        assert!(ratio.median > *at_least, "{result}");
    }
}

#[test]
#[ignore = "a measurement, for a release build: see the command above"]
fn the_udp_servers_keep_up() {
    let one_by_one = called(&UDP_SERVER);
    assert_ratios(&[
        ("udp_stop_and_wait", 2000, &UDP_SERVER, "c_loop", 0.85),
        ("udp_stop_and_wait", 2000, &UDP_SERVER, "tokio", 1.0),
        ("udp_stop_and_wait", 2000, &BATCH, one_by_one, 0.8),
        ("udp_128_on_their_way", 10_000, &UDP_SERVER, "c_loop", 0.85),
        ("udp_128_on_their_way", 10_000, &BATCH, one_by_one, 1.5),
        ("udp_128_on_their_way", 10_000, &BATCH, "c_batch", 1.3),
        ("udp_128_on_their_way", 10_000, &BATCH, "c_gro", 0.75),
    ]);
}

#[test]
#[ignore = "a measurement, for a release build: see the command above"]
fn the_tcp_servers_keep_up() {
    let with_threads = called(&TCP_SERVER);
    assert_ratios(&[
        ("tcp_one_connection", 2000, &TCP_SERVER, "c_threads", 0.85),
        ("tcp_one_connection", 2000, &EVENT_LOOP, "tokio", 0.85),
        ("tcp_50_connections", 100, &TCP_SERVER, "c_threads", 0.85),
        ("tcp_50_connections", 100, &EVENT_LOOP, with_threads, 1.0),
        ("tcp_50_connections", 100, &EVENT_LOOP, "tokio", 0.9),
        ("tcp_50_connections", 100, &EVENT_LOOP, "epoll", 0.85),
        ("tcp_16k_messages", 100, &EVENT_LOOP, "tokio_48k", 0.85),
        ("tcp_bulk", 8, &TCP_SERVER, "c_threads", 0.65),
        ("tcp_bulk", 8, &TCP_SERVER, "tokio_48k", 0.65),
        ("tcp_bulk", 8, &EVENT_LOOP, "epoll", 0.65),
        ("tcp_connects", 1000, &TCP_SERVER, "c_threads", 0.95),
        ("tcp_connects", 1000, &TCP_SERVER, "tokio", 1.05),
        ("tcp_connects", 1000, &EVENT_LOOP, "tokio", 1.0),
        ("tcp_connects", 1000, &EVENT_LOOP, "epoll", 0.75),
        ("tcp_connects_of_four", 500, &TCP_SERVER, "c_threads", 0.9),
        ("tcp_connects_of_four", 500, &TCP_SERVER, "tokio", 0.7),
        ("tcp_connects_of_four", 500, &EVENT_LOOP, "tokio", 0.9),
        ("tcp_connects_of_four", 500, &EVENT_LOOP, "epoll", 0.8),
    ]);
}

#[test]
#[ignore = "a measurement, for a release build: see the command above"]
fn unix_echo_keeps_up() {
    assert_ratios(&[
        ("unix_one_connection", 2000, &UNIX_ECHO, "plain", 0.85),
        ("unix_one_connection", 2000, &UNIX_ECHO, "tokio_32k", 0.95),
        ("unix_bulk", 4, &UNIX_ECHO, "plain", 0.65),
        ("unix_bulk", 4, &UNIX_ECHO, "tokio_32k", 0.65),
        // The client of this load is connected, so the server tries its second socket in vain before it
        // answers. That is the price for clients that do not read and take nothing from others.
        ("unix_datagrams", 2000, &UNIX_DATAGRAM, "plain", 0.6),
    ]);
}

/// std lets 128 connections wait to be accepted. All others are tried again after a second.
#[test]
#[ignore = "a measurement, for a release build: see the command above"]
fn a_burst_of_a_thousand_connects_does_not_wait_for_the_event_loop() {
    let Some(_descriptors) = harness::descriptors(questions::BURST as u64 + 100) else {
        return;
    };
    let burst = questions::named("tcp_connects_of_1000");
    let [quick, slow] = [&EVENT_LOOP, &TCP_SERVER].map(|program| {
        let peer = named(burst.peers, called(program));
        assert!(peer.is_available());
        burst.start(peer)(1)
    });
    println!("{}: event_loop {quick:?}, tcp-server {slow:?}", burst.title);
    assert!(quick < slow, "event_loop {quick:?}, tcp-server {slow:?}");
}

/// As somebody copies a file over the network: from a file to a file, or from a pipe to a pipe.
#[test]
#[ignore = "a measurement, for a release build: see the command above"]
fn tcp_client_copies_faster_than_other_clients() {
    let server = TCP_SERVER.start(&["--quiet"]);
    let port = server.addr.port().to_string();
    let folder = harness::folder();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    std::fs::write(&input, vec![b'x'; 64 << 20]).unwrap();

    // `$0` and `$@` are the client, `$IN` and `$OUT` are the files.
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
    let ours = TCP_CLIENT.at(&server.addr.to_string());
    let (tcp, port) = (format!("TCP:{}", server.addr), port.as_str());
    // -N: nc half-closes at the end. -t: socat waits for the rest for more than half a second.
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
