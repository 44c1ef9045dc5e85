//! What only one TCP program promises: the TCP pair, and the examples `event_loop`, `graceful`,
//! `restart`, `lingering_close` and `chat`. What all of a kind promise is in `promises`.

mod chat;
mod client;
mod event_loop;
mod framing;
#[cfg(unix)]
mod graceful;
mod lingering_close;
#[cfg(unix)]
mod restart;
#[cfg(target_os = "linux")]
mod server;
mod threads;

#[cfg(unix)]
use std::io::{Read, Write};
#[cfg(unix)]
use std::net::Shutdown;
use std::net::TcpStream;
#[cfg(unix)]
use std::thread;
use std::time::Duration;

use harness::{LIMIT, Server, echo};
use socket2::SockRef;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server.addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Asserts that nothing more comes, and that the end is a FIN and no reset. Until then the test itself may
/// be suspended, and unlike read, read_to_end goes on.
#[cfg(unix)]
fn assert_ends(stream: &mut TcpStream) {
    let rest = stream.read_to_end(&mut Vec::new());
    assert_eq!(rest.expect("a FIN, and no reset"), 0);
}

fn assert_serves(server: &Server) {
    echo(&connect(server), b"still there?");
}

/// Sends the bytes from `sent` on, half-closes, and asserts that all of them come back.
#[cfg(unix)]
fn assert_rest_comes_back(stream: &TcpStream, bytes: &[u8], sent: usize) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&bytes[sent..]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let (mut stream, mut back) = (stream, Vec::new());
        let received = stream.read_to_end(&mut back);
        assert_eq!(received.expect("the rest of the echo"), bytes.len());
        assert!(back == bytes);
    });
}

/// Closes the connection with a reset instead of a FIN.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
