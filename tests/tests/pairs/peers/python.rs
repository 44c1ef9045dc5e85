//! The programs in the article do not run as printed. Each test shows one of the mistakes, and
//! what Python says about it. The corrected programs are in `tests/peers`, and
//! `peers/twins.rs` runs them.

use std::process::Command;

use harness::{Finished, not_run, run};

/// Runs some lines of Python, with the module that all of them use. Without Python, prints
/// `NOT RUN` and returns `None`.
fn python(lines: &str) -> Option<Finished> {
    if Command::new("python3").arg("--version").output().is_err() {
        not_run("python3 is not installed");
        return None;
    }
    Some(run(
        Command::new("python3").args(["-c", &format!("import socket\n{lines}")]),
        b"",
    ))
}

fn assert_fails(lines: &str, error: &str) {
    if let Some(finished) = python(lines) {
        assert_eq!(finished.code, Some(1), "{lines}: {finished:?}");
        finished.assert_stderr(error);
    }
}

fn assert_works(lines: &str) {
    if let Some(finished) = python(lines) {
        assert_eq!(
            (finished.code, &finished.stderr[..]),
            (Some(0), ""),
            "{lines}"
        );
    }
}

#[test]
fn scok_stream_is_no_type_of_a_socket() {
    assert_fails(
        "socket.socket(socket.AF_INET, socket.SCOK_STREAM)",
        "AttributeError",
    );
    assert_works("socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()");
}

#[test]
fn sock_dgram_has_an_underscore_and_no_dot() {
    assert_fails(
        "socket.socket(socket.AF_INET, socket.SOCK.DGRAM)",
        "AttributeError",
    );
    assert_works("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()");
}

#[test]
fn af_ticp_is_af_tipc() {
    assert_fails("socket.AF_TICP", "AttributeError");
    if cfg!(target_os = "linux") {
        assert_works("socket.AF_TIPC");
    }
}

#[test]
fn an_address_is_a_host_and_a_port_and_not_a_port_alone() {
    let open = "server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)";
    assert_fails(&format!("{open}\nserver.bind(0)"), "TypeError");
    assert_works(&format!(
        "{open}\nserver.bind(('127.0.0.1', 0))\nserver.close()"
    ));
}

/// Two datagrams are in the receive queue before the loop begins, so it never waits.
#[test]
fn a_server_that_closes_its_socket_in_the_loop_serves_one_client() {
    let prepare = "server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 0))
server.settimeout(10)
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for datagram in (b'first', b'second'):
    client.sendto(datagram, server.getsockname())
for _ in range(2):
    data, peer = server.recvfrom(2048)
    server.sendto(data, peer)";
    let closed = if cfg!(windows) {
        "not a socket"
    } else {
        "Bad file descriptor"
    };
    assert_fails(&format!("{prepare}\n    server.close()"), closed);
    assert_works(&format!("{prepare}\nserver.close()\nclient.close()"));
}
