//! The fifty mistakes of the book. Each test shows what the wrong code does, and what to write
//! instead. The book shows the functions, by their names. Mistakes 21, 22 and 45 need no code.

#![cfg(test)]
// Elsewhere some tests are left out, but not what they call.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

#[cfg(unix)]
mod addresses;
mod closing;
mod datagrams;
mod limits;
mod messages;
#[cfg(unix)]
mod reads_and_writes;
#[cfg(unix)]
mod servers;
#[cfg(unix)]
mod threads;
#[cfg(unix)]
mod unix;

use std::env;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, udp_socket};
use socket2::{Domain, SockRef, Socket, Type};

/// A time limit that is meant to run out, and how long a test watches that nothing happens.
const SHORT: Duration = Duration::from_millis(200);

/// The error of a read or write that ran out of time. Unix and Windows have different ones.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// Returns a listener, and the address to connect to.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Returns a TCP socket that is bound, so that nobody else has its port, but does not listen.
fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Returns both ends of a connection: the client's and the server's.
fn connection() -> (TcpStream, TcpStream) {
    let (listener, addr) = listener();
    let client = TcpStream::connect(addr).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    (client, server)
}

/// Returns a client that is connected to a server, and the server.
fn udp_pair() -> (UdpSocket, UdpSocket) {
    let (client, server) = (udp_socket("127.0.0.1"), udp_socket("127.0.0.1"));
    client.connect(server.local_addr().unwrap()).unwrap();
    (client, server)
}

/// Starts a server that echoes on each connection until the client half-closes.
fn echo_server() -> SocketAddr {
    let (listener, addr) = listener();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    addr
}

/// Waits until this many bytes are in the receive queue, and leaves them there.
fn wait_until_arrived(stream: &TcpStream, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while stream.peek(&mut vec![0; count]).unwrap() < count {
        assert!(Instant::now() < deadline, "{count} bytes do not arrive");
        thread::sleep(Duration::from_millis(1));
    }
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Closes a connection with a reset instead of a FIN.
fn reset(stream: TcpStream) {
    let options = SockRef::from(&stream);
    options.set_linger(Some(Duration::ZERO)).unwrap();
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

/// Starts an ignored test as a process of its own, for what concerns a process.
fn child(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--nocapture", "--test-threads", "1", "--exact"]);
    command.arg(test);
    command
}

/// Returns what a child prints after `said: `.
fn said_by(child: &mut Running) -> String {
    loop {
        if let Some((_, said)) = child.stdout_line().split_once("said: ") {
            return said.to_owned();
        }
    }
}
