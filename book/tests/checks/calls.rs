//! Which system calls the pairs make, in which order, and what they send and receive. The figures of the
//! book show it: beside each, `book/figures` has the trace of a real run, and the pairs still do the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use book::calls::{Condition, Side, Trace, record};
use promises::Program;
use promises::catalog::{
    TCP_CLIENT, TCP_SERVER, UDP_CLIENT, UDP_SERVER, UNIX_CLIENT, UNIX_DATAGRAM,
    UNIX_DATAGRAM_CLIENT, UNIX_ECHO,
};

/// Compares the trace of a figure with a run, or writes it, and the figure with the trace.
fn check(name: &str, server: &Command, client: &Command, condition: Condition) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures");
    let [trace, svg] = ["trace", "svg"].map(|kind| folder.join(format!("{name}.{kind}")));
    let run = record(server, client, condition);
    if super::refreshes() {
        let Some(run) = &run else { return };
        fs::write(&trace, run.to_string()).unwrap();
    }
    let committed = Trace::of_text(&read(&trace));
    for (side, anchor) in [(Side::Client, "end"), (Side::Server, "start")] {
        let events = committed.0.iter().filter(|event| event.side == side);
        let calls = events.map(|event| event.call.as_str());
        // A signal that suspends the server is drawn in words.
        let calls: Vec<&str> = calls.filter(|call| !call.starts_with("SIG")).collect();
        assert_eq!(drawn(&read(&svg), anchor), calls, "{svg:?} and {trace:?}");
    }
    if let Some(run) = run {
        assert_eq!(run.shape(), committed.shape(), "not what {trace:?} shows");
    }
}

/// Returns the calls that a figure shows on one side, from the top down. A client's stand to the left
/// of its line, and so end there; a server's begin at its line. Bytes are in quotation marks, and what
/// a call returned later begins with dots.
fn drawn(svg: &str, anchor: &str) -> Vec<String> {
    let texts = svg.split("<text ").skip(1);
    let mut calls: Vec<(u32, String)> = Vec::new();
    for text in texts.filter(|text| text.contains(&format!("text-anchor=\"{anchor}\""))) {
        let y = text
            .split("y=\"")
            .nth(1)
            .and_then(|y| y.split(['"', '.']).next());
        let words = text.split('>').nth(1).unwrap_or_default();
        let call = words.split([' ', '<']).next().unwrap_or_default();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !call.is_empty() && call.chars().all(is_name) {
            calls.push((y.unwrap().parse().unwrap(), call.to_owned()));
        }
    }
    calls.sort_by_key(|(y, _)| *y);
    calls.into_iter().map(|(_, call)| call).collect()
}

fn read(path: &PathBuf) -> String {
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{path:?}: {error}; REFRESH_BOOK=1 writes it"))
}

/// Returns a server at an address, and a client that asks it with these options.
fn pair(programs: [&Program; 2], addr: &str, options: &[&str]) -> [Command; 2] {
    let [server, mut client] = programs.map(|program| program.at(addr));
    client.args(options).arg("hello");
    [server, client]
}

/// Returns the UDP server, and its client with these options.
fn udp_pair(options: &[&str]) -> [Command; 2] {
    pair([&UDP_SERVER, &UDP_CLIENT], ADDR, options)
}

/// Returns a server and a client at a path.
fn unix_pair(programs: [&Program; 2], folder: &Path) -> [Command; 2] {
    pair(programs, &format!("{}/e.sock", folder.display()), &PATIENT)
}

/// These figures show no run.
const WITHOUT_TRACE: [&str; 7] = [
    "chat",
    "close-states",
    "event-loop",
    "four-queues",
    "lingering-close",
    "listener",
    "three-writes",
];

#[test]
fn each_figure_has_a_trace_or_is_known_to_have_none() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures");
    let figures = book::pages::walk(&folder, "svg").into_iter();
    let untraced = figures.filter(|path| !path.with_extension("trace").exists());
    let names: Vec<PathBuf> = untraced.map(|path| path.with_extension("")).collect();
    assert_eq!(names, WITHOUT_TRACE.map(|name| folder.join(name)));
}

/// They have a network of their own.
const ADDR: &str = "127.0.0.1:7007";

/// One thread accepts and serves in turn. If there were more, another would wait in accept.
const ALONE: [&str; 2] = ["--max-connections", "1"];

/// A busy machine must not make a client give up, or send again.
const PATIENT: [&str; 2] = ["--timeout", "30"];

#[test]
fn a_udp_server_binds_and_then_only_receives_and_sends() {
    let [server, client] = udp_pair(&PATIENT);
    check("udp", &server, &client, Condition::Serving);
}

#[test]
fn a_client_learns_that_nobody_listens() {
    let [server, client] = udp_pair(&[]);
    check("udp-refused", &server, &client, Condition::Absent);
}

#[test]
fn a_client_sends_again_when_no_echo_comes() {
    let [server, client] = udp_pair(&["--timeout", "0.3", "--attempts", "2"]);
    check("udp-retry", &server, &client, Condition::Suspended);
}

#[test]
fn a_tcp_server_listens_and_accepts_and_its_client_half_closes() {
    let [mut server, client] = pair([&TCP_SERVER, &TCP_CLIENT], ADDR, &PATIENT);
    server.args(ALONE);
    check("tcp", &server, &client, Condition::Serving);
}

#[test]
fn unix_sockets_know_the_same_calls() {
    let folder = harness::folder();
    let [server, client] = unix_pair([&UNIX_ECHO, &UNIX_CLIENT], folder.path());
    check("unix-stream", &server, &client, Condition::Serving);
}

#[test]
fn a_unix_datagram_client_binds_its_socket() {
    let folder = harness::folder();
    let programs = [&UNIX_DATAGRAM, &UNIX_DATAGRAM_CLIENT];
    let [server, client] = unix_pair(programs, folder.path());
    check("unix-datagram", &server, &client, Condition::Serving);
}
