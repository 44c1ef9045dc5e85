//! Datagrams and their answers: mistakes 2, 17, 18, 19, 20 and 30.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Instant;

use harness::{LIMIT, not_run, udp_socket};

use crate::{SHORT, TIMED_OUT, udp_pair};

/// Sends the next datagram back.
fn echo_one(server: &UdpSocket) {
    let mut buffer = [0; 512];
    let (len, client) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..len], client).unwrap();
}

// 2. What does not fit the buffer is lost.

/// Receives a datagram. Of a longer one than the buffer, the end is lost.
fn receive_a_part(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1024];
    let len = socket.recv(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// Receives a datagram, or fails if it is longer than the protocol allows.
fn receive_the_whole(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    const ALLOWED: usize = 1024;
    // A datagram that fills the additional byte is too long.
    let mut buffer = [0; ALLOWED + 1];
    let len = socket.recv(&mut buffer)?;
    if len > ALLOWED {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(buffer[..len].to_vec())
}

#[test]
#[cfg(unix)]
fn the_end_of_a_long_datagram_is_lost_in_silence_unless_the_buffer_has_a_byte_to_spare() {
    let (sender, receiver) = udp_pair();
    for len in [1024, 1025, 2000] {
        sender.send(&vec![b'x'; len]).unwrap();
        sender.send(b"next").unwrap();
        assert_eq!(receive_a_part(&receiver).unwrap(), [b'x'; 1024]);
        assert_eq!(receive_a_part(&receiver).unwrap(), b"next");

        sender.send(&vec![b'x'; len]).unwrap();
        sender.send(b"next").unwrap();
        match receive_the_whole(&receiver) {
            Ok(datagram) => assert_eq!(datagram, vec![b'x'; len]),
            Err(error) => assert!(len > 1024 && error.kind() == ErrorKind::InvalidData),
        }
        assert_eq!(receive_the_whole(&receiver).unwrap(), b"next");
    }
}

// 17. UDP reports a refusal to a later call.

/// Sends a message through a connected socket.
fn tell(socket: &UdpSocket, message: &[u8]) -> io::Result<()> {
    socket.send(message)?; // The error may concern an earlier message, and this one is not sent.
    Ok(())
}

/// Sends a message through a connected socket. An error that waited there concerns an earlier
/// message, so the message is sent once more.
fn tell_or_tell_again(socket: &UdpSocket, message: &[u8]) -> io::Result<()> {
    match socket.send(message) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => socket.send(message)?,
        result => result?,
    };
    Ok(())
}

/// Returns a client that has sent a datagram to a socket that did not take it, so that an error
/// waits, and this socket, which now takes what comes from the client.
#[cfg(target_os = "linux")]
fn refused() -> (UdpSocket, UdpSocket) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // The server is connected elsewhere: it keeps its port, but takes nothing from the client.
    let server = udp_socket("127.0.0.1");
    let elsewhere = udp_socket("127.0.0.1");
    server.connect(elsewhere.local_addr().unwrap()).unwrap();
    let client = udp_socket("127.0.0.1");
    client.connect(server.local_addr().unwrap()).unwrap();
    tell(&client, b"first").expect("success, since the refusal comes later");
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut error = [PollFd::new(&client, PollFlags::empty())];
    assert_eq!(poll(&mut error, Some(&limit)).unwrap(), 1, "no refusal");
    server.connect(client.local_addr().unwrap()).unwrap();
    (client, server)
}

#[test]
#[cfg(target_os = "linux")]
fn a_refusal_is_reported_to_the_next_call_whatever_that_call_is() {
    let (client, _server) = refused();
    let error = client.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let (client, server) = refused();
    let error = tell(&client, b"second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    tell(&client, b"third").unwrap();
    let mut buffer = [0; 8];
    let len = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"third", "the second was not sent");

    let (client, server) = refused();
    tell_or_tell_again(&client, b"second").unwrap();
    let len = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"second");
}

// 18. A late answer is taken for the answer to the next question.

/// Sends a question, and takes the next datagram for the answer.
fn ask(socket: &UdpSocket, question: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(question)?;
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// Sends a question with a number, and takes only an answer that begins with this number.
fn ask_with_number(
    socket: &UdpSocket,
    number: u32,
    question: &[u8],
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let number = number.to_be_bytes();
    socket.send(&[&number, question].concat())?;
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if let Some(answer) = buffer[..len].strip_prefix(&number) {
                    return Ok(answer.to_vec());
                }
            }
            Err(error) if matches!(error.kind(), TIMED_OUT | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn a_late_answer_is_taken_for_the_answer_to_the_next_question_unless_it_has_a_number() {
    let (client, server) = udp_pair();
    client.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(ask(&client, b"one").unwrap_err().kind(), TIMED_OUT);
    echo_one(&server); // Too late.
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(ask(&client, b"two").unwrap(), b"one");
    echo_one(&server);
    assert_eq!(ask(&client, b"three").unwrap(), b"two");

    let (client, server) = udp_pair();
    let deadline = Instant::now() + SHORT;
    let error = ask_with_number(&client, 1, b"one", deadline).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    echo_one(&server); // Too late.
    thread::scope(|scope| {
        scope.spawn(|| echo_one(&server));
        let answer = ask_with_number(&client, 2, b"two", Instant::now() + LIMIT);
        assert_eq!(answer.unwrap(), b"two");
    });
}

// 19. An unconnected UDP socket takes datagrams from anybody.

/// Asks a server, and takes the next datagram for the answer, whoever sent it.
fn ask_anybody(socket: &UdpSocket, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    socket.send_to(question, server)?;
    let mut buffer = [0; 512];
    let (len, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// Asks a server, and takes a datagram for the answer only if this server sent it.
fn ask_only(socket: &UdpSocket, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    // From now on the kernel drops what others send. What they sent before still waits.
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = [0; 512];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        if from == server {
            return Ok(buffer[..len].to_vec());
        }
    }
}

#[test]
fn an_unconnected_socket_takes_the_answer_of_a_stranger_and_a_check_of_the_sender_does_not() {
    type Ask = fn(&UdpSocket, SocketAddr, &[u8]) -> io::Result<Vec<u8>>;
    let server = udp_socket("127.0.0.1");
    let stranger = udp_socket("127.0.0.1");
    let server_addr = server.local_addr().unwrap();
    for (ask, expected) in [(ask_anybody as Ask, &b"forged"[..]), (ask_only, b"hello")] {
        let client = udp_socket("127.0.0.1");
        stranger
            .send_to(b"forged", client.local_addr().unwrap())
            .unwrap();
        client.peek(&mut [0; 8]).unwrap(); // It has arrived.
        thread::scope(|scope| {
            scope.spawn(|| echo_one(&server));
            assert_eq!(ask(&client, server_addr, b"hello").unwrap(), expected);
        });
    }
}

// 20. "64 KB" is 65,507 bytes.

const PREFIX: &[u8] = b"echo: ";

/// Answers one datagram, with a word in front of it.
fn answer_with_prefix(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_535];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    socket.send_to(&[PREFIX, &buffer[..len]].concat(), peer)?;
    Ok(())
}

/// The longest payload over IPv4: 65,535 bytes without the headers of IPv4 (20) and UDP (8).
const MAX_PAYLOAD_V4: usize = 65_507;

/// Does the same. A question that leaves no room for the word is told so.
fn answer_within_the_limit(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_535];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    let answer = if PREFIX.len() + len <= MAX_PAYLOAD_V4 {
        [PREFIX, &buffer[..len]].concat()
    } else {
        b"error: too long".to_vec()
    };
    // An error concerns this peer alone, and must not end the server.
    let _ = socket.send_to(&answer, peer);
    Ok(())
}

#[test]
fn the_longest_datagram_leaves_no_room_for_a_prefix() {
    if cfg!(target_os = "macos") {
        return not_run("macOS sends at most net.inet.udp.maxdgram, 9216 bytes");
    }
    let (client, server) = udp_pair();
    client.send(&[b'x'; MAX_PAYLOAD_V4]).unwrap();
    let error = answer_with_prefix(&server).unwrap_err();
    #[cfg(target_os = "linux")]
    assert_eq!(error.to_string(), "Message too long (os error 90)");
    let _ = error;

    client.send(&[b'x'; MAX_PAYLOAD_V4]).unwrap();
    answer_within_the_limit(&server).unwrap();
    let mut buffer = vec![0; 65_535];
    let len = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"error: too long");
    client.send(&[b'x'; MAX_PAYLOAD_V4 - PREFIX.len()]).unwrap();
    answer_within_the_limit(&server).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), MAX_PAYLOAD_V4);
}

// 30. Two servers that answer everything answer each other forever.

/// Sends a datagram back, whoever sent it and whatever it is.
fn answer_everything(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 512];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    socket.send_to(&buffer[..len], peer)?;
    Ok(())
}

/// Answers a question, which begins with `?`. Its own answers begin with `!`, and nobody who
/// works like this answers them.
fn answer_questions(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 512];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    if let Some(question) = buffer[..len].strip_prefix(b"?") {
        socket.send_to(&[b"!", question].concat(), peer)?;
    }
    Ok(())
}

#[test]
fn two_servers_that_answer_everything_never_stop_and_two_that_answer_questions_do() {
    let [one, other] = [(); 2].map(|()| udp_socket("127.0.0.1"));
    // This is what a stranger achieves who forges the sender's address.
    other.send_to(b"?", one.local_addr().unwrap()).unwrap();
    for _ in 0..1000 {
        answer_everything(&one).expect("a datagram of the other server");
        answer_everything(&other).expect("a datagram of the other server");
    }
    answer_questions(&one).expect("the datagram still travels");
    answer_questions(&other).expect("the answer, which it does not answer");
    one.set_nonblocking(true).unwrap();
    let error = one.recv(&mut [0; 8]).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}
