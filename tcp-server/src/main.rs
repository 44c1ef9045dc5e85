//! Sends every byte back, to many clients at once, each over a connection of its own.
//!
//! ```console
//! $ cargo run -p tcp-server                 # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: connected
//! 127.0.0.1:41234: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p tcp-client -- hello        # terminal 2
//! hello
//! ```
//!
//! Try next:
//!
//! - Run `udp-server` beside it. It takes the same port: ports are counted per protocol.
//! - Start it with `-- --max-connections 1`, and two clients without a message. The second connects, and
//!   may even send: the kernel accepts in the server's name. Its lines come back when the first ends.
//!
//! Read next: `tcp-client`, which must send and receive at the same time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// How much is read at once. Any size is right, since a stream has no borders to keep; a larger one
/// saves system calls, and costs memory for each connection. With 64 KiB, though, a long stream within one
/// machine is slower: a segment carries a few bytes less there, and another must follow with the rest.
const BUFFER_SIZE: usize = 48 * 1024;

/// How many workers wait for a connection at a time. On Linux an accept takes a descriptor before it waits: all
/// of them together could use them up. With one alone, another would have to be woken for each connection.
const MOST_WAITING: u32 = 2;

/// The pause after a failed accept. Out of descriptors it would fail again at once, and again.
const PAUSE: Duration = Duration::from_millis(100);

/// Send every byte back, over TCP, to many clients at once
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007", value_parser = host_and_port)]
    addr: String,

    /// How many clients to serve at once, each by a thread; further ones wait
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
    let server = Arc::new(Server {
        listener,
        waiting: Mutex::new(0),
        nobody_waits: Condvar::new(),
        args,
    });
    start_workers(&server)?;
    // Not println!, which panics when nobody reads our stdout any more.
    let _ = writeln!(io::stdout(), "listening on {local}");
    server.work()
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

/// Opens a socket, names it, and lets it listen: from now on the kernel completes connections in our
/// name, and keeps them in a queue (the backlog, 128 in std) until they are accepted.
///
/// std sets SO_REUSEADDR on Unix, or the port of a server that has just ended would stay taken for a
/// minute by what is left of its connections (TIME_WAIT).
fn bind(addr: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| {
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
    })
}

/// Starts all workers but one, which is the main thread. Each serves one connection at a time, so there
/// are never more connections than workers, and nobody has to count them. All at the start, so that no client
/// finds the system out of threads.
fn start_workers(server: &Arc<Server>) -> Result<()> {
    let wanted = server.args.max_connections;
    for number in 1..wanted {
        let server = Arc::clone(server);
        // thread::spawn would panic when the system has no more threads to give.
        let started = thread::Builder::new().spawn(move || server.work());
        started.with_context(|| {
            format!("cannot start thread {number} of {wanted}: choose a lower --max-connections")
        })?;
    }
    Ok(())
}

/// What all workers share.
struct Server {
    listener: TcpListener,
    /// How many workers wait for a connection.
    waiting: Mutex<u32>,
    /// For the workers that sleep: one is woken when nobody waits.
    nobody_waits: Condvar,
    args: Args,
}

impl Server {
    /// Serves one client after the other, for ever. What goes wrong with one concerns no other.
    fn work(&self) -> ! {
        let idle_timeout = self.args.idle_timeout;
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let (stream, peer) = self.next_connection();
            self.log(format_args!("{peer}: connected"));
            match serve(&stream, idle_timeout, &mut buffer) {
                Ok(echoed) => self.log(format_args!("{peer}: closed, bytes echoed: {echoed}")),
                // The time limit has passed, in the words of Unix and of Windows.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    self.log(format_args!(
                        "{peer}: closed, nothing moved for {idle_timeout:?}"
                    ));
                }
                Err(error) => self.log(format_args!("{peer}: closed, {error}")),
            }
        }
    }

    /// Sleeps while enough others wait for a connection, and then waits for one.
    fn next_connection(&self) -> (TcpStream, SocketAddr) {
        let enough_wait = |waiting: &mut u32| *waiting == MOST_WAITING;
        let waiting = self.nobody_waits.wait_while(self.waiting(), enough_wait);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        *waiting += 1;
        drop(waiting);
        let accepted = self.accept();
        let mut waiting = self.waiting();
        *waiting -= 1;
        if *waiting == 0 {
            self.nobody_waits.notify_one();
        }
        accepted
    }

    fn waiting(&self) -> MutexGuard<'_, u32> {
        // A lock is poisoned by a panic of another worker: none of our concern.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next connection from the kernel's queue.
    fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept() {
                Ok(accepted) => return accepted,
                // This client has left the queue already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.log(format_args!("cannot accept: {error}"));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Logs a line in one write, so that lines of different workers do not mix.
    fn log(&self, line: fmt::Arguments) {
        if !self.args.quiet {
            // A log that nobody reads any more is no reason to stop serving.
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Prepares a connection and speaks the protocol on it. Returns how many bytes it echoed.
fn serve(stream: &TcpStream, idle_timeout: Duration, buffer: &mut [u8]) -> io::Result<u64> {
    // Nagle's algorithm holds a small segment back until the one before is acknowledged (RFC 9293,
    // 3.7.4), which the peer may delay (RFC 1122, 4.2.3.2; by 40 ms on Linux). An echo is in no need of it.
    stream.set_nodelay(true)?;
    // Per call: a read or a write in which no byte moves for so long fails.
    stream.set_read_timeout(Some(idle_timeout))?;
    stream.set_write_timeout(Some(idle_timeout))?;
    echo(stream, buffer)
}

/// The echo: what is read is written, until the client says that it has no more to send.
fn echo(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let mut echoed = 0;
    loop {
        match stream.read(buffer) {
            // The client has half-closed (FIN). Closing ours now lets it see our end in turn, after all
            // bytes that are still on their way: the kernel goes on sending them.
            Ok(0) => return Ok(echoed),
            Ok(len) => {
                // A write may take a part only; this repeats it. When the client does not read, it waits
                // here and we stop reading: flow control reaches through to the client's own writes.
                stream.write_all(&buffer[..len])?;
                echoed += len as u64;
            }
            // We were suspended and woken (SIGSTOP, SIGCONT): nothing to the client.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
