//! Over a stream: what `tcp-server` and `tcp-client` do, with a name for the address. Clients are told
//! apart by nothing: a client's socket has no name unless it binds one, and so is `unnamed` in the log.

use std::ffi::OsString;
use std::fmt;
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

use crate::{ClientOptions, Name, ServerOptions};

/// How much is read and written at once. Any size is right: a stream has no borders. More saves system
/// calls; less is still in the processor's cache when it is written.
const SERVER_BUFFER_SIZE: usize = 32 * 1024;
const CLIENT_BUFFER_SIZE: usize = 64 * 1024;

/// The pause after a failed accept. Out of descriptors it would fail again at once, and again.
const PAUSE: Duration = Duration::from_millis(100);

/// The server: listens, and serves as many clients at once as it has workers.
pub fn serve(name: &Name, options: ServerOptions) -> Result<()> {
    let listener = name.bind(UnixListener::bind_addr)?;
    let server = Arc::new(Server {
        listener: Mutex::new(listener),
        options,
    });
    start_workers(&server)?;
    // Not println!, which panics when nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {name}");
    server.work()
}

/// Starts all workers but one, which is the main thread.
fn start_workers(server: &Arc<Server>) -> Result<()> {
    let wanted = server.options.max_connections;
    for number in 1..wanted {
        let server = Arc::clone(server);
        let started = thread::Builder::new().spawn(move || server.work());
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}: choose a lower --max-connections")
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
    /// Serves one client after the other, for ever. What goes wrong with one concerns no other.
    fn work(&self) -> ! {
        let idle_timeout = self.options.idle_timeout;
        let mut buffer = vec![0; SERVER_BUFFER_SIZE];
        loop {
            let (stream, peer) = self.accept();
            self.log(format_args!("{peer}: connected"));
            match echo(&stream, idle_timeout, &mut buffer) {
                Ok(echoed) => self.log(format_args!("{peer}: closed, bytes echoed: {echoed}")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.log(format_args!(
                        "{peer}: closed, nothing moved for {idle_timeout:?}"
                    ));
                }
                Err(error) => self.log(format_args!("{peer}: closed, {error}")),
            }
        }
    }

    /// Takes the next connection from the kernel's queue. One worker waits for it at a time: on Linux an
    /// accept takes a descriptor before it waits, so that all of them together could use them up.
    fn accept(&self) -> (UnixStream, Name) {
        // A lock is poisoned by a panic of another worker: none of our concern.
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match listener.accept() {
                Ok((stream, peer)) => return (stream, Name(peer)),
                Err(error) => {
                    self.log(format_args!("cannot accept: {error}"));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Logs a line in one write, so that lines of different workers do not mix.
    fn log(&self, line: fmt::Arguments) {
        if !self.options.quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Writes what it reads, until the client half-closes. Returns how many bytes.
fn echo(mut stream: &UnixStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
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
            // We were suspended and woken (SIGSTOP, SIGCONT): nothing to the client.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The client: sends in one thread, and prints what comes back in another.
pub fn ask(name: &Name, options: ClientOptions) -> Result<()> {
    let stream = connect(name, options.timeout)?;
    let progress = Arc::new(Progress::default());
    start_sending(options.messages, &stream, &progress)?;
    receive(&stream, &progress, options.timeout)
}

/// Connects. When the server's queue is full this waits, for ever if need be, and std has no time limit
/// for it here: so another thread waits, and we wait for that as long as we like.
fn connect(name: &Name, timeout: Duration) -> Result<UnixStream> {
    let addr = name.0.clone();
    let (tell, told) = mpsc::channel();
    let connecting = move || tell.send(UnixStream::connect_addr(&addr));
    thread::Builder::new()
        .spawn(connecting)
        .context("cannot start a thread")?;
    let connected = told.recv_timeout(timeout);
    let connected =
        connected.with_context(|| format!("cannot reach {name}: the server has no place left"))?;
    connected.map_err(|error| name.explain(error))
}

/// What the sending thread tells the receiving one.
#[derive(Default)]
struct Progress {
    /// How many bytes have been sent, or are being sent.
    sent: AtomicU64,
    /// When the sending ended, and how.
    end: OnceLock<(Instant, Result<()>)>,
}

/// Sends in a thread of its own, and then half-closes.
fn start_sending(
    messages: Vec<OsString>,
    stream: &UnixStream,
    progress: &Arc<Progress>,
) -> Result<()> {
    let stream = stream
        .try_clone()
        .context("cannot use the connection twice")?;
    let progress = Arc::clone(progress);
    let sending = move || {
        let result = send(input(&messages), &stream, &progress.sent);
        let _ = progress.end.set((Instant::now(), result));
        // It fails only on a connection that is gone, which the receiving side learns as well.
        let _ = stream.shutdown(Shutdown::Write);
    };
    thread::Builder::new()
        .spawn(sending)
        .context("cannot start a thread")?;
    Ok(())
}

/// The messages, each as a line, or else stdin.
fn input(messages: &[OsString]) -> Box<dyn Read> {
    if messages.is_empty() {
        return Box::new(io::stdin());
    }
    let lines = messages
        .iter()
        .flat_map(|message| [message.as_bytes(), b"\n"]);
    Box::new(Cursor::new(lines.collect::<Vec<_>>().concat()))
}

/// Sends all input.
fn send(mut input: impl Read, mut stream: &UnixStream, sent: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Counted first, for no byte comes back before it was counted.
        sent.fetch_add(len as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes as soon as it comes, until the server closes.
fn receive(mut stream: &UnixStream, progress: &Progress, timeout: Duration) -> Result<()> {
    // Without the buffer that std puts before stdout: we write large pieces, and at once.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let mut stdout = File::from(stdout.context("cannot open stdout")?);
    let mut buffer = vec![0; CLIENT_BUFFER_SIZE];
    let mut received = 0;
    let mut waiting_since = Instant::now();
    stream
        .set_read_timeout(Some(timeout))
        .context("cannot set a time limit")?;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return progress.judge(received),
            Ok(len) => {
                received += len as u64;
                stdout
                    .write_all(&buffer[..len])
                    .context("cannot write to stdout")?;
                waiting_since = Instant::now();
            }
            // We were suspended and woken (SIGSTOP, SIGCONT).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = progress.time_left(waiting_since, timeout);
                ensure!(
                    !left.is_zero(),
                    "{}, then nothing for {timeout:?}",
                    progress.count(received)
                );
                stream
                    .set_read_timeout(Some(left))
                    .context("cannot set a time limit")?;
            }
            Err(error) => return Err(error).with_context(|| progress.count(received)),
        }
    }
}

impl Progress {
    /// How much longer to wait. While there is still something to send, the server may be silent.
    fn time_left(&self, waiting_since: Instant, timeout: Duration) -> Duration {
        match self.end.get() {
            Some((ended, _)) => {
                (waiting_since.max(*ended) + timeout).saturating_duration_since(Instant::now())
            }
            None => timeout,
        }
    }

    /// Whether all is well, when the server has closed the connection.
    fn judge(&self, received: u64) -> Result<()> {
        match self.end.get() {
            Some((_, Ok(()))) if received >= self.sent.load(Ordering::Relaxed) => Ok(()),
            Some((_, Ok(()))) => bail!(
                "{}, then the server closed the connection",
                self.count(received)
            ),
            Some((_, Err(error))) => bail!("{error:#}; {}", self.count(received)),
            None => bail!(
                "{}, then the server closed, before all was sent",
                self.count(received)
            ),
        }
    }

    fn count(&self, received: u64) -> String {
        let sent = self.sent.load(Ordering::Relaxed);
        format!("cannot get all back: {received} of {sent} bytes came back")
    }
}
