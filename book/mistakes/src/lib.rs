//! The fifty mistakes of the book. Each test shows what the wrong code does, and what to write
//! instead. The book shows the functions between the lines with ANCHOR.

#![cfg(test)]

#[cfg(unix)]
mod up_to_17;
mod up_to_34;
#[cfg(unix)]
mod up_to_50;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use harness::LIMIT;
use socket2::SockRef;

/// Returns both ends of a connection: the client's and the server's.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    (client, server)
}

/// Starts a server that echoes on each connection until the client half-closes.
#[cfg(unix)]
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    addr
}

/// Closes a connection with a reset instead of a FIN.
#[cfg(unix)]
fn reset(stream: TcpStream) {
    let options = SockRef::from(&stream);
    options.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until this many bytes are in the receive queue, and leaves them there.
fn wait_until_arrived(stream: &TcpStream, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while stream.peek(&mut vec![0; count]).unwrap() < count {
        assert!(Instant::now() < deadline, "{count} bytes do not arrive");
        thread::sleep(Duration::from_millis(1));
    }
}
