//! A server that says when it has had enough, and closes without losing a word of what it said.
//!
//! ```console
//! $ cargo run -p tcp-server --example lingering_close -- --limit 1000000      # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: closed, bytes echoed: 1000000, discarded: 2000000
//! ```
//!
//! ```console
//! $ yes | head -c 3000000 | cargo run -p tcp-client 2> /dev/null \
//!     | (sleep 1; tail -n 1)                                                  # terminal 2
//! limit reached: 1000000 bytes
//! ```
//!
//! (On stderr `tcp-client` says that not everything came back, which is true.)
//!
//! When a program closes a connection, the kernel sends what it has not sent yet, and then
//! a FIN. But if the client has sent something that the program has not read, or sends
//! something later, nobody will ever read it. TCP does not pass over this in silence: the
//! kernel sends a reset instead (RFC 1122, 4.2.2.13). A reset ends both directions at once:
//!
//! - what our kernel still kept, because the client's receive buffer was full, or because a
//!   segment got lost and had to be sent again, is thrown away;
//! - the client's kernel may throw away what the client has not read yet (RFC 9293,
//!   3.10.7.4; Linux keeps it);
//! - a client that writes gets an error, and many then do not read any more.
//!
//! So the last words, such as an error message, are lost just when they matter: the client
//! still sends. The *lingering close* avoids the reset (RFC 9112, 9.6). It half-closes,
//! which tells the client that nothing more will come, then reads and discards until the
//! client closes too, and only then closes. As a client may never do that, there are limits
//! to the time and to the amount. Web servers do the same for a request that is too long.
//!
//! The socket option SO_LINGER does something else. It makes close(2) wait until the client
//! has acknowledged everything, and does not prevent the reset.
//!
//! You want this in every server that may end a conversation before its client does: one
//! with limits, with time-outs, or with errors of the protocol. `tcp-server` closes only
//! after the client's FIN, or when its time limit has passed and it has no last words to lose. The price is a
//! thread and a connection that stay busy for up to `--linger` seconds with bytes of no
//! use, and a second loop to understand.
//!
//! Try next:
//!
//! - Start the server with `--naive`, which closes at once. Now the last line is a `y`, and
//!   `tcp-client` says `Connection reset by peer`, without the `2> /dev/null`.
//! - Start it with `--linger 0.001`. If the time is over while bytes still come, the reset
//!   comes after all, and the server logs that the client did not close.
//!
//! Read `tcp-server` first: what it explains is not explained again.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

/// How many bytes to read at once.
const BUFFER_SIZE: usize = 48 * 1024;

/// How many clients to serve at the same time.
const WORKERS: u32 = 16;

/// How long a client may neither send nor receive. (Interrupted calls prolong it here; `tcp-server`
/// shows what helps.)
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a read may wait while we linger, before we look at the clock.
const TICK: Duration = Duration::from_millis(100);

/// How much to discard at most. Without this limit, a client could keep us busy for all of
/// the time: over loopback, several gigabytes in two seconds.
const MAX_DISCARDED: u64 = 16 * 1024 * 1024;

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The errors of accept for a client that has already gone. Linux reports neither.
const GONE: [ErrorKind; 2] = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];

/// Send a limited number of bytes back, say so, and close without losing this
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// How many bytes to send back on each connection
    #[arg(long, value_name = "BYTES", default_value = "1000000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// Seconds to wait for the client to close, after everything is said
    #[arg(long, value_name = "SECS", default_value = "2")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    linger: Duration,

    /// Close at once, to see what gets lost
    #[arg(long)]
    naive: bool,
}

fn main() -> Result<()> {
    let args = Arc::new(Args::parse());
    let listener =
        TcpListener::bind(&args.addr).with_context(|| format!("cannot listen on {}", args.addr))?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let listener = Arc::new(Mutex::new(listener));
    for _ in 1..WORKERS {
        let (listener, args) = (Arc::clone(&listener), Arc::clone(&args));
        let started = thread::Builder::new().spawn(move || work(&listener, &args));
        started.context("cannot start a thread")?;
    }
    // Nobody may be reading stdout any more: println! would panic, and this does not.
    let _ = writeln!(io::stdout(), "listening on {local}");
    work(&listener, &args)
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Serves one client after the other, forever. An error of a client does not end it.
fn work(listener: &Mutex<TcpListener>, args: &Args) -> ! {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let (mut stream, peer) = accept(listener);
        let outcome = serve(&mut stream, args, &mut buffer);
        let outcome = outcome.unwrap_or_else(|error| error.to_string());
        // The close. If there is still something to read, the kernel sends a reset.
        drop(stream);
        log(format_args!("{peer}: closed, {outcome}"));
    }
}

/// Takes the next connection from the backlog. The lock lets one worker wait at a time.
fn accept(listener: &Mutex<TcpListener>) -> (TcpStream, SocketAddr) {
    let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match listener.accept() {
            Ok(connection) => return connection,
            Err(error) if GONE.contains(&error.kind()) => {}
            Err(error) => {
                log(format_args!("cannot accept: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Serves a client up to the moment when the connection can be closed. Returns what to log.
fn serve(stream: &mut TcpStream, args: &Args, buffer: &mut [u8]) -> io::Result<String> {
    // Without this, Nagle's algorithm may hold back the last words until the client has
    // acknowledged the echo. What is held back when the reset comes is lost, too.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let echoed = echo(stream, args.limit, buffer)?;
    let mut outcome = format!("bytes echoed: {echoed}");
    // After the client's FIN nothing more can come, so a simple close loses nothing.
    if echoed == args.limit {
        let last_words = format!("\nlimit reached: {echoed} bytes\n");
        stream.write_all(last_words.as_bytes())?;
        if !args.naive {
            outcome += &linger(stream, args.linger, buffer)?;
        }
    }
    Ok(outcome)
}

/// Echoes until the client has no more to send, or until the limit. Returns how many bytes.
fn echo(stream: &mut TcpStream, limit: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let mut echoed = 0;
    while echoed < limit {
        // What is beyond the limit stays unread.
        match (&*stream).take(limit - echoed).read(buffer) {
            Ok(0) => break,
            Ok(len) => {
                stream.write_all(&buffer[..len])?;
                echoed += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(echoed)
}

/// Half-closes, then discards what comes until the client closes too, within the limits.
fn linger(stream: &mut TcpStream, time: Duration, buffer: &mut [u8]) -> io::Result<String> {
    // Set before the shutdown: once both sides have ended, macOS refuses every option (EINVAL).
    stream.set_read_timeout(Some(time.min(TICK)))?;
    // The kernel sends the FIN after everything that we have written. The client reads the
    // last words, then the end of the stream, and so learns that it can stop sending.
    stream.shutdown(Shutdown::Write)?;
    // The deadline is for all reads together: a byte now and then does not prolong it.
    let deadline = Instant::now() + time;
    let mut discarded = 0;
    while discarded < MAX_DISCARDED && Instant::now() < deadline {
        match stream.read(buffer) {
            // The client has closed or half-closed. As it cannot send any more, nothing is
            // unread, and close(2) causes no reset. What our kernel has not sent yet, it
            // sends after the close.
            Ok(0) => return Ok(format!(", discarded: {discarded}")),
            Ok(len) => discarded += len as u64,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(format!(
        ", discarded: {discarded}, but the client did not close"
    ))
}

/// Writes a line to stderr with one system call, so that lines of different threads do not
/// mix. eprintln! would panic if nobody reads stderr any more.
fn log(line: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
