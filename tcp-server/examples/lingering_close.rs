//! A server that says when it has had enough, and closes without losing a word of what it said.
//!
//! ```console
//! $ cargo run -p tcp-server --example lingering_close                         # terminal 1
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
//! (While `sleep` runs, nobody reads what `tcp-client` prints, so it cannot read on either. On
//! stderr it says that not everything came back, which is true.)
//!
//! When a program closes a connection, the kernel sends what it has not sent yet, and then a
//! FIN. But if the program has not read all that the client has sent, the kernel sends a reset
//! instead (RFC 1122, 4.2.2.13). And if the client sends more after the close, the kernel
//! answers that with a reset. A reset ends both directions at once:
//!
//! - Our kernel throws away what it still keeps, because the client's receive buffer is full, or
//!   because a segment got lost and must be sent again.
//! - The client's kernel may throw away what the client has not read yet (RFC 9293, 3.10.7.4).
//!   Linux keeps it.
//! - A client that writes gets an error, and many clients then stop reading.
//!
//! So the last words, such as an error message, are lost just when they matter: while the
//! client still sends. The *lingering close* avoids the reset (RFC 9112, 9.6). The server
//! half-closes, which tells the client that nothing more will come, then reads and discards
//! until the client closes too, and only then closes. As a client may never do that, the time
//! and the amount are limited. Web servers do the same when a request is too long.
//!
//! The socket option SO_LINGER does something else. It makes close(2) wait, up to a time limit,
//! until the client has acknowledged everything. It does not prevent the reset, and with a
//! limit of 0 it causes one.
//!
//! Every server that may end a conversation before its client does needs the lingering close:
//! one with limits, or one that reports errors of the protocol. `tcp-server` closes after the
//! client's FIN, or when its time limit has passed, and then it has no last words to lose. The
//! price is a second loop, and a thread and a connection that are busy with useless bytes for
//! some seconds.
//!
//! Try next:
//!
//! - Close at once: `cargo run -p tcp-server --example lingering_close -- --naive`. Now the
//!   last line is a `y`, and without the `2> /dev/null` you see `Connection reset by peer`.
//! - Start the server with `--linger 0.001` instead. The time has passed while bytes still
//!   come, so the reset comes after all, and the server logs that the client did not close.
//!
//! Read `tcp-server` first: what it explains is not explained again.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

/// How many bytes to discard at once.
const BUFFER_SIZE: usize = 48 * 1024;

/// The limit for each read and write until the last words.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How much to discard at most. Without this limit, a client could keep us busy for all of the
/// time: over loopback, several gigabytes in two seconds.
const MAX_DISCARDED: u64 = 16 * 1024 * 1024;

/// The pause after an error of accept.
const PAUSE: Duration = Duration::from_millis(100);

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

    /// Seconds to wait for the client to close, after the last words
    #[arg(long, value_name = "SECS", default_value = "2")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    linger: Duration,

    /// Close at once, to see what gets lost
    #[arg(long)]
    naive: bool,
}

fn main() -> Result<()> {
    let args: &'static Args = Box::leak(Box::new(Args::parse()));
    let listener =
        TcpListener::bind(&args.addr).with_context(|| format!("cannot listen on {}", args.addr))?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let work = move || {
                    let outcome = serve(&stream, args).unwrap_or_else(|error| error.to_string());
                    // The close. If something is still unread, the kernel sends a reset.
                    drop(stream);
                    log(format_args!("{peer}: closed, {outcome}"));
                };
                // A thread for each client. (`tcp-server` limits their number.)
                if let Err(error) = thread::Builder::new().spawn(work) {
                    log(format_args!("{peer}: cannot start a thread: {error}"));
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log(format_args!("cannot accept: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Serves a client up to the moment when the connection can be closed. Returns what to log.
fn serve(mut stream: &TcpStream, args: &Args) -> io::Result<String> {
    // Without this, Nagle's algorithm may hold back the last words until the client has
    // acknowledged the echo. What is held back when the reset comes is lost, too.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    // The echo, until the client's FIN or our limit. What is beyond the limit stays unread.
    let echoed = io::copy(&mut stream.take(args.limit), &mut stream)?;
    let mut outcome = format!("bytes echoed: {echoed}");
    // After the client's FIN nothing more can come, so a simple close loses nothing.
    if echoed == args.limit {
        let last_words = format!("\nlimit reached: {echoed} bytes\n");
        stream.write_all(last_words.as_bytes())?;
        if !args.naive {
            outcome += &linger(stream, args.linger)?;
        }
    }
    Ok(outcome)
}

/// Half-closes, then discards what comes until the client closes too, within the limits.
fn linger(mut stream: &TcpStream, time: Duration) -> io::Result<String> {
    // Set before the shutdown: once both sides have ended, macOS refuses every option (EINVAL).
    stream.set_read_timeout(Some(time))?;
    // The kernel sends the FIN after everything that we have written. The client reads the last
    // words, then the end of the stream, and so learns that it can stop sending.
    stream.shutdown(Shutdown::Write)?;
    // The limit above is for one read: without a deadline for all of them, a byte now and then
    // would prolong the time. (The last read may begin just before it, and end after twice the
    // time.)
    let deadline = Instant::now() + time;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut discarded = 0;
    while discarded < MAX_DISCARDED && Instant::now() < deadline {
        match stream.read(&mut buffer) {
            // The client has closed or half-closed. As it cannot send any more, nothing is
            // unread, and close(2) causes no reset. What our kernel has not sent yet, it sends
            // after the close.
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

/// Writes a line to stderr with one system call.
fn log(line: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
