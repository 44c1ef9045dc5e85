//! A UDP client that sends messages to an echo server and waits for each to come back.
//!
//! ```console
//! $ cargo run -p udp-client -- hello        # start udp-server first
//! hello
//! 127.0.0.1:7007: answered in 86.4µs
//! ```
//!
//! UDP can lose a datagram, deliver it twice, or deliver it late, without telling anybody. So
//! the client sends a message, waits for the echo, and sends the message again if no echo
//! comes in time. This is called *stop and wait*.
//!
//! Try next:
//!
//! - Stop the server (Ctrl-C) and send a message. You learn at once that nobody listens.
//! - Suspend the server (Ctrl-Z) and send a message. Now only the time limit tells you that
//!   something is wrong. A slow server and a lost datagram look the same to the client.
//! - Leave out the message, and type lines: `cargo run -p udp-client`. Each line is a datagram,
//!   even an empty one.
//!
//! Read next: `tcp-server` and `tcp-client`, which leave all this work to the kernel.

use std::ffi::OsString;
use std::fmt;
#[cfg(unix)]
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

/// The longest payloads, in bytes; `udp-server` explains them.
const MAX_PAYLOAD_V4: usize = 65_507;
const MAX_PAYLOAD_V6: usize = 65_527;

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

/// Finds all addresses of a name. Many names have several; `localhost` often has `[::1]` and
/// `127.0.0.1`.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>> {
    let found = addr.to_socket_addrs().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::InvalidInput => ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot find the address of {addr}{advice}"))
    })?;
    let mut servers: Vec<_> = found.collect();
    servers.dedup(); // The same address can stand twice in /etc/hosts.
    Ok(servers)
}

/// Reads a line with its newline. The end of the input is a line without one.
fn next_line(stdin: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    // This much cannot be sent anyway, so that a line without end does not fill the memory.
    let read = stdin
        .take(MAX_PAYLOAD_V6 as u64 + 1)
        .read_until(b'\n', &mut line);
    read.context("cannot read stdin")?;
    Ok(line)
}

/// Asks one address after the other, and prints the echo of the first that answers. Later messages
/// go to this one alone.
fn ask_and_print(message: &[u8], servers: &mut Vec<SocketAddr>, args: &Args) -> Result<()> {
    let mut failure = anyhow!("cannot ask {}: the name has no address", args.addr);
    for server in servers.clone() {
        match ask(server, message, args) {
            Ok(time) => {
                *servers = vec![server];
                print(message).context("cannot write to stdout")?;
                log(args.quiet, format_args!("{server}: answered in {time:.1?}"));
                return Ok(());
            }
            Err(error) => failure = error,
        }
        if Some(&server) != servers.last() {
            log(
                args.quiet,
                format_args!("{failure:#}; trying the next address"),
            );
        }
    }
    Err(failure)
}

/// Asks one address, and sends the message again and again until its echo comes. Returns how long
/// that took.
fn ask(server: SocketAddr, message: &[u8], args: &Args) -> Result<Duration> {
    check_length(message, server)?;
    let socket = connect(server)?;
    let started = Instant::now();
    let (attempts, timeout) = (args.attempts, args.timeout);
    let mut failure = io::Error::from(ErrorKind::TimedOut);
    for attempt in 1..=attempts {
        let deadline = Instant::now() + timeout;
        let sent = socket.send(message);
        match sent.and_then(|_| wait_for_echo(&socket, message, deadline)) {
            Ok(()) => return Ok(started.elapsed()),
            Err(error) if is_refusal(&error) => return Err(explain(error, server)),
            // Any other error has cost us one datagram, and the next may arrive. For example, this
            // one was too long for a router (EMSGSIZE); the kernel cuts the next into fragments.
            Err(error) => failure = error,
        }
        log(
            args.quiet,
            format_args!("{server}: no answer to attempt {attempt} of {attempts}"),
        );
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
    }
    Err(failure).with_context(|| {
        format!("cannot get an answer from {server} (attempts: {attempts}, each of {timeout:?})")
    })
}

/// Refuses a message that is too long. The kernel would too (EMSGSIZE), without naming the limit.
fn check_length(message: &[u8], server: SocketAddr) -> Result<()> {
    // ::ffff:127.0.0.1 is an IPv4 address, in the form in which an IPv6 socket uses it.
    let (limit, family) = match server.ip().to_canonical().is_ipv4() {
        true => (MAX_PAYLOAD_V4, "IPv4"),
        false => (MAX_PAYLOAD_V6, "IPv6"),
    };
    ensure!(
        message.len() <= limit,
        "cannot send the message to {server}: \
         a UDP datagram carries at most {limit} bytes over {family}"
    );
    Ok(())
}

/// Opens a socket for one message. A late echo of an earlier message comes to a socket that is
/// closed by then, so it cannot be taken for the echo of this one.
fn connect(server: SocketAddr) -> Result<UdpSocket> {
    // Linux would connect to it, and even send.
    ensure!(
        server.port() != 0,
        "cannot send to {server}: port 0 stands for no socket; give the server's port"
    );
    // 0.0.0.0 and [::] stand for all addresses of this host, and port 0 for any free port.
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket on a free port")?;
    // connect(2) on a UDP socket sends nothing. From now on the kernel gives us datagrams of this
    // peer alone. And if its host reports that nobody listens on the port, the call that waits, or
    // else the next one, fails with ECONNREFUSED.
    let connected = socket.connect(server);
    connected.map_err(|error| explain(error, server))?;
    // If no server has the port, the kernel may give it to us, and we would answer ourselves.
    // (We compare with the peer, since a connection to 0.0.0.0 goes to 127.0.0.1.)
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(explain(ErrorKind::ConnectionRefused.into(), server));
    }
    Ok(socket)
}

/// Waits for the echo of a message until the deadline, and ignores all other datagrams.
fn wait_for_echo(socket: &UdpSocket, message: &[u8], deadline: Instant) -> io::Result<()> {
    let peer = socket.peer_addr()?;
    let mut buffer = vec![0; MAX_PAYLOAD_V6];
    loop {
        // The limit is for one call, so each call gets the time that is left. std refuses a limit
        // of zero. With a microsecond, the call still returns an echo that is in the queue.
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv_from(&mut buffer) {
            // Before we called connect, the queue may already have had a datagram of somebody else.
            Ok((len, from)) if from == peer && buffer[..len] == *message => return Ok(()),
            Ok(_) => {}
            // The time limit has passed (Unix, Windows), or we were suspended: then Linux ends a
            // call that has a time limit when we are resumed (signal(7)).
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
        // Not before the call, because an echo may have come while we were suspended.
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
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
    let advice = match error.kind() {
        _ if is_refusal(&error) => ": nobody listens there; start udp-server",
        // Linux refuses a broadcast address in this way, but other addresses as well.
        ErrorKind::PermissionDenied => {
            ": if this is a broadcast address, run the example one_to_many"
        }
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot reach {server}{advice}"))
}

/// Prints a line. println! would panic if nobody reads stdout any more.
fn print(line: &[u8]) -> io::Result<()> {
    // std's own stdout hides that a stdout is not open for writing (EBADF). A file does not.
    #[cfg(unix)]
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    #[cfg(not(unix))]
    let mut stdout = io::stdout();
    stdout.write_all(&[line, b"\n"].concat())
}

/// Writes a line to stderr. eprintln! would panic if nobody reads it any more.
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
