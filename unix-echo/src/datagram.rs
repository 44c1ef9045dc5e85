//! Over datagrams: boundaries are kept, as in UDP, but within one machine none is lost or moved. When the
//! receiver's queue is full the sender waits, where UDP would throw the datagram away.
//!
//! Whoever wants an answer needs a name to be answered at, the client too.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, ErrorKind, LineWriter, Read, Write};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{ClientOptions, Name, ServerOptions};

/// Longer than any datagram that gets here: what a sender's buffer holds (SO_SNDBUF, on Linux 208 KiB
/// unless it was raised) is the limit. One that fills the buffer may have lost its end.
const BUFFER_SIZE: usize = 1024 * 1024;

/// How long the server waits for a client that does not read, while all others wait too.
const PATIENCE: Duration = Duration::from_millis(10);

/// The pause after a failed receive, so that a lasting failure does not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// How many bytes of a datagram the log shows.
const SHOWN: usize = 64;

/// The server: one socket for all clients.
pub fn serve(name: &Name, options: &ServerOptions) -> Result<()> {
    let socket = name.bind(UnixDatagram::bind_addr)?;
    socket
        .set_write_timeout(Some(PATIENCE))
        .context("cannot set a time limit")?;
    // Not println!, which panics when nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {name}");
    echo(&socket, options.quiet)
}

/// Sends every datagram back to its sender, for ever.
fn echo(socket: &UnixDatagram, quiet: bool) -> ! {
    let mut buffer = vec![0; BUFFER_SIZE];
    // Rust's stderr has no buffer: each piece of a format would be a write(2) of its own.
    let mut stderr = LineWriter::new(io::stderr());
    let mut log = |line: fmt::Arguments| {
        if !quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = writeln!(stderr, "{line}");
        }
    };
    loop {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => (len, Name(peer)),
            Err(error) => {
                log(format_args!("cannot receive: {error}"));
                thread::sleep(PAUSE);
                continue;
            }
        };
        if peer.0.is_unnamed() {
            log(format_args!(
                "{peer}: not answered, it has no name to be answered at"
            ));
            continue;
        }
        if len == BUFFER_SIZE {
            log(format_args!(
                "{peer}: not answered, longer than {BUFFER_SIZE} bytes"
            ));
            continue;
        }
        let datagram = &buffer[..len];
        match answer(socket, datagram, &peer.0) {
            Ok(_) => {
                let shown = datagram[..len.min(SHOWN)].escape_ascii();
                let more = if len > SHOWN { "..." } else { "" };
                log(format_args!("{peer}: length {len} \"{shown}\"{more}"));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                log(format_args!("{peer}: not answered, it does not read"));
            }
            Err(error) => log(format_args!("{peer}: cannot send the echo: {error}")),
        }
    }
}

/// Sends an answer. What a client has not read yet counts as the *sender's* memory (SO_SNDBUF): a client
/// that never reads could use up ours, and nobody would get an answer any more. Then a socket of its own
/// sends this one. A client that has connected to us takes it from no other, and goes without.
fn answer(socket: &UnixDatagram, datagram: &[u8], peer: &SocketAddr) -> io::Result<usize> {
    match socket.send_to_addr(datagram, peer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let another = UnixDatagram::unbound()?;
            another.set_nonblocking(true)?;
            another.send_to_addr(datagram, peer)
        }
        result => result,
    }
}

/// The client: sends one datagram after the other, each when the one before has come back.
pub fn ask(name: &Name, options: &ClientOptions) -> Result<()> {
    let socket = bind_to_a_name_of_our_own()?;
    let result = ask_all(&socket, name, options);
    // Where the name is a file, it must not outlive us.
    if let Some(path) = socket.local_addr()?.as_pathname() {
        let _ = fs::remove_file(path);
    }
    result
}

/// On Linux the kernel finds a free name in the abstract namespace ("autobind", unix(7)), without a file.
fn bind_to_a_name_of_our_own() -> Result<UnixDatagram> {
    let path = if cfg!(target_os = "linux") {
        PathBuf::new()
    } else {
        env::temp_dir().join(format!("unix-echo-client-{}.sock", process::id()))
    };
    UnixDatagram::bind(path).context("cannot get a name to be answered at")
}

fn ask_all(socket: &UnixDatagram, name: &Name, options: &ClientOptions) -> Result<()> {
    socket
        .set_write_timeout(Some(options.timeout))
        .context("cannot set a time limit")?;
    for message in messages(&options.messages) {
        let message = message.context("cannot read stdin")?;
        let deadline = Instant::now() + options.timeout;
        send(socket, &message, name)?;
        let came_back = wait_for_echo(socket, &message, deadline).context("cannot receive")?;
        ensure!(
            came_back,
            "cannot get an answer from {name} within {:?}",
            options.timeout
        );
        print(&message)?;
    }
    Ok(())
}

/// The messages given, or else the lines of stdin, each as soon as it is there.
fn messages(given: &[OsString]) -> Box<dyn Iterator<Item = io::Result<Vec<u8>>> + '_> {
    if !given.is_empty() {
        return Box::new(given.iter().map(|message| Ok(message.as_bytes().to_vec())));
    }
    let mut stdin = io::stdin().lock();
    Box::new(iter::from_fn(move || next_line(&mut stdin).transpose()))
}

/// The next line without its newline, `None` at the end. Of an endless line it reads no more than what is
/// too long for a datagram.
fn next_line(stdin: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if stdin
        .take(BUFFER_SIZE as u64)
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

/// Sends a datagram; waits, up to the socket's time limit, while the server's queue is full.
fn send(socket: &UnixDatagram, message: &[u8], name: &Name) -> Result<()> {
    const EMSGSIZE: i32 = if cfg!(target_os = "linux") { 90 } else { 40 };
    loop {
        match socket.send_to_addr(message, &name.0) {
            Ok(_) => return Ok(()),
            // We were suspended and woken (SIGSTOP, SIGCONT).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                let len = message.len();
                return Err(error).with_context(|| {
                    format!("cannot send a datagram of {len} bytes: the limit is the send buffer (SO_SNDBUF)")
                });
            }
            Err(error) => return Err(name.explain(error)),
        }
    }
}

/// Waits until the deadline for a datagram that equals the message; what does not is passed over.
fn wait_for_echo(socket: &UnixDatagram, message: &[u8], deadline: Instant) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        // The kernel counts a time limit for each call anew, so each call gets what is left. Zero is not
        // allowed, and the least that is still takes what has already come.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_micros(1));
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, _)) if buffer[..len] == *message => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // We were suspended and woken, and the echo may have come meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// Writes an answer as it is, and a newline. `println!` would panic when nobody reads any more.
fn print(answer: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(answer)
        .and_then(|()| stdout.write_all(b"\n"))
        .context("cannot write to stdout")
}
