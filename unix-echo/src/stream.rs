//! The echo over a Unix stream: what `tcp-server` and `tcp-client` do, with another address. Those
//! two explain the pattern, and the comments here explain what differs.

use std::ffi::OsString;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::address::Address;
use crate::{PAUSE, log, stdout};

/// How many clients the server serves at the same time; further clients wait.
const MAX_CLIENTS: usize = 100;

/// After how long without a read or write the server closes a connection.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How many bytes to read at once. Any size is correct.
const BUFFER_SIZE: usize = 32 * 1024;

/// How long the client waits for bytes until it looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// The server. Each client that is served has a thread, and all threads are started in advance.
pub fn start(listener: UnixListener, quiet: bool) -> Result<()> {
    let listener = Arc::new(Mutex::new(listener));
    for _ in 0..MAX_CLIENTS {
        let listener = Arc::clone(&listener);
        let started = thread::Builder::new().spawn(move || work(&listener, quiet));
        started.with_context(|| format!("cannot start {MAX_CLIENTS} threads"))?;
    }
    Ok(())
}

/// Serves one client after the other, forever. A client's socket has no address unless the client
/// binds it, so most clients are `unnamed` in the log.
fn work(listener: &Mutex<UnixListener>, quiet: bool) -> ! {
    // It is part of the thread's stack, so it needs no memory that could be lacking later.
    let mut buffer = [0; BUFFER_SIZE];
    loop {
        let (mut stream, peer) = accept(listener, quiet);
        log(quiet, format_args!("{peer}: connected"));
        let outcome = match echo(&mut stream, &mut buffer) {
            Ok(echoed) => format!("bytes echoed: {echoed}"),
            Err(error) if error.kind() == WouldBlock => {
                format!("no read or write for {IDLE_LIMIT:?}")
            }
            Err(error) => error.to_string(),
        };
        log(quiet, format_args!("{peer}: closed, {outcome}"));
    }
}

/// Takes the next connection from the backlog. The lock lets one thread wait at a time.
fn accept(listener: &Mutex<UnixListener>, quiet: bool) -> (UnixStream, Address) {
    let listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match listener.accept() {
            Ok((stream, peer)) => return (stream, Address(peer)),
            Err(error) => {
                log(quiet, format_args!("cannot accept: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Writes what it reads, until the client half-closes. Returns how many bytes it echoed.
fn echo(stream: &mut UnixStream, buffer: &mut [u8]) -> io::Result<u64> {
    // There is no TCP_NODELAY to set: Unix sockets have no Nagle's algorithm.
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    stream.set_write_timeout(Some(IDLE_LIMIT))?;
    let mut echoed = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => return Ok(echoed),
            Ok(len) => {
                stream.write_all(&buffer[..len])?;
                echoed += len as u64;
            }
            // Linux ends a call with a time limit when we were suspended and are resumed (signal(7)).
            // write_all makes such a call again by itself.
            Err(error) if error.kind() == Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The client. A second thread sends, while the main thread prints what comes back.
pub fn ask(address: &Address, timeout: Duration, messages: &[OsString]) -> Result<()> {
    let mut stream = connect(address, timeout)?;
    // Before anything is sent: once both sides have ended, macOS refuses every option (EINVAL).
    stream
        .set_read_timeout(Some(timeout.min(TICK)))
        .context("cannot set a time limit")?;
    let reports = start_sending(messages, &stream)?;
    let (mut sent, mut received) = (0, 0);
    let outcome = receive(&mut stream, &reports, timeout, &mut sent, &mut received);
    outcome.with_context(|| {
        format!("cannot get everything back from {address}: {received} of {sent} bytes came back")
    })
}

/// Connects. On Linux connect(2) waits while the backlog is full, and std has no time limit
/// for it. So another thread connects, and this one waits for the result.
fn connect(address: &Address, timeout: Duration) -> Result<UnixStream> {
    let server = address.0.clone();
    let (result, results) = mpsc::channel();
    let work = move || result.send(UnixStream::connect_addr(&server));
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    match results.recv_timeout(timeout) {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(address.explain(error)),
        Err(_) => bail!("cannot reach {address} within {timeout:?}: the server's backlog is full"),
    }
}

/// What the sending thread tells the main thread.
enum Report {
    /// It will send this many bytes.
    Sends(usize),
    /// It has sent everything, or could not.
    Ends(Result<()>),
}

/// Starts a thread that sends all input and then half-closes the connection. Nobody waits for the
/// thread to end: it may wait for input while the server closes.
fn start_sending(messages: &[OsString], stream: &UnixStream) -> Result<Receiver<Report>> {
    let mut stream = stream.try_clone().context("cannot share the stream")?;
    let is_stdin = messages.is_empty();
    let lines = messages
        .iter()
        .flat_map(|line| [line.as_bytes(), b"\n"].concat());
    let lines: Vec<u8> = lines.collect();
    let (to_main, reports) = mpsc::channel();
    let work = move || {
        let result = match is_stdin {
            true => send(io::stdin(), &mut stream, &to_main),
            false => send(&lines[..], &mut stream, &to_main),
        };
        // Before the half-close, because the server may then close at once.
        let _ = to_main.send(Report::Ends(result));
        // It fails only on a connection that is gone.
        let _ = stream.shutdown(Shutdown::Write);
    };
    let started = thread::Builder::new().spawn(work);
    started.context("cannot start a thread")?;
    Ok(reports)
}

fn send(mut input: impl Read, stream: &mut UnixStream, to_main: &Sender<Report>) -> Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let len = input.read(&mut buffer).context("cannot read stdin")?;
        if len == 0 {
            return Ok(());
        }
        // Before it sends, because an echo may arrive before write_all returns.
        let _ = to_main.send(Report::Sends(len));
        stream.write_all(&buffer[..len]).context("cannot send")?;
    }
}

/// Prints what comes back, as soon as it comes, until the server closes the connection. The time
/// limit is for the silence of the server after everything was sent.
fn receive(
    stream: &mut UnixStream,
    reports: &Receiver<Report>,
    timeout: Duration,
    sent: &mut u64,
    received: &mut u64,
) -> Result<()> {
    let mut output = stdout()?;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut sending = None;
    let mut silent_since = Instant::now();
    loop {
        // Looked at before the read, because bytes may have come while we were suspended.
        let is_late = sending.is_some() && silent_since.elapsed() >= timeout;
        let read = stream.read(&mut buffer);
        for report in reports.try_iter() {
            match report {
                Report::Sends(len) => *sent += len as u64,
                Report::Ends(result) => (sending, silent_since) = (Some(result), Instant::now()),
            }
        }
        match read {
            Ok(0) => break,
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
    sending.context("the server closed the connection before everything was sent")??;
    ensure!(received >= sent, "the server closed the connection");
    Ok(())
}
