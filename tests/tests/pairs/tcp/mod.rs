//! What only one TCP program promises: the TCP pair, and the examples `event_loop`, `graceful` and
//! `lingering_close`. What all of a kind promise is in `promises`.

mod client;
mod event_loop;
#[cfg(unix)]
mod graceful;
mod lingering_close;
#[cfg(target_os = "linux")]
mod server;
mod threads;

use std::net::TcpStream;
use std::time::Duration;

use harness::{LIMIT, Server, echo};
use socket2::SockRef;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server.addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn assert_serves(server: &Server) {
    echo(&connect(server), b"still there?");
}

/// Closes the connection with a reset instead of a FIN.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
