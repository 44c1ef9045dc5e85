//! Our clients with other people's servers, `ncat`, `socat` and inetd. Other people's clients are in
//! `peers/clients.rs`.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Instant;

use harness::{
    LIMIT, Running, foreign, noise, on_a_free_port, program, run, short_payloads,
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

/// Asserts that our client gets back what it sends, and then succeeds.
fn assert_echoed(mut client: Command, bytes: &[u8]) {
    let finished = start_and_expect_echo(&mut client, bytes).finish();
    assert_eq!(
        (finished.code, &finished.stdout[..], &finished.stderr[..]),
        (Some(0), &b""[..], "")
    );
}

/// Creates a folder for Unix sockets. Returns it and the path of a socket in it.
fn folder() -> (tempfile::TempDir, String) {
    let folder = harness::folder();
    let path = folder.path().join("s").to_str().unwrap().to_owned();
    (folder, path)
}

/// Asks until everything is answered. ncat and socat change to another socket for each new
/// peer, and a datagram that arrives at that moment may find none.
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

/// What socat surely echoes. It writes to a pipe that only it reads, so it may come to a halt when
/// there are more bytes on the way than the pipe holds (64 KiB).
fn socat_payloads() -> Vec<Vec<u8>> {
    let mut payloads = short_payloads();
    payloads.push(noise(48 * 1024));
    payloads
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
    for bytes in socat_payloads() {
        assert_echoed(tcp_client(addr), &bytes);
    }
}

/// ncat connects the network with two pipes, but waits for one at a time, so it may hang if
/// there are many bytes. And at the client's half-close it ends at once, even if bytes are
/// still in the pipes. So it gets few bytes, and the client half-closes when all of them are
/// back.
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
    for bytes in socat_payloads() {
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

/// Tries to connect, which sends nothing to a server of datagrams.
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

/// Here ncat serves one client, and then fails because its own file exists.
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

/// The echo of RFC 862, as Unix has always had it. Its port, 7, belongs to the system, but the
/// test has all rights in its namespaces. inetd does not answer datagrams from its own
/// machine.
#[test]
#[cfg(target_os = "linux")]
fn our_clients_talk_to_inetd_on_another_host() {
    use harness::{Network, not_run, payloads};
    use std::fs;
    let Some(mut inetd) = foreign("inetd") else {
        return;
    };
    if !fs::read_to_string("/etc/services").is_ok_and(|services| services.contains("\necho")) {
        return not_run("/etc/services does not name the port of echo");
    }
    let Some(network) = Network::of(2) else {
        return;
    };
    let folder = harness::folder();
    let config = folder.path().join("inetd.conf");
    fs::write(
        &config,
        "echo stream tcp nowait root internal\necho dgram udp wait root internal\n",
    )
    .unwrap();
    let _inetd = Running::start(&mut network.on(2, inetd.arg("-i").arg(&config)));
    for (name, payloads) in [("tcp-client", payloads()), ("udp-client", short_payloads())] {
        let client = || network.on(1, program(name).args(["--addr", "10.77.0.2:7"]));
        let deadline = Instant::now() + LIMIT;
        // inetd does not say when it listens.
        while run(client().arg("ready?"), b"").code != Some(0) {
            assert!(Instant::now() < deadline, "inetd does not answer {name}");
        }
        for bytes in payloads {
            let client = start_and_expect_echo(&mut client(), &bytes).finish();
            client.assert_printed(b"");
        }
    }
}
