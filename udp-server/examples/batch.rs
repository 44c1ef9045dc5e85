//! `udp-server` with fewer system calls: it takes and sends up to 32 datagrams in one (Linux).
//!
//! ```console
//! $ cargo run --release -p udp-server --example batch           # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:50931: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- hello                            # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! It uses three means. recvmmsg(2) takes many datagrams from the queue, sendmmsg(2) sends
//! many, and the option UDP_SEGMENT (udp(7)) goes further: datagrams of the same length for
//! the same peer become one large piece, which goes through the network code of the kernel
//! once and is cut into datagrams at the end.
//!
//! This is for many small datagrams that arrive faster than a server can answer them one by
//! one. With 128 datagrams of 64 bytes from one peer on the way, it answered three times as
//! many as `udp-server`, and as many as the same in C. Without UDP_SEGMENT it would be 1.2
//! times as many: a system call costs less than the way through the network code. In the
//! table that this command prints, `c_batch` is C without UDP_SEGMENT, `c_segment` with it:
//!
//! ```console
//! $ cargo bench -p bench -- udp_128_on_their_way
//! ```
//!
//! It gains nothing where datagrams arrive one at a time. Each is answered at once, but by
//! more expensive calls: about 0.9 times as many round trips (`udp_stop_and_wait`). And it
//! gains little with long datagrams, because copying them is what takes the time.
//!
//! The price is clarity. The kernel reads and fills headers that point to buffers and
//! addresses, an error concerns one datagram of many, and there are two ways to send. std
//! has none of these calls. Two crates are needed: rustix has no recvmmsg and no
//! UDP_SEGMENT, and sendmmsg of nix 0.31 cannot tell reliably how many datagrams it has
//! sent. For each call the headers are built anew, with a few allocations, because they
//! borrow the buffers.
//!
//! Try next:
//!
//! - Run this program and `udp-server` under `strace -c -f`, with the same load, and
//!   compare the number of system calls.
//! - Set `BATCH` to 1, or to 64, the most that every kernel cuts a piece into, and measure.
//! - Watch the load with `tcpdump -n -i lo udp`. The long ones are pieces that are not cut yet.
//! - Set the option UDP_GRO. Then the kernel also delivers several datagrams as one piece,
//!   and the program has to take it apart.
//!
//! Read `udp-server` first: what it explains is not explained again.

// On other systems than Linux, only the last function is used.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(target_os = "linux")]
use nix::sys::socket::sockopt::UdpGsoSegment;
#[cfg(target_os = "linux")]
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg, setsockopt,
};
#[cfg(target_os = "linux")]
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, addr::SocketAddrArg, sendmmsg};

/// How many datagrams one system call takes or sends at most.
const BATCH: usize = 32;

/// The longest payload, in bytes; `udp-server` explains it.
const MAX_PAYLOAD: usize = 65_527;

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Send every UDP datagram back to its sender
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    ///
    /// Only programs on this machine can reach the default address. Think twice before you
    /// choose another, such as 0.0.0.0:7007. The sender address of a datagram can be
    /// forged, and an echo server then sends its answers to somebody who never asked.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
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
    // 2 MiB. vec! would end the program if the memory cannot be had.
    let mut memory = Vec::new();
    let room = memory.try_reserve_exact(BATCH * MAX_PAYLOAD);
    room.context("cannot get memory for the datagrams")?;
    memory.resize(BATCH * MAX_PAYLOAD, 0);
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, memory, local.port(), args.quiet)
}

fn bind(addr: &str) -> Result<UdpSocket> {
    UdpSocket::bind(addr).with_context(|| format!("cannot bind a UDP socket to {addr}"))
}

/// Echoes forever. Takes the datagrams that are there, and answers all that may be answered.
#[cfg(target_os = "linux")]
fn serve(socket: &UdpSocket, mut memory: Vec<u8>, own_port: u16, quiet: bool) -> ! {
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    // Setting 0 changes nothing, but it fails if the kernel does not know the option.
    // Kernels before Linux 4.18 would send a piece as one long datagram, without an error.
    let can_cut = setsockopt(socket, UdpGsoSegment, &0).is_ok();
    loop {
        let slots = memory.chunks_exact_mut(MAX_PAYLOAD);
        let mut slots: Vec<_> = slots.map(|slot| [IoSliceMut::new(slot)]).collect();
        // MSG_WAITFORONE: waits for one datagram, then takes the others that are there.
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, flags, None) {
            Ok(received) => {
                let mut batch = Vec::with_capacity(BATCH);
                for message in received {
                    let Some(peer) = message.address.and_then(to_std) else {
                        continue;
                    };
                    // For an empty datagram nix returns no slice.
                    let bytes = message.iovs().next().unwrap_or_default();
                    match refusal(peer, own_port) {
                        None => batch.push(Datagram { bytes, peer }),
                        Some(why) => log(quiet, format_args!("{peer}: not answered, {why}")),
                    }
                }
                answer(socket, &batch, can_cut, quiet);
            }
            Err(error) => {
                let error = io::Error::from(error);
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
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

/// A datagram that is to be sent back.
#[derive(Clone, Copy)]
struct Datagram<'a> {
    bytes: &'a [u8],
    peer: SocketAddr,
}

/// Whether two datagrams can be cut from the same piece.
fn can_share_a_piece(a: &Datagram, b: &Datagram) -> bool {
    a.peer == b.peer && a.bytes.len() == b.bytes.len() && !a.bytes.is_empty()
}

/// Sends each datagram back to its peer, in the order in which they came.
#[cfg(target_os = "linux")]
fn answer(socket: &UdpSocket, batch: &[Datagram], can_cut: bool, quiet: bool) {
    let mut singles = Vec::with_capacity(BATCH);
    for run in batch.chunk_by(can_share_a_piece) {
        if run.len() == 1 || !can_cut {
            singles.extend(run);
            continue;
        }
        // The singles came before this run, so they go before it.
        send_each(socket, &singles, quiet);
        singles.clear();
        match send_as_one(socket, run) {
            Ok(_) => log_all(run, quiet),
            // Nothing was sent: the datagrams may be too long for the path, or the network
            // interface cannot cut, or the peer is at fault. One by one shows which.
            Err(_) => send_each(socket, run, quiet),
        }
    }
    send_each(socket, &singles, quiet);
}

/// Hands datagrams of one length for one peer to the kernel as one piece, to be cut as late as
/// possible: by the network card or just before it. The limits are at least 64 datagrams in a
/// piece, the path's MTU for each datagram, and the length of the longest datagram for the piece.
#[cfg(target_os = "linux")]
fn send_as_one(socket: &UdpSocket, run: &[Datagram]) -> nix::Result<usize> {
    let peer = SockaddrStorage::from(run[0].peer);
    let len = run[0].bytes.len() as u16; // At most MAX_PAYLOAD, so it fits.
    let slices: Vec<_> = run
        .iter()
        .map(|datagram| IoSlice::new(datagram.bytes))
        .collect();
    let cut = [ControlMessage::UdpGsoSegments(&len)];
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg(socket.as_raw_fd(), &slices, &cut, flags, Some(&peer))
}

/// Sends datagrams of any length to any peers.
#[cfg(target_os = "linux")]
fn send_each(socket: &UdpSocket, datagrams: &[Datagram], quiet: bool) {
    // Each header points to an address, to the slices that make up the datagram (here one),
    // and to control messages for the kernel (here none).
    let mut peers = Vec::with_capacity(BATCH);
    let mut slices = Vec::with_capacity(BATCH);
    let mut controls = Vec::with_capacity(BATCH);
    for datagram in datagrams {
        peers.push(datagram.peer.as_any());
        slices.push([IoSlice::new(datagram.bytes)]);
        controls.push(SendAncillaryBuffer::default());
    }
    let mut headers = Vec::with_capacity(BATCH);
    for ((peer, slices), control) in peers.iter().zip(&slices).zip(&mut controls) {
        headers.push(MMsgHdr::new_with_addr(peer, slices, control));
    }
    let mut done = 0;
    while done < datagrams.len() {
        // The kernel stops at the first datagram that it cannot send. If others went before
        // it, the call returns their number. The next call begins with the one that failed,
        // and returns its error.
        // MSG_DONTWAIT: an echo that cannot be sent at once is dropped; see `udp-server`.
        match sendmmsg(socket, &mut headers[done..], SendFlags::DONTWAIT) {
            Ok(sent) => {
                log_all(&datagrams[done..done + sent], quiet);
                done += sent;
            }
            // An error is no reason to stop serving others.
            Err(error) => {
                let (peer, error) = (datagrams[done].peer, io::Error::from(error));
                log(quiet, format_args!("{peer}: cannot send the echo: {error}"));
                done += 1;
            }
        }
    }
}

fn log_all(datagrams: &[Datagram], quiet: bool) {
    for Datagram { bytes, peer } in datagrams {
        let len = bytes.len();
        // Escaped, so that a peer cannot forge log lines or send commands to the terminal.
        let shown = bytes[..len.min(SHOWN)].escape_ascii();
        let more = if len > SHOWN { "..." } else { "" };
        log(
            quiet,
            format_args!("{peer}: length {len} \"{shown}\"{more}"),
        );
    }
}

fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    anyhow::bail!("cannot take many datagrams at once: only Linux has recvmmsg and UDP_SEGMENT")
}
