//! A TCP server that can be restarted, and no client is refused or reset: it gets its listener from
//! another program, and leaves it to the next server.
//!
//! ```console
//! $ python3 tests/peers/python/keep_listener.py 7007 bash      # terminal 1
//! $ cargo run -p tcp-server --example restart <&9 &
//! listening on 127.0.0.1:7007
//! $ cargo run -p tcp-server --example restart <&9 &
//! listening on 127.0.0.1:7007
//! $ kill %1
//! ending
//! ended, all connections have finished
//! 127.0.0.1:41234: connected
//! 127.0.0.1:41234: closed, bytes echoed: 6
//! $ cargo run -p tcp-client -- hello                           # terminal 2
//! hello
//! ```
//!
//! A server that opens its own listener cannot do this. From the moment when it closes the listener
//! until the next server has opened one, clients are refused. And between the last accept and the
//! close, the kernel may complete more connections, which the close resets. With SO_REUSEPORT, two
//! servers can listen on one port at the same time, but each listener has its own backlog. By default,
//! Linux resets the backlog of a listener that is closed. It moves these connections to the other
//! listener only if `net.ipv4.tcp_migrate_req` is 1 (since Linux 5.14).
//!
//! But several processes can have one listener, with one backlog. The kernel closes it when the last
//! descriptor for it is closed. So another program opens it, and passes it to each server as stdin:
//! inetd does this if its configuration says `wait`, and systemd with `StandardInput=socket`. Above,
//! a shell keeps the listener as descriptor 9, and `<&9` makes it the stdin of a server.
//!
//! At SIGTERM a server leaves the backlog to the next one, and lets its own connections finish. SIGINT
//! and SIGHUP end it at once; `graceful` shows how to wait for several signals. A limit for the number
//! of clients, and options, are left to `tcp-server`.
//!
//! Try next:
//!
//! - Start only one server, and `kill %1`. The next client is neither refused nor served, since the
//!   shell still has the listener. Start a server again, and it serves this client.
//! - See which processes have the listener, before `kill %1` and after it: `ss -ltnp`
//!
//! Read `tcp-server` and `graceful` first: what they explain is not explained again.

// On systems other than Unix, most of this is unused.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::{fd::AsFd, unix::net::UnixStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};
#[cfg(unix)]
use rustix::{io::retry_on_intr, stdio::dup2_stdin};
#[cfg(unix)]
use signal_hook::{consts::SIGTERM, low_level::pipe};
#[cfg(unix)]
use socket2::SockRef;

/// How many connections may wait in the backlog; std asks for as many.
const BACKLOG: i32 = 128;

/// How long the open connections have to finish after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How long a read or write may wait. Then it fails with WouldBlock, and the connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after an error: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Send every byte back, over TCP, to the clients of a listener that another program has opened
///
/// The listener must be stdin. At SIGTERM the server leaves it to the next server.
#[derive(Parser)]
#[command(version)]
struct Args {}

#[cfg(unix)]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version.
    let listener = inherit().context("cannot listen on stdin: it must be a listener")?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let (tell, told) = UnixStream::pair().context("cannot create a pair of sockets")?;
    // When the signal comes, signal-hook sends a byte, so `told` can be read.
    pipe::register(SIGTERM, tell).context("cannot wait for SIGTERM")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    // Each connection keeps a sender, and sends nothing. When the last sender is dropped, the
    // receiver learns that no message can come any more.
    let (sender, receiver) = mpsc::channel();
    accept_until_told(&listener, &told, sender);
    drop(listener);
    log(format_args!("ending"));
    let outcome = match receiver.recv_timeout(GRACE) {
        Err(RecvTimeoutError::Timeout) => "some connections are cut",
        _ => "all connections have finished",
    };
    log(format_args!("ended, {outcome}"));
    Ok(())
}

/// Takes the listener from stdin, which is descriptor 0. A second call of listen(2) only changes
/// the length of the backlog, but it fails on a connection, a terminal or a file. Then /dev/null
/// becomes descriptor 0. Otherwise we would have two descriptors for the listener, and could close
/// only one of them.
#[cfg(unix)]
fn inherit() -> io::Result<TcpListener> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    SockRef::from(&stdin).listen(BACKLOG)?;
    dup2_stdin(File::open("/dev/null")?)?;
    let listener = TcpListener::from(stdin);
    // One client wakes all servers that wait for one in poll, but only one of them can accept it.
    // The others must not wait in accept. All descriptors for the listener share this property.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections until the signal comes. The next server has more time for those that are in
/// the backlog then.
#[cfg(unix)]
fn accept_until_told(listener: &TcpListener, told: &UnixStream, sender: Sender<()>) {
    loop {
        let mut events = [
            PollFd::new(told, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        let polled = retry_on_intr(|| poll(&mut events, None)).map_err(io::Error::from);
        if !events[0].revents().is_empty() {
            return;
        }
        if let Err(error) = polled.and_then(|_| accept(listener, &sender)) {
            log(format_args!("cannot accept: {error}"));
            thread::sleep(PAUSE);
        }
    }
}

/// Accepts a connection, and starts a thread that serves it.
fn accept(listener: &TcpListener, sender: &Sender<()>) -> io::Result<()> {
    let (stream, peer) = match listener.accept() {
        // Another server has accepted the client.
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        accepted => accepted?,
    };
    let sender = sender.clone();
    let work = move || {
        log(format_args!("{peer}: connected"));
        match echo(stream) {
            Ok(echoed) => log(format_args!("{peer}: closed, bytes echoed: {echoed}")),
            Err(error) => log(format_args!("{peer}: closed, {error}")),
        }
        drop(sender);
    };
    thread::Builder::new().spawn(work).map(drop)
}

/// Writes what it reads, until the client has no more to send, and closes the connection.
fn echo(stream: TcpStream) -> io::Result<u64> {
    // On macOS and the BSDs, a connection is non-blocking if its listener is.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    io::copy(&mut &stream, &mut &stream)
}

fn log(line: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot take a listener from stdin: this needs Unix")
}
