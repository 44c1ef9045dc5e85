//! `udp-server` as a member of a multicast group.
//!
//! ```console
//! $ cargo run -p udp-server --example multicast -- \
//!     239.1.2.3 --interface 127.0.0.1                                    # terminal 1
//! listening on 0.0.0.0:7007
//! 127.0.0.1:50931: length 5
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example one_to_many -- \
//!     --addr 239.1.2.3:7007 --interface 127.0.0.1 hello                  # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! A *multicast group* is an address that no host has as its own: 224.0.0.0 to 239.255.255.255
//! over IPv4, ff00::/8 over IPv6. A socket joins the group, and then its host takes what is sent
//! to this address. So one datagram can reach every member, by default only those on the network of
//! the sender. A socket joins on one *interface*, the place where a host is connected to a network:
//! a network card, or the loopback interface within the host.
//!
//! Try next:
//!
//! - Start a second member with the same command. Both answer.
//! - Add `--addr 239.1.2.3:7007` to the member's command. It still answers the group, but no
//!   longer `cargo run -p udp-client -- hello`.
//! - Leave out `--interface` in both commands, and run members on several hosts of a network. The
//!   kernel then chooses the interface by its routing table.
//!
//! Read `udp-server` first: only `bind` and `join` are new here. Read next: `wildcard`, for a host
//! with several addresses.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use socket2::{Domain, Socket, Type};

/// The same as in `udp-server`, which explains them.
const MAX_PAYLOAD: usize = 65_527;
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: Duration = Duration::from_micros(1);

/// Join a multicast group and send every datagram back to its sender
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Group to join, such as 239.1.2.3 or ff12::7007
    #[arg(value_name = "GROUP")]
    group: IpAddr,

    /// Interface on which to join: its address for IPv4, its number for IPv6
    ///
    /// Without it the kernel chooses an interface by its routing table.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// Address to listen on [default: 0.0.0.0:7007, or [::]:7007 for an IPv6 group]
    ///
    /// On all addresses, the member also answers what is sent to the host itself; see
    /// `udp-server --help`. On the address of the group (239.1.2.3:7007), which Windows cannot
    /// bind, it answers the group alone. On one address of the host it hears no group.
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,

    /// Do not log datagrams
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let all = match args.group {
        IpAddr::V4(_) => "0.0.0.0:7007",
        IpAddr::V6(_) => "[::]:7007",
    };
    let addr = args.addr.as_deref().unwrap_or(all);
    let socket = bind(addr).with_context(|| format!("cannot bind a UDP socket to {addr}"))?;
    let interface = args.interface.as_deref();
    join(&socket, args.group, interface).with_context(|| {
        let interface = interface.unwrap_or("that the kernel chooses");
        format!("cannot join {} on the interface {interface}", args.group)
    })?;
    let local = socket.local_addr()?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    serve(&socket, local.port(), args.quiet)
}

/// Binds a socket that can share its address with other members on this host, if all of them set
/// SO_REUSEADDR. (macOS and the BSDs require SO_REUSEPORT.) Each gets what is sent to the group.
/// What is sent to the host itself goes to one of them. std cannot set an option before bind.
fn bind(addr: &str) -> io::Result<UdpSocket> {
    let mut addrs = addr.to_socket_addrs()?;
    let addr = addrs.next().ok_or(ErrorKind::AddrNotAvailable)?;
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_write_timeout(Some(AT_ONCE))?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Joins the group. From now on the kernel also takes what comes to this interface for the group,
/// and tells the routers there about it (IGMP for IPv4, MLD for IPv6).
fn join(socket: &UdpSocket, group: IpAddr, interface: Option<&str>) -> Result<()> {
    match group {
        IpAddr::V4(group) => {
            // 0.0.0.0, and 0 below, let the kernel choose.
            let addr = interface.unwrap_or("0.0.0.0").parse();
            let addr = addr.context("for IPv4, write the interface's address")?;
            socket.join_multicast_v4(&group, &addr)?;
        }
        IpAddr::V6(group) => {
            let number = interface.unwrap_or("0").parse();
            let number = number.context("for IPv6, write the interface's number")?;
            socket.join_multicast_v6(&group, number)?;
        }
    }
    Ok(())
}

/// Echoes forever, as `udp-server` does. The echo comes from an address of the host, and not from
/// the group.
fn serve(socket: &UdpSocket, own_port: u16, quiet: bool) -> ! {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let line = match socket.recv_from(&mut buffer) {
            Ok((_, peer)) if is_refused(peer, own_port) => format!("{peer}: not answered"),
            Ok((len, peer)) => match socket.send_to(&buffer[..len], peer) {
                Ok(_) => format!("{peer}: length {len}"),
                Err(error) => format!("{peer}: cannot send the echo: {error}"),
            },
            // Windows alone; see `udp-server`.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
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

/// Whether an answer could do harm, since the sender may be forged; see `udp-server`.
fn is_refused(peer: SocketAddr, own_port: u16) -> bool {
    let (ip, port) = (peer.ip().to_canonical(), peer.port());
    port < 1024 || port == own_port || ip.is_unspecified() || ip.is_multicast()
}
