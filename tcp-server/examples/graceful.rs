//! `tcp-server` with a graceful end: when it is told to stop, it finishes what it has begun.
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
//! Ctrl-C sends the *signal* SIGINT to a process; `kill` and systemd send SIGTERM. By default, a
//! process ends at once. The kernel then closes its connections, finished or not, and resets those
//! in the backlog. A *graceful* end has three steps:
//!
//! 1. Accept what is in the backlog, and close the listener. From now on new clients are refused, and
//!    can go elsewhere.
//! 2. Let the open connections finish.
//! 3. When `--grace` seconds have passed, cut those that are still open.
//!
//! The price: a thread that waits in accept(2) learns of no signal. So the main thread waits for both
//! in poll(2), starts a thread for each connection, and counts them.
//!
//! Try next:
//!
//! - Start it with `-- --grace 60` and a client that stays idle. Press Ctrl-C, and start another
//!   client: it is refused. Press Ctrl-C again: the server ends at once, and cuts the first.
//! - Start `tcp-server -- --max-connections 1`, then two clients, type a line into each, and press
//!   Ctrl-C at the server. The second client gets a reset. From this server it gets its line.
//!
//! Read `tcp-server` first: what it explains is not explained again. Read next: `restart`, where
//! another server goes on with the listener.

// On systems other than Unix, most of this is unused.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};
#[cfg(unix)]
use rustix::io::retry_on_intr;
#[cfg(unix)]
use signal_hook::{consts::*, iterator::Signals};

/// How many bytes to read at once.
const BUFFER_SIZE: usize = 48 * 1024;

/// The pause after an error: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A second signal within this time is the first one, delivered twice: GNU timeout and npm, for
/// example, send it to a process and then to its group. A person needs longer.
const MOMENT: Duration = Duration::from_millis(500);

/// Send every byte back, over TCP, and at the end finish what has begun
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// Seconds that open connections have to finish after SIGINT, SIGTERM or SIGHUP
    #[arg(long, value_name = "SECS", default_value = "10")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    grace: Duration,

    /// How many clients to serve at the same time; further clients wait
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Close a connection after this many seconds without a read or write
    #[arg(long, value_name = "SECS", default_value = "60")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Log neither connections nor the end
    #[arg(short, long)]
    quiet: bool,
}

/// What all threads share.
struct Server {
    args: Args,
    state: Mutex<State>,
    /// Wakes the main thread when the state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many connections are accepted and not closed yet.
    open: u32,
    /// Whether a signal has come.
    is_told: bool,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let args = Args::parse();
    let addr = &args.addr;
    let listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    let server: &'static Server = Box::leak(Box::new(Server {
        args,
        state: Mutex::default(),
        changed: Condvar::new(),
    }));
    let told = wait_for_signals(server)?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    server.accept_until_told(&listener, &told);
    drop(listener);
    server.let_finish();
    Ok(()) // The process ends, and the kernel closes what is still open.
}

/// Starts a thread that waits for signals. (A signal interrupts a thread anywhere, so its handler
/// may do very little, signal-safety(7). The handler of signal-hook only wakes this thread.)
///
/// At the first signal, this thread wakes the main thread where it waits: for a connection to be
/// closed, or in poll, since `told` can be read as soon as the other end is closed. At the second
/// signal, it ends the process. It logs nothing, because it might wait for somebody to read stderr.
#[cfg(unix)]
fn wait_for_signals(server: &'static Server) -> Result<UnixStream> {
    let (tell, told) = UnixStream::pair().context("cannot create a pair of sockets")?;
    let signals = not_ignored(vec![SIGHUP, SIGINT, SIGTERM]);
    let mut signals = Signals::new(signals).context("cannot wait for signals")?;
    let work = move || {
        let mut signals = signals.forever();
        signals.next();
        let first = Instant::now();
        server.state().is_told = true;
        server.changed.notify_one();
        drop(tell);
        signals.find(|_| first.elapsed() >= MOMENT);
        process::exit(1);
    };
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(told)
}

/// Returns those signals that were not ignored when we started. The others stay ignored, as SIGHUP
/// does after nohup(1). Linux shows in a file which are ignored, with one bit for each. On other
/// systems we assume that none is.
#[cfg(unix)]
fn not_ignored(mut signals: Vec<i32>) -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    signals.retain(|signal| ignored.unwrap_or(0) >> (signal - 1) & 1 == 0);
    signals
}

#[cfg(unix)]
impl Server {
    /// Accepts connections until a signal comes, and then those that are in the backlog: their
    /// clients are connected, and may have sent something.
    fn accept_until_told(&'static self, listener: &TcpListener, told: &UnixStream) {
        let limit = self.args.max_connections;
        let is_full = |state: &mut State| state.open >= limit && !state.is_told;
        loop {
            // While the server is full, further clients wait in the backlog.
            let state = self.changed.wait_while(self.state(), is_full);
            let is_told = state.unwrap_or_else(PoisonError::into_inner).is_told;
            let mut events = [
                PollFd::new(told, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            // Waits until one of the two can be read. After the signal, `told` always can.
            if let Err(error) = retry_on_intr(|| poll(&mut events, None)) {
                self.pause(format_args!("cannot wait: {error}"));
            }
            match listener.accept() {
                Ok((stream, peer)) => self.start_thread(stream, peer),
                Err(error) => match error.kind() {
                    // The client has already gone. Linux does not report it here.
                    ErrorKind::ConnectionAborted => {}
                    // The backlog is empty, or we have no descriptor for the clients in it.
                    _ if is_told => return,
                    // No client is there: `told` can be read.
                    ErrorKind::WouldBlock => {}
                    _ => self.pause(format_args!("cannot accept: {error}")),
                },
            }
        }
    }

    /// Starts a thread that serves a client.
    fn start_thread(&'static self, stream: TcpStream, peer: SocketAddr) {
        self.log(format_args!("{peer}: connected"));
        // With the lock, so that the thread does not count down before we have counted up.
        let mut state = self.state();
        match thread::Builder::new().spawn(move || self.work(stream, peer)) {
            Ok(_) => state.open += 1,
            Err(error) => {
                drop(state);
                self.pause(format_args!(
                    "{peer}: closed, cannot start a thread: {error}"
                ));
            }
        }
    }

    /// Serves a client, and tells the main thread when its connection is closed.
    fn work(&self, stream: TcpStream, peer: SocketAddr) {
        let idle_timeout = self.args.idle_timeout;
        let outcome = match serve(stream, idle_timeout) {
            Ok(echoed) => format!("bytes echoed: {echoed}"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                format!("no read or write for {idle_timeout:?}")
            }
            Err(error) => error.to_string(),
        };
        self.log(format_args!("{peer}: closed, {outcome}"));
        self.state().open -= 1;
        self.changed.notify_one();
    }

    /// Waits until the last connection is closed, but no longer than the time of `--grace`.
    fn let_finish(&self) {
        let open = self.state().open;
        self.log(format_args!("ending, connections open: {open}"));
        let (grace, is_open) = (self.args.grace, |state: &mut State| state.open > 0);
        let waited = self
            .changed
            .wait_timeout_while(self.state(), grace, is_open);
        let cut = waited.unwrap_or_else(PoisonError::into_inner).0.open;
        self.log(format_args!("ended, finished: {}, cut: {cut}", open - cut));
    }

    /// Locks the state. (A thread that panics while it has the lock poisons it. None does.)
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, why: fmt::Arguments) {
        self.log(why);
        thread::sleep(PAUSE);
    }

    fn log(&self, line: fmt::Arguments) {
        if !self.args.quiet {
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Echoes on a connection as `tcp-server` does, and closes it.
fn serve(mut stream: TcpStream, idle_timeout: Duration) -> io::Result<u64> {
    // On macOS and the BSDs, a connection is non-blocking if its listener is.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(idle_timeout))?;
    stream.set_write_timeout(Some(idle_timeout))?;
    // On the stack: a thread that has started has the memory for it. `vec!` might abort us all.
    let mut buffer = [0; BUFFER_SIZE];
    let mut echoed = 0;
    loop {
        let len = retry(idle_timeout, || stream.read(&mut buffer))?;
        if len == 0 {
            return Ok(echoed);
        }
        let mut unsent = &buffer[..len];
        while !unsent.is_empty() {
            match retry(idle_timeout, || stream.write(unsent))? {
                0 => return Err(ErrorKind::WriteZero.into()), // Or we would spin.
                sent => unsent = &unsent[sent..],
            }
        }
        echoed += len as u64;
    }
}

/// Repeats a call that is interrupted, up to the time limit; `tcp-server` explains it.
fn retry(limit: Duration, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let started = Instant::now();
    loop {
        let is_late = started.elapsed() >= limit;
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted && !is_late => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Err(ErrorKind::WouldBlock.into());
            }
            result => return result,
        }
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot wait for a client and a signal: only Unix has signals and poll")
}
