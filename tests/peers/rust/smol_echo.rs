//! A TCP echo server like smol's own example: a task for each connection copies until the end. It
//! is only for comparison. It has one line more than the example: set_nodelay, as in the others.

use std::net::{SocketAddr, TcpListener};

use smol::{Async, io};

fn main() -> io::Result<()> {
    smol::block_on(async {
        let listener = Async::<TcpListener>::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        println!("listening on {}", listener.get_ref().local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.get_ref().set_nodelay(true)?;
            smol::spawn(async move { io::copy(&stream, &mut &stream).await }).detach();
        }
    })
}
