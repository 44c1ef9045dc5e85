//! A TCP client that sends to an echo server and, at the same time, prints what comes back.
//!
//! ```console
//! $ cargo run -p tcp-client -- hello        # start tcp-server first
//! hello
//! ```
//!
//! A client that first sends everything and then reads can wait forever. While nobody reads the
//! echoes, the server cannot write them all, so it stops reading, and then the client's own write
//! blocks. So one thread sends, while another receives.
//!
//! Try next:
//!
//! - `yes | head -c 1000000000 | cargo run -p tcp-client | wc -c`: every byte comes back, and the
//!   client needs little memory for it.
//! - Run `cargo run -p tcp-client`, type a line, and stop the server (Ctrl-C). The client says
//!   how many bytes came back.
//!
//! Read next: `unix-echo`, the same on one machine.

use std::ffi::OsString;
#[cfg(unix)]
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;

/// How many bytes to read at once. Any size is correct, since a stream has no boundaries. A
/// pipe on Linux holds this much.
const BUFFER_SIZE: usize = 64 * 1024;

/// How long a read waits until we look at the clock, and at whether everything is sent.
const TICK: Duration = Duration::from_millis(100);

/// The error of a read whose time limit has passed. On Unix, `ErrorKind::TimedOut` is another:
/// the kernel has given the connection up, because the peer's host no longer acknowledges.
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

    /// Seconds to wait for the connection, and for more bytes after everything is sent
    #[arg(long, value_name = "SECS", default_value = "5")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Messages, each sent as one line; without any, stdin is sent as it is
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut stream = connect(&args.addr, args.timeout)?;
    // Before anything is sent: once both sides have ended, macOS refuses every option (EINVAL).
    stream
        .set_read_timeout(Some(args.timeout.min(TICK)))
        .context("cannot set a time limit")?;
    // Never freed, since nobody waits for the thread that sends.
    let exchange: &'static Mutex<Exchange> = Box::leak(Box::default());
    start_sending(args.messages, &stream, exchange)?;
    receive(&mut stream, exchange, args.timeout).with_context(|| {
        let Exchange { sent, received, .. } = *lock(exchange);
        let addr = args.addr;
        format!("cannot get everything back from {addr}: {received} of {sent} bytes came back")
    })
}

/// Connects to the first of a name's addresses that accepts. Each gets an equal share of the time
/// that is left, so that a silent one leaves time for the others.
fn connect(addr: &str, timeout: Duration) -> Result<TcpStream> {
    let servers = resolve(addr)?;
    // Only now, since the lookup of a name has time limits of its own, which can be longer.
    let deadline = Instant::now() + timeout;
    let mut failure = anyhow!("cannot connect to {addr}: the name has no address");
    for (number, &server) in servers.iter().enumerate() {
        let untried = servers.len() - number;
        let left = deadline.saturating_duration_since(Instant::now());
        // std refuses a limit of zero.
        let share = (left / untried as u32).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&server, share) {
            // If no server has the port, the kernel may give it to us, and TCP then connects the
            // socket to itself. (We compare with the peer, since a connection to 0.0.0.0 goes to
            // 127.0.0.1.)
            Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {
                failure = explain(ErrorKind::ConnectionRefused.into(), server);
            }
            Ok(stream) => return Ok(stream),
            Err(error) => failure = explain(error, server),
        }
        if untried > 1 {
            // eprintln! would panic if nobody reads stderr any more.
            let _ = writeln!(io::stderr(), "{failure:#}; trying the next address");
        }
    }
    Err(failure)
}

/// Finds all addresses of a name.
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

/// Adds to an error of connect what it means here and what to do.
fn explain(error: io::Error, server: SocketAddr) -> anyhow::Error {
    let advice = match error.kind() {
        _ if server.port() == 0 => ": port 0 stands for no socket; give the server's port",
        ErrorKind::ConnectionRefused => ": nobody listens there; start tcp-server",
        ErrorKind::AddrNotAvailable => ": no local port is free, or no local address can reach it",
        ErrorKind::TimedOut => ": nobody answers there, or the server's backlog is full",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot connect to {server}{advice}"))
}

/// What the two threads tell each other.
#[derive(Default)]
struct Exchange {
    /// How many bytes the sending thread has read in order to send them.
    sent: u64,
    /// How many bytes the main thread has received.
    received: u64,
    /// Whether everything could be sent. `None` until the sending thread is done.
    end: Option<Result<()>>,
}

/// Waits until the other thread does not use the exchange.
fn lock(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    // lock() fails only if the other thread has panicked while it had the lock. It does not.
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that sends all input and then half-closes the connection. Nobody waits for the
/// thread to end: it may still wait for input when the server closes.
fn start_sending(
    messages: Vec<OsString>,
    stream: &TcpStream,
    exchange: &'static Mutex<Exchange>,
) -> Result<()> {
    let stream = stream.try_clone().context("cannot share the stream")?;
    let work = move || {
        let result = if messages.is_empty() {
            send(io::stdin(), &stream, exchange)
        } else {
            let line = |message: &OsString| [message.as_encoded_bytes(), b"\n"].concat();
            let lines: Vec<u8> = messages.iter().flat_map(line).collect();
            send(&lines[..], &stream, exchange)
        };
        // Before the half-close, because the server may close as soon as it has come, and then
        // the main thread looks at this.
        lock(exchange).end = Some(result);
        // The half-close: our kernel sends a FIN, and we can still receive. It fails only if the
        // connection no longer exists, which the main thread notices as well.
        let _ = stream.shutdown(Shutdown::Write);
    };
    // thread::spawn would panic if the system has no thread left.
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(())
}

fn send(mut input: impl Read, mut stream: &TcpStream, exchange: &Mutex<Exchange>) -> Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted before the write, because an echo may come back before write_all returns.
        lock(exchange).sent += len as u64;
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes back, as soon as it comes, until the server closes the connection.
fn receive(stream: &mut TcpStream, exchange: &Mutex<Exchange>, timeout: Duration) -> Result<()> {
    // std's own stdout hides that a stdout is not open for writing (EBADF). A file does not.
    #[cfg(unix)]
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    #[cfg(not(unix))]
    let mut stdout = io::stdout();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut silent_since = Instant::now();
    loop {
        // Looked at before the read, because something may have come while we were suspended.
        let all_sent = lock(exchange).end.is_some();
        let is_late = all_sent && silent_since.elapsed() >= timeout;
        match stream.read(&mut buffer) {
            Ok(0) => return check(&lock(exchange)),
            Ok(len) => {
                lock(exchange).received += len as u64;
                let written = stdout.write_all(&buffer[..len]);
                let printed = written.and_then(|()| stdout.flush());
                printed.context("cannot write to stdout")?;
                silent_since = Instant::now();
            }
            // A tick has passed, or we were suspended: then Linux ends a call that has a time
            // limit when we are resumed (signal(7)).
            Err(error) if [TIMED_OUT, ErrorKind::Interrupted].contains(&error.kind()) => {
                ensure!(!is_late, "nothing came for {timeout:?}");
                // The server may be silent as long as there is something to send.
                if !all_sent {
                    silent_since = Instant::now();
                }
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

/// Checks, after the server has closed the connection, that everything came back.
fn check(exchange: &Exchange) -> Result<()> {
    match &exchange.end {
        None => bail!("the server closed the connection before everything was sent"),
        Some(Err(error)) => bail!("{error:#}"),
        // More bytes than we have sent are not an echo, but nothing is lost.
        Some(Ok(())) if exchange.received >= exchange.sent => Ok(()),
        Some(Ok(())) => bail!("the server closed the connection"),
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
