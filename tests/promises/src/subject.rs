//! A program that is asked to keep promises, and a server that has been started for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
#[cfg(unix)]
use std::os::{
    fd::OwnedFd,
    unix::net::{UnixDatagram, UnixStream},
};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{LIMIT, Running, try_run, udp_socket};
use tempfile::TempDir;

use crate::catalog::{Program, TCP_CLIENT, UNIX_CLIENT};
use crate::stream::Stream;
use crate::{Broken, Kept, Promised, Said};

/// How the clients of a subject reach it, or how it reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Datagrams over IP.
    Udp,
    /// Streams over IP.
    Tcp,
    /// Streams to a path.
    UnixStream,
    /// Datagrams to a path.
    UnixDatagram,
}

/// How one knows that a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It prints `listening on ADDR`, and can be told to choose a port (port 0).
    Says,
    /// It accepts, or answers, at the address that it was given.
    Answers,
}

/// A program that can be asked.
pub struct Subject {
    /// What reports call it.
    pub name: String,
    /// How it is reached, or reaches others.
    pub reach: Reach,
    /// How one knows that it listens. This is of no meaning for clients.
    pub ready: Ready,
    /// Returns the command that gives it an address.
    pub command: Box<dyn Fn(&str) -> Command + Send + Sync>,
}

impl Subject {
    /// Returns the command with this address.
    pub fn at(&self, addr: &str) -> Command {
        (self.command)(addr)
    }

    /// Starts a server at an address of its own, and waits until it listens.
    pub fn start(&self) -> Result<Listening, Broken> {
        self.start_by("127.0.0.1", |mut command| Running::start(&mut command))
    }

    /// Does the same on an IP address of this host.
    pub fn start_on_host(&self, host: &str) -> Result<Listening, Broken> {
        self.start_by(host, |mut command| Running::start(&mut command))
    }

    /// Does the same, with this way to start the command.
    pub fn start_by(
        &self,
        host: &str,
        start: impl Fn(Command) -> Running,
    ) -> Result<Listening, Broken> {
        let is_path = matches!(self.reach, Reach::UnixStream | Reach::UnixDatagram);
        let folder = is_path.then(harness::folder);
        let path = |folder: &TempDir| folder.path().join("s").to_string_lossy().into_owned();
        let path = folder.as_ref().map(path);
        let (running, addr) = match (self.ready, path) {
            (Ready::Says, path) => {
                let addr = path.unwrap_or_else(|| format!("{host}:0"));
                let mut running = start(self.at(&addr));
                let addr = running.try_announced()?;
                (running, addr)
            }
            (Ready::Answers, Some(path)) => {
                let mut running = start(self.at(&path));
                let listens = running.becomes_ready(|| self.listens_at(&path));
                ensure!(listens, "it ends before it listens");
                (running, path)
            }
            (Ready::Answers, None) => {
                let at = |free: SocketAddr| format!("{host}:{}", free.port());
                let started = harness::on_a_free_port(
                    |free| Some(start(self.at(&at(free)))),
                    |free| self.answers_at(&at(free)),
                );
                let (running, free) = started.ok_or_else(|| Broken::not_asked("no server"))?;
                (running, at(free))
            }
        };
        Ok(Listening {
            running,
            reach: self.reach,
            addr,
            _folder: folder,
        })
    }

    /// Whether a server has bound this path, and accepts there if it is one of streams.
    fn listens_at(&self, path: &str) -> bool {
        #[cfg(unix)]
        if self.reach == Reach::UnixStream {
            return UnixStream::connect(path).is_ok();
        }
        Path::new(path).exists()
    }

    /// Whether a server at this IP address answers what is sent.
    pub fn answers_at(&self, addr: &str) -> bool {
        let answers = || {
            let addr: SocketAddr = addr.parse().ok()?;
            let mut buffer = [0; 8];
            if self.reach == Reach::Udp {
                let socket = udp_socket(&addr.ip().to_string());
                let limit = Duration::from_millis(200);
                socket.set_read_timeout(Some(limit)).ok()?;
                socket.send_to(b"anybody?", addr).ok()?;
                socket.recv(&mut buffer).ok()?;
            } else {
                let mut stream = TcpStream::connect(addr).ok()?;
                stream.set_read_timeout(Some(LIMIT)).ok()?;
                stream.write_all(b"anybody?").ok()?;
                stream.read_exact(&mut buffer).ok()?;
            }
            Some(())
        };
        answers().is_some()
    }
}

/// One of our programs: it has our options, and our lines of log.
pub struct Ours {
    subject: Subject,
    /// Its entry in the catalog.
    pub program: &'static Program,
}

impl Deref for Ours {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.subject
    }
}

impl Ours {
    /// Returns a program of the catalog as a subject.
    pub fn new(program: &'static Program) -> Ours {
        let subject = Subject {
            name: program.name.to_owned(),
            reach: program.reach,
            ready: Ready::Says,
            command: Box::new(|addr| program.at(addr)),
        };
        Ours { subject, program }
    }

    /// Returns the same program, as one that does not say where it listens.
    pub fn that_answers(&self) -> Subject {
        let program = self.program;
        Subject {
            name: self.name.clone(),
            reach: self.reach,
            ready: Ready::Answers,
            command: Box::new(|addr| program.at(addr)),
        }
    }

    /// Returns the command of a client with this address and something to ask: nearly all send a message,
    /// and `dns` asks for a name.
    pub fn asking(&self, addr: &str) -> Command {
        let mut client = self.at(addr);
        client.arg(if self.name == "dns" {
            "name.test"
        } else {
            "hello"
        });
        client
    }

    /// Returns the options for this many connections at a time, if there are such.
    pub fn places(&self, count: &'static str) -> Vec<&'static str> {
        match self.program.has_limits {
            true => vec!["--max-connections", count],
            false => Vec::new(),
        }
    }

    /// Starts a server with these options, and waits until it listens.
    pub fn start_with(&self, args: &[&str]) -> Result<Listening, Broken> {
        self.start_by("127.0.0.1", |mut command| {
            Running::start(command.args(args))
        })
    }

    /// Starts a server on this address, and waits until it listens.
    pub fn start_at(&self, addr: &str) -> Result<Listening, Broken> {
        let mut running = Running::start(&mut self.at(addr));
        Ok(Listening {
            addr: running.try_announced()?,
            running,
            reach: self.reach,
            _folder: None,
        })
    }

    /// Refuses each of these pairs of arguments, and says what is right.
    pub fn refuses(&self, wrong: &[([&str; 2], &str)]) -> Kept {
        for (args, right) in wrong {
            let finished = try_run(self.program.command().args(args), b"")?;
            ensure_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
            finished.says(right)?;
        }
        Ok(())
    }

    /// Refuses what is no number of seconds for this option.
    pub fn refuses_seconds(&self, option: &str) -> Kept {
        let wrong = ["0", "-1", "nan", "inf", "1e300", "soon"];
        self.refuses(&wrong.map(|wrong| ([option, wrong], "seconds from 0.001 to 86400")))
    }

    /// Starts a server under a limit in the form of prlimit(1).
    #[cfg(target_os = "linux")]
    pub fn start_limited(&self, limit: &str) -> Result<Listening, Broken> {
        self.start_by("127.0.0.1", |command| {
            Running::start(&mut harness::limited(limit, &command))
        })
    }

    /// Starts a server under strace(1) with these options. strace writes the calls into a file.
    #[cfg(target_os = "linux")]
    pub fn start_traced(&self, log: &Path, options: &[&str]) -> Result<Listening, Broken> {
        harness::tracing().map_err(Broken::NotAsked)?;
        self.start_by("127.0.0.1", |command| {
            let mut strace = Command::new("strace");
            // With -D the server is our child, and strace is not its parent.
            strace
                .args(["-D", "-f", "-qq", "-o"])
                .arg(log)
                .args(options);
            strace.arg(command.get_program()).args(command.get_args());
            strace.env_remove("RUST_BACKTRACE");
            Running::start(&mut strace)
        })
    }

    /// Starts a server with this stderr.
    #[cfg(unix)]
    pub fn start_with_stderr(
        &self,
        stderr: impl Into<OwnedFd>,
        args: &[&str],
    ) -> Result<Listening, Broken> {
        let stderr = std::cell::Cell::new(Some(stderr.into()));
        self.start_by("127.0.0.1", |mut command| {
            let stderr = stderr.take().map_or_else(Stdio::null, Stdio::from);
            Running::start_with(command.args(args), Stdio::piped(), stderr)
        })
    }
}

/// A server that listens.
pub struct Listening {
    /// The process.
    pub running: Running,
    reach: Reach,
    /// The address that it announced, or was given.
    pub addr: String,
    _folder: Option<TempDir>,
}

impl Listening {
    /// Connects to a server of streams.
    pub fn connect(&self) -> Result<Stream, Broken> {
        let stream = match self.reach {
            #[cfg(unix)]
            Reach::UnixStream => UnixStream::connect(&self.addr).map(Stream::Unix),
            _ => TcpStream::connect_timeout(&self.ip()?, LIMIT).map(Stream::Tcp),
        };
        let stream = stream.promised("a connection")?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Connects as often as this.
    pub fn connect_times(&self, count: usize) -> Result<Vec<Stream>, Broken> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Returns the address of a server on IP.
    pub fn ip(&self) -> Result<SocketAddr, Broken> {
        self.addr.parse().promised("an address")
    }

    /// Returns our client of this server.
    pub fn client(&self) -> Command {
        match self.reach {
            Reach::UnixStream => UNIX_CLIENT.at(&self.addr),
            _ => TCP_CLIENT.at(&self.addr),
        }
    }

    /// Sends a datagram to a server on IP, and returns the next one that comes back.
    pub fn echo(&self, socket: &UdpSocket, datagram: &[u8]) -> Result<Vec<u8>, Broken> {
        let addr = self.ip()?;
        socket.send_to(datagram, addr)?;
        let mut buffer = vec![0; 65_536];
        let (len, from) = socket.recv_from(&mut buffer).promised("an echo")?;
        ensure_eq!(from, addr, "the echo comes from where the datagram went");
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Asks it for an echo.
    pub fn serves(&self) -> Kept {
        self.exchange(b"still there?")
    }

    /// Asks it for an echo of these bytes, by a socket of their own.
    pub fn exchange(&self, bytes: &[u8]) -> Kept {
        let back = match self.reach {
            #[cfg(unix)]
            Reach::UnixDatagram => {
                let (socket, _folder) = unix_socket()?;
                socket.set_read_timeout(Some(LIMIT))?;
                let sent = socket.send_to(bytes, &self.addr);
                sent.promised("it takes what is sent")?;
                let mut back = vec![0; 65_536];
                let len = socket.recv(&mut back).promised("an echo")?;
                back.truncate(len);
                back
            }
            Reach::Udp => {
                let socket = udp_socket(&self.ip()?.ip().to_string());
                self.echo(&socket, bytes)?
            }
            _ => return self.connect()?.echo(bytes),
        };
        ensure_eq!(back, bytes);
        Ok(())
    }

    /// Returns the next line of its log.
    pub fn log_line(&mut self) -> Result<String, Broken> {
        Ok(self.running.try_stderr_line()?)
    }

    /// Returns the processor time that it has used.
    #[cfg(target_os = "linux")]
    pub fn processor_time(&self) -> Duration {
        harness::processor_time(self.running.id())
    }

    /// Breaks the promise not to spin, if it uses a tenth of a processor for a second.
    #[cfg(target_os = "linux")]
    pub fn rests(&self) -> Kept {
        let before = self.processor_time();
        std::thread::sleep(Duration::from_secs(1));
        let used = self.processor_time() - before;
        ensure!(
            used < Duration::from_millis(100),
            "it spins: {used:?} of processor time in a second"
        );
        Ok(())
    }
}

/// Binds a Unix socket to a name of its own. It is abstract where there are such names, because a server
/// may have reasons not to write to a file that a client has named.
#[cfg(unix)]
fn unix_socket() -> Result<(UnixDatagram, TempDir), Broken> {
    let folder = harness::folder();
    let name = folder.path().join("c");
    #[cfg(target_os = "linux")]
    let socket = {
        use std::os::linux::net::SocketAddrExt;
        let name = name.as_os_str().as_encoded_bytes();
        UnixDatagram::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
    };
    #[cfg(not(target_os = "linux"))]
    let socket = UnixDatagram::bind(name);
    Ok((socket?, folder))
}
