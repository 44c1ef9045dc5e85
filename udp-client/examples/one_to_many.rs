//! Sends one datagram to many servers and prints every answer.
//!
//! ```console
//! $ cargo run -p udp-server -- --addr 0.0.0.0:7007                  # terminal 1
//! listening on 0.0.0.0:7007
//! 127.0.0.1:50931: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example one_to_many -- hello          # terminal 2
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! A datagram to a *broadcast address* goes to every host of a network. The default here,
//! 127.255.255.255, is the broadcast address of the loopback network on Linux. This network has one
//! host, so nothing leaves the machine. A datagram to a multicast group goes to the members of the
//! group; see the example `multicast` of `udp-server`. TCP can do neither, because a connection
//! joins two sockets and no more.
//!
//! Try next:
//!
//! - Start the server by `cargo run -p udp-server`. A socket that is bound to 127.0.0.1 does not
//!   receive what is sent to the broadcast address, so nobody answers.
//! - Send to the broadcast address of your own network, which `ip -4 addr` shows after `brd`: add
//!   `--addr 192.0.2.255:7007`, with that address.
//!
//! Read `udp-client` first: what it explains is not explained again. Read next: `multicast` of
//! `udp-server`.

use std::ffi::OsString;
#[cfg(unix)]
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use socket2::SockRef;

/// The longest payload; `udp-server` explains it.
const MAX_PAYLOAD: usize = 65_527;

/// Send a datagram to many servers and print every answer
#[derive(Parser)]
#[command(version)]
struct Args {
    /// An IPv4 broadcast address or a multicast group, and a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.255.255.255:7007")]
    addr: String,

    /// Interface to send to a group from: its address for IPv4, its number for IPv6
    ///
    /// Without it, and for broadcasts, the kernel chooses one by its routing table.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// Seconds to wait for answers, such as 0.5
    #[arg(long, value_name = "SECS", default_value = "1")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Print only the answers
    #[arg(short, long)]
    quiet: bool,

    /// What to send, as one datagram
    #[arg(value_name = "MESSAGE")]
    message: OsString,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let message = args.message.as_encoded_bytes();
    let to = resolve(&args.addr)?;
    let socket = open(to)?;
    if let Some(interface) = &args.interface {
        choose_interface(&socket, to, interface)
            .with_context(|| format!("cannot send from the interface {interface}"))?;
    }
    let (started, timeout) = (Instant::now(), args.timeout);
    let sent = socket.send_to(message, to);
    sent.with_context(|| format!("cannot send to {to}"))?;
    let mut answers = 0;
    while let Some(from) = next_echo(&socket, message, started + timeout)? {
        print(message).context("cannot write to stdout")?;
        if !args.quiet {
            let line = format!("{from}: answered in {:.1?}\n", started.elapsed());
            let _ = io::stderr().write_all(line.as_bytes());
        }
        answers += 1;
    }
    ensure!(
        answers > 0,
        "cannot get an answer from {to} within {timeout:?}"
    );
    Ok(())
}

/// Finds an IPv4 address, or the address of an IPv6 group.
fn resolve(addr: &str) -> Result<SocketAddr> {
    let found = addr.to_socket_addrs();
    let mut found = found.with_context(|| format!("cannot find the address of {addr}"))?;
    let to = found.find(|addr| addr.is_ipv4() || addr.ip().is_multicast());
    to.with_context(|| {
        format!("cannot send to {addr}: IPv6 has no broadcast; give a multicast group")
    })
}

/// Opens a socket that may send to many. It is not connected, because the answers come from other
/// addresses.
fn open(to: SocketAddr) -> Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let bind = || UdpSocket::bind(any).context("cannot open a UDP socket on a free port");
    let mut socket = bind()?;
    // If the kernel has chosen the port of the servers, we would hear ourselves.
    if socket.local_addr()?.port() == to.port() {
        socket = bind()?;
    }
    // Without this option the kernel refuses broadcast addresses (EACCES), so that nobody sends to
    // a whole network by mistake.
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// Chooses the interface from which datagrams to a group are sent. std has no methods for this
/// (IP_MULTICAST_IF in ip(7), and IPV6_MULTICAST_IF).
fn choose_interface(socket: &UdpSocket, to: SocketAddr, interface: &str) -> Result<()> {
    let options = SockRef::from(socket);
    if to.is_ipv4() {
        let addr = interface.parse().context("for IPv4, write its address")?;
        options.set_multicast_if_v4(&addr)?;
    } else {
        let number = interface.parse().context("for IPv6, write its number")?;
        options.set_multicast_if_v6(number)?;
    }
    Ok(())
}

/// Waits until the deadline for the next datagram that equals the message, and returns its sender.
fn next_echo(socket: &UdpSocket, message: &[u8], deadline: Instant) -> Result<Option<SocketAddr>> {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Echoes that came while we were suspended are in the queue.
            socket.set_nonblocking(true)?;
        } else {
            socket.set_read_timeout(Some(left))?;
        }
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) if buffer[..len] == *message => return Ok(Some(from)),
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                _ => return Err(error).context("cannot receive"),
            },
        }
    }
}

/// Prints a line; see `udp-client`.
fn print(line: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    #[cfg(not(unix))]
    let mut stdout = io::stdout();
    stdout.write_all(&[line, b"\n"].concat())
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
