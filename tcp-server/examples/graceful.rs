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
//! the others. A second signal, half a second later or more, ends the process at once.
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
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::{fd::AsFd, unix::net::UnixStream};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};
#[cfg(unix)]
use rustix::{io::Errno, stdio::dup2_stdin};
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
#[cfg(unix)]
use signal_hook::iterator::Signals;
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

/// A second signal within this time is the first one, delivered twice: GNU timeout and npm, for
/// example, send it to a process and then to its group. A person needs longer.
const MOMENT: Duration = Duration::from_millis(500);

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

    /// Log neither connections nor the end
    #[arg(short, long)]
    quiet: bool,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let args = Args::parse();
    let listener = if args.inherit {
        inherit().context("cannot listen on stdin: it must be a listener")?
    } else {
        let addr = &args.addr;
        TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?
    };
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    // All processes that share a listener share this.
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    let server = Arc::new(Server::new(args));
    let told = wait_for_signals(&server)?;
    start_workers(&server)?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    server.accept_until_told(&listener, &told);
    server.accept_the_rest(&listener);
    drop(listener);
    server.let_finish();
    Ok(()) // The process ends, and the kernel closes what is still open.
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Starts a thread that waits for signals. (A signal interrupts a thread anywhere, so its handler
/// may do very little, signal-safety(7). The handler of signal-hook only wakes this thread.)
///
/// At the first signal the thread wakes the main thread, since a flag alone wakes nobody: `unpark`
/// ends its park, and after the shutdown the returned socket can be read, which ends its poll. At
/// the second it logs nothing: that could wait for somebody to read stderr.
#[cfg(unix)]
fn wait_for_signals(server: &Arc<Server>) -> Result<UnixStream> {
    let (tell, told) = UnixStream::pair().context("cannot create a pair of sockets")?;
    let mut signals = Signals::new(signals()).context("cannot wait for signals")?;
    let server = Arc::clone(server);
    let work = move || {
        let mut signals = signals.forever().filter(|signal| *signal != SIGXFSZ);
        signals.next();
        let first = Instant::now();
        server.is_told.store(true, SeqCst);
        let _ = tell.shutdown(Shutdown::Write);
        server.main.unpark();
        signals.find(|_| first.elapsed() >= MOMENT);
        process::exit(1);
    };
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(told)
}

/// Returns the signals to wait for. A signal that was ignored when we started stays ignored, as
/// SIGHUP after nohup(1). std cannot tell which these are, but Linux can, in a file; elsewhere we
/// take none for ignored. SIGXFSZ says that the log has reached the limit of the shell
/// (`ulimit -f`). If we did not wait for it, it would end us.
#[cfg(unix)]
fn signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mut signals = vec![SIGHUP, SIGINT, SIGTERM, SIGXFSZ];
    signals.retain(|signal| ignored.unwrap_or(0) >> (signal - 1) & 1 == 0);
    signals
}

/// Takes the listener from stdin, which is descriptor 0. A second call of listen(2) only changes
/// the length of the backlog, but it fails on a connection, a terminal or a file. Then /dev/null
/// becomes descriptor 0, so that the copy is our only one, and closing it closes the listener.
#[cfg(unix)]
fn inherit() -> io::Result<TcpListener> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    SockRef::from(&stdin).listen(BACKLOG)?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(TcpListener::from(stdin))
}

/// Starts the threads that serve.
#[cfg(unix)]
fn start_workers(server: &Arc<Server>) -> Result<()> {
    let wanted = server.args.max_connections;
    for number in 1..=wanted {
        let server = Arc::clone(server);
        let started = thread::Builder::new().spawn(move || server.work());
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}; choose a lower --max-connections")
        })?;
    }
    Ok(())
}

/// What all threads share.
struct Server {
    args: Args,
    /// The thread to wake when there is a signal or a connection is closed.
    main: Thread,
    is_told: AtomicBool,
    /// How many connections are accepted and not closed yet.
    open: AtomicU32,
    /// Leads the connections to the workers.
    sender: Sender<Connection>,
    receiver: Mutex<Receiver<Connection>>,
}

#[cfg(unix)]
impl Server {
    fn new(args: Args) -> Server {
        let (sender, receiver) = mpsc::channel();
        Server {
            args,
            main: thread::current(),
            is_told: AtomicBool::new(false),
            open: AtomicU32::new(0),
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    /// Accepts connections while there are free workers, until a signal comes.
    fn accept_until_told(&self, listener: &TcpListener, told: &UnixStream) {
        while !self.is_told.load(SeqCst) {
            if self.open.load(SeqCst) >= self.args.max_connections {
                // Meanwhile clients wait in the backlog. An unpark that came just before counts.
                thread::park();
                continue;
            }
            let mut events = [
                PollFd::new(told, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            match poll(&mut events, None) {
                // One of the two can be read. If it is not the listener, accept finds nobody.
                Ok(_) => _ = self.accept(listener),
                Err(Errno::INTR) => {}
                Err(error) => self.pause(format_args!("cannot wait: {error}")),
            }
        }
    }

    /// Accepts what is in the backlog; these clients are connected, and may have sent something.
    /// They wait for a free worker. (Without a descriptor for them, they are reset after all.) An
    /// inherited backlog is left to the next server, which has more time.
    fn accept_the_rest(&self, listener: &TcpListener) {
        while !self.args.inherit && self.accept(listener) {}
    }

    /// Accepts a connection, if there is one. Returns whether there may be more.
    fn accept(&self, listener: &TcpListener) -> bool {
        match listener.accept() {
            Ok(connection) => {
                self.open.fetch_add(1, SeqCst);
                let _ = self.sender.send(connection);
                true
            }
            Err(error) if GONE.contains(&error.kind()) => true,
            // Nobody is there, or another process that shares the listener was faster.
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                self.pause(format_args!("cannot accept: {error}"));
                false
            }
        }
    }

    fn pause(&self, why: fmt::Arguments) {
        log(self.args.quiet, why);
        thread::sleep(PAUSE);
    }

    /// Waits until the last connection is closed, but no longer than the time of `--grace`.
    fn let_finish(&self) {
        let deadline = Instant::now() + self.args.grace;
        let quiet = self.args.quiet;
        let open = self.open.load(SeqCst);
        log(quiet, format_args!("ending, connections open: {open}"));
        while self.open.load(SeqCst) > 0 && Instant::now() < deadline {
            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let cut = self.open.load(SeqCst);
        let finished = open - cut;
        log(
            quiet,
            format_args!("ended, finished: {finished}, cut: {cut}"),
        );
    }

    /// Serves one client after the other. One worker waits for a connection at a time, and the
    /// others wait for the lock.
    fn work(&self) {
        let idle_timeout = self.args.idle_timeout;
        let quiet = self.args.quiet;
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let receiver = self.receiver.lock();
            let next = receiver.unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((stream, peer)) = next else {
                return; // Impossible, since we hold a sender as well.
            };
            log(quiet, format_args!("{peer}: connected"));
            let outcome = match serve(stream, idle_timeout, &mut buffer) {
                Ok(echoed) => format!("bytes echoed: {echoed}"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    format!("no read or write for {idle_timeout:?}")
                }
                Err(error) => error.to_string(),
            };
            log(quiet, format_args!("{peer}: closed, {outcome}"));
            self.open.fetch_sub(1, SeqCst);
            self.main.unpark();
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
        let len = retry(idle_timeout, || stream.read(buffer))?;
        if len == 0 {
            return Ok(echoed);
        }
        let mut unsent = &buffer[..len];
        while !unsent.is_empty() {
            let sent = retry(idle_timeout, || stream.write(unsent))?;
            unsent = &unsent[sent..];
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
