//! Our servers, asked by software that this project did not write.

use std::io::ErrorKind;
use std::process::Command;

use harness::{Running, Server, not_run, program};

/// Gives a foreign program one line on stdin, and expects it to print the echo. Its stdin stays open
/// until then.
fn assert_prints_the_echo(command: &mut Command) {
    match Command::new(command.get_program()).arg("--help").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return not_run(&format!("{:?} is not installed", command.get_program()));
        }
        _ => {}
    }
    let mut client = Running::start(command);
    client.write(b"hello\n");
    assert_eq!(client.stdout_line(), "hello");
}

fn udp_server() -> (Server, String) {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let port = server.addr.port().to_string();
    (server, port)
}

fn tcp_server() -> (Server, String) {
    let server = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0"]));
    let port = server.addr.port().to_string();
    (server, port)
}

#[test]
fn nc_talks_to_udp_server() {
    let (_server, port) = udp_server();
    assert_prints_the_echo(Command::new("nc").args(["-u", "127.0.0.1", &port]));
}

#[test]
fn ncat_talks_to_udp_server() {
    let (_server, port) = udp_server();
    assert_prints_the_echo(Command::new("ncat").args(["-u", "127.0.0.1", &port]));
}

#[test]
fn socat_talks_to_udp_server() {
    let (_server, port) = udp_server();
    assert_prints_the_echo(Command::new("socat").args(["-", &format!("UDP:127.0.0.1:{port}")]));
}

#[test]
fn python_talks_to_udp_server() {
    let (_server, port) = udp_server();
    let client = "import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    client.sendto(sys.stdin.buffer.readline(), ('127.0.0.1', int(sys.argv[1])))
    data, server = client.recvfrom(2048)
    sys.stdout.buffer.write(data)
";
    assert_prints_the_echo(Command::new("python3").args(["-c", client, &port]));
}

#[test]
fn nc_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_prints_the_echo(Command::new("nc").args(["127.0.0.1", &port]));
}

#[test]
fn ncat_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_prints_the_echo(Command::new("ncat").args(["127.0.0.1", &port]));
}

#[test]
fn socat_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_prints_the_echo(Command::new("socat").args(["-", &format!("TCP:127.0.0.1:{port}")]));
}

#[test]
fn python_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    let client = "import socket, sys
with socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10) as client:
    client.sendall(sys.stdin.buffer.readline())
    client.shutdown(socket.SHUT_WR)
    while data := client.recv(2048):
        sys.stdout.buffer.write(data)
";
    assert_prints_the_echo(Command::new("python3").args(["-c", client, &port]));
}

#[cfg(unix)]
fn unix_server(options: &[&str]) -> (Running, tempfile::TempDir, String) {
    let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
    let path = folder.path().join("s");
    let mut server =
        Running::start(program("unix-echo").arg("server").args(options).arg("--path").arg(&path));
    server.announced();
    (server, folder, path.display().to_string())
}

#[test]
#[cfg(unix)]
fn nc_talks_to_unix_echo() {
    let (_server, _folder, path) = unix_server(&[]);
    assert_prints_the_echo(Command::new("nc").args(["-U", &path]));
}

#[test]
#[cfg(unix)]
fn ncat_talks_to_unix_echo() {
    let (_server, _folder, path) = unix_server(&[]);
    assert_prints_the_echo(Command::new("ncat").args(["-U", &path]));
}

#[test]
#[cfg(unix)]
fn socat_talks_to_unix_echo() {
    let (_server, _folder, path) = unix_server(&[]);
    assert_prints_the_echo(Command::new("socat").args(["-", &format!("UNIX-CONNECT:{path}")]));
}

/// It must bind a name of its own to be answered at.
#[test]
#[cfg(unix)]
fn socat_talks_to_unix_echo_by_datagrams() {
    let (_server, folder, path) = unix_server(&["--datagram"]);
    let name = folder.path().join("socat");
    let address = format!("UNIX-SENDTO:{path},bind={}", name.display());
    assert_prints_the_echo(Command::new("socat").args(["-", &address]));
}
