//! Our clients ask servers that this project did not write. What they make of inetd is in `hosts.rs`.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Instant;

use harness::{
    LIMIT, Running, foreign, on_a_free_port, payloads, program, run, short_payloads,
    start_and_expect_echo,
};

fn udp_client(addr: SocketAddr) -> Command {
    let mut client = program("udp-client");
    client.args(["-q", "--addr", &addr.to_string()]);
    client
}

fn tcp_client(addr: SocketAddr) -> Command {
    let mut client = program("tcp-client");
    client.args(["--addr", &addr.to_string()]);
    client
}

fn unix_client(path: &str, datagram: bool) -> Command {
    let mut client = program("unix-echo");
    client
        .args(["client", "--path", path])
        .args(datagram.then_some("--datagram"));
    client
}

/// A client of ours gets back what it sends, and ends in good order.
fn assert_echoed(mut client: Command, bytes: &[u8]) {
    let finished = start_and_expect_echo(&mut client, bytes).finish();
    assert_eq!(
        (finished.code, &finished.stdout[..], &finished.stderr[..]),
        (Some(0), &b""[..], "")
    );
}

/// A folder for Unix sockets, and the path of one in it.
fn folder() -> (tempfile::TempDir, String) {
    let folder = harness::folder();
    let path = folder.path().join("s").to_str().unwrap().to_owned();
    (folder, path)
}

/// Asks until all is answered. For each new peer ncat and socat change sockets, and what comes in that
/// moment may find none.
fn assert_echoed_in_the_end(addr: SocketAddr, bytes: &[u8]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let finished = run(&mut udp_client(addr), bytes);
        if finished.code == Some(0) {
            return assert!(finished.stdout == bytes, "{finished:?}");
        }
        assert!(Instant::now() < deadline, "{finished:?}");
    }
}

fn answers_udp(addr: SocketAddr) -> bool {
    run(udp_client(addr).arg("ready?"), b"").code == Some(0)
}

fn accepts(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_ok()
}

#[test]
fn udp_client_talks_to_socat() {
    let start = |addr: SocketAddr| {
        let listener = format!("UDP-RECVFROM:{},bind=127.0.0.1,fork", addr.port());
        Some(Running::start_with_children(
            foreign("socat")?.args([&listener, "PIPE"]),
        ))
    };
    let Some((_server, addr)) = on_a_free_port(start, answers_udp) else {
        return;
    };
    for bytes in short_payloads() {
        assert_echoed_in_the_end(addr, &bytes);
    }
}

#[test]
fn udp_client_talks_to_ncat() {
    let start = |addr: SocketAddr| {
        let port = addr.port().to_string();
        let args = ["-u", "-l", "-k", "127.0.0.1", &port, "--exec", "/bin/cat"];
        Some(Running::start_with_children(foreign("ncat")?.args(args)))
    };
    let Some((_server, addr)) = on_a_free_port(start, answers_udp) else {
        return;
    };
    for bytes in short_payloads() {
        assert_echoed_in_the_end(addr, &bytes);
    }
}

#[test]
fn tcp_client_talks_to_socat() {
    let start = |addr: SocketAddr| {
        let listener = format!("TCP-LISTEN:{},bind=127.0.0.1,fork", addr.port());
        Some(Running::start_with_children(
            foreign("socat")?.args([&listener, "PIPE"]),
        ))
    };
    let Some((_server, addr)) = on_a_free_port(start, accepts) else {
        return;
    };
    for bytes in payloads() {
        assert_echoed(tcp_client(addr), &bytes);
    }
}

/// ncat stands between the network and two pipes and waits for each in turn, so that it may come to a halt
/// when there is much. And at the client's half-close it ends at once, whatever is still in the pipes.
/// So it gets little, and a client that half-closes when all is back.
#[test]
fn tcp_client_talks_to_ncat() {
    let start = |addr: SocketAddr| {
        let port = addr.port().to_string();
        let args = ["-l", "-k", "127.0.0.1", &port, "--exec", "/bin/cat"];
        Some(Running::start_with_children(foreign("ncat")?.args(args)))
    };
    let Some((_server, addr)) = on_a_free_port(start, accepts) else {
        return;
    };
    for bytes in short_payloads() {
        assert_echoed(tcp_client(addr), &bytes);
    }
}

#[test]
fn unix_echo_talks_to_socat() {
    let (_folder, path) = folder();
    let Some(mut socat) = foreign("socat") else {
        return;
    };
    let mut server =
        Running::start_with_children(socat.args([&format!("UNIX-LISTEN:{path},fork"), "PIPE"]));
    assert!(server.becomes_ready(|| UnixStream::connect(&path).is_ok()));
    for bytes in payloads() {
        assert_echoed(unix_client(&path, false), &bytes);
    }
}

#[test]
fn unix_echo_talks_to_ncat() {
    let (_folder, path) = folder();
    let Some(mut ncat) = foreign("ncat") else {
        return;
    };
    let mut server =
        Running::start_with_children(ncat.args(["-l", "-k", "-U", &path, "--exec", "/bin/cat"]));
    assert!(server.becomes_ready(|| UnixStream::connect(&path).is_ok()));
    for bytes in short_payloads() {
        assert_echoed(unix_client(&path, false), &bytes);
    }
}

/// Connecting sends a server of datagrams nothing.
fn takes_datagrams(path: &str) -> bool {
    UnixDatagram::unbound().unwrap().connect(path).is_ok()
}

#[test]
fn unix_echo_talks_to_socat_by_datagrams() {
    let (_folder, path) = folder();
    let Some(mut socat) = foreign("socat") else {
        return;
    };
    let mut server =
        Running::start_with_children(socat.args([&format!("UNIX-RECVFROM:{path},fork"), "PIPE"]));
    assert!(server.becomes_ready(|| takes_datagrams(&path)));
    for bytes in short_payloads() {
        assert_echoed(unix_client(&path, true), &bytes);
    }
}

/// ncat serves one client here, and then finds its own file in the way.
#[test]
fn unix_echo_talks_to_ncat_by_datagrams() {
    for bytes in short_payloads() {
        let (_folder, path) = folder();
        let Some(mut ncat) = foreign("ncat") else {
            return;
        };
        let mut server = Running::start_with_children(
            ncat.args(["-l", "-u", "-U", &path, "--exec", "/bin/cat"]),
        );
        assert!(server.becomes_ready(|| takes_datagrams(&path)));
        assert_echoed(unix_client(&path, true), &bytes);
    }
}
