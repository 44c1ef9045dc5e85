//! What one read or write does: mistakes 7, 8, 9, 11 and 36.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::{SHORT, connection, echo_server, udp_pair, wait_until_arrived};

/// More than the buffers of a connection hold.
const MUCH: usize = 64 << 20;

// 7. A write may take only a part of the bytes.

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

// 8. `Ok(0)` is the end of a stream, or an empty datagram.

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
    let (client, server) = udp_pair();
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

// 9. `Vec::with_capacity` has no bytes to read into.

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
    let (sender, receiver) = udp_pair();
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

// 11. To send everything before reading can block both sides.

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

// 36. Two small writes and a read take 40 milliseconds.

/// Makes a system call, and so perhaps a segment, for each part: "get", " ", the key, "\n".
fn ask_in_parts(stream: &mut TcpStream, command: &str, key: &str) -> io::Result<()> {
    writeln!(stream, "{command} {key}")
}

/// Writes the whole message at once.
fn ask(stream: &mut TcpStream, command: &str, key: &str) -> io::Result<()> {
    let message = format!("{command} {key}\n");
    stream.write_all(message.as_bytes())
}

/// On Linux the peer's kernel acknowledges a small segment after 40 ms, and Nagle's algorithm
/// waits for that. Half of the exchanges may be disturbed, or be quick at the beginning.
#[test]
#[cfg(target_os = "linux")]
fn a_request_in_parts_waits_for_an_acknowledgement_and_a_whole_one_does_not() {
    let median = |nodelay: bool, ask: fn(&mut TcpStream, &str, &str) -> io::Result<()>| {
        let (mut client, server) = connection();
        client.set_nodelay(nodelay).unwrap();
        thread::spawn(move || {
            let mut requests = BufReader::new(&server);
            while requests.read_line(&mut String::new()).unwrap_or(0) > 0 {
                (&server).write_all(b".").unwrap();
            }
        });
        let mut times: Vec<Duration> = (0..31)
            .map(|_| {
                let started = Instant::now();
                ask(&mut client, "get", "key").unwrap();
                client.read_exact(&mut [0]).unwrap();
                started.elapsed()
            })
            .collect();
        times.sort();
        times[15]
    };
    let in_parts = median(false, ask_in_parts);
    let without_nagle = median(true, ask_in_parts);
    let whole = median(false, ask);
    println!("in parts {in_parts:?}, without Nagle {without_nagle:?}, whole {whole:?}");
    assert!(in_parts > 2 * whole, "{in_parts:?} and {whole:?}");
    assert!(
        in_parts > 2 * without_nagle,
        "{in_parts:?} and {without_nagle:?}"
    );
}
