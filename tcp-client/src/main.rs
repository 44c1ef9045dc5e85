//! Sends to an echo server and prints what comes back, both at the same time.
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
//! Try next:
//!
//! - `tcp-client < big-file > copy`: no byte is lost, however big, and hardly any is kept in memory.
//! - Leave the message out, type a line, and stop the server (Ctrl-C): you are told what came back.
//!
//! Read next: `echo` in `tcp-server`, where the half-close below arrives.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

/// How much is read and written at once, in each direction. Any size is right: a stream has no borders.
const BUFFER_SIZE: usize = 64 * 1024;

/// Send to an echo server over TCP and print what comes back
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007", value_parser = host_and_port)]
    addr: String,

    /// How long to wait for a connection and, when all is sent, for more to come back; fractions are
    /// allowed
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Each is sent as a line; without any, stdin is sent as it is
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (stream, server) = connect(&args.addr, args.timeout)?;
    let progress = Arc::new(Progress {
        server,
        sent: AtomicU64::new(0),
        end: OnceLock::new(),
    });
    start_sending(args.messages, &stream, &progress)?;
    receive(&stream, &progress, args.timeout)
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

/// Connects to the first address of a name that lets us. Each gets an equal share of what is left of the
/// time: one that never answers does not use up that of the others.
fn connect(addr: &str, timeout: Duration) -> Result<(TcpStream, SocketAddr)> {
    let deadline = Instant::now() + timeout;
    let servers = addr
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {addr}"))?;
    let mut servers = servers.collect::<VecDeque<_>>();
    while let Some(server) = servers.pop_front() {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let share = left / (servers.len() as u32 + 1);
        match TcpStream::connect_timeout(&server, share) {
            Ok(stream) => return Ok((stream, server)),
            Err(error) if servers.is_empty() => return Err(explain(error, server)),
            Err(error) => note(format_args!(
                "{:#}; trying the next address",
                explain(error, server)
            )),
        }
    }
    bail!("cannot connect to {addr}: the name has no address")
}

/// Says of a failed connect what it means here and what to do.
fn explain(error: io::Error, server: SocketAddr) -> anyhow::Error {
    let meaning = match error.kind() {
        ErrorKind::ConnectionRefused => ": nobody listens there, start tcp-server",
        ErrorKind::TimedOut => ": nobody answers there, or the server has no place left",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot connect to {server}{meaning}"))
}

/// What the sending thread tells the receiving one.
struct Progress {
    server: SocketAddr,
    /// How many bytes have been sent, or are being sent.
    sent: AtomicU64,
    /// When the sending ended, and how.
    end: OnceLock<(Instant, Result<()>)>,
}

/// Sends in a thread of its own. Whoever sends all before receiving waits for ever when there is much to
/// send: the server waits until we read what it has echoed, and we wait until it reads on.
fn start_sending(
    messages: Vec<OsString>,
    stream: &TcpStream,
    progress: &Arc<Progress>,
) -> Result<()> {
    let stream = stream
        .try_clone()
        .context("cannot use the connection twice")?;
    let progress = Arc::clone(progress);
    let sending = move || {
        let result = send(input(&messages), &stream, &progress.sent);
        let _ = progress.end.set((Instant::now(), result));
        // The half-close: a FIN tells the server that nothing more comes from us, while we go on reading.
        // It fails only on a connection that is gone, which the receiving side learns as well.
        let _ = stream.shutdown(Shutdown::Write);
    };
    thread::Builder::new()
        .spawn(sending)
        .context("cannot start a thread")?;
    Ok(())
}

/// The messages, each as a line, or else stdin.
fn input(messages: &[OsString]) -> Box<dyn Read> {
    if messages.is_empty() {
        return Box::new(io::stdin());
    }
    let lines = messages
        .iter()
        .flat_map(|message| [message.as_encoded_bytes(), b"\n"]);
    Box::new(Cursor::new(lines.collect::<Vec<_>>().concat()))
}

/// Sends all input.
fn send(mut input: impl Read, mut stream: &TcpStream, sent: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted first, for no byte comes back before it was counted.
        sent.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes as soon as it comes, until the server closes.
fn receive(mut stream: &TcpStream, progress: &Progress, timeout: Duration) -> Result<()> {
    let mut stdout = stdout().context("cannot open stdout")?;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut received = 0;
    let mut waiting_since = Instant::now();
    stream
        .set_read_timeout(Some(timeout))
        .context("cannot set a time limit")?;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return progress.judge(received),
            Ok(len) => {
                received += len as u64;
                let printed = stdout
                    .write_all(&buffer[..len])
                    .and_then(|()| stdout.flush());
                printed.context("cannot write to stdout")?;
                waiting_since = Instant::now();
            }
            // We were suspended and woken (SIGSTOP, SIGCONT).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The time limit has passed, in the words of Unix and of Windows.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let left = progress.time_left(waiting_since, timeout);
                ensure!(
                    !left.is_zero(),
                    "{}, then nothing for {timeout:?}",
                    progress.count(received)
                );
                stream
                    .set_read_timeout(Some(left))
                    .context("cannot set a time limit")?;
            }
            Err(error) => return Err(error).with_context(|| progress.count(received)),
        }
    }
}

impl Progress {
    /// How much longer to wait. While there is still something to send, the server may be silent.
    fn time_left(&self, waiting_since: Instant, timeout: Duration) -> Duration {
        match self.end.get() {
            Some((ended, _)) => {
                (waiting_since.max(*ended) + timeout).saturating_duration_since(Instant::now())
            }
            None => timeout,
        }
    }

    /// Whether all is well, when the server has closed the connection.
    fn judge(&self, received: u64) -> Result<()> {
        match self.end.get() {
            Some((_, Ok(()))) if received >= self.sent.load(Ordering::Relaxed) => Ok(()),
            Some((_, Ok(()))) => bail!(
                "{}, then the server closed the connection",
                self.count(received)
            ),
            Some((_, Err(error))) => bail!("{error:#}; {}", self.count(received)),
            None => bail!(
                "{}, then the server closed, before all was sent",
                self.count(received)
            ),
        }
    }

    fn count(&self, received: u64) -> String {
        let sent = self.sent.load(Ordering::Relaxed);
        format!(
            "cannot get all back from {}: {received} of {sent} bytes came back",
            self.server
        )
    }
}

/// Our stdout without the buffer that std puts before it: we write large pieces, and at once.
#[cfg(unix)]
fn stdout() -> io::Result<impl Write> {
    use std::{fs::File, os::fd::AsFd};
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// On Windows a console takes text alone, to which std's stdout translates.
#[cfg(not(unix))]
fn stdout() -> io::Result<impl Write> {
    Ok(io::stdout())
}

/// Tells something on stderr. That nobody reads it there any more is no reason to stop.
fn note(line: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{line}");
}
