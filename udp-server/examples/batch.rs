//! Sends every datagram back to the address that it came from, as `udp-server` does, but takes and sends
//! up to 32 of them in one system call: recvmmsg(2) and sendmmsg(2). Those in a row that are alike, of one
//! length and to one peer, it hands to the kernel in one piece, which is cut on its way out (UDP_SEGMENT,
//! udp(7)). Linux has all this.
//!
//! ```console
//! $ cargo run --release -p udp-server --example batch -- --quiet
//! listening on 127.0.0.1:7007
//! ```
//!
//! It is for many small datagrams that come faster than they are answered one by one. Those that wait in
//! the kernel's queue are taken at once, and what a call costs is shared among them. That alone makes it up
//! to 1.2 times as fast as `udp-server`, for each datagram still goes through the kernel's network code for
//! itself, which costs more than the call. A piece goes through it once. With 128 datagrams of 64 bytes from
//! one peer on their way it answered three times as many as `udp-server`, and as many as the same in C. This
//! measures it; `c_batch` in its table sends without pieces, `c_segment` with them:
//!
//! ```console
//! $ cargo bench -p tests -- udp_128_on_their_way
//! ```
//!
//! It is not for datagrams that come one at a time. A lone one is answered at once, but by calls that do
//! more: about 0.9 times as many round trips (`udp_stop_and_wait`). Long datagrams gain little, for copying
//! them is what costs.
//!
//! The price is clarity. There are headers that point to slices and addresses, which the kernel reads and
//! fills, an error concerns one of many, and there are two ways to send, the quicker of which may be
//! closed. std has none of these calls, and needs two crates here: rustix has no recvmmsg and no
//! UDP_SEGMENT, and the sendmmsg of nix 0.31 cannot tell how many it sent without reading addresses that
//! nobody wrote. The headers for sending are made anew for each call, with a few allocations for all of
//! its datagrams, because Rust's slices may not outlive what they point to.
//!
//! Try next:
//!
//! - `strace -c -f` before it and before `udp-server`, under the same load: who needs how many calls?
//! - Set `BATCH` to 1, and to 64, the most that every kernel cuts a piece into. Measure again.
//! - Watch that load with `tcpdump -n -i lo udp`: which of the lengths are datagrams, and which are pieces?
//! - Set the option UDP_GRO on the socket: then what comes may be a piece as well, and must be taken apart.
//!
//! Read next: recvmmsg(2) and sendmmsg(2), above all what they say about errors.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))] // There, only the last function is of use.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, LineWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
#[cfg(target_os = "linux")]
use nix::sys::socket::sockopt::UdpGsoSegment;
#[cfg(target_os = "linux")]
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg, setsockopt,
};
#[cfg(target_os = "linux")]
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, addr::SocketAddrArg, sendmmsg};

/// The most datagrams that one system call takes or sends.
const BATCH: usize = 32;

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

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let args = Args::parse();
    let socket = bind(&args.addr)?;
    if let Some(group) = &args.join {
        join(&socket, group)?;
    }
    let local = socket
        .local_addr()
        .context("cannot read the socket's own address")?;
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
        IpAddr::V4(group) => Group::V4(
            group,
            interface.map_or(Ok(Ipv4Addr::UNSPECIFIED), str::parse)?,
        ),
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
            ErrorKind::PermissionDenied => {
                ": ports below 1024 are the system's; choose a higher one"
            }
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

/// Echoes for ever: takes what is there, sorts out what must not be answered, and answers the rest.
#[cfg(target_os = "linux")]
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    // 2 MiB of addresses. A page of it takes memory only once something was written to it, so as long as
    // datagrams are small, most of it is never there.
    let mut memory = vec![0; BATCH * MAX_PAYLOAD];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    // 0 changes nothing, and tells whether the kernel knows the option. Before Linux 4.18 it would overlook
    // the request to cut a piece, and send it as one datagram.
    let can_cut = setsockopt(socket, UdpGsoSegment, &0).is_ok();
    // Rust's stderr has no buffer: each piece of a format would be a write(2) of its own.
    let mut stderr = LineWriter::new(io::stderr());
    let mut log = |line: fmt::Arguments| {
        if !quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = writeln!(stderr, "{line}");
        }
    };
    loop {
        let mut slots: Vec<_> = memory
            .chunks_exact_mut(MAX_PAYLOAD)
            .map(|slot| [IoSliceMut::new(slot)])
            .collect();
        // Waits for one datagram, and takes with it what else is there: a lone one is not held up.
        let flags = MsgFlags::MSG_WAITFORONE;
        let received = match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, flags, None) {
            Ok(received) => received,
            Err(error) => {
                log(format_args!("cannot receive: {}", io::Error::from(error)));
                thread::sleep(PAUSE);
                continue;
            }
        };
        let mut batch = Vec::with_capacity(BATCH);
        for message in received {
            // 0 bytes are a datagram like any other. nix has no slice for them.
            let bytes = message.iovs().next().unwrap_or_default();
            let Some(peer) = message.address.and_then(socket_addr) else {
                continue;
            };
            match refusal(peer, own_port) {
                Some(reason) => log(format_args!("{peer}: not answered, {reason}")),
                None => batch.push(Datagram { bytes, peer }),
            }
        }
        answer(socket, &batch, can_cut, &mut log);
    }
}

/// A datagram that is to be answered.
#[derive(Clone, Copy)]
struct Datagram<'a> {
    bytes: &'a [u8],
    peer: SocketAddr,
}

impl Datagram<'_> {
    /// Whether both can be cut from the same piece.
    fn is_like(&self, other: &Datagram) -> bool {
        self.peer == other.peer && self.bytes.len() == other.bytes.len() && !self.bytes.is_empty()
    }

    fn log(&self, mut log: impl FnMut(fmt::Arguments)) {
        let Datagram { bytes, peer } = self;
        // Escaped, so that a peer can neither forge a line nor command the reader's terminal.
        let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
        let more = if bytes.len() > SHOWN { "..." } else { "" };
        log(format_args!(
            "{peer}: length {} \"{shown}\"{more}",
            bytes.len()
        ));
    }
}

/// The address as std has it. An IP socket meets no others.
#[cfg(target_os = "linux")]
fn socket_addr(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
}

/// Sends each datagram back to its peer, in the order in which they came.
#[cfg(target_os = "linux")]
fn answer(
    socket: &UdpSocket,
    batch: &[Datagram],
    can_cut: bool,
    mut log: impl FnMut(fmt::Arguments),
) {
    let mut unlike = Vec::with_capacity(BATCH);
    for run in batch.chunk_by(Datagram::is_like) {
        if run.len() == 1 || !can_cut {
            unlike.extend(run);
            continue;
        }
        send_each(socket, &unlike, &mut log); // They came before.
        unlike.clear();
        match send_as_one(socket, run) {
            Ok(_) => run.iter().for_each(|datagram| datagram.log(&mut log)),
            // Nothing went. They may be too long for it, or the way out cannot do it, or it is the peer.
            Err(_) => send_each(socket, run, &mut log),
        }
    }
    send_each(socket, &unlike, &mut log);
}

/// Hands datagrams of one length to one peer to the kernel in one piece, and has it cut them apart again as
/// late as it can: in the network card, or just before. So they go through the kernel's network code as if
/// they were one, and that code is what costs most. At most 64 may go together, each must fit the path's MTU,
/// and the piece must not be longer than the longest datagram.
#[cfg(target_os = "linux")]
fn send_as_one(socket: &UdpSocket, run: &[Datagram]) -> nix::Result<usize> {
    let peer = SockaddrStorage::from(run[0].peer);
    let len = run[0].bytes.len() as u16; // At most MAX_PAYLOAD.
    let slices: Vec<_> = run
        .iter()
        .map(|datagram| IoSlice::new(datagram.bytes))
        .collect();
    let cut = [ControlMessage::UdpGsoSegments(&len)];
    sendmsg(
        socket.as_raw_fd(),
        &slices,
        &cut,
        MsgFlags::empty(),
        Some(&peer),
    )
}

/// Sends datagrams of any lengths to any peers.
#[cfg(target_os = "linux")]
fn send_each(socket: &UdpSocket, datagrams: &[Datagram], mut log: impl FnMut(fmt::Arguments)) {
    // A header points to the peer's address, to the slices that make up the datagram, here one, and to
    // what else could be said to the kernel, here nothing.
    let peers: Vec<_> = datagrams
        .iter()
        .map(|datagram| datagram.peer.as_any())
        .collect();
    let slices: Vec<_> = datagrams
        .iter()
        .map(|datagram| [IoSlice::new(datagram.bytes)])
        .collect();
    let mut nothing: Vec<_> = datagrams
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let parts = peers.iter().zip(&slices).zip(&mut nothing);
    let mut headers: Vec<_> = parts
        .map(|((peer, slices), nothing)| MMsgHdr::new_with_addr(peer, slices, nothing))
        .collect();
    let mut done = 0;
    while done < datagrams.len() {
        // The kernel stops at the first datagram that it cannot send. If others went before it, the call
        // tells only how many. The next call begins with the one that failed, and tells why.
        match sendmmsg(socket, &mut headers[done..], SendFlags::empty()) {
            Ok(sent) => {
                datagrams[done..done + sent]
                    .iter()
                    .for_each(|datagram| datagram.log(&mut log));
                done += sent;
            }
            // It concerns this peer, and the others are still to be served.
            Err(error) => {
                let error = io::Error::from(error);
                log(format_args!(
                    "{}: cannot send the echo: {error}",
                    datagrams[done].peer
                ));
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

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    anyhow::bail!("cannot take many datagrams at once: recvmmsg and sendmmsg are Linux's")
}
