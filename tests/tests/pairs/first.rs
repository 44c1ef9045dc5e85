//! The examples `first`, with each other, with the same in Python, and with the programs for real use.

use harness::{Running, Server, example_of, python, run};
use promises::catalog::{Program, TCP_CLIENT, TCP_SERVER, UDP_CLIENT, UDP_SERVER};

/// Starts the first server of a package, which is given its address as an argument.
fn first_server(package: &str) -> Server {
    Server::start(example_of(package, "first").arg("127.0.0.1:0"))
}

/// Runs the first client of a package against a server, and returns what it prints.
fn first_client(package: &str, server: &Server) -> String {
    let client = run(
        example_of(package, "first").arg(server.addr.to_string()),
        b"",
    );
    assert_eq!((client.code, &*client.stderr), (Some(0), ""));
    String::from_utf8(client.stdout).unwrap()
}

/// Our client for real use gets its lines back, and the server still runs then.
fn assert_serves(client: &Program, mut server: Server) {
    for line in ["hello", "world"] {
        let client = run(client.at(&server.addr.to_string()).arg(line), b"");
        client.assert_printed(format!("{line}\n").as_bytes());
    }
    assert!(server.running.is_running());
}

#[test]
fn the_first_udp_server_serves_the_first_client_and_udp_client() {
    let server = first_server("udp-server");
    let printed = format!("{}: hello\n", server.addr);
    assert_eq!(first_client("udp-client", &server), printed);
    assert_serves(&UDP_CLIENT, server);
}

#[test]
fn the_first_udp_client_is_served_by_udp_server() {
    let server = UDP_SERVER.start(&[]);
    let printed = format!("{}: hello\n", server.addr);
    assert_eq!(first_client("udp-client", &server), printed);
}

#[test]
fn the_first_tcp_server_serves_the_first_client_and_tcp_client_one_after_the_other() {
    let server = first_server("tcp-server");
    assert_eq!(first_client("tcp-client", &server), "hello\n");
    assert_serves(&TCP_CLIENT, server);
}

#[test]
fn the_first_tcp_client_is_served_by_tcp_server() {
    assert_eq!(
        first_client("tcp-client", &TCP_SERVER.start(&[])),
        "hello\n"
    );
}

/// Each of the first programs in Rust with the other one in Python, which is given a port.
fn assert_pairs_with_python(protocol: &str, prints: impl Fn(&Server) -> String) {
    let in_rust = |side: &str| format!("{protocol}-{side}");
    let in_python = |side: &str| python(&format!("first_{protocol}_{side}.py"));
    let (Some(mut server), Some(mut client)) = (in_python("server"), in_python("client")) else {
        return;
    };
    let server = Server::start(server.arg("0"));
    assert_eq!(
        first_client(&in_rust("client"), &server),
        prints(&server),
        "the server in Python"
    );
    let server = first_server(&in_rust("server"));
    let client = run(client.arg(server.addr.port().to_string()), b"");
    client.assert_printed(prints(&server).as_bytes());
}

#[test]
fn the_first_udp_programs_pair_with_the_same_in_python() {
    assert_pairs_with_python("udp", |server| format!("{}: hello\n", server.addr));
}

#[test]
fn the_first_tcp_programs_pair_with_the_same_in_python() {
    assert_pairs_with_python("tcp", |_| "hello\n".to_owned());
}

/// A port is given to one program at a time.
#[test]
fn a_second_server_at_the_same_address_ends_with_an_error() {
    for package in ["udp-server", "tcp-server"] {
        let server = first_server(package);
        let second = run(
            example_of(package, "first").arg(server.addr.to_string()),
            b"",
        );
        second.assert_failed("Error: Os {");
        if cfg!(unix) {
            second.assert_stderr("Address already in use");
        }
    }
}

/// A client that resets its connection shows what the heads say: an error with one client ends the server.
#[test]
fn a_client_that_resets_ends_the_first_tcp_server() {
    let Server { running, addr } = first_server("tcp-server");
    let client = std::net::TcpStream::connect(addr).unwrap();
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    let server = running.finish();
    assert_eq!(server.code, Some(1));
    server.assert_stderr("reset");
}

#[test]
#[cfg(unix)]
fn the_first_unix_programs_serve_each_other_and_unix_echo() {
    use promises::catalog::{UNIX_CLIENT, UNIX_ECHO};
    let folder = harness::folder();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let first = |side: &str, path: &str| {
        let mut command = example_of("unix-echo", "first");
        command.args([side, path]);
        command
    };
    let (ours, firsts) = (path("ours"), path("first"));
    let mut servers = [
        Running::start(&mut UNIX_ECHO.at(&ours)),
        Running::start(&mut first("server", &firsts)),
    ];
    for (server, path) in servers.iter_mut().zip([&ours, &firsts]) {
        assert_eq!(&server.announced(), path);
        run(&mut first("client", path), b"").assert_printed(b"hello\n");
    }
    run(UNIX_CLIENT.at(&firsts).arg("line"), b"").assert_printed(b"line\n");
    let second = run(&mut first("server", &firsts), b"");
    second.assert_failed("Error: Os {");
    second.assert_stderr("Address already in use");
}
