//! Which system calls the programs make, and in which order, as strace(1) shows them. These
//! are the methods of a socket, under the names that they have in Python and C.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Running, can_trace, program, run};
use rustix::process::{Pid, Signal, kill_process};

/// Returns the command under strace, which writes the calls that concern sockets into a file.
fn traced(command: &Command, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "trace=%network,close", "-o"])
        .arg(log);
    strace.arg(command.get_program()).args(command.get_args());
    strace
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    strace
}

/// Returns the calls of a log in their order, without the process ids.
fn calls(log: &Path) -> Vec<String> {
    let log = fs::read_to_string(log).unwrap();
    log.lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned()))
        .collect()
}

/// Runs a server and its client under strace, and returns the calls of each.
fn trace_pair(server: &Command, client: impl Fn(&str) -> Command) -> (Vec<String>, Vec<String>) {
    let folder = harness::folder();
    let [server_log, client_log] = ["server", "client"].map(|name| folder.path().join(name));
    let mut running = Running::start(&mut traced(server, &server_log));
    let addr = running.announced();
    let client = run(&mut traced(&client(&addr), &client_log), b"");
    client.assert_printed(b"hello\n");
    // strace waits for the server, which we end now. Its log begins with its process id.
    running.stderr_line();
    let id = fs::read_to_string(&server_log).unwrap();
    let id = id
        .split(' ')
        .next()
        .and_then(|id| id.parse().ok())
        .and_then(Pid::from_raw)
        .unwrap();
    kill_process(id, Signal::KILL).unwrap();
    running.finish();
    (calls(&server_log), calls(&client_log))
}

fn assert_in_order(calls: &[String], expected: &[&str]) {
    let mut rest = calls.iter();
    for call in expected {
        assert!(
            rest.any(|made| made.starts_with(call)),
            "no {call} where it should be in {calls:#?}"
        );
    }
}

/// Traces a pair that gets its address by `--addr`.
fn trace_network_pair(server: &str, client: &str) -> (Vec<String>, Vec<String>) {
    trace_pair(program(server).args(["--addr", "127.0.0.1:0"]), |addr| {
        let mut command = program(client);
        command.args(["--addr", addr, "hello"]);
        command
    })
}

#[test]
fn a_udp_server_binds_and_then_only_receives_and_sends() {
    if !can_trace() {
        return;
    }
    let (server, client) = trace_network_pair("udp-server", "udp-client");
    assert_in_order(
        &server,
        &[
            "socket(AF_INET, SOCK_DGRAM",
            "bind(",
            "recvfrom(",
            "sendto(",
            "recvfrom(",
        ],
    );
    let begin = server
        .iter()
        .position(|call| call.starts_with("recvfrom("))
        .unwrap();
    let other = server[begin..].iter().find(|call| {
        !["recvfrom(", "sendto(", "+++ "]
            .iter()
            .any(|known| call.starts_with(known))
    });
    assert_eq!(other, None, "the endless loop knows two calls");
    assert_in_order(
        &client,
        &[
            "socket(AF_INET, SOCK_DGRAM",
            "bind(",
            "connect(",
            "sendto(",
            "recvfrom(",
            "close(",
        ],
    );
}

#[test]
fn a_tcp_server_listens_and_accepts_and_its_client_half_closes() {
    if !can_trace() {
        return;
    }
    let (server, client) = trace_network_pair("tcp-server", "tcp-client");
    assert_in_order(
        &server,
        &[
            "socket(AF_INET, SOCK_STREAM",
            "setsockopt(",
            "bind(",
            "listen(",
            "accept4(",
        ],
    );
    assert_in_order(
        &server,
        &["listen(", "recvfrom(", "sendto(", "recvfrom(", "close("],
    );
    assert_in_order(
        &client,
        &[
            "socket(AF_INET, SOCK_STREAM",
            "connect(",
            "sendto(",
            "shutdown(",
        ],
    );
    assert_in_order(&client, &["connect(", "recvfrom(", "close("]);
    let reuse = server
        .iter()
        .find(|call| call.starts_with("setsockopt("))
        .unwrap();
    assert!(reuse.contains("SO_REUSEADDR, [1]"), "{reuse}");
    assert!(
        server
            .iter()
            .any(|call| call.starts_with("listen(") && call.contains(", 128)")),
        "the backlog"
    );
}

#[test]
fn unix_sockets_know_the_same_calls() {
    if !can_trace() {
        return;
    }
    let folder = harness::folder();
    for (kind, options) in [("SOCK_STREAM", &[][..]), ("SOCK_DGRAM", &["--datagram"])] {
        let path = folder.path().join(kind);
        let command = |role: &str| {
            let mut command = program("unix-echo");
            command.arg(role).args(options).arg("--path").arg(&path);
            command
        };
        let (server, client) = trace_pair(&command("server"), |_| {
            let mut client = command("client");
            client.arg("hello");
            client
        });
        let socket = format!("socket(AF_UNIX, {kind}");
        if kind == "SOCK_STREAM" {
            assert_in_order(&server, &[&socket, "bind(", "listen(", "accept4("]);
            assert_in_order(&client, &[&socket, "connect(", "sendto(", "shutdown("]);
        } else {
            assert_in_order(&server, &[&socket, "bind(", "recvfrom(", "sendto("]);
            // For this type std sends with write(2), which strace does not count to the network.
            assert_in_order(
                &client,
                &[&socket, "bind(", "connect(", "recvfrom(", "close("],
            );
        }
    }
}
