//! `udp-server` with fewer system calls: each takes or sends up to 32 datagrams (Linux).
//!
//! ```console
//! $ cargo run --release -p udp-server --example batch           # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:50931: length 5
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- hello                            # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! recvmmsg(2) takes all datagrams from the queue, up to a limit, and sendmmsg(2) sends many. Two
//! options go further. With UDP_SEGMENT, datagrams of one length for one peer are sent as one large
//! piece, which goes through the network code of the kernel once, and is cut at the end. With
//! UDP_GRO, what comes as such a piece, or what the network card has joined, is taken as one.
//!
//! This is for many small datagrams that arrive faster than a server can echo them one by one.
//! Nearly all of the gain comes from the pieces. This command says how much: in its table, `c_batch`
//! makes the two calls in C, `c_segment` also sends pieces, and `c_gro` also takes them.
//!
//! ```console
//! $ cargo bench -p bench -- udp_128_on_their_way
//! ```
//!
//! Where datagrams arrive one at a time, each is echoed at once, but recvmmsg(2) costs more than
//! recvfrom(2) (`udp_stop_and_wait`). And little is gained with long datagrams, because copying
//! them is what takes the time.
//!
//! The price is clarity. The kernel fills and reads headers that point to buffers and addresses,
//! an error concerns one datagram of many, and there are two ways to send. std has none of them.
//! Two crates are needed: rustix has no recvmmsg and no UDP_SEGMENT, and sendmmsg of nix 0.31 does
//! not tell reliably how many datagrams it has sent.
//!
//! Try next:
//!
//! - Count the system calls of this program and of `udp-server` under the same load:
//!   `strace -cf target/release/examples/batch -q`
//! - Set `BATCH` to 1, and then to 64, and measure again with the command above.
//! - Watch `sudo tcpdump -n -i lo udp` during the measurement. The long datagrams are pieces that
//!   are not cut yet.
//!
//! Read `udp-server` first: what it explains is not explained again. Read next: `tcp-server`.

// On systems other than Linux, most of this is unused.
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
use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
        recvmmsg, sendmsg, setsockopt,
        sockopt::{UdpGroSegment, UdpGsoSegment},
    },
};
#[cfg(target_os = "linux")]
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, addr::SocketAddrArg, sendmmsg};

/// How many datagrams one system call takes or sends at most. Every kernel with UDP_SEGMENT cuts
/// pieces of 64 datagrams, newer ones also longer pieces.
const BATCH: usize = 32;

/// The same as in `udp-server`, which explains them.
const MAX_PAYLOAD: usize = 65_527;
const PAUSE: Duration = Duration::from_millis(100);

/// Send every UDP datagram back to its sender
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; see `udp-server --help`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
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
    // A value of 0 changes nothing. But it is an error before Linux 4.18, which would send a piece
    // without cutting it.
    setsockopt(&socket, UdpGsoSegment, &0).context("cannot use UDP_SEGMENT of Linux 4.18")?;
    setsockopt(&socket, UdpGroSegment, &true).context("cannot use UDP_GRO of Linux 5.0")?;
    let local = socket.local_addr()?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

/// A datagram that is to be sent back, or several of one peer in one piece.
#[derive(Clone, Copy)]
struct Piece<'a> {
    bytes: &'a [u8],
    peer: SocketAddr,
    /// How long each datagram is. Only the last can be shorter.
    each: usize,
}

impl<'a> Piece<'a> {
    fn is_single(&self) -> bool {
        self.bytes.len() <= self.each
    }

    /// Returns each datagram as a piece of its own. (Only a single datagram can be empty.)
    fn datagrams(self) -> impl Iterator<Item = Piece<'a>> {
        let parts = self.bytes.chunks(self.each.max(1));
        parts.map(move |bytes| Piece { bytes, ..self })
    }
}

/// Echoes forever. Takes the pieces that are in the queue, and sends them back in their order.
#[cfg(target_os = "linux")]
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut memory = vec![0; BATCH * MAX_PAYLOAD]; // 2 MiB
    loop {
        let slots = memory.chunks_exact_mut(MAX_PAYLOAD);
        let mut slots: Vec<_> = slots.map(|slot| [IoSliceMut::new(slot)]).collect();
        // The kernel notes in the headers how much room it has used, so each call needs new ones.
        let mut headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(i32)));
        // MSG_WAITFORONE: waits for one piece, then takes the others that are there.
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
        match recvmmsg(fd, &mut headers, &mut slots, flags, None) {
            Ok(received) => {
                let mut batch = Vec::with_capacity(BATCH);
                for message in received {
                    let Some(peer) = message.address.and_then(to_std) else {
                        continue;
                    };
                    // For an empty datagram nix returns no slice.
                    let bytes = message.iovs().next().unwrap_or_default();
                    let each = length_of_each(&message).unwrap_or(bytes.len());
                    if is_refused(peer, own_port) {
                        log(quiet, format_args!("{peer}: not answered"));
                    } else {
                        batch.push(Piece { bytes, peer, each });
                    }
                }
                echo(socket, &batch, quiet);
            }
            Err(error) => {
                let error = io::Error::from(error);
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Returns how long each datagram of a piece is. The kernel says nothing about a single one.
#[cfg(target_os = "linux")]
fn length_of_each(message: &RecvMsg<SockaddrStorage>) -> Option<usize> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(len) => usize::try_from(len).ok(),
        _ => None,
    })
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

/// Whether two datagrams can be cut from the same piece.
fn can_share_a_piece(a: &Piece, b: &Piece) -> bool {
    let are_single = a.is_single() && b.is_single();
    are_single && a.peer == b.peer && a.bytes.len() == b.bytes.len() && !a.bytes.is_empty()
}

/// Sends each datagram back to its peer, in the order in which they came.
#[cfg(target_os = "linux")]
fn echo(socket: &UdpSocket, batch: &[Piece], quiet: bool) {
    let mut singles = Vec::with_capacity(BATCH);
    for run in batch.chunk_by(can_share_a_piece) {
        if run.len() == 1 && run[0].is_single() {
            singles.extend(run);
            continue;
        }
        // The singles came before this run, so they go before it.
        send_each(socket, &singles, quiet);
        singles.clear();
        let datagrams = run.iter().flat_map(|piece| piece.datagrams());
        // If it fails, nothing was sent: the datagrams may be too long for the path, or the network
        // interface cannot cut, or the peer is at fault. One by one shows which.
        match send_as_one(socket, run) {
            Ok(_) => log_all(datagrams, quiet),
            Err(_) => send_each(socket, &datagrams.collect::<Vec<_>>(), quiet),
        }
    }
    send_each(socket, &singles, quiet);
}

/// Hands datagrams to the kernel as one piece, to be cut as late as possible: by the network card
/// or just before it. Each datagram must fit the path's MTU, the length of the longest packet that
/// the path carries, and the piece must not be longer than the longest datagram.
#[cfg(target_os = "linux")]
fn send_as_one(socket: &UdpSocket, run: &[Piece]) -> nix::Result<usize> {
    let peer = SockaddrStorage::from(run[0].peer);
    let len = run[0].each as u16; // At most MAX_PAYLOAD, so it fits.
    let slices = run.iter().map(|piece| IoSlice::new(piece.bytes));
    let slices: Vec<_> = slices.collect();
    let cut = [ControlMessage::UdpGsoSegments(&len)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    sendmsg(fd, &slices, &cut, flags, Some(&peer))
}

/// Sends datagrams of any length to any peers.
#[cfg(target_os = "linux")]
fn send_each(socket: &UdpSocket, datagrams: &[Piece], quiet: bool) {
    // Each header points to an address, to the slices that make up the datagram (here one), and to
    // control messages for the kernel (here none).
    let mut peers = Vec::with_capacity(BATCH);
    let mut slices = Vec::with_capacity(BATCH);
    let mut controls = Vec::with_capacity(BATCH);
    for datagram in datagrams {
        peers.push(datagram.peer.as_any());
        slices.push([IoSlice::new(datagram.bytes)]);
        controls.push(SendAncillaryBuffer::default());
    }
    let parts = peers.iter().zip(&slices).zip(&mut controls);
    let headers = parts.map(|((peer, slices), none)| MMsgHdr::new_with_addr(peer, slices, none));
    let mut headers: Vec<_> = headers.collect();
    let mut done = 0;
    while done < datagrams.len() {
        // The kernel stops at the first datagram that it cannot send. If it has sent others, it
        // returns their number. The next call then begins with this one, and returns its error.
        // An echo that cannot be sent at once is dropped; see `udp-server`.
        match sendmmsg(socket, &mut headers[done..], SendFlags::DONTWAIT) {
            Ok(sent) => {
                log_all(datagrams[done..done + sent].iter().copied(), quiet);
                done += sent;
            }
            Err(error) => {
                let (peer, error) = (datagrams[done].peer, io::Error::from(error));
                log(quiet, format_args!("{peer}: cannot send the echo: {error}"));
                done += 1;
            }
        }
    }
}

fn log_all<'a>(datagrams: impl Iterator<Item = Piece<'a>>, quiet: bool) {
    if !quiet {
        for Piece { bytes, peer, .. } in datagrams {
            log(quiet, format_args!("{peer}: length {}", bytes.len()));
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
    anyhow::bail!("cannot send many datagrams at once: only Linux has UDP_SEGMENT")
}
