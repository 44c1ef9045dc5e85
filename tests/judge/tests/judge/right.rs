//! Right programs keep everything: short ones in Python, one with tokio, and our own.

use std::process::Command;

use harness::{example_of, peer, program};

use crate::{assert_keeps_everything, judge, python};

fn python_keeps_everything(name: &str) {
    if let Some((args, program)) = python("right", name) {
        let no_limit = ["no limit of connections is known"];
        assert_keeps_everything(&judge(&args, &program), &no_limit);
    }
}

#[test]
fn udp_server_in_python() {
    python_keeps_everything("udp_server");
}

#[test]
fn tcp_server_in_python() {
    python_keeps_everything("tcp_server");
}

#[test]
fn unix_server_in_python() {
    python_keeps_everything("unix_server");
}

#[test]
fn udp_client_in_python() {
    python_keeps_everything("udp_client");
}

#[test]
fn tcp_client_in_python() {
    python_keeps_everything("tcp_client");
}

#[test]
fn tcp_server_with_tokio() {
    let judged = judge(&["tcp-server"], &peer("tokio_server"));
    assert_keeps_everything(&judged, &["no limit of connections is known"]);
}

fn ours_keeps_everything(judge_args: &[&str], mut program: Command, args: &[&str]) {
    assert_keeps_everything(&judge(judge_args, program.args(args)), &[]);
}

const LIMIT: &str = "--limit=--max-connections N";

#[test]
fn udp_server() {
    ours_keeps_everything(&["udp-server"], program("udp-server"), &["--addr"]);
}

#[test]
fn batch() {
    let batch = example_of("udp-server", "batch");
    ours_keeps_everything(&["udp-server"], batch, &["--addr"]);
}

#[test]
fn wildcard() {
    let wildcard = example_of("udp-server", "wildcard");
    ours_keeps_everything(&["udp-server"], wildcard, &["--addr"]);
}

#[test]
fn multicast() {
    let multicast = example_of("udp-server", "multicast");
    let group = ["239.255.70.7", "--interface", "127.0.0.1", "--addr"];
    ours_keeps_everything(&["udp-server"], multicast, &group);
}

#[test]
fn tcp_server() {
    ours_keeps_everything(&["tcp-server", LIMIT], program("tcp-server"), &["--addr"]);
}

#[test]
fn event_loop() {
    let event_loop = example_of("tcp-server", "event_loop");
    ours_keeps_everything(&["tcp-server", LIMIT], event_loop, &["--addr"]);
}

#[test]
fn graceful() {
    let graceful = example_of("tcp-server", "graceful");
    ours_keeps_everything(&["tcp-server", LIMIT], graceful, &["--addr"]);
}

#[test]
fn unix_echo() {
    let args = ["server", "--path", "{path}"];
    let judged = judge(&["unix-server"], program("unix-echo").args(args));
    assert_keeps_everything(&judged, &["no limit of connections is known"]);
}

#[test]
fn unix_echo_with_datagrams() {
    let args = ["server", "--datagram", "--path", "{path}"];
    ours_keeps_everything(&["unix-server", "--datagram"], program("unix-echo"), &args);
}

#[test]
fn udp_client() {
    ours_keeps_everything(&["udp-client"], program("udp-client"), &["--addr"]);
}

#[test]
fn tcp_client() {
    ours_keeps_everything(&["tcp-client"], program("tcp-client"), &["--addr"]);
}
