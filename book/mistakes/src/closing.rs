//! How a connection ends: mistakes 10, 12, 33, 34 and 50.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running};
use socket2::{SockRef, TcpKeepalive};

use crate::{SHORT, UntilDeadline, connection, echo_server, read_to_end, wait_until_arrived};

// 10. `read_to_string` waits for the end, and not for the answer.

/// Asks a server. Waits until the server closes, and the server waits for us to close.
fn ask_and_wait_for_the_end(mut stream: &TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks a server the only question of this connection.
fn ask_and_half_close(mut stream: &TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
#[cfg(unix)]
fn read_to_string_ends_only_when_the_peer_ends_which_the_half_close_brings_about() {
    let server = echo_server();
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let error = ask_and_wait_for_the_end(&stream, "hello").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let answer = ask_and_half_close(&TcpStream::connect(server).unwrap(), "hello").unwrap();
    assert_eq!(answer, "hello");

    // What has come before the error is in the buffer.
    let (mut sender, mut receiver) = connection();
    receiver.set_read_timeout(Some(SHORT)).unwrap();
    sender.write_all(b"hello").unwrap();
    wait_until_arrived(&receiver, 5);
    let mut answer = Vec::new();
    assert!(receiver.read_to_end(&mut answer).is_err());
    assert_eq!(answer, b"hello");
}

// 12. Dropping a clone does not end the stream.

/// Sends the last bytes, and closes only one of two descriptors.
fn finish_by_dropping_a_clone(stream: &TcpStream, last: &[u8]) -> io::Result<()> {
    let mut sender = stream.try_clone()?;
    sender.write_all(last)?;
    drop(sender); // Sends no FIN, because `stream` is the same socket, and still open.
    Ok(())
}

/// Sends the last bytes and a FIN. The socket can still receive.
fn finish_sending(stream: &TcpStream, last: &[u8]) -> io::Result<()> {
    let mut sender = stream.try_clone()?;
    sender.write_all(last)?;
    sender.shutdown(Shutdown::Write)
}

#[test]
#[cfg(unix)]
fn dropping_a_clone_ends_nothing_and_a_half_close_ends_one_direction() {
    let (client, mut server) = connection();
    server.set_read_timeout(Some(SHORT)).unwrap();
    finish_by_dropping_a_clone(&client, b"good").unwrap();
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "no end comes");

    finish_sending(&client, b"bye").unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    server.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"goodbye");
    server.write_all(b"you too").unwrap();
    drop(server);
    let mut answer = String::new();
    (&client).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "you too");
    if cfg!(target_os = "linux") {
        let again = client.shutdown(Shutdown::Write).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotConnected, "both have ended");
    }
}

// 33. Closing with unread input destroys your own answer.

const REFUSAL: &[u8] = b"error: too long\n";

/// Refuses a request, and closes the connection without reading the rest of it.
fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL)
}

/// Refuses a request, and then reads on until the client closes or the deadline has come.
fn refuse_and_linger(mut stream: TcpStream, deadline: Instant) -> io::Result<()> {
    stream.write_all(REFUSAL)?;
    stream.shutdown(Shutdown::Write)?;
    let stream = UntilDeadline {
        stream: &stream,
        deadline,
    };
    // At most 64 MiB: even a fast client gets no more of our time.
    io::copy(&mut stream.take(64 << 20), &mut io::sink())?;
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn closing_before_all_is_read_resets_the_connection_and_lingering_does_not() {
    let (mut client, server) = connection();
    client.write_all(&[b'x'; 10_000]).unwrap();
    wait_until_arrived(&server, 10_000);
    refuse(server).unwrap();
    let error = read_to_end(&client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let (client, server) = connection();
    let refusing = thread::spawn(move || refuse_and_linger(server, Instant::now() + LIMIT));
    (&client).write_all(&[b'x'; 10_000_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&client).unwrap(), REFUSAL);
    refusing.join().unwrap().unwrap();
}

// 34. A successful write does not mean that anything arrived.

/// Delivers a message. Success says only that the kernel has taken it.
fn deliver(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)
}

/// Delivers a message. Success says that the peer has got it, because the peer says so.
fn deliver_and_wait(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)?;
    let mut acknowledgement = [0; 3];
    stream.read_exact(&mut acknowledgement)?;
    if acknowledgement != *b"ok\n" {
        return Err(io::Error::new(ErrorKind::InvalidData, "not acknowledged"));
    }
    Ok(())
}

#[test]
fn a_write_to_a_peer_that_has_closed_succeeds_and_waiting_for_its_word_does_not() {
    let (client, server) = connection();
    drop(server);
    assert_eq!(client.peek(&mut [0; 8]).unwrap(), 0, "the FIN is here");
    deliver(&client, b"hello\n").expect("no error");
    let deadline = Instant::now() + LIMIT;
    let error = loop {
        match deliver(&client, b"hello\n") {
            Ok(()) => assert!(Instant::now() < deadline, "no reset comes"),
            Err(error) => break error.kind(),
        }
    };
    let gone = [
        ErrorKind::BrokenPipe,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
    ];
    assert!(gone.contains(&error), "{error}");

    let (client, server) = connection();
    drop(server);
    let error = deliver_and_wait(&client, b"hello\n").unwrap_err().kind();
    assert!(
        error == ErrorKind::UnexpectedEof || gone.contains(&error),
        "{error}"
    );
    let (client, mut server) = connection();
    thread::scope(|scope| {
        scope.spawn(|| deliver_and_wait(&client, b"hello\n").unwrap());
        server.read_exact(&mut [0; 6]).unwrap();
        server.write_all(b"ok\n").unwrap();
    });
}

// 50. A connection does not notice that its peer has gone.

/// After a minute of silence, asks the peer's kernel every ten seconds, and gives up after
/// three questions without an answer.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let questions = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&questions)
}

#[test]
#[cfg(unix)]
fn std_does_not_ask_whether_the_peer_is_still_there() {
    let (stream, _peer) = connection();
    assert!(!SockRef::from(&stream).keepalive().unwrap());
    keep_alive(&stream).unwrap();
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

/// A shell in a network of its own is the client of the server. Then the network goes, and
/// after it the client, whose FIN reaches nobody.
#[test]
#[cfg(target_os = "linux")]
fn a_server_without_a_time_limit_keeps_the_connection_of_a_peer_that_has_vanished() {
    use harness::{foreign, peer, unshared};
    let Some(bash) = foreign("bash") else { return };
    let Some(mut bash) = unshared("-rn", "ip link set lo up", &bash) else {
        return;
    };
    let mut shell = Running::start(&mut bash);
    shell.write(b"trap 'kill $(jobs -p)' EXIT\n");
    let server = peer("plain_tcp_echo");
    shell.write(format!("'{}' &\n", server.get_program().to_str().unwrap()).as_bytes());
    let plain: SocketAddr = shell.announced().parse().unwrap();
    let (host, port) = (plain.ip(), plain.port());
    shell.write(format!("exec 3<>/dev/tcp/{host}/{port}\n").as_bytes());
    shell.write(b"ip link set lo down; exec 3>&-\n");
    // /proc/net/tcp shows port and state in hexadecimal; 01 is ESTABLISHED.
    let established = format!(": 0100007F:{:04X} [0-9A-F:]* 01 ", plain.port());
    shell.write(format!("grep -c '{established}' /proc/net/tcp\n").as_bytes());
    assert_eq!(shell.stdout_line(), "1");
    assert_eq!(shell.finish().code, Some(0));
}
