//! Our clients, with servers that this project did not write. inetd is in `hosts.rs`: its port is 7.
#![cfg(unix)]

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, noise, not_run, program, run};

/// Starts a foreign server, and asks it until it answers: it does not tell when it listens.
fn assert_echoes(server: &mut Command, client: &dyn Fn() -> Command, inputs: &[&[u8]]) {
    match Command::new(server.get_program()).arg("--help").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return not_run(&format!("{:?} is not installed", server.get_program()));
        }
        _ => {}
    }
    let mut running = Running::start(server);
    let deadline = Instant::now() + LIMIT;
    while run(client().arg("ready?"), b"").code != Some(0) {
        assert!(running.is_running(), "{server:?}: {:?}", running.finish());
        assert!(Instant::now() < deadline, "no echo from {server:?}");
        thread::sleep(Duration::from_millis(10));
    }
    for input in inputs {
        let finished = run(&mut client(), input);
        assert_eq!(finished.code, Some(0), "{server:?}: {}", finished.stderr);
        assert!(finished.stdout == *input, "{server:?}: {:?}", finished.stdout.len());
    }
}

const LINES: &[u8] = b"hello\n\x00\xff\x1b\ntwo words\n";

/// A port that nobody has now. That it stays free until the server has it is likely, no more.
fn free_udp_port() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn free_tcp_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn client(name: &'static str, port: &str) -> impl Fn() -> Command {
    let addr = format!("127.0.0.1:{port}");
    move || {
        let mut client = program(name);
        client.args(["--addr", &addr, "--timeout", "1"]);
        client
    }
}

fn unix_client(path: &str) -> impl Fn() -> Command {
    let path = path.to_owned();
    move || {
        let mut client = program("unix-echo");
        client.args(["client", "--path", &path]);
        client
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap()
}

#[test]
fn tcp_client_talks_to_socat() {
    let port = free_tcp_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork");
    assert_echoes(
        Command::new("socat").args([&listen, "PIPE"]),
        &client("tcp-client", &port),
        &[LINES, b"no newline", &noise(1 << 20)],
    );
}

#[test]
fn udp_client_talks_to_socat() {
    let port = free_udp_port();
    let listen = format!("UDP-LISTEN:{port},bind=127.0.0.1,fork");
    assert_echoes(Command::new("socat").args([&listen, "PIPE"]), &client("udp-client", &port), &[LINES]);
}

/// ncat 7.93 closes the connection when a client half-closes, and forgets what its program has said. So it
/// is asked with stdin open, and our client must notice what is missing in the end.
fn assert_ncat_echoes(server: &mut Command, client: &mut Command, is_ready: &dyn Fn() -> bool) {
    if Command::new("ncat").arg("--help").output().is_err() {
        return not_run("ncat is not installed");
    }
    let _server = Running::start(server);
    let deadline = Instant::now() + LIMIT;
    while !is_ready() {
        assert!(Instant::now() < deadline, "{server:?} does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    let mut client = Running::start(client);
    for line in ["hello", "two words"] {
        client.write(format!("{line}\n").as_bytes());
        assert_eq!(client.stdout_line(), line);
    }
    client.write(b"the last");
    let finished = client.finish();
    match &finished.stdout[..] {
        b"the last" => assert_eq!(finished.code, Some(0), "{finished:?}"),
        _ => assert_eq!(finished.code, Some(1), "{finished:?}"),
    }
}

#[test]
fn tcp_client_talks_to_ncat() {
    let port = free_tcp_port();
    assert_ncat_echoes(
        Command::new("ncat").args(["-l", "-k", "127.0.0.1", &port, "--exec", "/bin/cat"]),
        &mut client("tcp-client", &port)(),
        &|| TcpStream::connect(format!("127.0.0.1:{port}")).is_ok(),
    );
}

#[test]
fn udp_client_talks_to_ncat() {
    let port = free_udp_port();
    assert_echoes(
        Command::new("ncat").args(["-u", "-l", "-k", "127.0.0.1", &port, "--exec", "/bin/cat"]),
        &client("udp-client", &port),
        &[b"hello\n\x00\xff\x1b\n"],
    );
}

#[test]
fn unix_echo_talks_to_socat() {
    let folder = folder();
    let path = folder.path().join("s").display().to_string();
    assert_echoes(
        Command::new("socat").args([&format!("UNIX-LISTEN:{path},fork"), "PIPE"]),
        &unix_client(&path),
        &[LINES, &noise(1 << 20)],
    );
}

#[test]
fn unix_echo_talks_to_ncat() {
    let folder = folder();
    let path = folder.path().join("s").display().to_string();
    assert_ncat_echoes(
        Command::new("ncat").args(["-U", "-l", "-k", &path, "--exec", "/bin/cat"]),
        &mut unix_client(&path)(),
        &|| UnixStream::connect(&path).is_ok(),
    );
}
