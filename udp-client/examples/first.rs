//! The shortest UDP client. It sends one datagram, and prints what comes back. It waits forever if a
//! datagram is lost, and takes an echo from anybody. `src/main.rs` is the client for real use.
//!
//! ```console
//! $ cargo run -p udp-client --example first    # start that of udp-server first
//! 127.0.0.1:7007: hello
//! ```

use std::net::UdpSocket;

fn main() -> std::io::Result<()> {
    let server = std::env::args().nth(1).unwrap_or("127.0.0.1:7007".into());
    let socket = UdpSocket::bind("127.0.0.1:0")?; // The kernel chooses a free port.
    socket.send_to(b"hello", server)?;
    let mut buffer = [0; 65_527];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    println!("{peer}: {}", String::from_utf8_lossy(&buffer[..len]));
    Ok(())
}
