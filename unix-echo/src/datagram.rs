//! The echo over Unix datagrams. Like UDP they keep message boundaries. Unlike UDP, none is
//! lost or overtaken on its way: on Linux the sender waits if the receive queue is full.
//!
//! A server can answer only a client that has an address. A UDP client gets one when it first
//! sends. A Unix client gets none, so it must bind its socket.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::address::{Address, SocketFile};
use crate::{PAUSE, log, stdout};

/// Longer than most datagrams. The sender's send buffer (SO_SNDBUF) limits their length, on
/// Linux to less than 208 KiB by default.
pub const BUFFER_SIZE: usize = 1024 * 1024;

/// How long the server waits for space in its send buffer. Meanwhile all clients wait. The kernel
/// rounds it up to its next tick, which is 1 to 10 milliseconds.
const PATIENCE: Duration = Duration::from_micros(1);

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The server. One socket receives from all clients, in one thread.
pub fn start(socket: UnixDatagram, buffer: Vec<u8>, quiet: bool) -> Result<()> {
    socket
        .set_write_timeout(Some(PATIENCE))
        .context("cannot set a time limit")?;
    let second = non_blocking().context("cannot open a socket")?;
    let server = Server { socket, second };
    let started = thread::Builder::new().spawn(move || server.work(buffer, quiet));
    started.context("cannot start a thread")?;
    Ok(())
}

/// Opens a socket whose calls fail with WouldBlock where those of another would wait.
fn non_blocking() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

struct Server {
    /// Receives everything, and sends some of the echoes.
    socket: UnixDatagram,
    /// Sends all other echoes.
    second: UnixDatagram,
}

impl Server {
    fn work(mut self, mut buffer: Vec<u8>, quiet: bool) -> ! {
        loop {
            // If descriptors come with a datagram, the kernel closes them in this call. To close a
            // TCP socket with SO_LINGER can take long.
            match self.socket.recv_from(&mut buffer) {
                Ok((len, peer)) => {
                    let outcome = self.echo(&buffer[..len], &peer);
                    log(quiet, format_args!("{}: {outcome}", Address(peer)));
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

    /// Sends an echo, and does not let one client block the others for long.
    ///
    /// A datagram that nobody has read yet takes space in the send buffer of its sender. So
    /// clients that do not read could use up ours, and nobody would get an echo any more. Hence
    /// a second socket sends the echoes, without waiting, and when its buffer is full, a fresh one
    /// takes its place. But a client that has connected its socket to our first one, as our own
    /// client does, accepts nothing from another (EPERM). The first one answers it, and such clients
    /// can still cost each other their echoes.
    fn answer(&mut self, datagram: &[u8], peer: &SocketAddr) -> io::Result<usize> {
        match self.second.send_to_addr(datagram, peer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.second = non_blocking()?;
                self.second.send_to_addr(datagram, peer)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => loop {
                match self.socket.send_to_addr(datagram, peer) {
                    // Linux ends a call with a time limit when we were suspended (signal(7)).
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
pub fn ask(address: &Address, timeout: Duration, messages: &[OsString]) -> Result<()> {
    let (socket, _file) = bind_client()?;
    let mut output = stdout()?;
    let mut ask_and_print = |message: &[u8]| {
        exchange(&socket, message, address, timeout)?;
        let written = output.write_all(&[message, b"\n"].concat());
        written.context("cannot write to stdout")
    };
    for message in messages {
        ask_and_print(message.as_bytes())?;
    }
    if messages.is_empty() {
        for line in io::stdin().lock().split(b'\n') {
            ask_and_print(&line.context("cannot read stdin")?)?;
        }
    }
    Ok(())
}

/// Opens a socket with an address that nobody else uses. If this is a path, the file is removed
/// when the client ends.
fn bind_client() -> Result<(UnixDatagram, Option<SocketFile>)> {
    if cfg!(target_os = "linux") {
        // For an empty path the kernel chooses an abstract name ("autobind" in unix(7)).
        let socket = UnixDatagram::bind("").context("cannot bind the client's socket")?;
        return Ok((socket, None));
    }
    let path = env::temp_dir().join(format!("unix-echo-client-{}.sock", process::id()));
    let address = Address::new(&path)?;
    let socket = UnixDatagram::bind_addr(&address.0)
        .with_context(|| format!("cannot bind the client's socket to {address}"))?;
    Ok((socket, address.protect()?))
}

/// Sends a message and waits for its echo. Nothing is sent a second time: if no echo comes, the
/// server has ended or has given up, or does not see our name, which is unknown in another
/// network namespace.
fn exchange(
    socket: &UnixDatagram,
    message: &[u8],
    address: &Address,
    timeout: Duration,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    // From now on Linux refuses datagrams from others. What came before cannot be the echo.
    let connected = socket.connect_addr(&address.0);
    connected.map_err(|error| address.explain(error))?;
    socket.set_nonblocking(true)?;
    while socket.recv(&mut [0]).is_ok() {}
    socket.set_nonblocking(false)?;

    let sent = until(deadline, socket, || socket.send(message));
    let sent = sent.and_then(|sent| sent.context("its queue is full"));
    sent.with_context(|| format!("cannot send {} bytes to {address}", message.len()))?;

    // The kernel cuts off what does not fit, so a longer datagram must not look like the message.
    let mut buffer = vec![0; message.len() + 1];
    loop {
        let received = until(deadline, socket, || socket.recv(&mut buffer));
        match received.context("cannot receive")? {
            Some(len) if buffer[..len] == *message => return Ok(()),
            Some(_) if Instant::now() < deadline => {}
            _ => bail!("cannot get an answer from {address} within {timeout:?}"),
        }
    }
}

/// Makes a call that waits no longer than until the deadline. Returns nothing if it was in vain.
fn until(
    deadline: Instant,
    socket: &UnixDatagram,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Result<Option<usize>> {
    loop {
        // Zero is not allowed. With a microsecond, the call still takes an echo from the queue that
        // came while we were suspended.
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_micros(1));
        socket.set_write_timeout(Some(left))?;
        socket.set_read_timeout(Some(left))?;
        match call() {
            // We were suspended, as above.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            result => return Ok(Some(result?)),
        }
    }
}
