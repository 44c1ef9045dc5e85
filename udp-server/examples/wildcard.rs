//! `udp-server` on all addresses: the echo comes from the address that the client sent to (Linux).
//!
//! ```console
//! $ cargo run -p udp-server --example wildcard             # terminal 1
//! listening on 0.0.0.0:7007
//! 127.0.0.1:50931: length 5
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- --addr 127.0.0.2:7007 hello # terminal 2
//! hello
//! 127.0.0.2:7007: answered in 86.4µs
//! ```
//!
//! A host can have many addresses. 0.0.0.0 and [::] are the *wildcard* addresses: a socket that is
//! bound to one of them receives what is sent to any address of the host. But such a socket has no
//! single address, and send_to says only where a datagram goes. So the kernel chooses the sender
//! address of an echo by the route to the peer, and this need not be the *destination address* of
//! the peer's datagram. A client with a connected socket, such as `udp-client`, does not get the
//! echo then, and a firewall on the way may drop it.
//!
//! The kernel can tell the destination address in a *control message*, which recvmsg(2) returns
//! beside the datagram. A socket asks for it by the option IP_PKTINFO (ip(7)), or IPV6_RECVPKTINFO
//! (ipv6(7)). sendmsg(2) takes the same control message, and sends from this address.
//!
//! TCP does not need this, because each connection has its own local address. A UDP server can also
//! do without: it opens one socket for each address, and follows when addresses come and go. The
//! price of control messages: std has none, they have the types of C, and each system has its own.
//!
//! Try next:
//!
//! - Start `cargo run -p udp-server -- --addr 0.0.0.0:7007` instead, and run the same client. The
//!   server echoes each attempt, and the client gets nothing. `sudo tcpdump -n -i lo udp` shows
//!   that the echoes come from 127.0.0.1.
//! - Start the example with `-- --addr '[::]:7007'`, and send to 127.0.0.2:7007, then to
//!   `'[::1]:7007'`. One socket serves both families.
//! - Send to all hosts: `cargo run -p udp-client --example one_to_many -- hello`. The kernel sends
//!   nothing from a broadcast address, so the echo comes from an address of the host.
//!
//! Read `udp-server` first: what it explains is not explained again. Read next: `batch`, for
//! more datagrams than `udp-server` can echo.

// On systems other than Linux, most of this is unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(target_os = "linux")]
use nix::{
    cmsg_space,
    libc::{in_pktinfo, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};

/// The same as in `udp-server`, which explains them.
const MAX_PAYLOAD: usize = 65_527;
const PAUSE: Duration = Duration::from_millis(100);

/// Send every UDP datagram back to its sender, from the address to which it was sent
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    ///
    /// Everybody who can reach this host can reach the default address; see `udp-server --help`.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:7007")]
    addr: String,

    /// Do not log datagrams
    #[arg(short, long)]
    quiet: bool,
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let args = Args::parse();
    let addr = &args.addr;
    let socket = UdpSocket::bind(addr);
    let socket = socket.with_context(|| format!("cannot bind a UDP socket to {addr}"))?;
    let local = socket.local_addr()?;
    ask_for_destinations(&socket, local).context("cannot ask for destination addresses")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

/// Asks the kernel for the destination address of each datagram. A socket on [::] also receives
/// IPv4 datagrams, and each of them then brings both control messages.
#[cfg(target_os = "linux")]
fn ask_for_destinations(socket: &UdpSocket, local: SocketAddr) -> nix::Result<()> {
    if local.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)
}

/// Echoes forever. Only `receive` and `send` are not as in `udp-server`.
#[cfg(target_os = "linux")]
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let line = match receive(socket, &mut buffer) {
            Ok((_, peer, _)) if is_refused(peer, own_port) => format!("{peer}: not answered"),
            Ok((len, peer, destination)) => match send(socket, &buffer[..len], peer, destination) {
                Ok(_) => format!("{peer}: length {len}"),
                Err(error) => format!("{peer}: cannot send the echo: {}", io::Error::from(error)),
            },
            Err(error) => {
                thread::sleep(PAUSE);
                format!("cannot receive: {error}")
            }
        };
        if !quiet {
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Takes a datagram from the queue. Returns its length, its sender, and the control message for its
/// echo, if there is one.
#[cfg(target_os = "linux")]
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<ControlMessageOwned>)> {
    let mut room = cmsg_space!(in_pktinfo, in6_pktinfo); // For both.
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg(socket.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let mut destination = None;
    for mut control in message.cmsgs()? {
        match &mut control {
            // `ipi_addr` is the destination address, and `ipi_spec_dst` is ours. They differ for a
            // broadcast and for a group, and the kernel sends from the second. Index 0 lets the
            // routing table choose the interface, instead of the one where the datagram came in.
            ControlMessageOwned::Ipv4PacketInfo(info) => info.ipi_ifindex = 0,
            // This one has the destination address alone. The kernel refuses to send from a group,
            // or from a broadcast address, so for IPv4 the other one is better. The index stays, as
            // a link-local address means nothing without its interface.
            ControlMessageOwned::Ipv6PacketInfo(info)
                if destination.is_none()
                    && !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_multicast() => {}
            _ => continue,
        }
        destination = Some(control);
    }
    let peer = message.address.and_then(to_std);
    let peer = peer.ok_or(ErrorKind::InvalidData)?;
    Ok((message.bytes, peer, destination))
}

/// Converts an address to the type of std. A UDP socket receives from no other addresses.
#[cfg(target_os = "linux")]
fn to_std(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
}

/// Whether an answer could do harm, since the sender may be forged; see `udp-server`.
fn is_refused(peer: SocketAddr, own_port: u16) -> bool {
    let (ip, port) = (peer.ip().to_canonical(), peer.port());
    port < 1024 || port == own_port || ip.is_unspecified() || ip.is_multicast()
}

/// Sends a datagram with this control message, which says from where. One that cannot be sent at
/// once is dropped; see `udp-server`.
#[cfg(target_os = "linux")]
fn send(
    socket: &UdpSocket,
    datagram: &[u8],
    peer: SocketAddr,
    destination: Option<ControlMessageOwned>,
) -> nix::Result<usize> {
    let control = match &destination {
        Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
            Some(ControlMessage::Ipv4PacketInfo(info))
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            Some(ControlMessage::Ipv6PacketInfo(info))
        }
        _ => None, // The kernel chooses.
    };
    let (slices, peer) = ([IoSlice::new(datagram)], SockaddrStorage::from(peer));
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    sendmsg(fd, &slices, control.as_slice(), flags, Some(&peer))
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot learn destination addresses: this example knows only Linux's way")
}
