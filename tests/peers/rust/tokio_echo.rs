//! An echo server like tokio's own example, with a task for each connection. It is only for
//! comparison. Its arguments are `udp`, or `tcp` and the size of the buffer (1024 in the example),
//! or `unix`, the size of the buffer and a path. It has one line more than the example:
//! set_nodelay, because otherwise long messages would measure Nagle's algorithm.

use std::env;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

fn main() -> io::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tcp", buffer] => tcp(buffer.parse().unwrap()).await,
        ["udp"] => udp().await,
        #[cfg(unix)]
        ["unix", buffer, path] => unix(buffer.parse().unwrap(), path).await,
        _ => Err(io::Error::other(
            "write udp, tcp and a size, or unix, a size and a path",
        )),
    }
}

async fn tcp(buffer: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream, buffer));
    }
}

#[cfg(unix)]
async fn unix(buffer: usize, path: &str) -> io::Result<()> {
    let listener = tokio::net::UnixListener::bind(path)?;
    println!("listening on {path}");
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream, buffer));
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, buffer: usize) {
    let mut buffer = vec![0; buffer];
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..len]).await.is_err() {
            break;
        }
    }
}

async fn udp() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = vec![0; 65_536];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..len], peer).await?;
    }
}
