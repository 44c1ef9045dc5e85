//! Mistakes 1 to 17. The book shows the functions between the anchors.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use harness::{LIMIT, udp_socket};

use crate::{connection, echo_server, reset, wait_until_arrived};

/// Long enough to see that nothing comes.
const SHORT: Duration = Duration::from_millis(300);

/// More than the buffers of a connection hold.
const MUCH: usize = 64 << 20;

/// Starts an ignored test of this file as a process of its own, for what concerns a process.
#[cfg(target_os = "linux")]
fn child(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--nocapture", "--test-threads", "1", "--exact"]);
    command.arg(format!("up_to_17::{test}"));
    command
}

/// Returns what a child prints after `said: `.
#[cfg(target_os = "linux")]
fn said_by(child: &mut harness::Running) -> String {
    loop {
        if let Some((_, said)) = child.stdout_line().split_once("said: ") {
            return said.to_owned();
        }
    }
}

/// Takes what one read returns for one message.
fn read_a_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1024];
    let len = stream.read(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// The longest message that we accept, in bytes, without its newline.
const LONGEST: usize = 1024;

/// Reads up to the newline that ends a message. Returns `None` after the last message.
fn next_message(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    // A message without end must not fill the memory.
    let limit = LONGEST as u64 + 1;
    reader.take(limit).read_until(b'\n', &mut message)?;
    match message.pop() {
        Some(b'\n') => Ok(Some(message)),
        None => Ok(None),
        // The message is too long, or the stream has ended in the middle of it.
        Some(_) => Err(ErrorKind::InvalidData.into()),
    }
}

#[test]
fn a_read_returns_several_messages_or_a_part_of_one_and_only_a_delimiter_tells_them_apart() {
    let (mut sender, mut receiver) = connection();
    for message in ["one\n", "two\n", "three\n"] {
        sender.write_all(message.as_bytes()).unwrap();
    }
    wait_until_arrived(&receiver, 14);
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"one\ntwo\nthree\n");
    sender.write_all(b"ha").unwrap();
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"ha");
    sender.write_all(b"lf\n").unwrap();
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"lf\n");

    let longest = vec![b'x'; LONGEST];
    let messages = [&b"one"[..], b"", b"three", &longest];
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|message| [message, &b"\n"[..]].concat())
        .collect();
    for part in [1, 2, 1000, stream.len()] {
        let (mut sender, receiver) = connection();
        let mut receiver = BufReader::new(receiver);
        sender.set_nodelay(true).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for bytes in stream.chunks(part) {
                    sender.write_all(bytes).unwrap();
                }
                sender.shutdown(Shutdown::Write).unwrap();
            });
            for message in messages {
                let next = next_message(&mut receiver).unwrap();
                assert_eq!(next.as_deref(), Some(message), "written in parts of {part}");
            }
            assert_eq!(next_message(&mut receiver).unwrap(), None);
        });
    }
    for wrong in [&b"no newline"[..], &[b'x'; LONGEST + 1]] {
        let error = next_message(&mut &wrong[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

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
fn the_end_of_a_long_datagram_is_lost_in_silence_unless_the_buffer_has_a_byte_to_spare() {
    let receiver = udp_socket("127.0.0.1");
    let sender = udp_socket("127.0.0.1");
    sender.connect(receiver.local_addr().unwrap()).unwrap();
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

/// Asks a server. Waits for ever if the request, the answer or the server is lost.
fn ask(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(request, server)?;
    let mut buffer = [0; 1024];
    let (len, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

#[test]
fn without_a_time_limit_a_client_waits_as_long_as_no_answer_comes() {
    let server = udp_socket("127.0.0.1");
    let addr = server.local_addr().unwrap();
    let asking = thread::spawn(move || ask(addr, b"hello"));
    let (_, client) = server.recv_from(&mut [0; 64]).unwrap();
    thread::sleep(SHORT);
    assert!(!asking.is_finished(), "it waits, and sends nothing again");
    server.send_to(b"at last", client).unwrap();
    assert_eq!(asking.join().unwrap().unwrap(), b"at last");
}

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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    reset(TcpStream::connect(addr).unwrap());
    let mut next = TcpStream::connect(addr).unwrap(); // It waits in the backlog.
    next.write_all(b"hello").unwrap();
    let end = serve_until_an_error(&listener).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    next.set_nonblocking(true).unwrap();
    assert!(next.read(&mut [0; 8]).is_err(), "nobody has served it");
}

/// Receives a datagram, or returns `None` if none comes in time. (Only on Windows.)
fn receive_in_time_on_windows(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error),
    }
}

/// Receives a datagram, or returns `None` if none comes in time.
fn receive_in_time(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[test]
fn code_that_knows_only_timed_out_takes_an_expired_limit_for_a_failure() {
    let socket = udp_socket("127.0.0.1");
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let error = receive_in_time_on_windows(&socket, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(receive_in_time(&socket, &mut [0; 8]).unwrap(), None);
    // A non-blocking socket has the same error, at once.
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
#[cfg(target_os = "linux")]
fn a_time_limit_is_rounded_up_and_the_longest_is_none() {
    let socket = udp_socket("127.0.0.1");
    for limit in [1, 10_000, 50_001].map(Duration::from_micros) {
        socket.set_read_timeout(Some(limit)).unwrap();
        let kept = socket.read_timeout().unwrap().unwrap();
        println!("asked for {limit:?}, the kernel keeps {kept:?}");
        assert!(kept >= limit);
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
    socket.set_read_timeout(Some(Duration::MAX)).unwrap();
    assert_eq!(socket.read_timeout().unwrap(), None);
}

/// Linux drops a request for a connection while the listener's backlog is full.
#[test]
#[cfg(target_os = "linux")]
fn the_expired_limit_of_connect_is_timed_out_and_comes_from_std() {
    use socket2::{Domain, Socket, Type};
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let mut connected = Vec::new();
    let error = loop {
        match TcpStream::connect_timeout(&addr, SHORT) {
            Ok(stream) => connected.push(stream),
            Err(error) => break error,
        }
        assert!(connected.len() < 100, "the queue takes all");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.raw_os_error(), None, "no system call failed");
}

#[test]
fn a_clone_shares_the_time_limits_of_its_socket() {
    let socket = udp_socket("127.0.0.1");
    let clone = socket.try_clone().unwrap();
    clone.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(
        socket.read_timeout().unwrap(),
        clone.read_timeout().unwrap()
    );
    assert_eq!(
        socket.recv(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

/// Receives a datagram within ten seconds.
fn receive_once(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.recv(buffer)
}

#[test]
#[ignore = "the test below starts it, and suspends it"]
#[cfg(target_os = "linux")]
fn a_process_that_receives_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    println!("said: {}", socket.local_addr().unwrap());
    let mut buffer = [0; 64];
    let result = match std::env::var_os("WITHOUT_LIMIT") {
        Some(_) => socket.recv(&mut buffer),
        None => receive_once(&socket, &mut buffer),
    };
    println!("said: {:?}", result.map_err(|error| error.kind()));
}

#[test]
#[cfg(target_os = "linux")]
fn being_suspended_interrupts_a_call_with_a_time_limit_and_no_other() {
    use harness::Running;
    let pause = Duration::from_millis(50);
    let mut with_limit = Running::start(&mut child("a_process_that_receives_once"));
    said_by(&mut with_limit);
    while with_limit.is_running() {
        with_limit.suspend();
        with_limit.resume();
        thread::sleep(pause);
    }
    assert_eq!(said_by(&mut with_limit), "Err(Interrupted)");

    let mut child = child("a_process_that_receives_once");
    let mut without = Running::start(child.env("WITHOUT_LIMIT", "1"));
    let addr = said_by(&mut without);
    for _ in 0..5 {
        thread::sleep(pause);
        without.suspend();
        without.resume();
    }
    udp_socket("127.0.0.1").send_to(b"hello", addr).unwrap();
    assert_eq!(said_by(&mut without), "Ok(5)");
}

/// Sends a message, or a part of it. (clippy refuses a write whose result is not used.)
#[expect(clippy::unused_io_amount)]
fn send_a_part(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write(message)?;
    Ok(())
}

/// Sends a whole message. After an error nobody knows how much of it was sent.
fn send_the_whole(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)
}

#[test]
fn a_write_with_a_time_limit_takes_a_part_and_reports_success() {
    let message = vec![b'x'; MUCH];
    let receive = |mut stream: TcpStream| io::copy(&mut stream, &mut io::sink()).unwrap();
    let (sender, receiver) = connection();
    sender.set_write_timeout(Some(SHORT)).unwrap();
    send_a_part(&sender, &message).unwrap(); // Nobody reads yet.
    drop(sender);
    let received = receive(receiver);
    assert!((1..MUCH as u64).contains(&received), "{received} bytes");

    let (sender, receiver) = connection();
    let receiving = thread::spawn(move || receive(receiver));
    send_the_whole(&sender, &message).unwrap();
    drop(sender);
    assert_eq!(receiving.join().unwrap(), MUCH as u64);

    let (sender, receiver) = connection();
    sender.set_write_timeout(Some(SHORT)).unwrap();
    let error = send_the_whole(&sender, &message).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(sender);
    let received = receive(receiver);
    assert!((1..MUCH as u64).contains(&received), "{received} bytes");
}

/// Echoes datagrams. An empty datagram ends the server.
fn echo_until_an_empty_one(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        socket.send_to(&buffer[..len], peer)?;
    }
}

#[test]
fn an_empty_datagram_is_no_end_and_a_read_of_0_bytes_is_one() {
    let server = udp_socket("127.0.0.1");
    let client = udp_socket("127.0.0.1");
    client.connect(server.local_addr().unwrap()).unwrap();
    client.send(b"").unwrap();
    client.send(b"hello").unwrap();
    echo_until_an_empty_one(&server).unwrap(); // It has ended.
    assert_eq!(server.recv(&mut [0; 8]).unwrap(), 5, "nobody took this one");

    // A loop that does not end at 0 reads again and again, and never waits.
    let (client, mut server) = connection();
    client.shutdown(Shutdown::Write).unwrap();
    for _ in 0..1000 {
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// Reads into a buffer that has room for 1024 bytes, but no bytes.
fn read_into_nothing(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(1024);
    let len = stream.read(&mut buffer)?; // Always 0.
    buffer.truncate(len);
    Ok(buffer)
}

/// Reads into a buffer of 1024 bytes.
fn read_some(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    let len = stream.read(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn a_vec_with_capacity_has_no_bytes_to_read_into() {
    let (mut sender, mut receiver) = connection();
    sender.write_all(b"hello").unwrap();
    wait_until_arrived(&receiver, 5);
    assert_eq!(read_into_nothing(&mut receiver).unwrap(), b"");
    assert_eq!(read_some(&mut receiver).unwrap(), b"hello");

    // Of datagrams it takes the next one away, and keeps nothing of it.
    let receiver = udp_socket("127.0.0.1");
    let sender = udp_socket("127.0.0.1");
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    for datagram in [b"one", b"two"] {
        sender.send(datagram).unwrap();
    }
    assert_eq!(receiver.recv(&mut Vec::with_capacity(1024)).unwrap(), 0);
    let mut buffer = vec![0; 1024];
    let len = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"two");
}

/// If nothing has come, Linux waits, although there is nowhere to put it.
#[test]
#[cfg(target_os = "linux")]
fn a_read_into_an_empty_buffer_waits_as_long_as_nothing_comes() {
    let (mut sender, mut receiver) = connection();
    let reading = thread::spawn(move || read_into_nothing(&mut receiver).map(|_| receiver));
    thread::sleep(SHORT);
    assert!(!reading.is_finished());
    sender.write_all(b"hello").unwrap();
    let mut receiver = reading.join().unwrap().unwrap();
    assert_eq!(read_some(&mut receiver).unwrap(), b"hello");
}

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

/// Sends everything to an echo server, and then reads everything.
fn send_and_then_receive(mut stream: &TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(message)?; // Stands still when the buffers on the way are full.
    stream.shutdown(Shutdown::Write)?;
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo)?;
    Ok(echo)
}

#[test]
fn who_sends_all_before_reading_stands_still_and_who_does_both_at_once_does_not() {
    let server = echo_server();
    let short = send_and_then_receive(&TcpStream::connect(server).unwrap(), b"short").unwrap();
    assert_eq!(short, b"short", "a little fits into the buffers");
    let message = vec![b'x'; MUCH];
    let stream = TcpStream::connect(server).unwrap();
    stream.set_write_timeout(Some(SHORT)).unwrap();
    let error = send_and_then_receive(&stream, &message).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(stream);
}

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

#[test]
fn shutting_down_both_directions_wakes_a_thread_that_reads_a_clone() {
    let (client, _server) = connection();
    let mut clone = client.try_clone().unwrap();
    let reading = thread::spawn(move || clone.read(&mut [0; 8]));
    thread::sleep(SHORT);
    assert!(!reading.is_finished());
    client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(reading.join().unwrap().unwrap(), 0);
}

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
    use harness::{Running, limited};
    let connect = |addr: SocketAddr| -> Vec<TcpStream> {
        let connect = |_| TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        (0..40).map(connect).collect()
    };
    let command = child("a_process_that_accepts_again_at_once");
    let mut wrong = Running::start(&mut limited("--nofile=24", &command));
    let clients = connect(said_by(&mut wrong).parse().unwrap());
    let failures: usize = said_by(&mut wrong).parse().unwrap();
    assert!(
        failures > 900,
        "{failures} failures, and no client has left"
    );
    drop(clients);
}

#[test]
fn of_several_addresses_tcp_takes_the_first_that_accepts_and_udp_the_first_it_can_send_to() {
    use socket2::{Domain, Socket, Type};
    // It is bound, but does not listen.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let dead = deaf.local_addr().unwrap().as_socket().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let live = listener.local_addr().unwrap();
    let stream = TcpStream::connect(&[dead, live][..]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), live);

    let socket = udp_socket("127.0.0.1");
    socket.connect(&[dead, live][..]).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), dead, "nothing was asked");
    let ipv6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], live.port()));
    socket.connect(&[ipv6, live][..]).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), live, "the other family fails");

    let both = ["127.0.0.1:0", "127.0.0.2:0"].map(|addr| addr.parse().unwrap());
    let listener = TcpListener::bind::<&[SocketAddr]>(&both).unwrap();
    assert_eq!(listener.local_addr().unwrap().ip(), both[0].ip());
}

#[test]
fn a_server_on_one_loopback_address_is_not_reached_at_another() {
    if !cfg!(target_os = "linux") {
        return harness::not_run("only Linux has all of 127.0.0.0/8 as its own");
    }
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = TcpStream::connect(("127.0.0.2", one.local_addr().unwrap().port()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let all = TcpListener::bind("0.0.0.0:0").unwrap();
    TcpStream::connect(("127.0.0.2", all.local_addr().unwrap().port())).unwrap();
}

/// Sends from the loopback address, which leads to no other host.
fn send_from_loopback(message: &[u8], server: SocketAddr) -> io::Result<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(message, server)
}

/// Sends from the address of this host that leads to the server. The kernel chooses it.
fn send_from_any(message: &[u8], server: SocketAddr) -> io::Result<usize> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.send_to(message, server)
}

#[test]
#[ignore = "the test below starts it in a network of its own"]
#[cfg(target_os = "linux")]
fn a_process_that_sends_to_another_host() {
    let other = SocketAddr::from(([192, 0, 2, 2], 7007));
    let wrong = send_from_loopback(b"hello", other);
    println!("said: {:?}", wrong.map_err(|error| error.kind()));
    let right = send_from_any(b"hello", other);
    println!("said: {:?}", right.map_err(|error| error.kind()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_bound_to_loopback_cannot_send_to_another_host() {
    let set_up = "ip link set lo up && ip link add one type veth peer name two &&
        ip addr add 192.0.2.1/24 dev one && ip link set one up && ip link set two up";
    let command = child("a_process_that_sends_to_another_host");
    let Some(mut command) = harness::unshared("-rn", set_up, &command) else {
        return;
    };
    let mut process = harness::Running::start(&mut command);
    assert_eq!(said_by(&mut process), "Err(InvalidInput)");
    assert_eq!(said_by(&mut process), "Ok(5)");
}

/// Opens a listener as C and Python do if nobody asks for SO_REUSEADDR.
#[cfg(target_os = "linux")]
fn listen_without_reuse(addr: SocketAddr) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    Ok(socket)
}

#[test]
#[cfg(target_os = "linux")]
fn after_the_server_closed_first_its_port_is_taken_unless_it_asks_for_reuse() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    drop((client, listener));
    let error = listen_without_reuse(addr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    TcpListener::bind(addr).unwrap(); // std asks for it.
}

#[test]
#[cfg(target_os = "linux")]
fn two_listeners_exclude_each_other_if_one_address_includes_the_other() {
    let kind = |addr: (&str, u16)| TcpListener::bind(addr).map_err(|error| error.kind());
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = one.local_addr().unwrap().port();
    for taken in ["127.0.0.1", "0.0.0.0", "::"] {
        match kind((taken, port)) {
            // Without IPv6 there is no `::`.
            Err(ErrorKind::AddrInUse) => {}
            other => assert!(taken == "::" && other.is_err(), "{taken}: {other:?}"),
        }
    }
    assert!(kind(("127.0.0.2", port)).is_ok());
}

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
