//! How to test a server that runs as a process, with std alone. The book shows it to those who test
//! programs of their own. All other tests use the harness.

use std::io::{self, BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use promises::catalog::UDP_SERVER;

/// The limit of each wait. A test that passes never waits so long.
const LIMIT: Duration = Duration::from_secs(30);

/// A program that a test has started. It ends with the test, also if the test panics.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server. Returns it, and the address that is in the line which it prints.
fn start(command: &mut Command) -> (Started, String) {
    let mut server = Started(command.stdout(Stdio::piped()).spawn().unwrap());
    let stdout = BufReader::new(server.0.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    // It reads until the server ends, so the pipe is never full.
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = receiver.recv_timeout(LIMIT).unwrap();
    let addr = line.strip_prefix("listening on ").unwrap();
    (server, addr.to_owned())
}

#[test]
fn a_server_that_a_test_starts_on_port_0_says_where_it_listens_and_echoes() {
    let (_server, addr) = start(UDP_SERVER.at("127.0.0.1:0").arg("--quiet"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(b"hello", addr).unwrap();
    let mut buffer = [0; 16];
    let len = client.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..len], *b"hello");
}

/// Gives one byte for each read, as a slow network may.
struct OneByte<R>(R);

impl<R: Read> Read for OneByte<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

/// Reads a message that has its length before it, in two bytes.
fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[test]
fn a_message_is_read_whole_if_its_bytes_come_one_at_a_time_and_is_an_error_if_its_end_is_missing() {
    let mut stream = OneByte(&b"\x00\x05hello"[..]);
    assert_eq!(read_message(&mut stream).unwrap(), b"hello");
    let mut stream = OneByte(&b"\x00\x05hel"[..]);
    let error = read_message(&mut stream).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
