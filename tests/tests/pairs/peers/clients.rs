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
        running: Running,
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
        UnixServer { folder, running }
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

    /// The tools bind a path, at which the server does not answer (`unix/datagram.rs` says why).
    /// They cannot bind an abstract name, or do not let the kernel choose one.
    #[cfg(target_os = "linux")]
    fn assert_not_answered(name: &str, args: impl Fn(&UnixServer) -> Vec<String>) {
        let mut server = start(&["--datagram"]);
        let Some(mut client) = foreign(name) else {
            return;
        };
        let mut client = Running::start(client.args(args(&server)));
        client.write(b"hello\n");
        let line = server.running.stderr_line();
        let path = server.path(name);
        assert_eq!(
            line,
            format!("{path}: not answered, a path can lead anywhere")
        );
    }

    #[test]
    #[cfg(target_os = "linux")] // Elsewhere nc is another program.
    fn nc_gets_no_answer_from_unix_echo_by_datagrams() {
        assert_not_answered("nc", |server| {
            [
                "-uU".to_owned(),
                "-s".to_owned(),
                server.path("nc"),
                server.path("s"),
            ]
            .into()
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn ncat_gets_no_answer_from_unix_echo_by_datagrams() {
        assert_not_answered("ncat", |server| {
            [
                "-uU".to_owned(),
                "-s".to_owned(),
                server.path("ncat"),
                server.path("s"),
            ]
            .into()
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn socat_gets_no_answer_from_unix_echo_by_datagrams() {
        assert_not_answered("socat", |server| {
            let (to, from) = (server.path("s"), server.path("socat"));
            ["-".to_owned(), format!("UNIX-SENDTO:{to},bind={from}")].into()
        });
    }

    /// socat takes an abstract name as well, and then it is answered.
    #[test]
    #[cfg(target_os = "linux")]
    fn socat_with_an_abstract_name_talks_to_unix_echo_by_datagrams() {
        for bytes in short_payloads() {
            let name = format!("@unix-echo datagrams {}", std::process::id());
            let mut server = program("unix-echo");
            server.args(["server", "--datagram", "--path", &name]);
            let mut server = Running::start(&mut server);
            server.announced();
            let address = format!("ABSTRACT-SENDTO:{0},bind={0} client", &name[1..]);
            assert_talks("socat", &["-", &address], &[bytes]);
        }
    }
}
