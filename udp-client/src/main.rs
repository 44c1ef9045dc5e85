//! Sends datagrams to an echo server, waits for each to come back, and tells what was lost.
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
//! - Stop the server (Ctrl-C) and send: nobody listens, and you are told at once. Suspend it instead
//!   (Ctrl-Z) and send: UDP cannot tell a slow peer from a lost datagram, only the clock can.
//! - Leave the message out and type lines. Each line is a datagram, the empty one too.
//!
//! Read next: the server's `refusal`, then the pair over TCP, where nothing is lost and nothing is apart.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::iter;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// The most bytes that a datagram carries. UDP's length field has 16 bits and counts the header of 8
/// (RFC 768), which leaves 65,527 over IPv6. IPv4 counts its own header of 20 as well: 65,507.
const MAX_PAYLOAD_V4: usize = 65_507;
const MAX_PAYLOAD_V6: usize = 65_527;

/// Send datagrams to an echo server and wait for each to come back
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007", value_parser = host_and_port)]
    addr: String,

    /// How long to wait for an answer before sending again; fractions are allowed
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// How many times to send a message before giving it up
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,

    /// Send once to a broadcast address or a multicast group, and print all answers that come within the
    /// time limit
    #[arg(long, conflicts_with = "attempts")]
    broadcast: bool,

    /// Print the answers alone: not who sent them, nor how long it took
    #[arg(short, long)]
    quiet: bool,

    /// Each is sent as one datagram, when the one before is answered; without any, each line of stdin is
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut servers = resolve(&args.addr)?;
    for message in messages(&args.messages) {
        let message = message.context("cannot read stdin")?;
        if args.broadcast {
            broadcast(&servers, &message, &args)?;
        } else {
            let (server, took) = ask_any(&servers, &message, &args)?;
            servers = vec![server]; // Whoever has answered once is the one to ask from now on.
            print(&message)?;
            args.note(format_args!("{server}: answered in {took:.1?}"));
        }
    }
    Ok(())
}

/// Checks the form of an address. Whether the host exists is for the resolver to say.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<NonZeroU16>().is_ok() => {
            Ok(text.into())
        }
        _ => Err("write HOST:PORT, the port from 1 to 65535: 127.0.0.1:7007, [::1]:7007".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write seconds from 0.001 to 86400".into()),
    }
}

/// All addresses of a name, in the resolver's order: `localhost` is often `[::1]` first.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>> {
    let found = addr
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {addr}"))?;
    Ok(found.collect())
}

/// The messages given, or else the lines of stdin, each as soon as it is there.
fn messages(given: &[OsString]) -> Box<dyn Iterator<Item = io::Result<Vec<u8>>> + '_> {
    if !given.is_empty() {
        return Box::new(
            given
                .iter()
                .map(|message| Ok(message.as_encoded_bytes().to_vec())),
        );
    }
    let mut stdin = io::stdin().lock();
    Box::new(iter::from_fn(move || next_line(&mut stdin).transpose()))
}

/// The next line without its newline, `None` at the end. Of an endless line it reads just so much that
/// it is seen to be too long.
fn next_line(stdin: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if stdin
        .take(MAX_PAYLOAD_V6 as u64 + 1)
        .read_until(b'\n', &mut line)?
        == 0
    {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

/// Asks each address of the server in turn. Returns the first that answers, and how long that took.
fn ask_any(servers: &[SocketAddr], message: &[u8], args: &Args) -> Result<(SocketAddr, Duration)> {
    let (&last, others) = servers.split_last().context("the name has no address")?;
    for &server in others {
        match ask(server, message, args) {
            Ok(took) => return Ok((server, took)),
            Err(error) => args.note(format_args!("{error:#}; trying the next address")),
        }
    }
    Ok((last, ask(last, message, args)?))
}

/// Asks one address, and says what a failure means.
fn ask(server: SocketAddr, message: &[u8], args: &Args) -> Result<Duration> {
    check_length(message, server)?;
    let took = exchange(server, message, args).map_err(|error| explain(error, server))?;
    let Args {
        attempts, timeout, ..
    } = args;
    let s = if *attempts == 1 { "" } else { "s" };
    took.with_context(|| {
        format!("cannot get an answer from {server} in {attempts} attempt{s} of {timeout:?}")
    })
}

/// A longer datagram is for the kernel to refuse, but its "message too long" does not name the limit.
fn check_length(message: &[u8], to: SocketAddr) -> Result<()> {
    let (limit, family) = if to.is_ipv4() {
        (MAX_PAYLOAD_V4, "IPv4")
    } else {
        (MAX_PAYLOAD_V6, "IPv6")
    };
    ensure!(
        message.len() <= limit,
        "cannot send the message to {to}: a UDP datagram carries at most {limit} bytes over {family}"
    );
    Ok(())
}

/// Stop and wait: sends, waits for the echo, and sends again, since the network may lose either. Returns
/// how long it took since the first attempt; `None` if no attempt was answered.
fn exchange(server: SocketAddr, message: &[u8], args: &Args) -> io::Result<Option<Duration>> {
    let socket = connect(server)?;
    let peer = socket.peer_addr()?;
    let started = Instant::now();
    for attempt in 1..=args.attempts {
        if attempt > 1 {
            args.note(format_args!(
                "{server}: no answer, attempt {attempt} of {}",
                args.attempts
            ));
        }
        socket.send(message)?;
        let deadline = Instant::now() + args.timeout;
        while let Some(from) = next_echo(&socket, message, deadline)? {
            // What a stranger sent between bind and connect is still in the queue.
            if from == peer {
                return Ok(Some(started.elapsed()));
            }
        }
    }
    Ok(None)
}

/// A socket of its own for each message: what comes late for the message before finds nobody.
///
/// To connect a UDP socket sends nothing. It tells the kernel to keep out other senders, and to report
/// (as ECONNREFUSED) when the server's machine says that nobody listens there.
fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind_like(server)?;
    socket.connect(server)?;
    Ok(socket)
}

/// A socket of the family of an address, on a port that the kernel chooses.
fn bind_like(server: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    })
}

/// Waits until the deadline for a datagram that equals the message, and returns who sent it. What is
/// late, garbled or cut is passed over.
fn next_echo(
    socket: &UdpSocket,
    message: &[u8],
    deadline: Instant,
) -> io::Result<Option<SocketAddr>> {
    let mut buffer = vec![0; MAX_PAYLOAD_V6];
    loop {
        // The kernel counts a time limit for each call anew, so each call gets what is left. Zero is not
        // allowed, and the least that is still takes what has already come.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_micros(1));
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) if buffer[..len] == *message => return Ok(Some(from)),
            Ok(_) => {}
            // The limit has passed, in the words of Unix and of Windows.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // We were suspended and woken (SIGSTOP, SIGCONT), and the echo may have come meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Says of a socket's error what it means here and what to do.
fn explain(error: io::Error, server: SocketAddr) -> anyhow::Error {
    let meaning = match error.kind() {
        // The second is what Windows calls it.
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            format!("cannot reach {server}: nobody listens there, start udp-server")
        }
        ErrorKind::PermissionDenied => {
            format!("cannot send to {server}: if it is a broadcast address, use --broadcast")
        }
        _ => format!("cannot reach {server}"),
    };
    anyhow::Error::new(error).context(meaning)
}

/// Sends one message to everybody who hears a broadcast address or is member of a multicast group, and
/// prints each echo as it comes. The socket is not connected: each answer comes from another address.
fn broadcast(servers: &[SocketAddr], message: &[u8], args: &Args) -> Result<()> {
    let to = servers
        .iter()
        .find(|server| server.is_ipv4() || server.ip().is_multicast());
    let to = *to.with_context(|| {
        format!(
            "cannot broadcast to {}: IPv6 has multicast groups instead",
            args.addr
        )
    })?;
    check_length(message, to)?;
    let socket = bind_like(to).context("cannot open a UDP socket")?;
    // Without it the kernel refuses (EACCES), so that nobody disturbs a whole network by mistake.
    socket
        .set_broadcast(true)
        .context("cannot allow broadcasts")?;
    let started = Instant::now();
    socket
        .send_to(message, to)
        .with_context(|| format!("cannot broadcast to {to}"))?;
    let deadline = started + args.timeout;
    let mut answered = false;
    while Instant::now() < deadline {
        if let Some(from) = next_echo(&socket, message, deadline).context("cannot receive")? {
            answered = true;
            print(message)?;
            args.note(format_args!(
                "{from}: answered in {:.1?}",
                started.elapsed()
            ));
        }
    }
    ensure!(
        answered,
        "cannot get an answer from {to} within {:?}",
        args.timeout
    );
    Ok(())
}

/// Writes an answer as it is, and a newline. `println!` would panic when nobody reads any more.
fn print(answer: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(answer)
        .and_then(|()| stdout.write_all(b"\n"))
        .context("cannot write to stdout")
}

impl Args {
    /// Tells something on stderr. That nobody reads it there any more is no reason to stop.
    fn note(&self, line: fmt::Arguments) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}
