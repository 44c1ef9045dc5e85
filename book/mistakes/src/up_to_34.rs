//! Mistakes 18 to 34.

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::{connection, wait_until_arrived};
use harness::{LIMIT, not_run, udp_socket};
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixDatagram;
#[cfg(unix)]
use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

/// The error of a read or write that ran out of time. Unix and Windows have different ones.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// A time limit that is meant to run out.
const SHORT: Duration = Duration::from_millis(30);

/// Returns a client that is connected to a server, and the server.
fn udp_pair() -> (UdpSocket, UdpSocket) {
    let (client, server) = (udp_socket("127.0.0.1"), udp_socket("127.0.0.1"));
    client.connect(server.local_addr().unwrap()).unwrap();
    (client, server)
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Sends the next datagram back.
fn echo_one(server: &UdpSocket) {
    let mut buffer = [0; 512];
    let (len, client) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..len], client).unwrap();
}

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

/// Reads a line, or returns `None` when the time limit of the stream is over.
fn line_or_nothing(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(_) => Ok(Some(line)),
        Err(error) if error.kind() == TIMED_OUT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Does the same, but the caller keeps in `part` what has come of a line so far.
fn line_or_part(reader: &mut impl BufRead, part: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    match reader.read_until(b'\n', part) {
        Ok(_) => Ok(Some(mem::take(part))),
        Err(error) if error.kind() == TIMED_OUT => Ok(None),
        Err(error) => Err(error),
    }
}

#[test]
fn a_time_limit_in_mid_line_loses_its_beginning_unless_the_caller_keeps_it() {
    let (mut client, server) = connection();
    let mut reader = BufReader::new(server);
    client.write_all(b"hel").unwrap();
    wait_until_arrived(reader.get_ref(), 3);
    reader.get_ref().set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(line_or_nothing(&mut reader).unwrap(), None);
    client.write_all(b"lo\n").unwrap();
    reader.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
    let line = line_or_nothing(&mut reader).unwrap();
    assert_eq!(line.as_deref(), Some("lo\n"), "\"hel\" is lost");

    let mut part = Vec::new();
    let euro = "1 €\n".as_bytes(); // The sign has three bytes, and comes in two parts.
    client.write_all(&euro[..3]).unwrap();
    wait_until_arrived(reader.get_ref(), 3);
    reader.get_ref().set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(line_or_part(&mut reader, &mut part).unwrap(), None);
    client.write_all(&euro[3..]).unwrap();
    reader.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
    let line = line_or_part(&mut reader, &mut part).unwrap();
    assert_eq!(line.as_deref(), Some(euro));
}

#[test]
fn a_time_limit_in_mid_character_loses_it_even_if_the_caller_keeps_the_string() {
    let (mut client, server) = connection();
    let mut reader = BufReader::new(server);
    let euro = "1 €\n".as_bytes();
    client.write_all(&euro[..3]).unwrap();
    wait_until_arrived(reader.get_ref(), 3);
    reader.get_ref().set_read_timeout(Some(SHORT)).unwrap();
    let mut line = String::new();
    let error = reader.read_line(&mut line).unwrap_err();
    assert_eq!((error.kind(), &line[..]), (TIMED_OUT, ""));
    client.write_all(&euro[3..]).unwrap();
    reader.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
    let error = reader.read_line(&mut line).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

/// Reads a request of one line. The time limit applies to each read.
fn request_with_time_limit(stream: &TcpStream, limit: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(limit))?;
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// A stream that can be read until a deadline: each read gets the time that is left.
struct UntilDeadline<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for UntilDeadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// Reads a request of one line. The deadline applies to the whole line.
fn request_by_deadline(stream: &TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(UntilDeadline { stream, deadline }).read_until(b'\n', &mut line)?;
    Ok(line)
}

#[test]
fn a_drip_holds_a_reader_beyond_its_time_limit_but_not_beyond_a_deadline() {
    let drip = |mut client: &TcpStream| {
        client.write_all(b"x").unwrap();
        thread::sleep(Duration::from_millis(10));
    };
    let limit = Duration::from_secs(2); // No pause between two drips is nearly that long.
    let longer = limit + Duration::from_millis(500);
    let (client, server) = connection();
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while started.elapsed() < longer {
                drip(&client);
            }
            (&client).write_all(b"\n").unwrap();
        });
        let request = request_with_time_limit(&server, limit).unwrap();
        assert!(request.ends_with(b"xx\n") && started.elapsed() >= longer);
    });

    let started = Instant::now();
    thread::scope(|scope| {
        let reading = scope.spawn(|| request_by_deadline(&server, started + 5 * SHORT));
        while !reading.is_finished() {
            assert!(started.elapsed() < LIMIT, "held by drips");
            drip(&client);
        }
        let error = reading.join().unwrap().unwrap_err().kind();
        assert!(matches!(error, TIMED_OUT | ErrorKind::TimedOut), "{error}");
    });
}

/// Reads a line, however long it is.
fn any_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The longest line, with its newline.
const MAX_LINE: usize = 1024;

/// Reads a line, and refuses one that is too long.
fn short_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    // One byte more than allowed, to tell a line that fits from one that is too long.
    let mut limited = reader.take(MAX_LINE as u64 + 1);
    limited.read_until(b'\n', &mut line)?;
    if line.len() > MAX_LINE {
        return Err(io::Error::new(ErrorKind::InvalidData, "a line is too long"));
    }
    Ok(line)
}

#[test]
fn a_line_without_end_is_kept_in_memory_unless_its_length_is_limited() {
    const SENT: usize = 10 << 20;
    let send = |mut client: TcpStream| {
        // This fails if the server has refused the line meanwhile.
        let _ = client.write_all(&vec![b'x'; SENT]);
    };
    let (client, server) = connection();
    let sending = thread::spawn(move || send(client));
    assert_eq!(any_line(&mut BufReader::new(server)).unwrap().len(), SENT);
    sending.join().unwrap();

    let (client, server) = connection();
    let sending = thread::spawn(move || send(client));
    let error = short_line(&mut BufReader::new(server)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    sending.join().unwrap();

    let longest = [&[b'x'; MAX_LINE - 1][..], b"\nnext\n"].concat();
    let mut reader = &longest[..];
    assert_eq!(short_line(&mut reader).unwrap().len(), MAX_LINE);
    assert_eq!(short_line(&mut reader).unwrap(), b"next\n");
}

/// Echoes lines, with a new BufReader for each.
fn echo_lines_with_new_readers(mut stream: &TcpStream) -> io::Result<()> {
    let mut line = Vec::new();
    while BufReader::new(stream).read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

/// Echoes lines, with one BufReader as long as the connection lasts.
fn echo_lines(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

#[test]
fn a_reader_that_is_dropped_takes_the_second_line_with_it() {
    for (echo, expected) in [
        (
            echo_lines_with_new_readers as fn(&TcpStream) -> io::Result<()>,
            "first\n",
        ),
        (echo_lines, "first\nsecond\n"),
    ] {
        let (mut client, server) = connection();
        client.write_all(b"first\nsecond\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        wait_until_arrived(&server, 13);
        echo(&server).unwrap();
        drop(server);
        let echoed = read_to_end(&client).unwrap();
        assert_eq!(String::from_utf8_lossy(&echoed), expected);
    }
}

#[test]
fn what_a_buf_writer_holds_is_sent_only_by_flush() {
    let (client, mut server) = connection();
    let mut writer = BufWriter::new(client);
    writeln!(writer, "hello").unwrap();
    writer.get_ref().flush().unwrap(); // This flush is TcpStream's, which does nothing.
    server.set_read_timeout(Some(SHORT)).unwrap();
    let error = server.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), TIMED_OUT);

    writer.flush().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    server.read_exact(&mut [0; 6]).expect("the line");
}

#[cfg(unix)]
/// Listens at a path, and first removes whatever is there.
fn listen_by_force(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    UnixListener::bind(path)
}

#[test]
#[cfg(unix)]
fn the_file_outlives_its_listener_and_removing_it_by_force_robs_a_live_one() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let error = UnixListener::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let deadline = Instant::now() + LIMIT;
    let error = loop {
        // A program that another test is starting may have the socket open for a moment longer.
        match UnixStream::connect(&path) {
            Ok(_) => assert!(Instant::now() < deadline, "it does not close"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let first = listen_by_force(&path).unwrap();
    let second = listen_by_force(&path).expect("no error, although the first still lives");
    let _client = UnixStream::connect(&path).unwrap();
    second.accept().unwrap();
    first.set_nonblocking(true).unwrap();
    let error = first.accept().expect_err("nobody finds the first any more");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let error = UnixListener::bind(&precious).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    listen_by_force(&precious).expect("no error, although this was no socket");
    assert!(fs::read(&precious).is_err(), "the file is gone");
}

#[cfg(unix)]
/// Makes a link with a short path to a folder with a long one. The kernel counts only the
/// bytes of the path that it is given.
fn listen_through_link(folder: &Path, link: &Path, name: &str) -> io::Result<UnixListener> {
    std::os::unix::fs::symlink(folder, link)?;
    UnixListener::bind(link.join(name))
}

#[test]
#[cfg(unix)]
fn std_refuses_a_long_path_and_a_link_makes_it_short() {
    let folder = harness::folder();
    let long = folder.path().join("long".repeat(25));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("file"), "a file may have a long path").unwrap();
    let error = UnixListener::bind(long.join("socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "path must be shorter than SUN_LEN");
    assert_eq!(error.raw_os_error(), None, "the kernel was not asked");

    let link = folder.path().join("l");
    let _listener = listen_through_link(&long, &link, "socket").unwrap();
    UnixStream::connect(link.join("socket")).unwrap();
    assert!(fs::symlink_metadata(long.join("socket")).is_ok());
}

#[cfg(target_os = "linux")]
/// Opens a socket that can send to a server, but that the server cannot send to.
fn open_without_address(server: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(server)?;
    Ok(socket)
}

#[test]
#[cfg(target_os = "linux")]
fn an_unbound_unix_datagram_cannot_be_answered_and_a_bound_one_can() {
    let folder = harness::folder();
    let path = folder.path().join("server");
    let server = UnixDatagram::bind(&path).unwrap();
    let mut buffer = [0; 16];

    let unbound = open_without_address(&path).unwrap();
    unbound.send(b"hello").unwrap();
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    assert!(peer.is_unnamed());
    let error = server.send_to_addr(b"hello", &peer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let bound = UnixDatagram::bind("").unwrap();
    bound.connect(&path).unwrap();
    bound.send(b"hello").unwrap();
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to_addr(b"hello", &peer).unwrap();
    assert_eq!(bound.recv(&mut buffer).unwrap(), 5);
    let names = fs::read_dir(folder.path()).unwrap();
    assert_eq!(names.count(), 1, "the server's file alone");
}

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

#[cfg(target_os = "linux")]
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

#[cfg(target_os = "linux")]
/// Greets the next client by its address.
fn greet_by_peer_addr(listener: &TcpListener) -> io::Result<String> {
    let (stream, _) = listener.accept()?;
    Ok(format!("hello, {}", stream.peer_addr()?))
}

#[cfg(target_os = "linux")]
/// Does the same, with the address that accept has returned.
fn greet(listener: &TcpListener) -> io::Result<String> {
    let (_stream, peer) = listener.accept()?;
    Ok(format!("hello, {peer}"))
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_has_reset_is_accepted_but_has_no_address_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reset_before_accept = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let addr = client.local_addr().unwrap();
        let options = socket2::SockRef::from(&client);
        options.set_linger(Some(Duration::ZERO)).unwrap();
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

#[cfg(target_os = "linux")]
const REFUSAL: &[u8] = b"error: too long\n";

#[cfg(target_os = "linux")]
/// Refuses a request, and closes the connection without reading the rest of it.
fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL)
}

#[cfg(target_os = "linux")]
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
