//! A TCP server that sends every byte back, to many clients at the same time.
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
//! A TCP *connection* joins two sockets, and carries a *stream* of bytes in each direction. The
//! kernels cut a stream into *segments*, send again what gets lost, and restore the order. But a
//! stream has no message boundaries: the bytes of two writes may arrive in one read, and those of
//! one write in two reads.
//!
//! Try next:
//!
//! - Run `cargo run -p udp-server` at the same time. It can use the same port number, because the
//!   ports of UDP and those of TCP are independent.
//! - Start the server with `cargo run -p tcp-server -- --max-connections 1`. Then run the client
//!   without a message, `cargo run -p tcp-client`, in two terminals, and type lines. Both
//!   connect, but the lines of the second come back only after the first has ended (Ctrl-D).
//!
//! Read next: `tcp-client`, which must send and receive at the same time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

/// How many bytes to read at once. Any size is correct. (The book says why it is this one.)
const BUFFER_SIZE: usize = 48 * 1024;

/// The pause after an error of accept: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The error of a read or write whose time limit has passed. On Unix, `ErrorKind::TimedOut` is
/// another: the kernel gave the connection up, as the peer's host no longer acknowledges.
const TIMED_OUT: ErrorKind = if cfg!(windows) {
    ErrorKind::TimedOut
} else {
    ErrorKind::WouldBlock
};

/// Send every byte back, over TCP, to many clients at the same time
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// How many clients to serve at the same time; further clients wait
    ///
    /// The server starts a thread for each in advance.
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Close a connection after this many seconds without a read or write
    #[arg(long, value_name = "SECS", default_value = "60")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Do not log connections
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    // What Box::leak returns is never freed, so every thread may use it until the program ends.
    let args: &'static Args = Box::leak(Box::new(Args::parse()));
    let listener = listen(&args.addr)?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let listener: &'static Mutex<TcpListener> = Box::leak(Box::new(Mutex::new(listener)));
    start_workers(listener, args)?;
    // println! would panic if nobody reads stdout any more. This does not.
    let _ = writeln!(io::stdout(), "listening on {local}");
    work(listener, args)
}

/// Opens a *listener*: a socket that carries no data, but only accepts connections. From now on
/// the kernel completes connections without us, and keeps them in a queue, the *backlog*, until
/// we accept them. std asks for a backlog of 128.
///
/// On Unix, std also sets SO_REUSEADDR. Without it the port would stay taken, on Linux for a
/// minute, if the server was the first to close a connection (TIME_WAIT).
fn listen(addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| {
        let port = addr.rsplit(':').next().and_then(|port| port.parse().ok());
        let advice = match (error.kind(), port) {
            // An error of the kernel has a number. This one is std's own: the text is no address.
            (ErrorKind::InvalidInput, _) if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007"
            }
            (ErrorKind::AddrInUse, Some(1..)) => ": another socket uses it; choose another port",
            (ErrorKind::AddrNotAvailable, _) => ": not an address of this machine",
            (ErrorKind::PermissionDenied, Some(1..1024_u16)) => {
                ": ports below 1024 often need a privilege"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot listen on {addr}{advice}"))
    })
}

/// Starts all *workers* except one, which is the main thread. Each serves one connection at a
/// time, so there are never more accepted connections than workers.
fn start_workers(listener: &'static Mutex<TcpListener>, args: &'static Args) -> Result<()> {
    let wanted = args.max_connections;
    for number in 1..wanted {
        // thread::spawn would panic if the system has no thread left.
        let started = thread::Builder::new().spawn(|| work(listener, args));
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}; choose a lower --max-connections")
        })?;
    }
    Ok(())
}

/// Serves one client after the other, forever (so it returns `!`, which means never). An error
/// with one client is no reason to stop serving the others.
fn work(listener: &Mutex<TcpListener>, args: &Args) -> ! {
    // If there is no memory for it, the program is aborted: at its start, and not later.
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let (mut stream, peer) = accept(listener, args.quiet);
        log(args.quiet, format_args!("{peer}: connected"));
        let outcome = match serve(&mut stream, args.idle_timeout, &mut buffer) {
            Ok(echoed) => format!("bytes echoed: {echoed}"),
            Err(error) if error.kind() == TIMED_OUT => {
                format!("no read or write for {:?}", args.idle_timeout)
            }
            // Often a *reset* (RST): the peer's kernel says that the connection no longer exists.
            Err(error) => error.to_string(),
        };
        log(args.quiet, format_args!("{peer}: closed, {outcome}"));
    }
}

/// Takes the next connection from the backlog. Because of the lock, only one worker at a time
/// waits for it.
///
/// A *descriptor* is the number by which a process knows a socket or a file. Linux reserves one
/// for each accept(2) that waits. So without the lock, a hundred waiting workers would use up a
/// hundred of the descriptors that `ulimit -n` allows.
fn accept(listener: &Mutex<TcpListener>, quiet: bool) -> (TcpStream, SocketAddr) {
    // lock() fails only if another thread has panicked while it had the lock. None does.
    let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match listener.accept() {
            Ok(connection) => return connection,
            Err(error) => match error.kind() {
                // The client has already gone. Linux reports this only in the first read.
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                _ => {
                    log(quiet, format_args!("cannot accept: {error}"));
                    thread::sleep(PAUSE);
                }
            },
        }
    }
}

/// Prepares a connection and echoes on it. Returns how many bytes it echoed.
fn serve(stream: &mut TcpStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    // *Nagle's algorithm* holds back a small segment until the peer has acknowledged what was
    // sent before (RFC 9293, 3.7.4). The peer may delay that (RFC 9293, 3.8.6.3), on Linux by
    // 40 to 200 milliseconds. An echo should not wait: TCP_NODELAY switches this off.
    stream.set_nodelay(true)?;
    // The limit is for each call, which fails if it has moved no byte in this time. A write
    // that has moved some returns their number instead, and the next one begins anew. So a
    // client that does not read is closed up to twice the time after the last byte has moved.
    // One that reads slowly can be closed too, because Linux wakes a writer only when a third
    // of its buffer is free.
    stream.set_read_timeout(Some(idle_timeout))?;
    stream.set_write_timeout(Some(idle_timeout))?;
    echo(stream, idle_timeout, buffer)
}

/// Writes what it reads, until the client has no more to send.
fn echo(stream: &mut TcpStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    let mut echoed = 0;
    loop {
        let len = retry(idle_timeout, || stream.read(buffer))?;
        if len == 0 {
            // The end of the stream: the client's kernel has sent a *FIN*. After a *half-close*
            // the client can still receive; after a full close it cannot, but the FIN is the
            // same. When `work` drops the stream, our side is closed too: the kernel still
            // sends what it has not sent yet, and then our FIN.
            return Ok(echoed);
        }
        // A write may take only a part. If the client does not read, the write waits, so we
        // stop reading, and in the end the client's own writes must wait. This is the *flow
        // control* of TCP.
        let mut unsent = &buffer[..len];
        while !unsent.is_empty() {
            match retry(idle_timeout, || stream.write(unsent))? {
                0 => return Err(ErrorKind::WriteZero.into()), // Or we would spin.
                sent => unsent = &unsent[sent..],
            }
        }
        echoed += len as u64;
    }
}

/// Repeats a call that was interrupted: if we are suspended in a call with a time limit, Linux
/// ends it when we are resumed (signal(7)). Each repetition has all of the limit again, so the
/// clock decides when to stop. We look at it before the call. Then one call is still made after
/// the limit has passed, and takes what came while we were suspended.
fn retry(limit: Duration, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let started = Instant::now();
    loop {
        let is_late = started.elapsed() >= limit;
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted && !is_late => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(TIMED_OUT.into()),
            result => return result,
        }
    }
}

/// Writes a line to stderr with one system call, so that lines of different threads do not mix.
/// eprintln! makes several, and panics if nobody reads stderr any more.
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
