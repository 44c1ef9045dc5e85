//! Our programs and their twins in Python (`tests/peers`), each server with the other's
//! client, and what the twins promise as well.

use std::net::TcpListener;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::{io::ErrorKind, net::UdpSocket};

use harness::{
    Finished, Running, payloads, program, python, run, short_payloads, start_and_expect_echo,
    udp_socket,
};
#[cfg(target_os = "linux")]
use harness::{Server, not_run};

/// Runs a server of one kind with clients of the other: with messages, with a stdin that ends
/// at once, and with a stdin that stays open until everything is back.
fn assert_echo(server: &mut Command, client: impl Fn(&str) -> Command, inputs: &[Vec<u8>]) {
    let mut server = Running::start(server);
    let addr = server.announced();
    assert_printed(
        run(client(&addr).args(["hello", "two words"]), b""),
        b"hello\ntwo words\n",
    );
    for input in inputs {
        assert_printed(run(&mut client(&addr), input), input);
        assert_printed(
            start_and_expect_echo(&mut client(&addr), input).finish(),
            b"",
        );
    }
}

/// Asserts that the client succeeded, and printed this and nothing else.
fn assert_printed(client: Finished, stdout: &[u8]) {
    assert_eq!((client.code, &client.stderr[..]), (Some(0), ""));
    assert!(
        client.stdout == stdout,
        "{} of {} bytes came back",
        client.stdout.len(),
        stdout.len()
    );
}

fn assert_network_pair(protocol: &str, quiet: &[&str], inputs: &[Vec<u8>]) {
    let Some(mut their_server) = python(&format!("{protocol}_server.py")) else {
        return;
    };
    let mut our_server = program(&format!("{protocol}-server"));
    let asking = |mut client: Command, addr: &str| {
        client.args(["--addr", addr, "--timeout", "20"]);
        client
    };
    let our_client = |addr: &str| {
        let mut client = asking(program(&format!("{protocol}-client")), addr);
        client.args(quiet);
        client
    };
    let their_client = |addr: &str| asking(python(&format!("{protocol}_client.py")).unwrap(), addr);
    assert_echo(
        their_server.args(["--addr", "127.0.0.1:0"]),
        our_client,
        inputs,
    );
    assert_echo(
        our_server.args(["--addr", "127.0.0.1:0"]),
        their_client,
        inputs,
    );
}

/// Returns lines, one of them empty and one long. Each line becomes a datagram.
fn lines(longest: usize) -> Vec<Vec<u8>> {
    [
        short_payloads(),
        vec![
            b"one\n\nthree\n".to_vec(),
            [&vec![b'x'; longest][..], b"\n"].concat(),
        ],
    ]
    .concat()
}

/// Returns inputs of several lengths, one of them empty.
fn streams() -> Vec<Vec<u8>> {
    [payloads(), vec![b"no newline".to_vec(), vec![]]].concat()
}

#[test]
fn udp_pairs_with_its_twin() {
    let longest = if cfg!(target_os = "macos") {
        9_216
    } else {
        65_507
    };
    assert_network_pair("udp", &["-q"], &lines(longest));
}

#[test]
fn tcp_pairs_with_its_twin() {
    assert_network_pair("tcp", &[], &streams());
}

/// Otherwise a datagram with a forged sender could make two echo servers answer each other
/// forever.
#[test]
#[cfg(target_os = "linux")] // Only Linux has all of 127.0.0.0/8.
fn the_udp_server_does_not_answer_its_own_port_number() {
    let Some(mut server) = python("udp_server.py") else {
        return;
    };
    let server = Server::start(server.args(["--addr", "127.0.0.1:0"]));
    let Ok(namesake) = UdpSocket::bind(("127.0.0.2", server.addr.port())) else {
        return not_run("another program has the same port on 127.0.0.2");
    };
    namesake.send_to(b"hello", server.addr).unwrap();
    let stranger = udp_socket("127.0.0.1");
    stranger
        .send_to(b"it answers in turn", server.addr)
        .unwrap();
    assert_eq!(stranger.recv(&mut [0; 32]).unwrap(), 18);
    namesake.set_nonblocking(true).unwrap();
    let answer = namesake.recv(&mut [0; 8]);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// If an answer is lost, the clients say so, with a message and with the exit code.
#[test]
fn the_clients_tell_of_what_does_not_come_back() {
    let silent = udp_socket("127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addrs = [silent.local_addr().unwrap(), listener.local_addr().unwrap()];
    for (name, addr) in ["udp_client.py", "tcp_client.py"].iter().zip(addrs) {
        let Some(mut client) = python(name) else {
            return;
        };
        let finished = run(
            client.args(["--timeout", "0.1", "--addr", &addr.to_string(), "x"]),
            b"",
        );
        assert_eq!((finished.code, &finished.stdout[..]), (Some(1), &b""[..]));
        assert!(
            finished.stderr.starts_with("cannot get "),
            "{name}: {}",
            finished.stderr
        );
    }
    for attempt in 1..=3 {
        assert_eq!(
            silent.recv(&mut [0; 8]).unwrap(),
            1,
            "attempt {attempt} of 3"
        );
    }
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::path::Path;

    use rustix::process::Signal;

    use super::*;

    /// Gives our program or its twin a role, options and a path.
    fn with(mut command: Command, role: &str, options: &[&str], path: impl AsRef<Path>) -> Command {
        command
            .arg(role)
            .args(options)
            .arg("--path")
            .arg(path.as_ref());
        command
    }

    fn assert_pair(options: &[&str], inputs: &[Vec<u8>]) {
        let folder = harness::folder();
        let Some(twin) = python("unix_echo.py") else {
            return;
        };
        let our_client = |path: &str| with(program("unix-echo"), "client", options, path);
        let their_client =
            |path: &str| with(python("unix_echo.py").unwrap(), "client", options, path);
        let mut their_server = with(twin, "server", options, folder.path().join("theirs"));
        assert_echo(&mut their_server, our_client, inputs);
        let mut our_server = with(
            program("unix-echo"),
            "server",
            options,
            folder.path().join("ours"),
        );
        assert_echo(&mut our_server, their_client, inputs);
    }

    #[test]
    fn unix_streams_pair_with_their_twin() {
        assert_pair(&[], &streams());
    }

    #[test]
    fn unix_datagrams_pair_with_their_twin() {
        let longest = if cfg!(target_os = "macos") {
            2_048
        } else {
            100_000
        };
        assert_pair(&["--datagram"], &lines(longest));
    }

    #[test]
    fn the_server_replaces_the_file_of_a_dead_one_alone_and_removes_its_own() {
        for options in [&["--datagram"][..], &[]] {
            let folder = harness::folder();
            let path = folder.path().join("s");
            let Some(twin) = python("unix_echo.py") else {
                return;
            };
            let mut server = with(twin, "server", options, &path);

            let mut first = Running::start(&mut server);
            first.announced();
            assert_eq!(run(&mut server, b"").code, Some(1), "it is alive");
            first.kill(); // It gets SIGKILL, so its file stays.
            let mut second = Running::start(&mut server);
            second.announced();
            second.signal(Signal::TERM);
            assert_eq!(second.finish().code, Some(0));
            assert!(
                !fs::exists(&path).unwrap(),
                "the server has removed its file"
            );

            fs::write(&path, "no socket").unwrap();
            assert_eq!(run(&mut server, b"").code, Some(1));
            assert_eq!(fs::read_to_string(&path).unwrap(), "no socket");
        }
    }

    #[test]
    fn the_client_of_datagrams_leaves_no_file() {
        let folder = harness::folder();
        let path = folder.path().join("s");
        let mut server = Running::start(&mut with(
            program("unix-echo"),
            "server",
            &["--datagram"],
            &path,
        ));
        server.announced();
        let Some(twin) = python("unix_echo.py") else {
            return;
        };
        let mut client = with(twin, "client", &["--datagram"], &path);
        assert_printed(
            run(client.arg("hello").env("TMPDIR", folder.path()), b""),
            b"hello\n",
        );
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "the server's alone"
        );
    }

    /// The kernel would make the client wait for a place in the backlog, forever.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_client_of_streams_does_not_wait_for_a_full_server() {
        let folder = harness::folder();
        let path = folder.path().join("s");
        let full =
            socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        full.listen(0).unwrap();
        let _in_the_queue = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let Some(twin) = python("unix_echo.py") else {
            return;
        };
        let client = run(
            with(twin, "client", &["--timeout", "0.3"], &path).arg("hello"),
            b"",
        );
        client.assert_failed("cannot use ");
    }
}
