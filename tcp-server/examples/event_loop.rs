//! Sends every byte back, as `tcp-server` does, but in one thread: the kernel tells which connections have
//! something to do, and only those are looked at.
//!
//! ```console
//! $ cargo run -p tcp-server --example event_loop            # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: connected
//! 127.0.0.1:41234: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p tcp-client -- hello                        # terminal 2
//! hello
//! ```
//!
//! It is for thousands of connections, most of them idle, and for many short messages. A connection that
//! waits is an entry in a table here, and a thread with its stack there: 0.3 KiB against 20. Messages
//! of 512 bytes on 50 connections go 1.5 to 2 times as fast as with `tcp-server`. With one connection there is
//! nothing to gain. These measure it:
//!
//! ```console
//! $ cargo test --release --test speed -- --ignored --nocapture --test-threads 1
//! $ cargo bench -p tests -- growth
//! ```
//!
//! The price is clarity. Nothing may wait, or all would: so each call may say "not now" (WouldBlock), and
//! what a thread has in its variables and in its place in the code stands in a struct. Time limits, pauses
//! and fairness, which the kernel has for threads, are the program's own. One processor does it all. mio
//! asks the kernel (epoll, kqueue); it takes a socket without `unsafe`, where the crate polling does not.
//!
//! Try next:
//!
//! - Start it with `ulimit -n 24` and open 60 connections: it pauses, and goes on as others close.
//! - Suspend it (Ctrl-Z) and start many clients: all are connected, since the queue is long.
//!
//! Read `tcp-server` first: what is said there is not said again.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::SockRef;

/// How much is read at once, into one buffer for all connections.
const BUFFER_SIZE: usize = 48 * 1024;

/// How many events are taken from the kernel at once.
const EVENTS: usize = 1024;

/// How many connections may wait to be accepted. std asks for 128. When the queue is full, the kernel
/// drops requests for a connection, and the client's kernel asks again after a second. Linux allows as
/// many as `/proc/sys/net/core/somaxconn` says, 4096 if nobody has changed it.
const BACKLOG: i32 = 4096;

/// The pause after a failed accept. Out of descriptors it would fail again at once, and again.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener's events bear this token. Connections are numbered from 1 up.
const LISTENER: Token = Token(0);

/// Send every byte back, over TCP, to many clients at once
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007", value_parser = host_and_port)]
    addr: String,

    /// How many clients to serve at once; further ones wait
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// When to close a connection on which nothing moves; fractions are allowed
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Log no connections
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let listener = bind(&args.addr)?;
    let local = listener
        .local_addr()
        .context("cannot read the listener's own address")?;
    let mut poll = Poll::new().context("cannot ask the kernel for events")?;
    let mut server = Server::new(listener, poll.registry(), args)?;
    // Not println!, which panics when nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {local}");
    server.run(&mut poll)
}

/// Checks the form of an address. Whether the host exists is for the resolver to say.
fn host_and_port(text: &str) -> Result<String, String> {
    let is_host = |host: &str| !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("write HOST:PORT, the port from 0 to 65535: 127.0.0.1:7007, [::1]:7007".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write seconds from 0.001 to 86400".into()),
    }
}

/// Opens a listener with a long queue, which never waits: what cannot be done at once fails with WouldBlock.
fn bind(addr: &str) -> Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addr).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                ": another socket has this address; end its program or choose another port"
            }
            ErrorKind::PermissionDenied => {
                ": ports below 1024 are the system's; choose a higher one"
            }
            ErrorKind::AddrNotAvailable => {
                ": not an address of this machine; 0.0.0.0 and [::] stand for all that are"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot listen on {addr}{advice}"))
    })?;
    // A second listen(2) changes the length of the queue, and nothing else.
    SockRef::from(&listener)
        .listen(BACKLOG)
        .context("cannot make the listener's queue longer")?;
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    Ok(TcpListener::from_std(listener))
}

struct Server {
    listener: TcpListener,
    /// Where the kernel is told whose events we want.
    registry: Registry,
    args: Args,
    /// No token is ever used again: an event for a connection that has just been closed finds nothing.
    connections: HashMap<Token, Connection>,
    last_token: usize,
    /// When to see whether a connection is idle. One entry for each connection, the earliest first.
    checks: BTreeSet<(Instant, Token)>,
    /// When to take connections from the kernel's queue, if there may be any.
    accept_at: Option<Instant>,
    /// The time at which the kernel gave us the events that we handle.
    now: Instant,
    buffer: Vec<u8>,
}

impl Server {
    fn new(mut listener: TcpListener, registry: &Registry, args: Args) -> Result<Server> {
        let registry = registry
            .try_clone()
            .context("cannot ask the kernel for events")?;
        let watched = registry.register(&mut listener, LISTENER, Interest::READABLE);
        watched.context("cannot ask the kernel for the listener's events")?;
        Ok(Server {
            listener,
            registry,
            args,
            connections: HashMap::new(),
            last_token: LISTENER.0,
            checks: BTreeSet::new(),
            accept_at: None,
            now: Instant::now(),
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    /// The event loop. All waiting for the network is done here.
    fn run(&mut self, poll: &mut Poll) -> ! {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let polled = poll.poll(&mut events, self.time_to_next_task());
            self.now = Instant::now();
            match polled {
                Ok(()) => events.iter().for_each(|event| match event.token() {
                    LISTENER => self.accept_at = self.accept_at.or(Some(self.now)),
                    token => self.serve(token, event.is_read_closed()),
                }),
                // We were suspended and woken (SIGSTOP, SIGCONT).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.log(format_args!("cannot wait for events: {error}"));
                    thread::sleep(PAUSE);
                }
            }
            self.close_idle();
            self.accept();
        }
    }

    /// How long to wait for events at most. `None` is for ever.
    fn time_to_next_task(&self) -> Option<Duration> {
        let accept_at = self.accept_at.filter(|_| self.has_place());
        let check_at = self.checks.first().map(|(check_at, _)| *check_at);
        let next = accept_at.into_iter().chain(check_at).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn has_place(&self) -> bool {
        self.connections.len() < self.args.max_connections as usize
    }

    /// Takes connections from the kernel's queue, while there are any and we have a place for them.
    fn accept(&mut self) {
        while self.has_place() && self.accept_at.is_some_and(|at| at <= self.now) {
            match self.listener.accept() {
                Ok((stream, peer)) => self.add(stream, peer),
                // The queue is empty. The kernel tells when it no longer is.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.accept_at = None,
                // This client has left the queue already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.log(format_args!("cannot accept: {error}"));
                    self.accept_at = Some(self.now + PAUSE);
                }
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.log(format_args!("{peer}: connected"));
        self.last_token += 1;
        let token = Token(self.last_token);
        // See tcp-server for what happens without TCP_NODELAY.
        let watched = stream.set_nodelay(true).and_then(|()| {
            self.registry
                .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        });
        if let Err(error) = watched {
            return self.log(format_args!("{peer}: closed, {error}"));
        }
        let check_at = self.now + self.args.idle_timeout;
        self.checks.insert((check_at, token));
        let connection = Connection {
            stream,
            peer,
            unwritten: Vec::new(),
            echoed: 0,
            last_moved: self.now,
            check_at,
        };
        self.connections.insert(token, connection);
    }

    /// Does what can be done on a connection now.
    fn serve(&mut self, token: Token, half_closed: bool) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        match connection.echo(&mut self.buffer, self.now, half_closed) {
            Ok(Turn::Ended) => {
                let echoed = connection.echoed;
                self.close(token, format_args!("bytes echoed: {echoed}"));
            }
            Ok(Turn::Unfinished) => {
                // The kernel tells of each change once (edge-triggered). Asked anew, it tells again, and after
                // it has told of the others.
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Err(error) =
                    self.registry
                        .reregister(&mut connection.stream, token, interest)
                {
                    self.close(token, format_args!("{error}"));
                }
            }
            // No more can be read, or written, now. The kernel tells when it can.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.close(token, format_args!("{error}")),
        }
    }

    /// Closes the connections on which nothing has moved for too long.
    ///
    /// Bytes that move do not touch the order of the checks. It is when the time of a check has come that
    /// the next is set, by the bytes that have moved meanwhile.
    fn close_idle(&mut self) {
        while let Some(&(check_at, token)) = self.checks.first() {
            if check_at > self.now {
                return;
            }
            self.checks.pop_first();
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.check_at = connection.last_moved + self.args.idle_timeout;
            if connection.check_at > self.now {
                self.checks.insert((connection.check_at, token));
            } else {
                let idle_timeout = self.args.idle_timeout;
                self.close(token, format_args!("nothing moved for {idle_timeout:?}"));
            }
        }
    }

    /// Ends a connection. Its end of scope closes the stream, and the kernel forgets whose events we wanted.
    fn close(&mut self, token: Token, why: fmt::Arguments) {
        if let Some(connection) = self.connections.remove(&token) {
            self.checks.remove(&(connection.check_at, token));
            self.log(format_args!("{}: closed, {why}", connection.peer));
        }
    }

    fn log(&self, line: fmt::Arguments) {
        if !self.args.quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// What a thread of `tcp-server` has in its variables while it waits.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// What was read, and the kernel would not take back yet.
    unwritten: Vec<u8>,
    echoed: u64,
    last_moved: Instant,
    /// Its entry in `Server::checks`.
    check_at: Instant,
}

/// How a connection's turn came to an end, if not by an error.
enum Turn {
    /// The client has half-closed, and has been sent everything.
    Ended,
    /// There may be more to read.
    Unfinished,
}

impl Connection {
    /// One turn of the echo. Where it would have to wait, it fails with WouldBlock.
    ///
    /// One read for each turn is fair: a client that sends as fast as we read gets no more of them than the
    /// others do.
    fn echo(&mut self, buffer: &mut [u8], now: Instant, half_closed: bool) -> io::Result<Turn> {
        // While the client does not read, this fails and we do not read either: flow control reaches
        // through to the client's own writes, and what is kept for it never grows.
        let unwritten = mem::take(&mut self.unwritten);
        self.write(&unwritten, now)?;
        let len = self.stream.read(buffer)?;
        if len == 0 {
            return Ok(Turn::Ended);
        }
        self.last_moved = now;
        self.write(&buffer[..len], now)?;
        // A short read has emptied the socket (epoll(7), "Questions and answers"): the next would only say
        // WouldBlock. But the end of a stream is told by a read of its own.
        if cfg!(target_os = "linux") && len < buffer.len() && !half_closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Turn::Unfinished)
    }

    /// Writes what the kernel takes, and keeps the rest.
    fn write(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => {
                    bytes = &bytes[len..];
                    self.echoed += len as u64;
                    self.last_moved = now;
                }
                Err(error) => {
                    self.unwritten = bytes.to_vec();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
