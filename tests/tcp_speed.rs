//! How fast the TCP pair is, beside the plainest thread for each connection that std allows, in one run,
//! and what an idle connection costs.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use harness::{Server, example, loads, median_ratio, program};

/// A slow or busy machine slows both alike, so only ratios are judged, and loosely.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test tcp_speed -- --ignored --nocapture"]
fn tcp_server_keeps_up_with_the_plainest_one() {
    let ours = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let plain = Server::start(&mut example("plain_tcp_echo"));
    type Load = fn(SocketAddr, u64) -> Duration;
    let questions: [(&str, Load, u64, f64); 4] = [
        ("round trips on one connection", loads::one_connection, 4000, 0.85),
        ("round trips on 50 connections", loads::many_connections, 100, 0.85),
        ("one stream of 64 MiB", loads::bulk, 64, 0.75),
        ("connect, echo, close", loads::short_connections, 2000, 1.1),
    ];
    for (question, load, count, at_least) in questions {
        let rate = |server: &Server| load(server.addr, count).as_secs_f64().recip();
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
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
    streams.iter().for_each(|stream| harness::echo(stream, b"hello"));
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
