//! What ends a server, or misuses its output: mistakes 4, 13, 31, 32, 37, 38 and 40.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use harness::{LIMIT, Running, udp_socket};

use crate::{SHORT, child, listener, reset, said_by};

// 4. One `?` in the loop lets one client end the server.

/// Serves one client after the other. An error of any of them ends the server.
fn serve_until_an_error(listener: &TcpListener) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let (mut stream, _) = listener.accept()?;
        loop {
            let len = stream.read(&mut buffer)?;
            if len == 0 {
                break;
            }
            stream.write_all(&buffer[..len])?;
        }
    }
}

#[test]
fn a_question_mark_in_the_loop_lets_one_client_end_the_server() {
    let (listener, addr) = listener();
    reset(TcpStream::connect(addr).unwrap());
    let mut next = TcpStream::connect(addr).unwrap(); // It waits in the backlog.
    next.write_all(b"hello").unwrap();
    let end = serve_until_an_error(&listener).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    next.set_nonblocking(true).unwrap();
    assert!(next.read(&mut [0; 8]).is_err(), "nobody has served it");
}

// 13. An accept that fails fails again at once.

/// Accepts clients. While there is no descriptor left, it fails as often as it can.
fn accept_again_at_once(
    listener: &TcpListener,
    clients: &mut Vec<TcpStream>,
    log: &mut impl Write,
) -> io::Result<()> {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => clients.push(stream),
            Err(error) => writeln!(log, "cannot accept: {error}")?,
        }
    }
    Ok(())
}

#[test]
#[ignore = "the test below starts it with few descriptors"]
#[cfg(target_os = "linux")]
fn a_process_that_accepts_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("said: {}", listener.local_addr().unwrap());
    // It ends when the log is full, which holds about 1000 lines.
    let mut log = vec![0; 50_000];
    let _ = accept_again_at_once(&listener, &mut Vec::new(), &mut &mut log[..]);
    let log = String::from_utf8_lossy(&log);
    println!("said: {}", log.matches("(os error 24)").count());
    // Some clients may still be connecting. It listens until the test below ends it.
    let _ = io::stdin().read(&mut [0]);
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_pause_an_accept_that_fails_fails_as_often_as_it_can() {
    use harness::limited;
    let connect = |addr: SocketAddr| -> Vec<TcpStream> {
        let connect = |_| TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        (0..40).map(connect).collect()
    };
    let command = child("servers::a_process_that_accepts_again_at_once");
    let mut wrong = Running::start(&mut limited("--nofile=24", &command));
    let clients = connect(said_by(&mut wrong).parse().unwrap());
    let failures: usize = said_by(&mut wrong).parse().unwrap();
    assert!(
        failures > 900,
        "{failures} failures, and no client has left"
    );
    drop(clients);
}

// 31. A datagram from port 0 ends the server.

/// Answers a peer. If the kernel does not send the answer, the server ends.
fn answer(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) -> io::Result<()> {
    socket.send_to(answer, peer)?;
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_can_be_sent_to_port_0() {
    let socket = udp_socket("127.0.0.1");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    let error = answer(&socket, b"hello", nobody).unwrap_err();
    assert_eq!(error.to_string(), "Invalid argument (os error 22)");
}

// 32. The client may be gone before accept returns it.

/// Greets the next client by its address.
fn greet_by_peer_addr(listener: &TcpListener) -> io::Result<String> {
    let (stream, _) = listener.accept()?;
    Ok(format!("hello, {}", stream.peer_addr()?))
}

/// Does the same, with the address that accept has returned.
fn greet(listener: &TcpListener) -> io::Result<String> {
    let (_stream, peer) = listener.accept()?;
    Ok(format!("hello, {peer}"))
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_has_reset_is_accepted_but_has_no_address_any_more() {
    let (listener, server) = listener();
    let reset_before_accept = || {
        let client = TcpStream::connect(server).unwrap();
        let addr = client.local_addr().unwrap();
        reset(client);
        addr
    };
    let deadline = Instant::now() + LIMIT;
    let error = loop {
        reset_before_accept();
        // On a busy machine the reset can arrive after this.
        match greet_by_peer_addr(&listener) {
            Ok(_) => assert!(Instant::now() < deadline, "the resets come too late"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotConnected);

    for _ in 0..10 {
        let addr = reset_before_accept();
        assert_eq!(greet(&listener).unwrap(), format!("hello, {addr}"));
    }
}

// 37. What a peer sends can command your terminal.

/// The peer decides what the terminal does, and how many lines the log has.
fn log_line(peer: SocketAddr, received: &[u8]) -> String {
    format!("{peer}: {}", String::from_utf8_lossy(received))
}

/// Only printable ASCII comes out, on one line.
fn escaped_log_line(peer: SocketAddr, received: &[u8]) -> String {
    format!("{peer}: \"{}\"", received.escape_ascii())
}

/// Keeps the letters of all languages.
fn readable_log_line(peer: SocketAddr, received: &[u8]) -> String {
    let text = String::from_utf8_lossy(received);
    format!("{peer}: \"{}\"", text.escape_debug())
}

#[test]
fn lossy_text_keeps_what_commands_a_terminal_and_escaped_text_does_not() {
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_931));
    // It clears the screen, sets the title, forges a line, and turns the direction of writing.
    let hostile = "\x1b[2J\x1b]0;x\x07\n127.0.0.1:1: \"forged\" \u{9b}2J \u{202e}你好".as_bytes();
    let wrong = log_line(peer, hostile);
    assert!(wrong.contains('\x1b') && wrong.contains('\u{9b}') && wrong.contains('\u{202e}'));
    assert_eq!(wrong.lines().count(), 2);
    let right = escaped_log_line(peer, hostile);
    assert!(right.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let readable = readable_log_line(peer, hostile);
    assert!(readable.ends_with("你好\""), "{readable}");
    assert!(!readable.contains(char::is_control) && !readable.contains('\u{202e}'));
}

// 38. println! panics when nobody reads.

#[test]
#[cfg(target_os = "linux")]
fn println_ends_a_server_whose_output_fails_and_writeln_does_not() {
    let first_udp_server = || {
        let mut command = harness::example_of("udp-server", "first");
        command.arg("127.0.0.1:0");
        command
    };
    use std::fs::OpenOptions;
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let outputs = || {
        let unread = UnixStream::pair().unwrap().0; // The other end is closed.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        [
            (OwnedFd::from(unread), "Broken pipe (os error 32)"),
            (OwnedFd::from(full), "No space left on device (os error 28)"),
        ]
    };
    let start = |mut command: Command, stdout: OwnedFd| {
        Running::start_with(&mut command, stdout.into(), Stdio::piped())
    };
    for (stdout, why) in outputs() {
        let server = start(first_udp_server(), stdout).finish();
        assert_eq!(server.code, Some(101), "{server:?}");
        server.assert_stderr(&format!("failed printing to stdout: {why}"));
    }
    // A stdout that was never open is harmless: the runtime opens /dev/null in its place.
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" 127.0.0.1:0 >&-"]);
    closed.arg(first_udp_server().get_program());
    let mut closed = Running::start(&mut closed);
    thread::sleep(SHORT);
    assert!(closed.is_running());
}

// 40. thread::spawn panics when the system has no thread left.

#[test]
#[cfg(target_os = "linux")]
fn spawn_ends_a_server_that_may_start_no_thread() {
    use harness::{Server, as_nobody, copy_of, limited, peer};
    let (_folder, copy) = copy_of(&peer("plain_tcp_echo"));
    let mut command = limited("--nproc=1", &Command::new(copy));
    let server = Server::start(as_nobody(&mut command));
    let _client = TcpStream::connect(server.addr).unwrap();
    let server = server.running.finish();
    assert_eq!(server.code, Some(101), "{server:?}");
    server.assert_stderr("failed to spawn thread");
    server.assert_stderr("Resource temporarily unavailable");
}
