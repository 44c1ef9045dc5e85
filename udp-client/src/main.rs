//! A UDP client that sends messages to an echo server and waits for each to come back.
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
//! UDP can lose a datagram, deliver it twice, or deliver it late, and it tells nobody. So
//! the client sends a message, waits for the echo, and sends the message again if no echo
//! comes in time. This is called *stop and wait*.
//!
//! Try next:
//!
//! - Stop the server (Ctrl-C) and send a message. You learn at once that nobody listens.
//! - Suspend the server (Ctrl-Z) and send a message. Now only the time limit tells you that
//!   something is wrong. A slow server and a lost datagram look the same to the client.
//! - Leave out the message and type lines. Each line is a datagram, even an empty one.
//!
//! Read next: `tcp-server` and `tcp-client`, which leave all this work to the kernel.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

/// The longest payloads, in bytes; `udp-server` explains them.
const MAX_PAYLOAD_V4: usize = 65_507;
const MAX_PAYLOAD_V6: usize = 65_527;

/// The error of a read or write that ran out of time. Unix and Windows have different ones.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// Send datagrams to an echo server and wait for each to come back
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// Seconds to wait for an answer before sending again, such as 0.5
    #[arg(long, value_name = "SECS", default_value = "1")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// How many times to send a message before giving up
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,

    /// Print only the answers
    #[arg(short, long)]
    quiet: bool,

    /// Messages, each sent as one datagram; without any, each line of stdin is one
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut servers = resolve(&args.addr)?;
    for message in &args.messages {
        ask_and_print(message.as_encoded_bytes(), &mut servers, &args)?;
    }
    if args.messages.is_empty() {
        let mut stdin = io::stdin().lock();
        let mut line = next_line(&mut stdin)?;
        while let Some(message) = line.strip_suffix(b"\n") {
            ask_and_print(message, &mut servers, &args)?;
            line = next_line(&mut stdin)?;
        }
        // The last line may have no newline. To read on would ask a terminal for one more Ctrl-D.
        if !line.is_empty() {
            ask_and_print(&line, &mut servers, &args)?;
        }
    }
    Ok(())
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Finds all addresses of a name. Many names have several; `localhost` often has `[::1]` and
/// `127.0.0.1`.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>> {
    let found = addr.to_socket_addrs().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot find the address of {addr}{advice}"))
    })?;
    // The same address can stand twice in /etc/hosts.
    let mut seen = HashSet::new();
    let servers: Vec<_> = found.filter(|server| seen.insert(*server)).collect();
    ensure!(
        servers.iter().all(|server| server.port() != 0),
        "cannot send to {addr}: port 0 stands for no socket; give the server's port"
    );
    Ok(servers)
}

/// Reads a line with its newline. The end of the input is a line without one.
fn next_line(stdin: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    // A line without end must not fill the memory. This much is already too long to send.
    let limit = MAX_PAYLOAD_V6 as u64 + 1;
    let read = stdin.take(limit).read_until(b'\n', &mut line);
    read.context("cannot read stdin")?;
    Ok(line)
}

/// Sends a message and prints its echo. Later messages go only to the address that answered.
fn ask_and_print(message: &[u8], servers: &mut Vec<SocketAddr>, args: &Args) -> Result<()> {
    let (server, time) = ask_any(servers, message, args)?;
    *servers = vec![server];
    print(message)?;
    log(args.quiet, format_args!("{server}: answered in {time:.1?}"));
    Ok(())
}

/// Asks one address after the other. Returns the first that answers, and how long it took.
fn ask_any(servers: &[SocketAddr], message: &[u8], args: &Args) -> Result<(SocketAddr, Duration)> {
    let mut failure = anyhow!("cannot ask the server: its name has no address");
    for (number, &server) in servers.iter().enumerate() {
        match ask(server, message, args) {
            Ok(time) => return Ok((server, time)),
            Err(error) => failure = error,
        }
        if number + 1 < servers.len() {
            log(
                args.quiet,
                format_args!("{failure:#}; trying the next address"),
            );
        }
    }
    Err(failure)
}

/// Refuses a message that is too long. The kernel would as well (EMSGSIZE), but its error
/// does not name the limit.
fn check_length(message: &[u8], server: SocketAddr) -> Result<()> {
    // ::ffff:127.0.0.1 is an IPv4 address, which an IPv6 socket can reach as well.
    let (limit, family) = match server.ip().to_canonical() {
        IpAddr::V4(_) => (MAX_PAYLOAD_V4, "IPv4"),
        IpAddr::V6(_) => (MAX_PAYLOAD_V6, "IPv6"),
    };
    ensure!(
        message.len() <= limit,
        "cannot send the message to {server}: \
         a UDP datagram carries at most {limit} bytes over {family}"
    );
    Ok(())
}

/// Asks one address: sends the message again and again until its echo comes. Returns how long that
/// took. An error ends it only if it says that nobody listens.
fn ask(server: SocketAddr, message: &[u8], args: &Args) -> Result<Duration> {
    check_length(message, server)?;
    let socket = connect(server)?;
    let started = Instant::now();
    let (attempts, timeout) = (args.attempts, args.timeout);
    let mut failure = None;
    for attempt in 1..=attempts {
        let deadline = Instant::now() + timeout;
        let sent = socket.send(message);
        match sent.and_then(|_| wait_for_echo(&socket, message, deadline)) {
            Ok(true) => return Ok(started.elapsed()),
            Ok(false) => failure = None,
            Err(error) if is_refusal(&error) => return Err(explain(error, server)),
            // One datagram was lost. It was too long for a router (EMSGSIZE; the kernel cuts the
            // next into fragments), a firewall dropped it (EPERM), or a queue was full (ENOBUFS).
            Err(error) => {
                failure = Some(explain(error, server));
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
            }
        }
        log(
            args.quiet,
            format_args!("{server}: no answer to attempt {attempt} of {attempts}"),
        );
    }
    let s = if attempts == 1 { "" } else { "s" };
    Err(failure.unwrap_or_else(|| {
        anyhow!("cannot get an answer from {server} in {attempts} attempt{s} of {timeout:?}")
    }))
}

/// Opens a socket for one message. A late echo of an earlier message finds that its socket
/// is closed, so nobody takes it for the echo of this one.
fn connect(server: SocketAddr) -> Result<UdpSocket> {
    // 0.0.0.0 and [::] stand for all addresses of this host, and port 0 for any free port.
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket on a free port")?;
    // connect(2) on a UDP socket sends nothing. From now on the kernel drops datagrams from
    // other senders. And if the server's host reports that nobody listens on the port, a
    // call that waits, or the next one, fails with ECONNREFUSED.
    if let Err(error) = socket.connect(server) {
        // The kernel refuses a broadcast address unless the program asks for it (EACCES), but that
        // error has other reasons too. If the address is accepted with the option, we know.
        let is_broadcast = error.kind() == ErrorKind::PermissionDenied
            && socket.set_broadcast(true).is_ok()
            && socket.connect(server).is_ok();
        ensure!(
            !is_broadcast,
            "cannot reach {server}: it is a broadcast address; run the example one_to_many"
        );
        return Err(explain(error, server));
    }
    // If no server has the port, the kernel may give it to us, and we would answer ourselves.
    // We ask for both addresses: what was written may be 0.0.0.0, which stands for this host.
    if socket.local_addr().ok() == socket.peer_addr().ok() {
        return Err(explain(ErrorKind::ConnectionRefused.into(), server));
    }
    Ok(socket)
}

/// Waits for the echo of a message until the deadline. Other datagrams do not count.
fn wait_for_echo(socket: &UdpSocket, message: &[u8], deadline: Instant) -> io::Result<bool> {
    let peer = socket.peer_addr()?;
    let mut buffer = vec![0; MAX_PAYLOAD_V6];
    loop {
        // The kernel applies a time limit to each call, so each call gets the time that is
        // left. Zero is not allowed; one microsecond still takes an echo from the queue.
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv_from(&mut buffer) {
            // A datagram of another sender may have come before we called connect.
            Ok((len, from)) if from == peer && buffer[..len] == *message => return Ok(true),
            Ok(_) => {}
            // Linux interrupts a call with a time limit when we are suspended (signal(7)).
            Err(error) if matches!(error.kind(), TIMED_OUT | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        // Checked after a last call, because an echo may have come while we were suspended.
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Whether an error says that nobody listens. Windows reports a reset where Unix reports a refusal.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// Adds to an error of the socket what it means here and what to do.
fn explain(error: io::Error, server: SocketAddr) -> anyhow::Error {
    let advice = match is_refusal(&error) {
        true => ": nobody listens there; start udp-server",
        false => "",
    };
    anyhow::Error::new(error).context(format!("cannot reach {server}{advice}"))
}

/// Prints a line. std's own stdout hides the error of a stdout that is not open for writing (EBADF),
/// and println! would panic if nobody reads it any more.
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
