//! Sends every datagram back to the address that it came from.
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
//! Try next:
//!
//! - Suspend the server (Ctrl-Z), send something, and wake it (`fg`): what came meanwhile was kept in
//!   the kernel's queue, and the client had long given up.
//! - Start a second server: the port is taken, and it says so. Add `-- --addr 127.0.0.1:0`.
//!
//! Read next: `udp-client`, the other half, which has to cope with what UDP loses.

use std::fmt;
use std::io::{self, ErrorKind, LineWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// The most bytes that a datagram carries. UDP's length field has 16 bits and counts the header of 8
/// (RFC 768), which leaves 65,527 over IPv6. IPv4 counts its own header of 20 as well: 65,507.
///
/// The buffer must be as long: what does not fit is lost, on most systems without an error.
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

/// Echoes for ever. There is no connection and nothing to accept: one socket hears all peers, and the
/// kernel tells with each datagram who sent it.
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    // Rust's stderr has no buffer: each piece of a format would be a write(2) of its own.
    let mut stderr = LineWriter::new(io::stderr());
    let mut log = |line: fmt::Arguments| {
        if !quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = writeln!(stderr, "{line}");
        }
    };
    loop {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // Windows tells here that an earlier echo found no socket: nothing to us.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
            Err(error) => {
                log(format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
                continue;
            }
        };
        // 0 bytes are a datagram like any other, not the end: UDP has no end.
        let datagram = &buffer[..len];
        if let Some(reason) = refusal(peer, own_port) {
            log(format_args!("{peer}: not answered, {reason}"));
            continue;
        }
        // A datagram is sent whole or not at all. Success says that the kernel took it, not that it
        // arrived; a failure concerns this peer, and the others are still to be served.
        match socket.send_to(datagram, peer) {
            Ok(_) => {
                // Escaped, so that a peer can neither forge a line nor command the reader's terminal.
                let shown = datagram[..len.min(SHOWN)].escape_ascii();
                let more = if len > SHOWN { "..." } else { "" };
                log(format_args!("{peer}: length {len} \"{shown}\"{more}"));
            }
            Err(error) => log(format_args!("{peer}: cannot send the echo: {error}")),
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
