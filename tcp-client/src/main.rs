//! A TCP client that sends to an echo server and, at the same time, prints what comes back.
//!
//! ```console
//! $ cargo run -p tcp-server                 # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: connected
//! 127.0.0.1:41234: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p tcp-client -- hello        # terminal 2
//! hello
//! ```
//!
//! A client that first sends everything and then reads can wait forever. The server stops
//! reading when nobody takes its echoes, and then the client's own write cannot go on. So
//! a second thread sends, while the main thread receives.
//!
//! Try next:
//!
//! - `cargo run -p tcp-client < big-file > copy`: every byte comes back, and the client
//!   needs little memory for it.
//! - Leave out the message, type a line, and stop the server (Ctrl-C). The client says how
//!   many bytes came back.
//!
//! Read next: `unix-echo`, the same on one machine.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;

/// How many bytes to read at once. Any size is correct, since a stream has no boundaries.
const BUFFER_SIZE: usize = 64 * 1024;

/// How long a read waits before we look at the clock.
const TICK: Duration = Duration::from_millis(100);

/// The error of a read or write that ran out of time. Unix and Windows have different ones.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// Send to an echo server over TCP and print what comes back
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// Seconds to wait for the connection, and for an answer after everything is sent
    #[arg(long, value_name = "SECS", default_value = "5")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Messages, each sent as one line; without any, stdin is sent as it is
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (mut stream, server) = connect(&args.addr, args.timeout)?;
    // Before anything is sent: once both sides have ended, macOS refuses every option (EINVAL).
    stream
        .set_read_timeout(Some(args.timeout.min(TICK)))
        .context("cannot set a time limit")?;
    let sending = Arc::new(Sending::default());
    start_sending(args.messages, &stream, &sending)?;
    let mut received = 0;
    let outcome = receive(&mut stream, &sending, args.timeout, &mut received);
    outcome.with_context(|| {
        let sent = sending.count.load(Ordering::Relaxed);
        format!("cannot get everything back from {server}: {received} of {sent} bytes came back")
    })
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Connects to the first of a name's addresses that accepts. Each gets an equal share of
/// the time that is left, so that a silent one leaves time for the others.
fn connect(addr: &str, timeout: Duration) -> Result<(TcpStream, SocketAddr)> {
    let servers = resolve(addr)?;
    // Only now: a lookup can take long, since the resolver has time limits of its own.
    let deadline = Instant::now() + timeout;
    let mut failure = anyhow!("cannot connect to {addr}: the name has no address");
    for (number, &server) in servers.iter().enumerate() {
        let untried = servers.len() - number;
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero is not allowed.
        let share = (left / untried as u32).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&server, share) {
            // If no server has the port, the kernel may give it to us, and TCP then connects
            // the socket to itself. `server` would tell us less: for 0.0.0.0 and [::], the
            // kernel connects to the loopback address.
            Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {
                failure = explain(ErrorKind::ConnectionRefused.into(), server);
            }
            Ok(stream) => return Ok((stream, server)),
            Err(error) => failure = explain(error, server),
        }
        if untried > 1 {
            log(format_args!("{failure:#}; trying the next address"));
        }
    }
    Err(failure)
}

/// Finds all addresses of a name, each once, even if /etc/hosts has one twice.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>> {
    let servers = addr.to_socket_addrs().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot find the address of {addr}{advice}"))
    })?;
    let mut seen = HashSet::new();
    let servers: Vec<_> = servers.filter(|server| seen.insert(*server)).collect();
    let has_port = servers.iter().all(|server| server.port() != 0);
    ensure!(has_port, "cannot connect to {addr}: no server has port 0");
    Ok(servers)
}

/// Adds to an error of connect what it means here and what to do.
fn explain(error: io::Error, server: SocketAddr) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::ConnectionRefused => ": nobody listens there; start tcp-server",
        ErrorKind::AddrNotAvailable => ": no local port is free, or no local address can reach it",
        ErrorKind::TimedOut => ": nobody answers there, or the server's backlog is full",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot connect to {server}{advice}"))
}

/// What the sending thread tells the main thread.
#[derive(Default)]
struct Sending {
    /// How many bytes it has read in order to send them.
    count: AtomicU64,
    /// When it ended, and whether it could send everything.
    end: OnceLock<(Instant, Result<()>)>,
}

/// Starts a thread that sends all input and then half-closes the connection. Nobody waits
/// for the thread to end: it may wait for input while the server closes.
fn start_sending(
    messages: Vec<OsString>,
    stream: &TcpStream,
    sending: &Arc<Sending>,
) -> Result<()> {
    let mut stream = stream.try_clone().context("cannot share the stream")?;
    let sending = Arc::clone(sending);
    let work = move || {
        let result = send(input(&messages), &mut stream, &sending.count);
        // Set before the server can learn that we have ended, and end as well.
        let _ = sending.end.set((Instant::now(), result));
        // The half-close: our kernel sends a FIN, and we can still receive. It fails only
        // on a connection that is gone, which the main thread notices as well.
        let _ = stream.shutdown(Shutdown::Write);
    };
    // thread::spawn would panic if the system has no thread left.
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(())
}

/// Returns the messages, each as a line, or else stdin.
fn input(messages: &[OsString]) -> Box<dyn Read> {
    if messages.is_empty() {
        return Box::new(io::stdin());
    }
    let mut lines = Vec::new();
    for message in messages {
        lines.extend_from_slice(message.as_encoded_bytes());
        lines.push(b'\n');
    }
    Box::new(Cursor::new(lines))
}

fn send(mut input: impl Read, stream: &mut TcpStream, count: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted before they are sent, so that no byte comes back that is not counted.
        count.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes back, as soon as it comes, until the server closes the connection.
fn receive(
    stream: &mut TcpStream,
    sending: &Sending,
    timeout: Duration,
    received: &mut u64,
) -> Result<()> {
    let mut output = stdout().context("cannot open stdout")?;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut silent_since = Instant::now();
    loop {
        // Looked at before the read, because something may have come while we were suspended.
        let is_late = sending.is_late(silent_since, timeout);
        match stream.read(&mut buffer) {
            Ok(0) => return sending.check(*received),
            Ok(len) => {
                *received += len as u64;
                let written = output.write_all(&buffer[..len]);
                let printed = written.and_then(|()| output.flush());
                printed.context("cannot write to stdout")?;
                silent_since = Instant::now();
            }
            // Linux interrupts a call with a time limit when we are suspended (signal(7)).
            Err(error) if [TIMED_OUT, ErrorKind::Interrupted].contains(&error.kind()) => {
                ensure!(!is_late, "nothing came for {timeout:?}");
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

impl Sending {
    /// Returns whether the server has been silent for too long. The time limit counts only
    /// from the moment when everything was sent.
    fn is_late(&self, silent_since: Instant, timeout: Duration) -> bool {
        let end = self.end.get();
        end.is_some_and(|(end, _)| silent_since.max(*end).elapsed() >= timeout)
    }

    /// Checks, after the server has closed the connection, that everything came back.
    fn check(&self, received: u64) -> Result<()> {
        match self.end.get() {
            None => bail!("the server closed the connection before everything was sent"),
            Some((_, Err(error))) => bail!("{error:#}"),
            Some((_, Ok(()))) => {
                // The count is complete, because it was finished before `end` was set. A server
                // that sends more than it got is no echo server, but nothing is lost.
                let is_complete = received >= self.count.load(Ordering::Relaxed);
                ensure!(is_complete, "the server closed the connection");
                Ok(())
            }
        }
    }
}

/// Opens stdout without the line buffer of std, which would make more system calls.
#[cfg(unix)]
fn stdout() -> io::Result<impl Write> {
    use std::{fs::File, os::fd::AsFd};
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// On Windows only std's stdout can write to a console, since it translates to UTF-16.
#[cfg(not(unix))]
fn stdout() -> io::Result<impl Write> {
    Ok(io::stdout())
}

/// Writes a line to stderr, if anybody reads it. eprintln! would panic if nobody does.
fn log(line: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
