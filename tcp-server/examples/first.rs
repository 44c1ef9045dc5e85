//! The shortest TCP server. It sends back what a client sends, until the client has sent all. All others
//! wait meanwhile, and an error with one client ends it. `src/main.rs` is the server for real use.
//!
//! ```console
//! $ cargo run -p tcp-server --example first    # terminal 1
//! listening on 127.0.0.1:7007
//! ```

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
