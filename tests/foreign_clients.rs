//! Our servers, asked by software that this project did not write, and by the Python twins of our clients.

use harness::{
    LIMIT, Server, foreign, payloads, program, python, short_payloads, start_and_expect_echo, udp_socket,
};

/// A client of this name gets back what it sends.
fn assert_talks(name: &str, args: &[&str], payloads: &[Vec<u8>]) {
    for bytes in payloads {
        let Some(mut client) = foreign(name) else { return };
        start_and_expect_echo(client.args(args), bytes);
    }
}

/// A Python twin gets back what it sends, and ends in good order.
fn assert_twin_talks(name: &str, args: &[&str], payloads: &[Vec<u8>]) {
    for bytes in payloads {
        let Some(mut client) = python(name) else { return };
        let finished = start_and_expect_echo(client.args(args), bytes).finish();
        assert_eq!((finished.code, &finished.stdout[..], &finished.stderr[..]), (Some(0), &b""[..], ""));
    }
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
    assert_talks("nc", &["-u", "127.0.0.1", &port], &short_payloads());
}

#[test]
fn ncat_talks_to_udp_server() {
    let (_server, port) = udp_server();
    assert_talks("ncat", &["-u", "127.0.0.1", &port], &short_payloads());
}

#[test]
fn socat_talks_to_udp_server() {
    let (_server, port) = udp_server();
    assert_talks("socat", &["-", &format!("UDP:127.0.0.1:{port}")], &short_payloads());
}

#[test]
fn python_talks_to_udp_server() {
    let (server, _) = udp_server();
    assert_twin_talks("udp_client.py", &["--addr", &server.addr.to_string()], &short_payloads());
}

#[test]
fn nc_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_talks("nc", &["127.0.0.1", &port], &payloads());
}

#[test]
fn ncat_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_talks("ncat", &["127.0.0.1", &port], &payloads());
}

#[test]
fn socat_talks_to_tcp_server() {
    let (_server, port) = tcp_server();
    assert_talks("socat", &["-", &format!("TCP:127.0.0.1:{port}")], &payloads());
}

#[test]
fn python_talks_to_tcp_server() {
    let (server, _) = tcp_server();
    assert_twin_talks("tcp_client.py", &["--addr", &server.addr.to_string()], &payloads());
}

/// A client that does not time out by itself is told of a lost answer, by the exit code and by words.
#[test]
fn the_python_clients_tell_of_what_does_not_come_back() {
    let silent = udp_socket("127.0.0.1");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addrs = [silent.local_addr().unwrap(), listener.local_addr().unwrap()];
    for (name, addr) in ["udp_client.py", "tcp_client.py"].iter().zip(addrs) {
        let Some(mut client) = python(name) else { return };
        let finished = harness::run(client.args(["--timeout", "0.1", "--addr", &addr.to_string(), "x"]), b"");
        assert_eq!((finished.code, &finished.stdout[..]), (Some(1), &b""[..]));
        assert!(finished.stderr.starts_with("cannot get "), "{name}: {}", finished.stderr);
    }
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    for attempt in 1..=3 {
        assert_eq!(silent.recv(&mut [0; 8]).unwrap(), 1, "attempt {attempt} of 3");
    }
}

#[cfg(unix)]
mod unix {
    use harness::Running;

    use super::*;

    /// `unix-echo server` in a folder of its own.
    struct UnixServer {
        folder: tempfile::TempDir,
        _running: Running,
    }

    fn start(args: &[&str]) -> UnixServer {
        let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
        let mut server = program("unix-echo");
        server.args(["server", "--path"]).arg(folder.path().join("s")).args(args);
        let mut running = Running::start(&mut server);
        running.announced();
        UnixServer { folder, _running: running }
    }

    impl UnixServer {
        /// The path of a file in the folder; the server's is `s`.
        fn path(&self, name: &str) -> String {
            self.folder.path().join(name).to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn nc_talks_to_unix_echo() {
        let server = start(&[]);
        assert_talks("nc", &["-U", &server.path("s")], &payloads());
    }

    #[test]
    fn ncat_talks_to_unix_echo() {
        let server = start(&[]);
        assert_talks("ncat", &["-U", &server.path("s")], &payloads());
    }

    #[test]
    fn socat_talks_to_unix_echo() {
        let server = start(&[]);
        assert_talks("socat", &["-", &format!("UNIX-CONNECT:{}", server.path("s"))], &payloads());
    }

    #[test]
    fn python_talks_to_unix_echo() {
        let server = start(&[]);
        assert_twin_talks("unix_echo.py", &["client", "--path", &server.path("s")], &payloads());
    }

    // A client of datagrams binds a name to be answered at. The tools leave its file there when they are
    // killed, so each gets a folder of its own.

    #[test]
    #[cfg(target_os = "linux")] // Elsewhere nc is another one.
    fn nc_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            assert_talks("nc", &["-uU", "-s", &server.path("nc"), &server.path("s")], &[bytes]);
        }
    }

    #[test]
    fn ncat_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            assert_talks("ncat", &["-uU", "-s", &server.path("ncat"), &server.path("s")], &[bytes]);
        }
    }

    #[test]
    fn socat_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            let address = format!("UNIX-SENDTO:{},bind={}", server.path("s"), server.path("socat"));
            assert_talks("socat", &["-", &address], &[bytes]);
        }
    }

    #[test]
    fn python_talks_to_unix_echo_by_datagrams() {
        let server = start(&["--datagram"]);
        let args = ["client", "--datagram", "--path", &server.path("s")];
        assert_twin_talks("unix_echo.py", &args, &short_payloads());
    }

    #[test]
    fn the_python_client_of_datagrams_leaves_no_file() {
        let server = start(&["--datagram"]);
        let Some(mut client) = python("unix_echo.py") else { return };
        client.args(["client", "--datagram", "--path", &server.path("s"), "hello"]);
        let finished = harness::run(client.env("TMPDIR", server.folder.path()), b"");
        assert_eq!((finished.code, &finished.stdout[..]), (Some(0), &b"hello\n"[..]), "{finished:?}");
        assert_eq!(std::fs::read_dir(&server.folder).unwrap().count(), 1, "the server's alone");
    }
}
