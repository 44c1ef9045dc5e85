//! An echo server over io_uring with compio, as its documentation writes one: a task for each connection, and a buffer
//! that goes into each call and comes back from it, because the kernel uses it meanwhile. It is only for comparison.
//! Its argument is `tcp` or `udp`. `set_nodelay` is ours, because otherwise long messages would measure Nagle's
//! algorithm.
#![cfg(target_os = "linux")]

use std::env;
use std::io;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream, UdpSocket};

#[compio::main]
async fn main() -> io::Result<()> {
    match env::args().nth(1).as_deref() {
        Some("tcp") => tcp().await,
        Some("udp") => udp().await,
        _ => Err(io::Error::other("write tcp or udp")),
    }
}

async fn tcp() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        compio::runtime::spawn(echo(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(48 * 1024);
    loop {
        let BufResult(read, filled) = stream.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let BufResult(written, emptied) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}

async fn udp() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = Vec::with_capacity(65_536);
    loop {
        let BufResult(received, filled) = socket.recv_from(buffer).await;
        let (_, peer) = received?;
        let BufResult(sent, emptied) = socket.send_to(filled, peer).await;
        sent?;
        buffer = emptied;
        buffer.clear();
    }
}
