//! The simplest UDP echo server that std allows. It is only for comparison with `udp-server`: any
//! error of any peer ends it.

use std::net::UdpSocket;

fn main() -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = [0; 65_536];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], peer)?;
    }
}
