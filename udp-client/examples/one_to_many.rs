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
//! 127.255.255.255, is the broadcast address of the loopback network on Linux, which has
//! one host, so nothing leaves the machine. A datagram to a multicast group goes to the
//! members of the group, by default only to those on the same network; see the example
//! `multicast` of `udp-server`. TCP can do neither, because a connection joins two sockets
//! and no more.
//!
//! Try next:
//!
//! - Start the server without `--addr`. A socket that is bound to 127.0.0.1 does not
//!   receive what is sent to the broadcast address, and so nobody answers.
//!
//! Read `udp-client` first: what it explains is not explained again.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use socket2::SockRef;

/// The longest payloads, in bytes; `udp-server` explains them.
const MAX_PAYLOAD_V4: usize = 65_507;
const MAX_PAYLOAD_V6: usize = 65_527;

/// The error of a read or write that ran out of time. Unix and Windows have different ones.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// How many answers to print that came while the program was suspended, or later.
const MAX_LATE: u32 = 1000;

/// Send a datagram to many servers and print every answer
#[derive(Parser)]
#[command(version)]
struct Args {
    /// An IPv4 broadcast address or a multicast group, and a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.255.255.255:7007")]
    addr: String,

    /// Interface to send to a group from: its address for IPv4, its number for IPv6
    ///
    /// Without it, and for broadcasts, the kernel chooses one from its routing table.
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
    check_length(message, to)?;
    let socket = open(to, args.interface.as_deref())?;
    let started = Instant::now();
    let deadline = started + args.timeout;
    socket
        .send_to(message, to)
        .with_context(|| format!("cannot send to {to}"))?;
    let (mut answers, mut late) = (0, 0);
    // Answers may have come while we were suspended, but answers without end must not hold us.
    while late < MAX_LATE {
        let Some(from) = next_echo(&socket, message, deadline)? else {
            break;
        };
        let time = started.elapsed();
        answers += 1;
        late += u32::from(time > args.timeout);
        print(message)?;
        log(args.quiet, format_args!("{from}: answered in {time:.1?}"));
    }
    ensure!(
        answers > 0,
        "cannot get an answer from {to} within {:?}",
        args.timeout
    );
    Ok(())
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Finds an IPv4 address or the address of an IPv6 group.
fn resolve(addr: &str) -> Result<SocketAddr> {
    let found = addr.to_socket_addrs().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.255.255.255:7007"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot find the address of {addr}{advice}"))
    })?;
    // ::ffff:127.255.255.255 is an IPv4 address in the form of IPv6.
    let mut found = found.map(|addr| match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, addr.port())),
        IpAddr::V6(_) => addr,
    });
    let suitable = found.find(|addr| addr.is_ipv4() || addr.ip().is_multicast());
    let to = suitable.with_context(|| {
        format!("cannot send to {addr}: IPv6 has no broadcast; give a multicast group")
    })?;
    ensure!(
        to.port() != 0,
        "cannot send to {addr}: port 0 stands for no socket; give the servers' port"
    );
    Ok(to)
}

/// Refuses a message that is too long. The kernel would as well (EMSGSIZE), but its error
/// does not name the limit.
fn check_length(message: &[u8], to: SocketAddr) -> Result<()> {
    let (limit, family) = match to {
        SocketAddr::V4(_) => (MAX_PAYLOAD_V4, "IPv4"),
        SocketAddr::V6(_) => (MAX_PAYLOAD_V6, "IPv6"),
    };
    ensure!(
        message.len() <= limit,
        "cannot send the message to {to}: \
         a UDP datagram carries at most {limit} bytes over {family}"
    );
    Ok(())
}

/// Opens a socket that may send to many. It is not connected, because the answers come from
/// other addresses.
fn open(to: SocketAddr, interface: Option<&str>) -> Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let open = || UdpSocket::bind(any).context("cannot open a UDP socket on a free port");
    let mut socket = open()?;
    // The kernel may choose the port of the servers, and we would hear ourselves.
    if socket.local_addr()?.port() == to.port() {
        socket = open()?;
    }
    // Without this option the kernel refuses broadcast addresses (EACCES), so that nobody
    // sends to a whole network by mistake.
    socket
        .set_broadcast(true)
        .context("cannot allow broadcasts")?;
    if let Some(interface) = interface {
        choose_interface(&socket, to, interface)
            .with_context(|| format!("cannot send from the interface {interface}"))?;
    }
    Ok(socket)
}

/// Chooses the interface from which datagrams to a group are sent. std has no methods for
/// this (IP_MULTICAST_IF in ip(7), and IPV6_MULTICAST_IF).
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

/// Waits until the deadline for the next datagram that equals the message, and returns who
/// sent it.
fn next_echo(socket: &UdpSocket, message: &[u8], deadline: Instant) -> Result<Option<SocketAddr>> {
    let mut buffer = vec![0; MAX_PAYLOAD_V6];
    loop {
        // Zero is not allowed; one microsecond still takes an answer from the queue.
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = left.max(Duration::from_micros(1));
        socket
            .set_read_timeout(Some(limit))
            .context("cannot set a time limit")?;
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) if buffer[..len] == *message => return Ok(Some(from)),
            Ok(_) => {}
            // Linux interrupts a call with a time limit when we are suspended (signal(7)).
            Err(error) if matches!(error.kind(), TIMED_OUT | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Prints a line; see `udp-client`.
fn print(line: &[u8]) -> Result<()> {
    #[cfg(unix)]
    use std::{fs::File, os::fd::AsFd};
    #[cfg(unix)]
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    #[cfg(not(unix))]
    let stdout = io::Result::Ok(io::stdout());
    let written = stdout.and_then(|mut stdout| stdout.write_all(&[line, b"\n"].concat()));
    written.context("cannot write to stdout")
}

/// Writes a line to stderr, if anybody reads it. eprintln! would panic if nobody does.
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
