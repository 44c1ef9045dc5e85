//! The echo over a Unix stream: what `tcp-server` and `tcp-client` do, with another address.
//! Those two explain the pattern; the comments here explain what differs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{ClientOptions, Name, ServerOptions, log};

/// How many bytes the server reads at once. Any size is correct. A larger buffer saves system
/// calls; a smaller one is still in the processor's cache when its bytes are written.
const SERVER_BUFFER_SIZE: usize = 32 * 1024;

/// How many bytes the client reads at once.
const CLIENT_BUFFER_SIZE: usize = 64 * 1024;

/// The pause after an error of accept, so that an error that lasts does not make the loop spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The server. It serves as many clients at the same time as it has workers.
pub fn serve(name: &Name, options: ServerOptions) -> Result<()> {
    // std asks for the longest backlog that the kernel allows here.
    let listener = name.bind(UnixListener::bind_addr)?;
    let server = Arc::new(Server {
        listener: Mutex::new(listener),
        options,
    });
    start_workers(&server)?;
    // println! would panic if nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {name}");
    server.work()
}

/// Starts all workers except one, which is the main thread.
fn start_workers(server: &Arc<Server>) -> Result<()> {
    let wanted = server.options.max_connections;
    for number in 1..wanted {
        let server = Arc::clone(server);
        let started = thread::Builder::new().spawn(move || server.work());
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}; choose a lower --max-connections")
        })?;
    }
    Ok(())
}

/// What all workers share.
struct Server {
    listener: Mutex<UnixListener>,
    options: ServerOptions,
}

impl Server {
    /// Serves one client after the other, forever. A client's socket has no address unless
    /// the client binds it, so in the log most of them are `unnamed`.
    fn work(&self) -> ! {
        let idle_timeout = self.options.idle_timeout;
        let quiet = self.options.quiet;
        let mut buffer = vec![0; SERVER_BUFFER_SIZE];
        loop {
            let (stream, peer) = self.accept();
            log(quiet, format_args!("{peer}: connected"));
            match echo(&stream, idle_timeout, &mut buffer) {
                Ok(echoed) => log(
                    quiet,
                    format_args!("{peer}: closed, bytes echoed: {echoed}"),
                ),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    log(
                        quiet,
                        format_args!("{peer}: closed, nothing moved for {idle_timeout:?}"),
                    );
                }
                Err(error) => log(quiet, format_args!("{peer}: closed, {error}")),
            }
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
fn echo(mut stream: &UnixStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    // There is no TCP_NODELAY to set: Unix sockets have no Nagle's algorithm.
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
            // SIGSTOP and SIGCONT interrupt a call that has a time limit (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The client. A second thread sends, while the main thread prints what comes back.
pub fn ask(name: &Name, options: ClientOptions) -> Result<()> {
    let stream = connect(name, options.timeout)?;
    let sending = Arc::new(Sending::default());
    start_sending(options.messages, &stream, &sending)?;
    let mut received = 0;
    let outcome = receive(&stream, &sending, options.timeout, &mut received);
    outcome.with_context(|| {
        let sent = sending.count.load(Ordering::Relaxed);
        let count = format!("{received} of {sent} bytes came back");
        format!("cannot get everything back from {name}: {count}")
    })
}

/// Connects. While the backlog is full, connect(2) waits, where TCP would try again, and std
/// has no time limit for it. So another thread connects, and this one waits for its result.
fn connect(name: &Name, timeout: Duration) -> Result<UnixStream> {
    let addr = name.0.clone();
    let (sender, receiver) = mpsc::channel();
    let connecting = move || sender.send(UnixStream::connect_addr(&addr));
    thread::Builder::new()
        .spawn(connecting)
        .context("cannot start a thread")?;
    let connected = receiver.recv_timeout(timeout);
    let connected =
        connected.with_context(|| format!("cannot reach {name}: the server's backlog is full"))?;
    connected.map_err(|error| name.explain(error))
}

/// What the sending thread tells the main thread.
#[derive(Default)]
struct Sending {
    /// How many bytes it has sent or is about to send.
    count: AtomicU64,
    /// When it ended, and whether it could send everything.
    end: OnceLock<(Instant, Result<()>)>,
}

/// Starts a thread that sends all input and then half-closes the connection.
fn start_sending(
    messages: Vec<OsString>,
    stream: &UnixStream,
    sending: &Arc<Sending>,
) -> Result<()> {
    let stream = stream.try_clone().context("cannot share the stream")?;
    let sending = Arc::clone(sending);
    let work = move || {
        let result = send(input(&messages), &stream, &sending.count);
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

fn send(mut input: impl Read, mut stream: &UnixStream, count: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted before they are sent, so that no byte comes back uncounted.
        count.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes back, as soon as it comes, until the server closes the connection.
fn receive(
    mut stream: &UnixStream,
    sending: &Sending,
    timeout: Duration,
    received: &mut u64,
) -> Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let mut stdout = File::from(stdout.context("cannot open stdout")?);
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    let mut silent_since = Instant::now();
    stream.set_read_timeout(Some(timeout))?;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return sending.check(*received),
            Ok(len) => {
                *received += len as u64;
                stdout
                    .write_all(&buffer[..len])
                    .context("cannot write to stdout")?;
                silent_since = Instant::now();
            }
            // SIGSTOP and SIGCONT interrupt a call that has a time limit (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = sending.time_left(silent_since, timeout);
                ensure!(!left.is_zero(), "nothing came for {timeout:?}");
                stream.set_read_timeout(Some(left))?;
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

impl Sending {
    /// Returns how much longer the server may be silent. The time limit counts only from the
    /// moment when everything was sent.
    fn time_left(&self, silent_since: Instant, timeout: Duration) -> Duration {
        match self.end.get() {
            Some((end, _)) => {
                let deadline = silent_since.max(*end) + timeout;
                deadline.saturating_duration_since(Instant::now())
            }
            None => timeout,
        }
    }

    /// Checks, when the server has closed the connection, that everything came back.
    fn check(&self, received: u64) -> Result<()> {
        match self.end.get() {
            None => bail!("the server closed the connection before everything was sent"),
            Some((_, Err(error))) => bail!("{error:#}"),
            Some((_, Ok(()))) => {
                let is_complete = received >= self.count.load(Ordering::Relaxed);
                ensure!(is_complete, "the server closed the connection");
                Ok(())
            }
        }
    }
}
