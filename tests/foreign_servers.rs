//! Our clients ask servers that this project did not write. What they make of inetd is in `hosts.rs`.
#![cfg(unix)]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, foreign, payloads, program, run, short_payloads, start_and_expect_echo};
use rustix::process::{Pid, Signal, kill_process_group};

/// A server and the children that it starts for its clients. All are killed when this is dropped.
struct ForeignServer(Running);

impl ForeignServer {
    fn start(command: &mut Command) -> ForeignServer {
        use std::os::unix::process::CommandExt;
        ForeignServer(Running::start(command.process_group(0)))
    }

    /// Tries until the server is ready. `false` if it ended, and so was not what answered.
    fn becomes_ready(&mut self, is_ready: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        while self.0.is_running() {
            if is_ready() {
                return self.0.is_running();
            }
            assert!(Instant::now() < deadline, "the server is not ready after {LIMIT:?}");
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for ForeignServer {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Starts a server that must be told its port and does not tell when it listens. Between our finding a
/// free port and its taking it, another may have taken it: then it ends, and gets another.
fn on_a_free_port(
    command: impl Fn(u16) -> Option<Command>,
    is_ready: impl Fn(SocketAddr) -> bool,
) -> Option<(ForeignServer, SocketAddr)> {
    for _ in 0..10 {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if UdpSocket::bind(addr).is_err() {
            continue; // Ports are counted per protocol, and this one is free in one alone.
        }
        let mut server = ForeignServer::start(&mut command(addr.port())?);
        if server.becomes_ready(|| is_ready(addr)) {
            return Some((server, addr));
        }
    }
    panic!("the server finds no port, or ends by itself");
}

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
    client.args(["client", "--path", path]).args(datagram.then_some("--datagram"));
    client
}

/// A client of ours gets back what it sends, and ends in good order.
fn assert_echoed(mut client: Command, bytes: &[u8]) {
    let finished = start_and_expect_echo(&mut client, bytes).finish();
    assert_eq!((finished.code, &finished.stdout[..], &finished.stderr[..]), (Some(0), &b""[..], ""));
}

/// A folder for Unix sockets, and the path of one in it.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
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
    let command = |port| {
        let mut socat = foreign("socat")?;
        socat.args([&format!("UDP-RECVFROM:{port},bind=127.0.0.1,fork"), "PIPE"]);
        Some(socat)
    };
    let Some((_server, addr)) = on_a_free_port(command, answers_udp) else { return };
    for bytes in short_payloads() {
        assert_echoed_in_the_end(addr, &bytes);
    }
}

#[test]
fn udp_client_talks_to_ncat() {
    let command = |port: u16| {
        let mut ncat = foreign("ncat")?;
        ncat.args(["-u", "-l", "-k", "127.0.0.1", &port.to_string(), "--exec", "/bin/cat"]);
        Some(ncat)
    };
    let Some((_server, addr)) = on_a_free_port(command, answers_udp) else { return };
    for bytes in short_payloads() {
        assert_echoed_in_the_end(addr, &bytes);
    }
}

#[test]
fn tcp_client_talks_to_socat() {
    let command = |port| {
        let mut socat = foreign("socat")?;
        socat.args([&format!("TCP-LISTEN:{port},bind=127.0.0.1,fork"), "PIPE"]);
        Some(socat)
    };
    let Some((_server, addr)) = on_a_free_port(command, accepts) else { return };
    for bytes in payloads() {
        assert_echoed(tcp_client(addr), &bytes);
    }
}

/// ncat stands between the network and two pipes and waits for each in turn, so that it may come to a halt
/// when there is much. And at the client's half-close it ends at once, whatever is still in the pipes.
/// So it gets little, and a client that half-closes when all is back.
#[test]
fn tcp_client_talks_to_ncat() {
    let command = |port: u16| {
        let mut ncat = foreign("ncat")?;
        ncat.args(["-l", "-k", "127.0.0.1", &port.to_string(), "--exec", "/bin/cat"]);
        Some(ncat)
    };
    let Some((_server, addr)) = on_a_free_port(command, accepts) else { return };
    for bytes in short_payloads() {
        assert_echoed(tcp_client(addr), &bytes);
    }
}

#[test]
fn unix_echo_talks_to_socat() {
    let (_folder, path) = folder();
    let Some(mut socat) = foreign("socat") else { return };
    let mut server = ForeignServer::start(socat.args([&format!("UNIX-LISTEN:{path},fork"), "PIPE"]));
    assert!(server.becomes_ready(|| UnixStream::connect(&path).is_ok()));
    for bytes in payloads() {
        assert_echoed(unix_client(&path, false), &bytes);
    }
}

#[test]
fn unix_echo_talks_to_ncat() {
    let (_folder, path) = folder();
    let Some(mut ncat) = foreign("ncat") else { return };
    let mut server = ForeignServer::start(ncat.args(["-l", "-k", "-U", &path, "--exec", "/bin/cat"]));
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
    let Some(mut socat) = foreign("socat") else { return };
    let mut server = ForeignServer::start(socat.args([&format!("UNIX-RECVFROM:{path},fork"), "PIPE"]));
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
        let Some(mut ncat) = foreign("ncat") else { return };
        let mut server = ForeignServer::start(ncat.args(["-l", "-u", "-U", &path, "--exec", "/bin/cat"]));
        assert!(server.becomes_ready(|| takes_datagrams(&path)));
        assert_echoed(unix_client(&path, true), &bytes);
    }
}
