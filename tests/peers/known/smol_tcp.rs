//! The example `tcp-server` of smol, as it stands there, with the address as the only change:
//! <https://github.com/smol-rs/smol/blob/v2.0.2/examples/tcp-server.rs> (Apache License 2.0 or MIT License).
//! `judge --known` asks it for our promises.

use std::net::{SocketAddr, TcpListener, TcpStream};

use smol::{Async, io};

/// Echoes messages from the client back to it.
async fn echo(stream: Async<TcpStream>) -> io::Result<()> {
    io::copy(&stream, &mut &stream).await?;
    Ok(())
}

fn main() -> io::Result<()> {
    smol::block_on(async {
        // Create a listener.
        let addr: SocketAddr = std::env::args().nth(1).unwrap().parse().unwrap();
        let listener = Async::<TcpListener>::bind(addr)?;
        println!("Listening on {}", listener.get_ref().local_addr()?);
        println!("Now start a TCP client.");

        // Accept clients in a loop.
        loop {
            let (stream, peer_addr) = listener.accept().await?;
            println!("Accepted client: {}", peer_addr);

            // Spawn a task that echoes messages from the client back to it.
            smol::spawn(echo(stream)).detach();
        }
    })
}
