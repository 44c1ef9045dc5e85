//! `udp-server` once more, but with many datagrams to a system call.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, LineWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// The most datagrams that one system call takes or sends.
const BATCH: usize = 64;

/// The most bytes that a datagram carries over IPv6; over IPv4 it is 20 less, see `udp-server`.
const MAX_PAYLOAD: usize = 65_527;

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The pause after a failed receive, so that a lasting failure does not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Send every UDP datagram back to its sender
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 lets the kernel choose. Think before you open it to others (0.0.0.0):
    /// whoever forges a sender makes it send to a third
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007", value_parser = host_and_port)]
    addr: String,

    /// A multicast group to hear as well, and if need be the interface: for IPv4 by its address, as in
    /// 239.1.2.3%127.0.0.1, for IPv6 by its number, as in ff12::7007%2. Listen on all addresses for it
    #[arg(long, value_name = "GROUP", value_parser = group)]
    join: Option<Group>,

    /// Log no datagrams
    #[arg(short, long)]
    quiet: bool,
}

/// A multicast group and an interface. The unspecified one leaves the choice to the kernel's routes.
#[derive(Clone)]
enum Group {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, u32),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let socket = bind(&args.addr)?;
    if let Some(group) = &args.join {
        join(&socket, group)?;
    }
    let local = socket.local_addr().context("cannot read the socket's own address")?;
    // Not println!, which panics when nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

/// Checks the form of an address. Whether the host exists is for the resolver to say.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("write HOST:PORT, the port from 0 to 65535: 127.0.0.1:7007, [::1]:7007".into()),
    }
}

fn group(text: &str) -> Result<Group> {
    let (group, interface) = text.split_once('%').unwrap_or((text, ""));
    let interface = Some(interface).filter(|interface| !interface.is_empty());
    let group: IpAddr = group.parse()?;
    ensure!(
        group.is_multicast(),
        "not a multicast address: those are 224.0.0.0 to 239.255.255.255, and ff00::/8"
    );
    Ok(match group {
        IpAddr::V4(group) => Group::V4(group, interface.map_or(Ok(Ipv4Addr::UNSPECIFIED), str::parse)?),
        IpAddr::V6(group) => Group::V6(group, interface.map_or(Ok(0), str::parse)?),
    })
}

/// Opens a socket and gives it its name: an address and a port at which others reach it.
fn bind(addr: &str) -> Result<UdpSocket> {
    UdpSocket::bind(addr).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                ": another socket has this address; end its program or choose another port"
            }
            ErrorKind::PermissionDenied => ": ports below 1024 are the system's; choose a higher one",
            ErrorKind::AddrNotAvailable => {
                ": not an address of this machine; 0.0.0.0 and [::] stand for all that are"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot bind a UDP socket to {addr}{advice}"))
    })
}

/// Has the kernel take from an interface what is sent to a group, and tell the routers there (IGMP, MLD).
/// One datagram then reaches all members, and each answers for itself.
fn join(socket: &UdpSocket, group: &Group) -> Result<()> {
    match group {
        Group::V4(group, interface) => socket
            .join_multicast_v4(group, interface)
            .with_context(|| format!("cannot join {group} on interface {interface}")),
        Group::V6(group, interface) => socket
            .join_multicast_v6(group, *interface)
            .with_context(|| format!("cannot join {group} on interface {interface}")),
    }
}

/// What came, and from whom.
struct Datagram<'a> {
    bytes: &'a [u8],
    peer: SocketAddr,
}

/// Echoes for ever: takes what is there, sorts out what must not be answered, and answers the rest.
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    // 4 MiB, of which a page becomes memory when the first datagram is written to it.
    let mut memory = vec![0; BATCH * MAX_PAYLOAD];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    // Rust's stderr has no buffer: each piece of a format would be a write(2) of its own.
    let mut stderr = LineWriter::new(io::stderr());
    let mut log = |line: fmt::Arguments| {
        if !quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = writeln!(stderr, "{line}");
        }
    };
    loop {
        let mut slots: Vec<_> =
            memory.chunks_exact_mut(MAX_PAYLOAD).map(|slot| [IoSliceMut::new(slot)]).collect();
        // Waits for one datagram, and takes those that are there by then: a lone one is not held up.
        let wait_for_one = MsgFlags::MSG_WAITFORONE;
        let received = match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, wait_for_one, None) {
            Ok(received) => received,
            Err(errno) => {
                log(format_args!("cannot receive: {}", io::Error::from(errno)));
                thread::sleep(PAUSE);
                continue;
            }
        };
        let mut batch: Vec<Datagram> = received
            .filter_map(|message| {
                // 0 bytes are a datagram like any other; nix has no slice for them.
                let bytes = message.iovs().next().unwrap_or_default();
                Some(Datagram { bytes, peer: socket_addr(message.address?)? })
            })
            .collect();
        batch.retain(|datagram| match refusal(datagram.peer, own_port) {
            None => true,
            Some(reason) => {
                log(format_args!("{}: not answered, {reason}", datagram.peer));
                false
            }
        });
        answer(socket, &batch, &mut log);
    }
}

/// The address as std has it. UDP knows no others.
fn socket_addr(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

/// Sends each datagram back to its peer.
fn answer(socket: &UdpSocket, batch: &[Datagram], log: &mut impl FnMut(fmt::Arguments)) {
    let peers: Vec<_> = batch.iter().map(|datagram| datagram.peer.as_any()).collect();
    let contents: Vec<_> = batch.iter().map(|datagram| [IoSlice::new(datagram.bytes)]).collect();
    let mut controls: Vec<_> = batch.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<_> = peers
        .iter()
        .zip(&contents)
        .zip(&mut controls)
        .map(|((peer, content), control)| MMsgHdr::new_with_addr(peer, content, control))
        .collect();
    let mut done = 0;
    while done < batch.len() {
        // The kernel stops at the first datagram that it cannot send, and tells of the error only if it is
        // the first of all. So the call is repeated with what is left, and what fails then is passed over.
        match sendmmsg(socket, &mut headers[done..], SendFlags::empty()) {
            Ok(sent) => {
                for Datagram { bytes, peer } in &batch[done..done + sent] {
                    // Escaped, so that a peer can neither forge a line nor command the reader's terminal.
                    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
                    let more = if bytes.len() > SHOWN { "..." } else { "" };
                    log(format_args!("{peer}: length {} \"{shown}\"{more}", bytes.len()));
                }
                done += sent;
            }
            Err(errno) => {
                let error = io::Error::from(errno);
                log(format_args!("{}: cannot send the echo: {error}", batch[done].peer));
                done += 1;
            }
        }
    }
}

/// Why a datagram from this peer must go without an answer, if it must.
///
/// Anybody can write any sender on a datagram. One forged in the name of another service that answers
/// whatever it gets, such as a second echo server, would set the two on each other without end (CERT
/// CA-1996-01, CVE-2024-2169). Such services live on the system's ports, or on the same port as ours.
fn refusal(peer: SocketAddr, own_port: u16) -> Option<&'static str> {
    match peer.port() {
        0 => Some("port 0 is nowhere (RFC 768)"),
        1..1024 => Some("ports below 1024 are the system's services"),
        port if port == own_port => Some("our own port number: an echo server as well?"),
        _ => None,
    }
}
