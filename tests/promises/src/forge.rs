//! Datagrams with a forged sender.

use std::net::{SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{Broken, Kept};

pub(crate) fn raw_socket(domain: Domain) -> Result<Socket, Broken> {
    const IPPROTO_RAW: i32 = 255; // We also write the IP header (raw(7)).
    let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
    raw.map_err(|error| Broken::not_asked(format!("no raw socket: {error}")))
}

/// Sends the server a datagram with a forged sender, which a UDP socket cannot do.
///
/// # Errors
///
/// There is no right to a raw socket.
pub fn forge(from: SocketAddrV4, server: SocketAddr) -> Kept {
    let raw = raw_socket(Domain::IPV4)?;
    let payload = b"forged";
    // RFC 791. The kernel fills in the length, the identification and the checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend([127, 0, 0, 1]);
    // RFC 768: ports, length, no checksum.
    for field in [from.port(), server.port(), 8 + payload.len() as u16, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    raw.send_to(&packet, &SockAddr::from(server))?;
    Ok(())
}
