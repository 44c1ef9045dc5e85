//! Our servers with other people's clients: `nc`, `ncat` and `socat`. Our clients with other
//! people's servers are in `peers/servers.rs`.

use harness::{Server, foreign, payloads, program, short_payloads, start_and_expect_echo};

/// Asserts that a client of this name gets back what it sends.
fn assert_talks(name: &str, args: &[&str], payloads: &[Vec<u8>]) {
    for bytes in payloads {
        let Some(mut client) = foreign(name) else {
            return;
        };
        start_and_expect_echo(client.args(args), bytes);
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
    assert_talks(
        "socat",
        &["-", &format!("UDP:127.0.0.1:{port}")],
        &short_payloads(),
    );
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
    assert_talks(
        "socat",
        &["-", &format!("TCP:127.0.0.1:{port}")],
        &payloads(),
    );
}

#[cfg(unix)]
mod unix {
    use harness::Running;

    use super::*;

    /// A running `unix-echo server` with its own folder.
    struct UnixServer {
        folder: tempfile::TempDir,
        _running: Running,
    }

    fn start(args: &[&str]) -> UnixServer {
        let folder = harness::folder();
        let mut server = program("unix-echo");
        server
            .args(["server", "--path"])
            .arg(folder.path().join("s"))
            .args(args);
        let mut running = Running::start(&mut server);
        running.announced();
        UnixServer {
            folder,
            _running: running,
        }
    }

    impl UnixServer {
        /// Returns the path of a file in the folder. The server's file is `s`.
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
        assert_talks(
            "socat",
            &["-", &format!("UNIX-CONNECT:{}", server.path("s"))],
            &payloads(),
        );
    }

    // A client of datagrams binds to a path, so that the server can answer. The tools leave
    // this file behind when they are killed, so each gets its own folder.

    #[test]
    #[cfg(target_os = "linux")] // Elsewhere nc is another program.
    fn nc_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            assert_talks(
                "nc",
                &["-uU", "-s", &server.path("nc"), &server.path("s")],
                &[bytes],
            );
        }
    }

    #[test]
    fn ncat_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            assert_talks(
                "ncat",
                &["-uU", "-s", &server.path("ncat"), &server.path("s")],
                &[bytes],
            );
        }
    }

    #[test]
    fn socat_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let server = start(&["--datagram"]);
            let address = format!(
                "UNIX-SENDTO:{},bind={}",
                server.path("s"),
                server.path("socat")
            );
            assert_talks("socat", &["-", &address], &[bytes]);
        }
    }
}
