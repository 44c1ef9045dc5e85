//! `udp-server` as a member of a multicast group.
//!
//! ```console
//! $ cargo run -p udp-server --example multicast -- \
//!     239.1.2.3 --interface 127.0.0.1                                    # terminal 1
//! listening on 0.0.0.0:7007
//! 127.0.0.1:50931: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example one_to_many -- \
//!     --addr 239.1.2.3:7007 --interface 127.0.0.1 hello                  # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! A *multicast group* is an address that stands for no host, but for all sockets that have
//! joined the group: 224.0.0.0 to 239.255.255.255 over IPv4, ff00::/8 over IPv6. One
//! datagram to the group can reach every member, by default only those on the same network.
//! A host joins on an *interface*, which is where it is connected to a network: a network
//! card, or the loopback interface within the host.
//!
//! Try next:
//!
//! - Start a second member with the same command. Both answer.
//! - Add `--addr 239.1.2.3:7007`, and send to 127.0.0.1:7007 as well. Only the group is answered.
//! - Leave out `--interface` on both sides, and run the server on several hosts of a
//!   network. The kernel then chooses the interface from its routing table.
//! - Join the group ff12::7007 with `--interface N` on both sides, where N is the number of
//!   a network card (`ip link` shows it), and send to `[ff12::7007]:7007`.
//! - On Linux, start `udp-server -- --addr 0.0.0.0:7008` and send to port 7008 of the
//!   group. It hears what is sent to a group that any other program on this host has joined
//!   (IP_MULTICAST_ALL in ip(7)).
//!
//! Read `udp-server` first. Only `bind` and `join` are new here.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use socket2::{Domain, Socket, Type};

/// The longest payload, in bytes; `udp-server` explains it.
const MAX_PAYLOAD: usize = 65_527;

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an echo may wait to be sent before it is dropped; see `udp-server`.
const AT_ONCE: Duration = Duration::from_micros(1);

/// Join a multicast group and send every datagram back to its sender
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Group to join, such as 239.1.2.3 or ff12::7007
    #[arg(value_name = "GROUP", value_parser = multicast_group)]
    group: IpAddr,

    /// Interface on which to join: its address for IPv4, its number for IPv6
    ///
    /// Without it the kernel chooses an interface from its routing table.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// Address to listen on [default: 0.0.0.0:7007, or [::]:7007 for an IPv6 group]
    ///
    /// A socket on all addresses also answers what is sent to the host itself, from everybody who
    /// can reach it; see `udp-server --help`. On the address of the group (239.1.2.3:7007) it answers
    /// the group alone, except on Windows, which cannot bind it. On one address of the host it
    /// hears no group.
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,

    /// Do not log datagrams
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let all = if args.group.is_ipv4() {
        "0.0.0.0:7007"
    } else {
        "[::]:7007"
    };
    let socket = bind(args.addr.as_deref().unwrap_or(all))?;
    socket
        .set_write_timeout(Some(AT_ONCE))
        .context("cannot set a time limit")?;
    let interface = args.interface.as_deref();
    join(&socket, args.group, interface).with_context(|| {
        let interface = interface.unwrap_or("that the kernel chooses");
        format!("cannot join {} on the interface {interface}", args.group)
    })?;
    let local = socket
        .local_addr()
        .context("cannot read the address of the socket")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

fn multicast_group(text: &str) -> Result<IpAddr> {
    let group: IpAddr = text.parse()?;
    ensure!(
        group.is_multicast(),
        "not a multicast address (224.0.0.0 to 239.255.255.255, or ff00::/8)"
    );
    Ok(group)
}

/// Binds a socket that shares its port: with SO_REUSEADDR on all of them, several members on one
/// host can have the same address, and each gets what is sent to the group. (macOS and the BSDs
/// want SO_REUSEPORT.) std has no method for it. What is sent to the host itself goes to one alone.
fn bind(addr: &str) -> Result<UdpSocket> {
    let bind = || {
        let addr = addr.to_socket_addrs()?.next();
        let addr = addr.ok_or(ErrorKind::AddrNotAvailable)?;
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        io::Result::Ok(socket.into())
    };
    bind().with_context(|| format!("cannot bind a UDP socket to {addr}"))
}

/// Joins the group. From now on the kernel also takes what comes to this interface for the
/// group, and tells the routers there about it (IGMP for IPv4, MLD for IPv6).
fn join(socket: &UdpSocket, group: IpAddr, interface: Option<&str>) -> Result<()> {
    match group {
        IpAddr::V4(group) => {
            let addr: Ipv4Addr = match interface {
                Some(text) => text
                    .parse()
                    .context("for IPv4, write the interface's address")?,
                None => Ipv4Addr::UNSPECIFIED,
            };
            socket.join_multicast_v4(&group, &addr)?;
        }
        IpAddr::V6(group) => {
            let number: u32 = match interface {
                Some(text) => text
                    .parse()
                    .context("for IPv6, write the interface's number")?,
                None => 0,
            };
            socket.join_multicast_v6(&group, number)?;
        }
    }
    Ok(())
}

/// From here on, all is as in `udp-server`: each member answers for itself.
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => match refusal(peer, own_port) {
                None => echo(socket, &buffer[..len], peer, quiet),
                Some(reason) => log(quiet, format_args!("{peer}: not answered, {reason}")),
            },
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => {
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
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

fn echo(socket: &UdpSocket, datagram: &[u8], peer: SocketAddr, quiet: bool) {
    match socket.send_to(datagram, peer) {
        Ok(len) => {
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

fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
