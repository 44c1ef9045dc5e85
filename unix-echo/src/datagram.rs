//! The echo over Unix datagrams. Like UDP they keep message boundaries. Unlike UDP, none is
//! lost or overtaken on its way: on Linux the sender waits if the receive queue is full.
//!
//! A server can answer only a client that has an address. A UDP client gets one when it first
//! sends. A Unix client gets none, so it must bind its socket.

use std::env;
use std::fs;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{ClientOptions, Name, SocketFile, buffer, log, stdout};

/// Longer than most datagrams. The sender's send buffer (SO_SNDBUF) limits their length, on
/// Linux to less than 208 KiB by default.
const BUFFER_SIZE: usize = 1024 * 1024;

/// How long the server waits for space in its send buffer. All clients wait as well. The kernel
/// rounds it up to its next tick, which is 1 to 10 milliseconds.
const PATIENCE: Duration = Duration::from_micros(1);

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The server. One socket receives from all clients, in one thread.
pub fn start(name: &Name, quiet: bool) -> Result<Option<SocketFile>> {
    let (socket, file) = name.bind(UnixDatagram::bind_addr)?;
    socket
        .set_write_timeout(Some(PATIENCE))
        .context("cannot set a time limit")?;
    let second = non_blocking().context("cannot open a socket")?;
    let buffer = buffer(BUFFER_SIZE)?;
    let server = Server { socket, second };
    let started = thread::Builder::new().spawn(move || server.work(buffer, quiet));
    started.context("cannot start a thread")?;
    Ok(file)
}

/// Opens a socket whose calls fail with WouldBlock where those of another would wait.
fn non_blocking() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

struct Server {
    /// Receives everything, and sends some of the answers.
    socket: UnixDatagram,
    /// Sends all other answers.
    second: UnixDatagram,
}

impl Server {
    fn work(mut self, mut buffer: Vec<u8>, quiet: bool) -> ! {
        loop {
            // The kernel closes descriptors that come with a datagram, here. Closing a TCP socket
            // with SO_LINGER can wait for long (README, "When it does not work").
            match self.socket.recv_from(&mut buffer) {
                Ok((len, peer)) => {
                    let outcome = self.echo(&buffer[..len], &peer);
                    log(quiet, format_args!("{}: {outcome}", Name(peer)));
                }
                Err(error) => {
                    log(quiet, format_args!("cannot receive: {error}"));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Sends a datagram back, if that is possible. Returns what to log.
    fn echo(&mut self, datagram: &[u8], peer: &SocketAddr) -> String {
        if let Some(reason) = refusal(datagram, peer) {
            return format!("not answered, {reason}");
        }
        match self.answer(datagram, peer) {
            Ok(len) => {
                // Escaped, so that a peer cannot forge log lines or send commands to the terminal.
                let shown = datagram[..len.min(SHOWN)].escape_ascii();
                let more = if len > SHOWN { "..." } else { "" };
                format!("length {len} \"{shown}\"{more}")
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                "not answered, earlier answers are not read yet".to_owned()
            }
            Err(error) => format!("cannot send the echo: {error}"),
        }
    }

    /// Sends an answer, and does not let one client block the others for long.
    ///
    /// A datagram that nobody has read yet takes space in the send buffer of its sender. So
    /// clients that do not read could use up ours, and nobody would get an answer any more. Hence
    /// a second socket answers, without waiting, and when its buffer is full, a fresh one takes
    /// its place. But a client that has connected its socket to ours, as our own client does,
    /// accepts nothing from another (EPERM). Our own socket answers it, and such clients can still
    /// cost each other their answers.
    fn answer(&mut self, datagram: &[u8], peer: &SocketAddr) -> io::Result<usize> {
        match self.second.send_to_addr(datagram, peer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.second = non_blocking()?;
                self.second.send_to_addr(datagram, peer)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => loop {
                match self.socket.send_to_addr(datagram, peer) {
                    // Linux interrupts a call with a time limit when we are suspended (signal(7)).
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => return result,
                }
            },
            result => result,
        }
    }
}

/// Returns why a datagram is not answered.
///
/// The path of a client could make us a *confused deputy*, which uses its own rights for somebody
/// else: it is resolved when we answer, with our rights. By then it can be a link to our own
/// socket, so that we answer ourselves forever, or to one that only we may write to. No check
/// helps, because it can change at any moment. An abstract name leads nowhere else. (Systems other
/// than Linux have only paths, so there we take the risk.)
fn refusal(datagram: &[u8], peer: &SocketAddr) -> Option<&'static str> {
    match peer.as_pathname() {
        Some(_) if cfg!(target_os = "linux") => Some("a path can lead anywhere"),
        _ if peer.is_unnamed() => Some("it has no address"),
        _ if datagram.len() == BUFFER_SIZE => Some("it may have been longer than the buffer"),
        _ => None,
    }
}

/// The client. It sends each message after the echo of the one before.
pub fn ask(name: &Name, options: &ClientOptions) -> Result<()> {
    let socket = bind_client()?;
    let result = ask_all(&socket, name, options);
    // If the address is a file, it must not stay behind.
    if let Some(path) = socket.local_addr()?.as_pathname() {
        let _ = fs::remove_file(path);
    }
    result
}

/// Opens a socket with an address that nobody else uses. On Linux an empty path lets the
/// kernel choose an abstract name ("autobind" in unix(7)).
fn bind_client() -> Result<UnixDatagram> {
    let path = if cfg!(target_os = "linux") {
        PathBuf::new()
    } else {
        env::temp_dir().join(format!("unix-echo-client-{}.sock", process::id()))
    };
    UnixDatagram::bind(path).context("cannot bind the client's socket")
}

fn ask_all(socket: &UnixDatagram, name: &Name, options: &ClientOptions) -> Result<()> {
    let mut output = stdout()?;
    let mut ask_and_print = |message: &[u8]| {
        exchange(socket, message, name, options.timeout)?;
        let written = output.write_all(&[message, b"\n"].concat());
        written.context("cannot write to stdout")
    };
    for message in &options.messages {
        ask_and_print(message.as_bytes())?;
    }
    let mut stdin = io::stdin().lock();
    let mut is_at_end = !options.messages.is_empty();
    while !is_at_end {
        let mut line = Vec::new();
        // A line without end must not fill the memory. This much is already too long to send.
        let read = (&mut stdin)
            .take(BUFFER_SIZE as u64)
            .read_until(b'\n', &mut line);
        // Only the last line may have no newline: a terminal need not end a second time (Ctrl-D).
        let message = line.strip_suffix(b"\n");
        is_at_end = message.is_none();
        if read.context("cannot read stdin")? > 0 {
            ask_and_print(message.unwrap_or(&line))?;
        }
    }
    Ok(())
}

/// Sends a message and waits for its echo. Nothing is sent a second time: if no echo comes, the
/// server has ended or has given up, or does not see our name, which is unknown in another
/// network namespace.
fn exchange(socket: &UnixDatagram, message: &[u8], name: &Name, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    // From now on Linux refuses datagrams from others. What came before cannot be the echo.
    let connected = socket.connect_addr(&name.0);
    connected.map_err(|error| name.explain(error))?;
    socket.set_nonblocking(true)?;
    while socket.recv(&mut [0]).is_ok() {}
    socket.set_nonblocking(false)?;
    send(socket, message, deadline).with_context(|| {
        let len = message.len();
        format!("cannot send {len} bytes to {name}")
    })?;
    let answered = wait_for_echo(socket, message, deadline).context("cannot receive")?;
    ensure!(
        answered,
        "cannot get an answer from {name} within {timeout:?}"
    );
    Ok(())
}

/// Sends a datagram. Waits, until the deadline, while the server's queue is full.
fn send(socket: &UnixDatagram, message: &[u8], deadline: Instant) -> Result<()> {
    loop {
        // The kernel applies a time limit to each call, so each call gets the time that is left.
        // Zero is not allowed.
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_write_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.send(message) {
            // Linux interrupts a call with a time limit when we are suspended (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("its queue is full"),
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Waits for the echo of a message until the deadline. Other datagrams do not count.
fn wait_for_echo(socket: &UnixDatagram, message: &[u8], deadline: Instant) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        // The kernel applies a time limit to each call, so each call gets the time that is
        // left. Zero is not allowed; one microsecond still takes an echo from the queue.
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv(&mut buffer) {
            Ok(len) if buffer[..len] == *message => return Ok(true),
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        // Checked after a last call, because an echo may have come while we were suspended.
        if left.is_zero() {
            return Ok(false);
        }
    }
}
