//! The shortest TCP server. It sends back what a client sends, and serves one client after the other.
//! Start it with `cargo run -p tcp-server --example first`, then the example `first` of `tcp-client`.
//! A client that stays makes all others wait, and one that fails ends it. `src/main.rs` serves many.

use std::io::{Read, Write};
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7007".into());
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    let mut buffer = [0; 4096];
    for stream in listener.incoming() {
        let mut stream = stream?;
        loop {
            let len = stream.read(&mut buffer)?;
            if len == 0 {
                break; // The client has sent all.
            }
            stream.write_all(&buffer[..len])?;
        }
    }
    Ok(())
}
