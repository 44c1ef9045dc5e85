//! The shortest TCP client. It sends one line to a server, and prints the line that comes back.
//! Start the example `first` of `tcp-server`, then `cargo run -p tcp-client --example first`.
//! It waits forever for a server that is silent. `src/main.rs` does not, and sends any amount.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

fn main() -> std::io::Result<()> {
    let server = std::env::args().nth(1).unwrap_or("127.0.0.1:7007".into());
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"hello\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?; // The line may arrive in pieces.
    print!("{line}");
    Ok(())
}
