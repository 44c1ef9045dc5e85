//! The echo over Unix datagrams. Like UDP they keep message boundaries. Unlike UDP, none is
//! lost or overtaken on its way: on Linux the sender waits if the receive queue is full.
//!
//! A server can answer only a client that has an address. Here the kernel does not give it
//! one by itself, as with UDP, so the client binds its socket.

use std::env;
use std::fs;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{ClientOptions, Name, log};

/// Longer than most datagrams. The sender's send buffer (SO_SNDBUF) limits their length, on
/// Linux to less than 208 KiB by default.
const BUFFER_SIZE: usize = 1024 * 1024;

/// How long the server waits for a client that does not read. All others wait as well.
const PATIENCE: Duration = Duration::from_millis(10);

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The server. One socket serves all clients.
pub fn serve(name: &Name, quiet: bool) -> Result<()> {
    let socket = name.bind(UnixDatagram::bind_addr)?;
    socket
        .set_write_timeout(Some(PATIENCE))
        .context("cannot set a time limit")?;
    // Nobody may be reading stdout any more: println! would panic, and this does not.
    let _ = writeln!(io::stdout(), "listening on {name}");
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => echo(&socket, &buffer[..len], &Name(peer), quiet),
            Err(error) => {
                log(quiet, format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Sends a datagram back, if that is possible, and logs it.
fn echo(socket: &UnixDatagram, datagram: &[u8], peer: &Name, quiet: bool) {
    let len = datagram.len();
    if peer.0.is_unnamed() {
        log(
            quiet,
            format_args!("{peer}: not answered, it has no address"),
        );
        return;
    }
    // A datagram that fills the buffer may have been longer.
    if len == BUFFER_SIZE {
        log(
            quiet,
            format_args!("{peer}: not answered, longer than {len} bytes"),
        );
        return;
    }
    match answer(socket, datagram, &peer.0) {
        Ok(_) => {
            // Escaped, so that a peer cannot forge log lines or send commands to the terminal.
            let shown = datagram[..len.min(SHOWN)].escape_ascii();
            let more = if len > SHOWN { "..." } else { "" };
            log(
                quiet,
                format_args!("{peer}: length {len} \"{shown}\"{more}"),
            );
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            log(
                quiet,
                format_args!("{peer}: not answered, it does not read"),
            );
        }
        Err(error) => log(quiet, format_args!("{peer}: cannot send the echo: {error}")),
    }
}

// ANCHOR: answer
/// Sends an answer, and does not let one client block the others for long.
///
/// A datagram that nobody has read yet takes space in the send buffer of its *sender*. So a
/// client that never reads could fill ours, and nobody would get an answer any more. Then a
/// second socket sends the answer. Only a client that has connected its socket to ours gets
/// none, because it accepts nothing from the second.
fn answer(socket: &UnixDatagram, datagram: &[u8], peer: &SocketAddr) -> io::Result<usize> {
    match socket.send_to_addr(datagram, peer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let second = UnixDatagram::unbound()?;
            // A non-blocking call fails with WouldBlock where another would wait.
            second.set_nonblocking(true)?;
            second.send_to_addr(datagram, peer)
        }
        result => result,
    }
}
// ANCHOR_END: answer

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

// ANCHOR: bind_client
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
// ANCHOR_END: bind_client

fn ask_all(socket: &UnixDatagram, name: &Name, options: &ClientOptions) -> Result<()> {
    for message in &options.messages {
        exchange(socket, message.as_bytes(), name, options.timeout)?;
    }
    if options.messages.is_empty() {
        let mut stdin = io::stdin().lock();
        while let Some(line) = next_line(&mut stdin).context("cannot read stdin")? {
            exchange(socket, &line, name, options.timeout)?;
        }
    }
    Ok(())
}

/// Reads a line and removes its newline. Returns `None` at the end of the input.
fn next_line(stdin: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // A line without end must not fill the memory. This much is already too long to send.
    let limit = BUFFER_SIZE as u64;
    let len = stdin.take(limit).read_until(b'\n', &mut line)?;
    if len == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

/// Sends a message, waits for its echo, and prints it. Nothing is sent a second time: if no
/// echo comes, the server has ended or has given up.
fn exchange(socket: &UnixDatagram, message: &[u8], name: &Name, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    socket
        .set_write_timeout(Some(timeout))
        .context("cannot set a time limit")?;
    send(socket, message, name)?;
    let answered = wait_for_echo(socket, message, deadline).context("cannot receive")?;
    ensure!(
        answered,
        "cannot get an answer from {name} within {timeout:?}"
    );
    // Nobody may be reading stdout any more: println! would panic, and this does not.
    let written = io::stdout().write_all(&[message, b"\n"].concat());
    written.context("cannot write to stdout")
}

/// Sends a datagram. Waits, up to the time limit of the socket, while the server's queue is full.
fn send(socket: &UnixDatagram, message: &[u8], name: &Name) -> Result<()> {
    const EMSGSIZE: i32 = if cfg!(target_os = "linux") { 90 } else { 40 };
    loop {
        match socket.send_to_addr(message, &name.0) {
            Ok(_) => return Ok(()),
            // Linux interrupts a call with a time limit when we are suspended (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                let len = message.len();
                return Err(error).with_context(|| {
                    format!("cannot send {len} bytes: more than the send buffer (SO_SNDBUF) takes")
                });
            }
            Err(error) => return Err(name.explain(error)),
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
        match socket.recv_from(&mut buffer) {
            Ok((len, _)) if buffer[..len] == *message => return Ok(true),
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
