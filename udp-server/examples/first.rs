//! The shortest UDP server. It sends each datagram back to the address it came from. An error with any
//! peer ends it, and it echoes what a forged sender asks for. `src/main.rs` is the server for real use.
//!
//! ```console
//! $ cargo run -p udp-server --example first    # terminal 1
//! listening on 127.0.0.1:7007
//! ```

use std::net::UdpSocket;

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7007".into());
    let socket = UdpSocket::bind(addr)?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = [0; 65_527]; // The longest datagram fits.
    loop {
        let (len, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], peer)?;
    }
}
