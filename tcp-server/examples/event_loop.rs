//! `tcp-server` without threads: one *event loop* asks the kernel which connections have
//! something to do, does it without ever waiting, and asks again.
//!
//! ```console
//! $ cargo run -p tcp-server --example event_loop      # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: connected
//! 127.0.0.1:41234: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p tcp-client -- hello                  # terminal 2
//! hello
//! ```
//!
//! This is for thousands of connections, most of them idle, and for many short messages. An idle
//! connection adds a few hundred bytes to the memory of the process; in `tcp-server` it has a thread
//! with a stack. (The memory that the kernel takes for a socket is the same.) With short messages on
//! 50 connections, it is nearly as fast as a bare epoll(7) loop, and `tcp-server` is not. With one
//! connection there is nothing to gain. `cargo bench -p bench` measures it on your machine.
//!
//! The price is clarity. No call may wait, or all clients would wait. So every call can return "not
//! now" (WouldBlock), and what a thread keeps in its variables must be kept in a struct. Time limits,
//! pauses and fairness, which the kernel provides for threads, are left to the program. And one thread
//! uses one processor at most. The crate mio asks the kernel in each system's own way (epoll on
//! Linux, kqueue(2) on macOS). Unlike the crate polling, it accepts a socket without `unsafe`.
//!
//! Try next:
//!
//! - Give it few descriptors: `(ulimit -n 24; cargo run -p tcp-server --example event_loop)`. Open 60
//!   connections: `for i in {1..60}; do sleep 60 | cargo run -p tcp-client & done`. The server pauses
//!   when it has no descriptor left, and goes on when others are closed.
//! - Suspend it (Ctrl-Z) and start many clients. All are connected, because its backlog is long.
//!
//! Read `tcp-server` first: what it explains is not explained again.

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
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

/// How many bytes to read at once, into one buffer for all connections.
const BUFFER_SIZE: usize = 48 * 1024;

/// How many events to take from the kernel at once.
const EVENTS: usize = 1024;

/// How many connections may wait to be accepted; std asks for 128. When the backlog is full, Linux
/// drops requests for a connection, and the client's kernel repeats them after a second. Linux
/// allows as many as `/proc/sys/net/core/somaxconn` says, by default 4096 (128 before Linux 5.4).
const BACKLOG: i32 = 4096;

/// The pause after an error: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The token in the events of the listener. The connections have the tokens from 1.
const LISTENER: Token = Token(0);

/// The events that we want for a connection.
const READ_AND_WRITE: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Send every byte back, over TCP, to many clients at the same time
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// How many clients to serve at the same time; further clients wait
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Close a connection after this many seconds without a read or write
    #[arg(long, value_name = "SECS", default_value = "60")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Do not log connections
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let listener = listen(&args.addr)?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let server = Server::new(listener, args);
    let mut server = server.context("cannot ask the kernel for events")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    server.run()
}

/// Opens a non-blocking listener with a long backlog. On a *non-blocking* socket a call
/// that would have to wait fails with WouldBlock instead.
fn listen(addr: &str) -> Result<TcpListener> {
    let listener =
        std::net::TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    // A second call of listen(2) only changes the length of the backlog.
    SockRef::from(&listener)
        .listen(BACKLOG)
        .context("cannot make the backlog longer")?;
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    Ok(TcpListener::from_std(listener))
}

struct Server {
    listener: TcpListener,
    /// Asks the kernel for events. Its registry says of which sockets we want some.
    poll: Poll,
    args: Args,
    /// No token is used twice, so a late event of a closed connection finds nothing here.
    connections: HashMap<Token, Connection>,
    last_token: usize,
    /// When to check whether a connection is idle: one entry for each, the earliest first.
    checks: BTreeSet<(Instant, Token)>,
    /// When to accept connections. `None` if the backlog is empty.
    accept_at: Option<Instant>,
    /// When the kernel returned the events that we handle now.
    now: Instant,
    buffer: Vec<u8>,
}

impl Server {
    fn new(mut listener: TcpListener, args: Args) -> io::Result<Server> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Server {
            listener,
            poll,
            args,
            connections: HashMap::new(),
            last_token: LISTENER.0,
            checks: BTreeSet::new(),
            accept_at: None,
            now: Instant::now(),
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    /// The event loop. This is the only place where the program waits for the network.
    fn run(&mut self) -> ! {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let time_to_next_task = self.time_to_next_task();
            let polled = self.poll.poll(&mut events, time_to_next_task);
            self.now = Instant::now();
            match polled {
                Ok(()) => {
                    for event in &events {
                        match event.token() {
                            LISTENER => self.accept_at = self.accept_at.or(Some(self.now)),
                            token => self.serve(token, event.is_read_closed()),
                        }
                    }
                }
                // If we are suspended here, Linux ends this call when we are resumed (signal(7)).
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

    /// Returns how long to wait for events at most; `None` means forever.
    fn time_to_next_task(&self) -> Option<Duration> {
        let accept_at = self.accept_at.filter(|_| self.has_room());
        let check_at = self.checks.first().map(|(check_at, _)| *check_at);
        let next = accept_at.into_iter().chain(check_at).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn has_room(&self) -> bool {
        self.connections.len() < self.args.max_connections as usize
    }

    /// Accepts connections while there are any and we have room for them.
    fn accept(&mut self) {
        while self.has_room() && self.accept_at.is_some_and(|at| at <= self.now) {
            match self.listener.accept() {
                Ok((stream, peer)) => self.add(stream, peer),
                Err(error) => match error.kind() {
                    // The backlog is empty. The kernel sends an event when that changes.
                    ErrorKind::WouldBlock => self.accept_at = None,
                    // The client has already gone. Linux reports neither here, but in the first read.
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                    _ => {
                        self.log(format_args!("cannot accept: {error}"));
                        self.accept_at = Some(self.now + PAUSE);
                    }
                },
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.log(format_args!("{peer}: connected"));
        self.last_token += 1;
        let token = Token(self.last_token);
        let registry = self.poll.registry();
        let registered = stream
            .set_nodelay(true)
            .and_then(|()| registry.register(&mut stream, token, READ_AND_WRITE));
        if let Err(error) = registered {
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

    /// Does what can be done on a connection without waiting.
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
                // The kernel reports each change only once (edge-triggered). Registering again
                // makes it report the connection again, after the others had their turn.
                let (registry, stream) = (self.poll.registry(), &mut connection.stream);
                if let Err(error) = registry.reregister(stream, token, READ_AND_WRITE) {
                    self.close(token, format_args!("{error}"));
                }
            }
            // Nothing more can be read or written now. The kernel reports when it can.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.close(token, format_args!("{error}")),
        }
    }

    /// Closes the connections on which nothing has moved for too long.
    ///
    /// Moving bytes does not change when the checks are due. When one is, we look at when the last
    /// byte moved, and set the time of the next check.
    fn close_idle(&mut self) {
        while let Some(&(check_at, token)) = self.checks.first() {
            if check_at > self.now {
                return;
            }
            self.checks.pop_first();
            // A last look: there may be bytes that the kernel has not reported yet, above all if
            // we were suspended.
            self.serve(token, false);
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let idle_timeout = self.args.idle_timeout;
            connection.check_at = connection.last_moved + idle_timeout;
            if connection.check_at > self.now {
                self.checks.insert((connection.check_at, token));
            } else {
                self.close(token, format_args!("no read or write for {idle_timeout:?}"));
            }
        }
    }

    /// Removes a connection. Dropping its stream closes it, and the kernel forgets its events.
    fn close(&mut self, token: Token, why: fmt::Arguments) {
        if let Some(connection) = self.connections.remove(&token) {
            self.checks.remove(&(connection.check_at, token));
            let peer = connection.peer;
            self.log(format_args!("{peer}: closed, {why}"));
        }
    }

    fn log(&self, line: fmt::Arguments) {
        if !self.args.quiet {
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// What a thread of `tcp-server` keeps in its variables while it waits.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// What we have read and the kernel has not taken back yet.
    unwritten: Vec<u8>,
    echoed: u64,
    last_moved: Instant,
    /// The time of its entry in `Server::checks`.
    check_at: Instant,
}

/// How a turn of a connection ended, if not with an error.
enum Turn {
    /// The client has half-closed, and everything is echoed.
    Ended,
    /// There may be more to read.
    Unfinished,
}

impl Connection {
    /// Echoes what one read returns. Fails with WouldBlock where a thread would wait.
    ///
    /// One read in each turn is fair: a client that sends as fast as we read gets no more
    /// turns than the others.
    fn echo(&mut self, buffer: &mut [u8], now: Instant, half_closed: bool) -> io::Result<Turn> {
        // While the client does not read, this write fails and we do not read either. So flow
        // control reaches the client's own writes, and we never keep more than one read.
        let unwritten = mem::take(&mut self.unwritten);
        self.write(&unwritten, now)?;
        let len = self.stream.read(buffer)?;
        if len == 0 {
            return Ok(Turn::Ended);
        }
        self.last_moved = now;
        self.write(&buffer[..len], now)?;
        // On Linux, a short read has emptied the socket (epoll(7), "Questions and answers"), so we
        // need not ask again, which saves a system call for each short message. But after a
        // half-close, only another read shows the end. (A read also stops at urgent data, tcp(7): a
        // client that sends some gets no echo of what follows until it sends more.)
        if cfg!(target_os = "linux") && len < buffer.len() && !half_closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Turn::Unfinished)
    }

    /// Writes what the kernel takes, and keeps the rest.
    fn write(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()), // Or we would spin.
                Ok(len) => {
                    bytes = &bytes[len..];
                    self.echoed += len as u64;
                    self.last_moved = now;
                }
                Err(error) => {
                    // If there is no memory, this connection ends. `to_vec` would abort all of
                    // them, and so would the tables of `Server`, but these take little.
                    self.unwritten.try_reserve_exact(bytes.len())?;
                    self.unwritten.extend_from_slice(bytes);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
