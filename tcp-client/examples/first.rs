//! The shortest TCP client. It sends one line, and prints the line that comes back. It waits forever if
//! the server is silent, and sends no more than this line. `src/main.rs` is the client for real use.
//!
//! ```console
//! $ cargo run -p tcp-client --example first    # start that of tcp-server first
//! hello
//! ```

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
