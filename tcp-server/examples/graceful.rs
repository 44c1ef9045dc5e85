//! `tcp-server` with a goodbye: when it is told to go, it finishes what it has begun.
//!
//! ```console
//! $ cargo run -p tcp-server --example graceful        # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: connected
//! $ cargo run -p tcp-client                           # terminal 2
//! hello ⏎
//! hello
//! ^C                                                  # terminal 1
//! ending, connections open: 1
//! ^D                                                  # terminal 2
//! 127.0.0.1:41234: closed, bytes echoed: 6            # terminal 1
//! ended, finished: 1, cut: 0
//! ```
//!
//! Ctrl-C sends the signal SIGINT, and `kill` and systemd send SIGTERM. By default a process ends
//! at once, and the kernel cuts its connections and resets those in the backlog. A *graceful* end
//! takes three steps. Accept what is in the backlog, and close the listener, so that new clients
//! are refused and can go elsewhere. Let the open connections finish. After `--grace` seconds, cut
//! the others. A second signal ends the process at once.
//!
//! A restart needs more. Between the last accept and the close the kernel may complete a
//! connection, which the close resets. A second listener on the port (SO_REUSEPORT) does not help,
//! because each has its own backlog. But processes can share one listener, which is closed with
//! its last descriptor. So another program opens it, such as systemd or inetd, and passes it to
//! each server as stdin, for `--inherit`. Here a shell keeps it as descriptor 9:
//!
//! ```console
//! $ python3 tests/peers/python/keep_listener.py 7007 bash
//! $ cargo run -p tcp-server --example graceful -- --inherit <&9 &
//! listening on 127.0.0.1:7007
//! $ cargo run -p tcp-server --example graceful -- --inherit <&9 &
//! listening on 127.0.0.1:7007
//! $ kill %1
//! ending, connections open: 0
//! ended, finished: 0, cut: 0
//! ```
//!
//! This is for every server that is restarted while clients use it. The price: a thread that waits
//! in accept does not see a signal. So the main thread waits for both, with a non-blocking listener
//! and poll(2), hands the connections to workers, and counts them.
//!
//! Try next:
//!
//! - Start it with `-- --grace 3` and a client that stays idle. Press Ctrl-C once, then twice.
//! - Start `tcp-server -- --max-connections 1`, then two clients, type a line into each, and press
//!   Ctrl-C at the server. The second client gets a reset. From this server it gets its line.
//!
//! Read `tcp-server` first: what it explains is not explained again.

// On other systems than Unix, only the last function is used.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::{fd::AsFd, unix::net::UnixStream};
use std::process;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};
#[cfg(unix)]
use socket2::SockRef;

/// How many bytes to read at once; `tcp-server` explains it.
const BUFFER_SIZE: usize = 48 * 1024;

/// How many connections may wait in the backlog of an inherited listener.
const BACKLOG: i32 = 4096;

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The errors of accept for a client that has already gone. Linux reports neither.
const GONE: [ErrorKind; 2] = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];

/// The messages to the main thread: a signal has come, and a connection is closed.
const SIGNAL: u8 = b'!';
const CLOSED: u8 = b'.';

type Connection = (TcpStream, SocketAddr);

/// Send every byte back, over TCP, and at the end finish what has begun
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// Listen on stdin: a listener that another program has opened
    #[arg(long, conflicts_with = "addr")]
    inherit: bool,

    /// Seconds that open connections have to finish after SIGINT, SIGTERM or SIGHUP
    #[arg(long, value_name = "SECS", default_value = "10")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    grace: Duration,

    /// How many clients to serve at the same time; further clients wait
    ///
    /// The server starts a thread for each in advance.
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Seconds without a read or write after which a connection is closed
    #[arg(long, value_name = "SECS", default_value = "60")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Do not log connections
    #[arg(short, long)]
    quiet: bool,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let args = Args::parse();
    let (inbox, outbox) = UnixStream::pair().context("cannot create a pair of sockets")?;
    report_signals(&outbox)?;
    let listener = if args.inherit {
        inherit().context("cannot listen on stdin: it must be a listener")?
    } else {
        listen(&args.addr)?
    };
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    // All processes that share a listener share this.
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    let workers = start_workers(&args, outbox)?;
    let mut server = Server {
        inbox,
        workers,
        open: 0,
        args,
    };
    let _ = writeln!(io::stdout(), "listening on {local}");
    // ANCHOR: end
    server.accept_until_told(&listener);
    server.accept_the_rest(&listener);
    drop(listener);
    server.let_finish();
    Ok(()) // The process ends, and the kernel closes what is still open.
    // ANCHOR_END: end
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

// ANCHOR: signals
/// Makes a signal a message, which wakes the main thread. A flag would wake nobody.
///
/// A signal interrupts a thread anywhere, so its handler may do very little (signal-safety(7)).
/// The handler of ctrlc only wakes a thread, and this thread runs our function. At the second
/// signal it logs nothing: that could wait for somebody to read stderr.
#[cfg(unix)]
fn report_signals(outbox: &UnixStream) -> Result<()> {
    let mut outbox = outbox.try_clone().context("cannot share a socket")?;
    let mut is_second = false;
    let handler = move || {
        if is_second {
            process::exit(1);
        }
        is_second = true;
        let _ = outbox.write_all(&[SIGNAL]);
    };
    ctrlc::set_handler(handler).context("cannot wait for signals")
}
// ANCHOR_END: signals

// ANCHOR: inherit
/// Takes the listener from stdin, which is descriptor 0. A second call of listen(2) only changes
/// the length of the backlog, but it fails on a connection, a terminal or a file.
#[cfg(unix)]
fn inherit() -> io::Result<TcpListener> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    SockRef::from(&stdin).listen(BACKLOG)?;
    Ok(TcpListener::from(stdin))
}
// ANCHOR_END: inherit

fn listen(addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                ": write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007"
            }
            ErrorKind::AddrInUse => ": another socket uses it; choose another port",
            ErrorKind::AddrNotAvailable => ": not on this machine; try 0.0.0.0 or [::]",
            ErrorKind::PermissionDenied => ": ports below 1024 often need a privilege",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot listen on {addr}{advice}"))
    })
}

/// Starts the workers, and returns the sending end of the channel that leads to them.
#[cfg(unix)]
fn start_workers(args: &Args, outbox: UnixStream) -> Result<Sender<Connection>> {
    let (sender, receiver) = mpsc::channel();
    let workers = Arc::new(Workers {
        connections: Mutex::new(receiver),
        outbox,
        idle_timeout: args.idle_timeout,
        quiet: args.quiet,
    });
    let wanted = args.max_connections;
    for number in 1..=wanted {
        let workers = Arc::clone(&workers);
        let started = thread::Builder::new().spawn(move || workers.work());
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}; choose a lower --max-connections")
        })?;
    }
    Ok(sender)
}

/// What the main thread knows.
#[cfg(unix)]
struct Server {
    inbox: UnixStream,
    workers: Sender<Connection>,
    /// How many connections are accepted and not closed yet.
    open: u32,
    args: Args,
}

#[cfg(unix)]
impl Server {
    // ANCHOR: accept
    /// Accepts connections while there are free workers, until a signal comes.
    fn accept_until_told(&mut self, listener: &TcpListener) {
        loop {
            let mut events = [
                PollFd::new(&self.inbox, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            let has_room = self.open < self.args.max_connections;
            // Without room, clients have to wait in the backlog.
            let count = if has_room { 2 } else { 1 };
            // Waits until one of them can be read. An error means that we were interrupted, and
            // that there are no events.
            let _ = poll(&mut events[..count], None);
            let [inbox, client] = events.map(|event| !event.revents().is_empty());
            if inbox && self.read_inbox() == Some(SIGNAL) {
                return;
            }
            if client {
                self.accept(listener);
            }
        }
    }

    /// Accepts what is in the backlog; these clients are connected, and may have sent something.
    /// They wait for a free worker. (Without a descriptor for them, they are reset after all.) An
    /// inherited backlog is left to the next server, which has more time.
    fn accept_the_rest(&mut self, listener: &TcpListener) {
        while !self.args.inherit && self.accept(listener) {}
    }

    /// Accepts a connection, if there is one. Returns whether there may be more.
    fn accept(&mut self, listener: &TcpListener) -> bool {
        match listener.accept() {
            Ok(connection) => {
                self.open += 1;
                let _ = self.workers.send(connection);
                true
            }
            Err(error) if GONE.contains(&error.kind()) => true,
            // Nobody is there, or another process that shares the listener was faster.
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                log(self.args.quiet, format_args!("cannot accept: {error}"));
                thread::sleep(PAUSE);
                false
            }
        }
    }
    // ANCHOR_END: accept

    /// Takes a message from the inbox, and counts. Returns `None` if the time limit is over, or if
    /// we were suspended, which interrupts a call with a time limit (signal(7)).
    fn read_inbox(&mut self) -> Option<u8> {
        let mut message = [0];
        // Not read_exact: after an interruption it would begin anew, with all of the time.
        let _ = self.inbox.read(&mut message).ok()?;
        let [message] = message;
        self.open -= u32::from(message == CLOSED);
        Some(message)
    }

    /// Waits until the last connection is closed, but no longer than the time of `--grace`.
    fn let_finish(&mut self) {
        let deadline = Instant::now() + self.args.grace;
        let open = self.open;
        log(false, format_args!("ending, connections open: {open}"));
        while self.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            // A limit of 0 is an error, and means here that the time is over.
            if self.inbox.set_read_timeout(Some(left)).is_err() {
                break;
            }
            self.read_inbox();
        }
        let cut = self.open;
        let finished = open - cut;
        log(
            false,
            format_args!("ended, finished: {finished}, cut: {cut}"),
        );
    }
}

/// What the workers share.
#[cfg(unix)]
struct Workers {
    connections: Mutex<Receiver<Connection>>,
    outbox: UnixStream,
    idle_timeout: Duration,
    quiet: bool,
}

#[cfg(unix)]
impl Workers {
    /// Serves one client after the other. One worker waits for a connection at a time, and the
    /// others wait for the lock.
    fn work(&self) {
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let connections = self.connections.lock();
            let next = connections.unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((stream, peer)) = next else {
                return; // The main thread has ended.
            };
            log(self.quiet, format_args!("{peer}: connected"));
            let outcome = match serve(stream, self.idle_timeout, &mut buffer) {
                Ok(echoed) => format!("bytes echoed: {echoed}"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    format!("no read or write for {:?}", self.idle_timeout)
                }
                Err(error) => error.to_string(),
            };
            log(self.quiet, format_args!("{peer}: closed, {outcome}"));
            let _ = (&self.outbox).write_all(&[CLOSED]);
        }
    }
}

/// Echoes on a connection as `tcp-server` does, and closes it.
fn serve(mut stream: TcpStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    // On macOS and the BSDs, a connection is non-blocking if its listener is.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(idle_timeout))?;
    stream.set_write_timeout(Some(idle_timeout))?;
    let mut echoed = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => return Ok(echoed),
            Ok(len) => {
                stream.write_all(&buffer[..len])?;
                echoed += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot wait for a client and a signal: only Unix has signals and poll")
}
