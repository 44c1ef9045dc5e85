//! What `tcp-client` promises, shown by servers that are good, slow, silent, hasty or not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use harness::{LIMIT, Running, program, run};
use socket2::{Domain, SockRef, Socket, Type};

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A socket that has an address, and does not listen yet.
fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Starts the client, and accepts its connection.
fn accept_from(listener: &TcpListener, args: &[&str]) -> (Running, TcpStream) {
    let addr = listener.local_addr().unwrap().to_string();
    let client = Running::start(program("tcp-client").args(["--addr", &addr]).args(args));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    (client, stream)
}

fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("the client's half-close");
    bytes
}

#[test]
fn it_half_closes_and_still_prints_what_comes_after() {
    let (client, mut stream) = accept_from(&listener(), &["hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    thread::sleep(Duration::from_millis(100));
    stream.write_all(b"good").unwrap();
    thread::sleep(Duration::from_millis(100));
    stream.write_all(b"bye!").unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..], &client.stderr[..]),
        (Some(0), &b"goodbye!"[..], "")
    );
}

#[test]
fn what_comes_is_printed_at_once_also_without_a_newline() {
    let (mut client, mut stream) = accept_from(&listener(), &[]);
    for bytes in [&b"no newline"[..], b"\xff\x00\x1b"] {
        stream.write_all(bytes).unwrap();
        assert_eq!(client.stdout_bytes(bytes.len()), bytes);
    }
}

#[test]
fn a_server_that_closes_early_is_told_with_what_came_back() {
    let listener = listener();
    let (client, mut stream) = accept_from(&listener, &["hello", "world"]);
    assert_eq!(read_to_end(&stream), b"hello\nworld\n");
    stream.write_all(b"hel").unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!((client.code, &client.stdout[..]), (Some(1), &b"hel"[..]));
    let addr = listener.local_addr().unwrap();
    let error = format!(
        "Error: cannot get everything back from {addr}: 3 of 12 bytes came back\n\nCaused by:\n    the server closed the connection\n"
    );
    assert!(client.stderr.starts_with(&error), "{}", client.stderr);
}

#[test]
fn a_server_that_closes_while_we_still_type_ends_the_client() {
    let (mut client, mut stream) = accept_from(&listener(), &[]);
    client.write(b"hello\n");
    let mut line = [0; 6];
    stream.read_exact(&mut line).unwrap();
    stream.write_all(&line).unwrap();
    drop(stream);
    assert_eq!(client.stdout_line(), "hello");
    let stdin = client.stdin.take(); // Left open: the client must end all the same.
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .contains("6 of 6 bytes came back\n\nCaused by:\n    the server closed the connection before everything was sent"),
        "{client:?}"
    );
    drop(stdin);
}

#[test]
fn a_reset_is_told_with_what_came_back() {
    let (client, mut stream) = accept_from(&listener(), &["hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    stream.write_all(b"he").unwrap();
    let mut client = client;
    assert_eq!(client.stdout_bytes(2), b"he");
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    let reset = if cfg!(windows) {
        "os error 10054"
    } else {
        "1: Connection reset"
    };
    let error = "2 of 6 bytes came back\n\nCaused by:\n    0: cannot receive\n";
    assert!(
        client.stderr.contains(error) && client.stderr.contains(reset),
        "{client:?}"
    );
}

#[test]
fn a_server_that_leaves_in_the_middle_of_much_is_told() {
    let listener = listener();
    let addr = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 100_000]).unwrap();
        stream.write_all(&[b'x'; 50_000]).unwrap();
        // Closed with bytes unread, the connection is reset.
    });
    let client = run(
        program("tcp-client").args(["--addr", &addr]),
        &vec![b'x'; 16 << 20],
    );
    server.join().unwrap();
    assert_eq!(client.code, Some(1));
    assert!(
        client.stderr.contains(" bytes came back"),
        "{}",
        client.stderr
    );
    assert!(!client.stderr.contains("panicked"), "{}", client.stderr);
}

#[test]
fn once_all_is_sent_a_silent_server_is_given_up() {
    let (client, stream) = accept_from(&listener(), &["--timeout", "0.3", "hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .contains("0 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms"),
        "{client:?}"
    );
}

#[test]
fn a_server_that_gives_all_back_but_never_closes_is_given_up_too() {
    let (client, mut stream) = accept_from(&listener(), &["--timeout", "0.3", "hello"]);
    stream.write_all(&read_to_end(&stream)).unwrap();
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b"hello\n"[..])
    );
    assert!(
        client
            .stderr
            .contains("6 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms"),
        "{client:?}"
    );
}

#[test]
fn the_time_limit_begins_when_all_is_sent() {
    let (mut client, mut stream) = accept_from(&listener(), &["--timeout", "2"]);
    thread::sleep(Duration::from_millis(3500)); // Longer than the limit, but there may be more to send.
    client.write(b"patience\n");
    client.stdin = None;
    let line = read_to_end(&stream);
    thread::sleep(Duration::from_millis(1000)); // Not as long.
    stream.write_all(&line).unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), &b"patience\n"[..]),
        "{client:?}"
    );
}

#[test]
fn a_server_that_drips_within_the_time_limit_is_waited_for() {
    let (client, mut stream) = accept_from(&listener(), &["--timeout", "2", "drip"]);
    for byte in read_to_end(&stream) {
        thread::sleep(Duration::from_millis(600));
        stream.write_all(&[byte]).unwrap();
    }
    drop(stream);
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), &b"drip\n"[..]),
        "{client:?}"
    );
}

#[test]
fn that_nobody_listens_is_told_with_the_next_step() {
    // The port is taken, and nobody listens on it.
    let (_deaf, addr) = bound();
    let client = run(
        program("tcp-client").args(["--addr", &addr.to_string(), "hello"]),
        b"",
    );
    assert_eq!(client.code, Some(1));
    let error =
        format!("Error: cannot connect to {addr}: nobody listens there; start tcp-server\n");
    assert!(client.stderr.starts_with(&error), "{}", client.stderr);
}

/// Linux drops what asks for a connection when the queue of a listener is full.
#[test]
#[cfg(target_os = "linux")]
fn a_server_that_cannot_be_reached_in_time_is_given_up() {
    let (full, addr) = bound();
    full.listen(0).unwrap();
    let in_the_queue: Vec<TcpStream> = (0..8)
        .map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok())
        .collect();
    assert!(in_the_queue.len() < 8, "the queue takes all");
    let client = run(
        program("tcp-client").args(["--addr", &addr.to_string(), "--timeout", "0.3", "hello"]),
        b"",
    );
    assert_eq!(client.code, Some(1));
    let error = format!(
        "Error: cannot connect to {addr}: nobody answers there, or the server's backlog is full\n"
    );
    assert!(client.stderr.starts_with(&error), "{}", client.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn of_a_name_with_two_addresses_the_one_that_accepts_is_used() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return harness::not_run(&format!("no IPv6: {error}"));
    }
    for host in ["127.0.0.1", "[::1]"] {
        let server =
            harness::Server::start(program("tcp-server").args(["--addr", &format!("{host}:0")]));
        let addr = format!("twofold:{}", server.addr.port());
        let client =
            harness::with_twofold_name(program("tcp-client").args(["--addr", &addr, "hello"]));
        let Some(mut client) = client else { return };
        let client = run(&mut client, b"");
        assert_eq!(
            (client.code, &client.stdout[..]),
            (Some(0), &b"hello\n"[..]),
            "{client:?}"
        );
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_gone_is_an_error_and_not_a_panic() {
    let server = harness::Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0"]));
    let mut command = program("tcp-client");
    command.args(["--addr", &server.addr.to_string()]);
    harness::assert_survives_a_lost_reader(&mut command);
}

#[test]
#[cfg(unix)]
fn a_stdin_that_cannot_be_read_is_told() {
    let server = harness::Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0"]));
    let mut command = program("tcp-client");
    command.args(["--addr", &server.addr.to_string()]);
    let client = command
        .stdin(std::fs::File::open("/").unwrap())
        .output()
        .unwrap();
    assert_eq!(client.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&client.stderr);
    assert!(
        stderr.contains(
            "0 of 0 bytes came back\n\nCaused by:\n    cannot read stdin: Is a directory"
        ),
        "{stderr}"
    );
}

/// TCP can connect a socket to itself, and so can UDP, if the kernel gives the client the port
/// that it asks for, which no server has.
#[test]
#[cfg(target_os = "linux")]
fn it_does_not_take_itself_for_the_server() {
    let client = harness::where_7007_is_the_only_free_port(program("tcp-client").arg("hello"));
    let Some(mut client) = client else { return };
    let client = run(&mut client, b"");
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b""[..]),
        "{client:?}"
    );
    assert!(
        client
            .stderr
            .contains(": nobody listens there; start tcp-server"),
        "{client:?}"
    );
}

#[test]
fn wrong_usage_is_refused_with_what_is_right() {
    let wrong = [
        (["--timeout", "0"], "seconds from 0.001 to 86400"),
        (["--timeout", "-1"], "seconds from 0.001 to 86400"),
        (["--timeout", "nan"], "seconds from 0.001 to 86400"),
        (["--timeout", "inf"], "seconds from 0.001 to 86400"),
        (["--timeout", "1e300"], "seconds from 0.001 to 86400"),
    ];
    harness::assert_refuses(|| program("tcp-client"), &wrong);
    let with_address = |addr: &str| {
        let mut command = program("tcp-client");
        command.args(["--addr", addr]);
        command
    };
    harness::assert_refuses_addresses(with_address, "cannot find the address of ");
}
