//! The echo over a Unix stream: what `tcp-server` and `tcp-client` do, with another
//! address. Those two explain the pattern; the comments here explain what differs.

use std::ffi::OsString;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{self, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{ClientOptions, Name, ServerOptions, SocketFile, buffer, log, stdout};

/// How many bytes the server reads at once. Any size is correct. A larger buffer saves
/// system calls, but its bytes may have left the processor's cache before they are written.
const SERVER_BUFFER_SIZE: usize = 32 * 1024;

/// How many bytes the client reads at once.
const CLIENT_BUFFER_SIZE: usize = 64 * 1024;

/// How long the client waits for bytes until it looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The server. It serves as many clients at the same time as it has workers, and each worker is a
/// thread.
pub fn start(name: &Name, options: ServerOptions) -> Result<Option<SocketFile>> {
    // For Unix sockets on Linux, std asks for the longest backlog that the kernel allows.
    let (listener, file) = name.bind(UnixListener::bind_addr)?;
    let wanted = options.max_connections;
    let server = Arc::new(Server {
        listener: Mutex::new(listener),
        options,
    });
    for number in 1..=wanted {
        let server = Arc::clone(&server);
        let buffer = buffer(SERVER_BUFFER_SIZE)?;
        let started = thread::Builder::new().spawn(move || server.work(buffer));
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}; choose a lower --max-connections")
        })?;
    }
    Ok(file)
}

/// What all workers share.
struct Server {
    listener: Mutex<UnixListener>,
    options: ServerOptions,
}

impl Server {
    /// Serves one client after the other, forever. A client's socket has no address unless
    /// the client binds it, so most clients are `unnamed` in the log.
    fn work(&self, mut buffer: Vec<u8>) -> ! {
        let idle_timeout = self.options.idle_timeout;
        let quiet = self.options.quiet;
        loop {
            let (mut stream, peer) = self.accept();
            log(quiet, format_args!("{peer}: connected"));
            let outcome = match echo(&mut stream, idle_timeout, &mut buffer) {
                Ok(echoed) => format!("bytes echoed: {echoed}"),
                Err(error) if error.kind() == WouldBlock => {
                    format!("no read or write for {idle_timeout:?}")
                }
                Err(error) => error.to_string(),
            };
            log(quiet, format_args!("{peer}: closed, {outcome}"));
        }
    }

    /// Takes the next connection from the backlog. The lock lets one worker wait at a time.
    fn accept(&self) -> (UnixStream, Name) {
        // A panic of another worker would poison the lock; the listener can still be used.
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match listener.accept() {
                Ok((stream, peer)) => return (stream, Name(peer)),
                Err(error) => {
                    log(self.options.quiet, format_args!("cannot accept: {error}"));
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Writes what it reads, until the client half-closes. Returns how many bytes it echoed.
fn echo(stream: &mut UnixStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    // There is no TCP_NODELAY to set: Unix sockets have no Nagle's algorithm.
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

/// Repeats a call that is interrupted because we were suspended, but looks at the clock.
fn retry(limit: Duration, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let started = Instant::now();
    loop {
        let is_late = started.elapsed() >= limit;
        match call() {
            Err(error) if error.kind() == Interrupted && !is_late => {}
            Err(error) if error.kind() == Interrupted => return Err(WouldBlock.into()),
            result => return result,
        }
    }
}

/// The client. A second thread sends, while the main thread prints what comes back.
pub fn ask(name: &Name, options: ClientOptions) -> Result<()> {
    let mut stream = connect(name, options.timeout)?;
    // Set once, and before anything is sent: when both sides have ended, macOS refuses every
    // option (EINVAL). A read that waits returns after this time, and we look at the clock.
    stream
        .set_read_timeout(Some(options.timeout.min(TICK)))
        .context("cannot set a time limit")?;
    let sending = Arc::new(Sending::default());
    start_sending(options.messages, &stream, &sending)?;
    let mut received = 0;
    let outcome = receive(&mut stream, &sending, options.timeout, &mut received);
    outcome.with_context(|| {
        let sent = sending.count.load(Ordering::Relaxed);
        format!("cannot get everything back from {name}: {received} of {sent} bytes came back")
    })
}

/// Connects. On Linux connect(2) waits while the backlog is full, and std has no time limit
/// for it. So another thread connects, and this one waits for the result.
fn connect(name: &Name, timeout: Duration) -> Result<UnixStream> {
    let addr = name.0.clone();
    let (result, results) = mpsc::channel();
    let work = move || result.send(UnixStream::connect_addr(&addr));
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    match results.recv_timeout(timeout) {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(name.explain(error)),
        Err(_) => bail!("cannot reach {name} within {timeout:?}: the server's backlog is full"),
    }
}

/// What the sending thread tells the main thread.
#[derive(Default)]
struct Sending {
    /// How many bytes it has read in order to send them.
    count: AtomicU64,
    /// When it ended, and whether it could send everything.
    end: OnceLock<(Instant, Result<()>)>,
}

/// Starts a thread that sends all input and then half-closes the connection. Nobody waits
/// for the thread to end: it may wait for input while the server closes.
fn start_sending(
    messages: Vec<OsString>,
    stream: &UnixStream,
    sending: &Arc<Sending>,
) -> Result<()> {
    let mut stream = stream.try_clone().context("cannot share the stream")?;
    let sending = Arc::clone(sending);
    let work = move || {
        let result = send(input(&messages), &mut stream, &sending.count);
        // Set before the server can learn that we have ended, and end as well.
        let _ = sending.end.set((Instant::now(), result));
        // The half-close. It fails only on a connection that is gone.
        let _ = stream.shutdown(Shutdown::Write);
    };
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(())
}

/// Returns the messages, each as a line, or else stdin.
fn input(messages: &[OsString]) -> Box<dyn Read> {
    if messages.is_empty() {
        return Box::new(io::stdin());
    }
    let mut lines = Vec::new();
    for message in messages {
        lines.extend_from_slice(message.as_bytes());
        lines.push(b'\n');
    }
    Box::new(Cursor::new(lines))
}

fn send(mut input: impl Read, stream: &mut UnixStream, count: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted before they are sent, so that no byte comes back that is not counted.
        count.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes back, as soon as it comes, until the server closes the connection.
fn receive(
    stream: &mut UnixStream,
    sending: &Sending,
    timeout: Duration,
    received: &mut u64,
) -> Result<()> {
    let mut output = stdout()?;
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    let mut silent_since = Instant::now();
    loop {
        // Looked at before the read, because bytes may have come while we were suspended.
        let is_late = sending.is_late(silent_since, timeout);
        match stream.read(&mut buffer) {
            Ok(0) => return sending.check(*received),
            Ok(len) => {
                *received += len as u64;
                let written = output.write_all(&buffer[..len]);
                written.context("cannot write to stdout")?;
                silent_since = Instant::now();
            }
            Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {
                ensure!(!is_late, "nothing came for {timeout:?}");
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

impl Sending {
    /// Returns whether the server has been silent for too long. The time limit counts only from
    /// the moment when everything was sent.
    fn is_late(&self, silent_since: Instant, timeout: Duration) -> bool {
        let end = self.end.get();
        end.is_some_and(|(end, _)| silent_since.max(*end).elapsed() >= timeout)
    }

    /// Checks, after the server has closed the connection, that everything came back.
    fn check(&self, received: u64) -> Result<()> {
        match self.end.get() {
            None => bail!("the server closed the connection before everything was sent"),
            Some((_, Err(error))) => bail!("{error:#}"),
            Some((_, Ok(()))) => {
                // The count is complete, because it was finished before `end` was set. A server
                // that sends more than it got is no echo server, but nothing is lost.
                let is_complete = received >= self.count.load(Ordering::Relaxed);
                ensure!(is_complete, "the server closed the connection");
                Ok(())
            }
        }
    }
}
