//! Limits of time, and what interrupts a wait: mistakes 3, 5, 6, 23 and 24.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, udp_socket};

use crate::{
    SHORT, TIMED_OUT, UntilDeadline, bound, child, connection, said_by, wait_until_arrived,
};

// 3. An answer may never come.

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

// 5. An expired time limit is `WouldBlock` on Unix, and `TimedOut` on Windows.

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
#[cfg(unix)]
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
    let (full, addr) = bound();
    full.listen(0).unwrap();
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

// 6. A call with a time limit can be interrupted.

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
    let pause = Duration::from_millis(50);
    let mut with_limit = Running::start(&mut child("limits::a_process_that_receives_once"));
    said_by(&mut with_limit);
    while with_limit.is_running() {
        with_limit.suspend();
        with_limit.resume();
        thread::sleep(pause);
    }
    assert_eq!(said_by(&mut with_limit), "Err(Interrupted)");

    let mut child = child("limits::a_process_that_receives_once");
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

// 23. A time limit in the middle of a line loses its beginning.

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

// 24. A time limit on each read does not limit the request.

/// Reads a request of one line. The time limit applies to each read.
fn request_with_time_limit(stream: &TcpStream, limit: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(limit))?;
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line)?;
    Ok(line)
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
