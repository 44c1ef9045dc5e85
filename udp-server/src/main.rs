//! A UDP server that sends every datagram back to the address it came from.
//!
//! ```console
//! $ cargo run -p udp-server                 # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:50931: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- hello        # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! A *socket* is what a program sends and receives through. It lives in the kernel; the program
//! holds a number that stands for it. Other programs find it by its *address*: an IP address,
//! which names a *host* (a machine on a network), and a *port*, a number that names one socket
//! of this host. 127.0.0.1 is the *loopback* address: every host reaches itself there. UDP
//! carries *datagrams*: messages that travel separately and arrive whole or not at all. The
//! bytes that a program puts into a datagram are its *payload*. The program at the other end is
//! the *peer*.
//!
//! Try next:
//!
//! - Suspend the server (Ctrl-Z), send a message, and resume the server (`fg`). It answers only
//!   now: until then your datagrams waited in the kernel. The client gave up long ago.
//! - Start a second server. It fails, because the port is taken. With a port of 0 the kernel
//!   chooses a free one: `cargo run -p udp-server -- --addr 127.0.0.1:0`
//!
//! Read next: `udp-client`, the other half, which has to cope with lost datagrams.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// The longest payload of all, in bytes: that of UDP over IPv6 (RFC 768). Over IPv4 it is 65,507.
/// A shorter buffer would lose the end of a long datagram, on most systems without an error.
const MAX_PAYLOAD: usize = 65_527;

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The pause after an error of receive: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an echo may wait to be sent; the kernel rounds it up to some milliseconds.
///
/// While the kernel looks for a host of our own network, datagrams for it wait in the send buffer
/// of our socket, for three seconds if there is no such host. Whoever forges such senders fills
/// the buffer, and then every other peer would wait for send_to as well. So an echo that cannot be
/// sent at once is dropped, as UDP may. (The book says what to do when that is not enough.)
const AT_ONCE: Duration = Duration::from_micros(1);

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

fn main() -> Result<()> {
    let args = Args::parse();
    let socket = bind(&args.addr)?;
    let local = socket
        .local_addr()
        .context("cannot read the address of the socket")?;
    // println! would panic if nobody reads stdout any more. This does not.
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

/// Creates a socket and *binds* it, which means: gives it an address. From now on the
/// kernel puts the datagrams that arrive for this address into the socket's *receive
/// queue*, and drops them while the queue is full.
fn bind(addr: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(addr).map_err(|error| {
        let port = addr.rsplit(':').next().and_then(|port| port.parse().ok());
        let advice = match (error.kind(), port) {
            // An error of the kernel has a number. This one is std's own: the text is no address.
            (ErrorKind::InvalidInput, _) if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007"
            }
            (ErrorKind::AddrInUse, Some(1..)) => ": another socket uses it; choose another port",
            (ErrorKind::AddrNotAvailable, _) => ": not an address of this machine",
            (ErrorKind::PermissionDenied, Some(1..1024_u16)) => {
                ": ports below 1024 often need a privilege"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot bind a UDP socket to {addr}{advice}"))
    })?;
    socket
        .set_write_timeout(Some(AT_ONCE))
        .context("cannot set a time limit")?;
    Ok(socket)
}

/// Echoes forever. UDP has no connections, so one socket serves all peers: with each
/// datagram the kernel returns the address of its sender.
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        // Takes exactly one datagram from the queue, or waits for one.
        match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => match refusal(peer, own_port) {
                // A length of 0 is an empty datagram, and not the end of anything.
                None => echo(socket, &buffer[..len], peer, quiet),
                Some(reason) => log(quiet, format_args!("{peer}: not answered, {reason}")),
            },
            // Windows alone reports that nobody took an earlier echo.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => {
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Returns the reason not to answer this peer, if there is one.
///
/// The sender address of a datagram can be forged. A datagram that seems to come from another
/// echo server would make the two servers answer each other without end (CERT CA-1996-01,
/// CVE-2024-2169). Most services that answer every datagram have a port below 1024, and other
/// servers like this one often have our port. Against one on another port the check does not help.
///
/// No host has the address 0.0.0.0 or ::, or that of a group. But Linux delivers to this host what
/// is sent to the first two, so a stranger could make us send to sockets that listen on loopback
/// alone.
fn refusal(peer: SocketAddr, own_port: u16) -> Option<&'static str> {
    let ip = peer.ip().to_canonical();
    match peer.port() {
        0 => Some("port 0 stands for no port (RFC 768)"),
        1..1024 => Some("ports below 1024 belong to system services"),
        port if port == own_port => Some("our own port number, perhaps another echo server"),
        _ if ip.is_unspecified() || ip.is_multicast() => Some("an address that no host has"),
        _ => None,
    }
}

/// Sends a datagram back. The kernel takes it whole or not at all. That it has taken it does not
/// mean that it will arrive. An error with one peer is no reason to stop serving the others.
fn echo(socket: &UdpSocket, datagram: &[u8], peer: SocketAddr, quiet: bool) {
    match socket.send_to(datagram, peer) {
        Ok(len) => {
            // Escaped, so that a peer cannot forge log lines or send commands to the terminal.
            let shown = datagram[..len.min(SHOWN)].escape_ascii();
            let more = if len > SHOWN { "..." } else { "" };
            log(
                quiet,
                format_args!("{peer}: length {len} \"{shown}\"{more}"),
            );
        }
        Err(error) => log(quiet, format_args!("{peer}: cannot send the echo: {error}")),
    }
}

/// Writes a line to stderr with one system call. eprintln! makes one for each part of the line, so
/// that lines of several programs mix, and it panics if nobody reads stderr any more.
/// (format_args! is like format!, but makes the text only if it is needed.)
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
