//! `udp-server` on all addresses: it answers from the address that was asked (Linux).
//!
//! ```console
//! $ cargo run -p udp-server --example wildcard             # terminal 1
//! listening on 0.0.0.0:7007
//! 127.0.0.1:50931: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- --addr 127.0.0.2:7007 hello # terminal 2
//! hello
//! 127.0.0.2:7007: answered in 86.4µs
//! ```
//!
//! A host can have many addresses. 0.0.0.0 and [::] are the *wildcard* addresses: a socket that is
//! bound to one of them receives what is sent to any of the host's addresses. But send_to says
//! only where a datagram goes, not from where. So the kernel chooses the sender address, by the
//! route to the peer, and this need not be the address that the peer has asked. A client with a
//! connected socket, such as `udp-client`, or a firewall on the way, then drops the answer.
//!
//! The answer to "which of my addresses?" travels beside the datagram, in a *control message*. If
//! the option IP_PKTINFO is set (IPV6_RECVPKTINFO for IPv6), recvmsg(2) returns a control message
//! with the address to which the datagram was sent. If sendmsg(2) gets the same one, it sends from
//! this address.
//!
//! This is for a UDP server on a host with several addresses. TCP does not need it, because
//! each connection has its own local address. The other way is one socket for each address, which
//! needs no control messages, but must follow when addresses come and go. The price here: std
//! has no control messages, they have the types of C, and each system has its own.
//!
//! Try next:
//!
//! - Ask `udp-server -- --addr 0.0.0.0:7007` at 127.0.0.2. It logs and answers each attempt, and
//!   the client hears nothing. `tcpdump -n -i lo udp` shows from where the answers come.
//! - Start it with `-- --addr [::]:7007` and ask 127.0.0.2, then ::1. One socket serves both.
//! - Ask all hosts: `cargo run -p udp-client --example one_to_many -- hello`. Nobody can send from
//!   a broadcast address, so the answer comes from one of the host's own.
//!
//! Read `udp-server` first: what it explains is not explained again.

// On other systems than Linux, only the last function is used.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::fmt;
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

/// The longest payload, in bytes; `udp-server` explains it.
const MAX_PAYLOAD: usize = 65_527;

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Send every UDP datagram back to its sender, from the address that was asked
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    ///
    /// Everybody who can reach this host can reach the default address. The sender address of
    /// a datagram can be forged, and an echo server then sends its answers to somebody who
    /// never asked.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:7007")]
    addr: String,

    /// Do not log datagrams
    #[arg(short, long)]
    quiet: bool,
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let args = Args::parse();
    let socket = bind(&args.addr)?;
    let local = socket
        .local_addr()
        .context("cannot read the address of the socket")?;
    ask_for_addresses(&socket, local).context("cannot ask for the addresses of datagrams")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

fn bind(addr: &str) -> Result<UdpSocket> {
    UdpSocket::bind(addr).with_context(|| format!("cannot bind a UDP socket to {addr}"))
}

/// Makes the kernel add the address to each datagram. An IPv6 socket needs both options, because
/// it also receives IPv4 datagrams, from peers such as ::ffff:127.0.0.1.
#[cfg(target_os = "linux")]
fn ask_for_addresses(socket: &UdpSocket, local: SocketAddr) -> nix::Result<()> {
    if local.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)
}

/// Echoes forever. Only `receive` and `echo` differ from `udp-server`.
#[cfg(target_os = "linux")]
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match receive(socket, &mut buffer) {
            Ok((len, peer, asked)) => match refusal(peer, own_port) {
                None => echo(socket, &buffer[..len], peer, asked, quiet),
                Some(reason) => log(quiet, format_args!("{peer}: not answered, {reason}")),
            },
            Err(error) => {
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// The address that was asked, in the form in which the kernel tells it and takes it back.
#[cfg(target_os = "linux")]
enum Asked {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    /// A group of IPv6. The kernel chooses the sender address.
    Group,
}

/// Takes a datagram from the queue. Returns its length, its sender, and the address that it asked.
#[cfg(target_os = "linux")]
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Asked)> {
    // The kernel leaves out control messages for which there is no room.
    let mut room = cmsg_space!(in_pktinfo, in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg(socket.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let mut asked = Asked::Group;
    for control in message.cmsgs()? {
        match control {
            // `ipi_addr` is where the datagram went, and `ipi_spec_dst` is our own address. They
            // differ for a broadcast and for a group. The kernel takes only the second back. Index
            // 0: the answer need not leave where the datagram came in; the routing table decides.
            ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                info.ipi_ifindex = 0;
                asked = Asked::V4(info);
            }
            // Here the index stays: a link-local address means nothing without its interface.
            ControlMessageOwned::Ipv6PacketInfo(info) if is_ours(&info) => {
                asked = Asked::V6(info);
            }
            _ => {}
        }
    }
    let peer = message.address.and_then(to_std);
    Ok((message.bytes, peer.ok_or(ErrorKind::InvalidData)?, asked))
}

/// Whether IPv6 can send from this address. For IPv4 peers, the other message has the address.
#[cfg(target_os = "linux")]
fn is_ours(info: &in6_pktinfo) -> bool {
    let addr = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    !addr.is_multicast() && addr.to_ipv4_mapped().is_none()
}

/// Converts an address to the type of std. A UDP socket receives no other kinds.
#[cfg(target_os = "linux")]
fn to_std(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
}

/// Returns the reason not to answer a peer, if there is one.
fn refusal(peer: SocketAddr, own_port: u16) -> Option<&'static str> {
    let ip = peer.ip().to_canonical();
    match peer.port() {
        0 => Some("port 0 asks for no answer (RFC 768)"),
        1..1024 => Some("ports below 1024 belong to system services"),
        port if port == own_port => Some("our own port number, perhaps another echo server"),
        _ if ip.is_unspecified() || ip.is_multicast() => Some("an address that no host has"),
        _ => None,
    }
}

/// Sends a datagram back, from the address that was asked.
#[cfg(target_os = "linux")]
fn echo(socket: &UdpSocket, datagram: &[u8], peer: SocketAddr, asked: Asked, quiet: bool) {
    let control = match &asked {
        Asked::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
        Asked::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
        Asked::Group => None,
    };
    let slices = [IoSlice::new(datagram)];
    let to = SockaddrStorage::from(peer);
    let flags = MsgFlags::MSG_DONTWAIT; // An echo that cannot be sent at once is dropped.
    match sendmsg(
        socket.as_raw_fd(),
        &slices,
        control.as_slice(),
        flags,
        Some(&to),
    ) {
        Ok(len) => {
            let shown = datagram[..len.min(SHOWN)].escape_ascii();
            let more = if len > SHOWN { "..." } else { "" };
            log(
                quiet,
                format_args!("{peer}: length {len} \"{shown}\"{more}"),
            );
        }
        Err(error) => {
            let error = io::Error::from(error);
            log(quiet, format_args!("{peer}: cannot send the echo: {error}"));
        }
    }
}

fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot learn which address was asked: this example knows only Linux's way")
}
