//! A program that is asked to keep promises, and a server that has been started for it.

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

use harness::{Running, patience, try_run, udp_socket};
use tempfile::TempDir;

use crate::catalog::{Program, TCP_CLIENT, UNIX_CLIENT};
use crate::stream::Stream;
use crate::{Broken, Kept, Promised, Said, came_back, uninterrupted};

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
    /// Whether it can be given another host than 127.0.0.1.
    pub takes_host: bool,
    /// Returns the arguments that let a server serve at most so many connections at a time, if there are any.
    pub at_most: Option<Box<dyn Fn(usize) -> Vec<String> + Send + Sync>>,
    /// Whether it may start processes of its own, to which is done what is done to it.
    pub has_children: bool,
    /// How long a server may take until it listens.
    pub starts_within: Duration,
}

impl Subject {
    /// Returns the command with this address.
    pub fn at(&self, addr: &str) -> Command {
        (self.command)(addr)
    }

    /// Starts a command, and reads its output.
    pub fn run(&self, command: &mut Command) -> Running {
        self.run_with(command, Stdio::piped(), Stdio::piped())
    }

    fn run_with(&self, command: &mut Command, stdout: Stdio, stderr: Stdio) -> Running {
        #[cfg(unix)]
        if self.has_children {
            return Running::start_group(command, stdout, stderr);
        }
        Running::start_with(command, stdout, stderr)
    }

    /// Starts a command whose stdout nobody reads.
    #[cfg(unix)]
    pub fn run_unread(&self, command: &mut Command) -> Running {
        self.run_with(command, unread(), Stdio::piped())
    }

    /// Starts a server at an address of its own, and waits until it listens.
    pub fn start(&self) -> Result<Listening, Broken> {
        self.start_by("127.0.0.1", |mut command| self.run(&mut command))
    }

    /// Does the same on an IP address of this host.
    pub fn start_on_host(&self, host: &str) -> Result<Listening, Broken> {
        self.start_by(host, |mut command| self.run(&mut command))
    }

    /// Returns the arguments for at most so many connections, or none if no such limit is known.
    fn places(&self, connections: usize) -> Vec<String> {
        let at_most = self.at_most.as_ref();
        at_most
            .map(|at_most| at_most(connections))
            .unwrap_or_default()
    }

    /// Starts a server with a limit of connections, if it has one.
    pub fn start_for(&self, connections: usize) -> Result<Listening, Broken> {
        let args = self.places(connections);
        self.start_by("127.0.0.1", |mut command| self.run(command.args(&args)))
    }

    /// Does the same with a server that must have such a limit.
    pub fn start_at_most(&self, connections: usize) -> Result<Listening, Broken> {
        if self.at_most.is_none() {
            return Err(Broken::not_asked("no limit of connections is known"));
        }
        self.start_for(connections)
    }

    /// Starts a server under a limit in the form of prlimit(1).
    #[cfg(target_os = "linux")]
    pub fn start_limited(&self, limit: &str) -> Result<Listening, Broken> {
        harness::installed("prlimit").map_err(Broken::NotAsked)?;
        self.start_by("127.0.0.1", |command| {
            self.run(&mut harness::limited(limit, &command))
        })
    }

    /// Starts a server whose output nobody reads from the beginning. So it cannot say where it listens.
    #[cfg(unix)]
    pub fn start_unread(&self) -> Result<Listening, Broken> {
        let args = self.places(1);
        self.start_as(Ready::Answers, "127.0.0.1", |mut command| {
            self.run_with(command.args(&args), unread(), unread())
        })
    }

    /// Starts a server on this host, with this way to start the command.
    pub fn start_by(
        &self,
        host: &str,
        start: impl Fn(Command) -> Running,
    ) -> Result<Listening, Broken> {
        self.start_as(self.ready, host, start)
    }

    fn start_as(
        &self,
        ready: Ready,
        host: &str,
        start: impl Fn(Command) -> Running,
    ) -> Result<Listening, Broken> {
        let is_path = matches!(self.reach, Reach::UnixStream | Reach::UnixDatagram);
        if !is_path && !self.takes_host && host != "127.0.0.1" {
            return Err(Broken::not_asked("its command takes no host"));
        }
        let folder = is_path.then(harness::folder);
        let path = |folder: &TempDir| folder.path().join("s").to_string_lossy().into_owned();
        let path = folder.as_ref().map(path);
        let (running, addr) = match (ready, path) {
            (Ready::Says, path) => {
                let addr = path.unwrap_or_else(|| format!("{host}:0"));
                let mut running = start(self.at(&addr));
                let addr = running.try_announced()?;
                (running, addr)
            }
            (Ready::Answers, Some(path)) => {
                let mut running = start(self.at(&path));
                let is_ready = || self.listens_at(&path);
                if !running.try_becomes_ready(self.starts_within, is_ready)? {
                    return Err(Broken::Promise(running.try_finish()?.ended_early()));
                }
                (running, path)
            }
            (Ready::Answers, None) => {
                let at = |free: SocketAddr| format!("{host}:{}", free.port());
                let started = harness::try_on_a_free_port(
                    self.starts_within,
                    |free| Some(start(self.at(&at(free)))),
                    |free| self.answers_at(&at(free)),
                )?;
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

    /// Whether a server at this IP address accepts, or answers what is sent.
    fn answers_at(&self, addr: &str) -> bool {
        let answers = || {
            let addr: SocketAddr = addr.parse().ok()?;
            if self.reach == Reach::Tcp {
                return TcpStream::connect(addr).ok().map(drop);
            }
            let socket = udp_socket(&addr.ip().to_string());
            let limit = Duration::from_millis(100);
            socket.set_read_timeout(Some(limit)).ok()?;
            socket.send_to(b"anybody?", addr).ok()?;
            socket.recv(&mut [0; 8]).ok().map(drop)
        };
        answers().is_some()
    }
}

/// Returns an output that nobody reads.
#[cfg(unix)]
fn unread() -> Stdio {
    UnixStream::pair().map_or_else(|_| Stdio::null(), |(end, _)| OwnedFd::from(end).into())
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
        let at_most = |count: usize| vec!["--max-connections".to_owned(), count.to_string()];
        let subject = Subject {
            name: program.name.to_owned(),
            reach: program.reach,
            ready: Ready::Says,
            command: Box::new(|addr| program.at(addr)),
            takes_host: true,
            at_most: program.has_limits.then(|| Box::new(at_most) as Box<_>),
            has_children: false,
            starts_within: patience(),
        };
        Ours { subject, program }
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
            _ => TcpStream::connect_timeout(&self.ip()?, patience()).map(Stream::Tcp),
        };
        let stream = stream.promised("a connection")?;
        stream.set_read_timeout(Some(patience()))?;
        stream.set_write_timeout(Some(patience()))?;
        Ok(stream)
    }

    /// Connects as often as this.
    pub fn connect_times(&self, count: usize) -> Result<Vec<Stream>, Broken> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Returns the address of a server on IP.
    pub fn ip(&self) -> Result<SocketAddr, Broken> {
        let addr = self.addr.parse();
        addr.map_err(|error| Broken::Promise(format!("{}: {error}", self.addr)))
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
        let (len, from) = uninterrupted(|| socket.recv_from(&mut buffer)).promised("an echo")?;
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
        if let Reach::Tcp | Reach::UnixStream = self.reach {
            return self.connect()?.echo(bytes);
        }
        let peer = self.peer()?;
        peer.send(bytes)?;
        came_back(&peer.receive()?, bytes)
    }

    /// Returns a new peer of a server of datagrams.
    pub fn peer(&self) -> Result<Peer, Broken> {
        match self.reach {
            #[cfg(unix)]
            Reach::UnixDatagram => {
                let (socket, folder) = unix_socket()?;
                socket.set_read_timeout(Some(patience()))?;
                socket.set_write_timeout(Some(patience()))?;
                Ok(Peer::Unix(socket, self.addr.clone(), folder))
            }
            _ => {
                let addr = self.ip()?;
                Ok(Peer::Udp(udp_socket(&addr.ip().to_string()), addr))
            }
        }
    }

    /// Returns the next line of its log.
    pub fn log_line(&mut self) -> Result<String, Broken> {
        Ok(self.running.try_stderr_line()?)
    }

    /// Returns the processor time that it has used.
    #[cfg(target_os = "linux")]
    pub fn processor_time(&self) -> Duration {
        let processes = self.running.processes();
        processes.into_iter().map(harness::processor_time).sum()
    }

    /// Breaks the promise to keep nothing of peers that have gone. Compares after a first part of them, when
    /// the server has all that it keeps for its work.
    #[cfg(target_os = "linux")]
    pub fn forgets(&self) -> Kept {
        let uses_after = |count| {
            (0..count).try_for_each(|_| self.serves())?;
            std::thread::sleep(Duration::from_millis(300)); // It may learn of the last end a little later.
            Ok::<_, Broken>(self.uses())
        };
        let (descriptors_before, memory_before) = uses_after(300)?;
        let (descriptors, memory) = uses_after(1000)?;
        ensure!(
            descriptors <= descriptors_before + 20,
            "{descriptors} descriptors after 1000 more peers, {descriptors_before} before"
        );
        ensure!(
            memory <= memory_before + 8 * 1024,
            "{memory} KiB of memory after 1000 more peers, {memory_before} KiB before"
        );
        Ok(())
    }

    /// Returns how many descriptors it has open, and its memory in KiB.
    #[cfg(target_os = "linux")]
    fn uses(&self) -> (usize, u64) {
        let processes = self.running.processes();
        let open = |id| std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count);
        let memory = |id| harness::memory_kib(id, "VmRSS").unwrap_or(0);
        let descriptors = processes.iter().map(open).sum();
        (descriptors, processes.into_iter().map(memory).sum())
    }

    /// Breaks the promise not to spin, if for a second it uses a tenth of a processor, or nearly always wants
    /// one: on a busy machine it may not get much.
    #[cfg(target_os = "linux")]
    pub fn rests(&self) -> Kept {
        self.rests_while(|| Ok(()))
    }

    /// Does the same while something is done fifty times.
    #[cfg(target_os = "linux")]
    pub fn rests_while(&self, mut act: impl FnMut() -> Kept) -> Kept {
        const TIMES: usize = 50;
        let (before, mut wanted) = (self.processor_time(), 0);
        for _ in 0..TIMES {
            std::thread::sleep(Duration::from_millis(20));
            let mut processes = self.running.processes().into_iter();
            wanted += usize::from(processes.any(harness::wants_processor));
            act()?;
        }
        let used = self.processor_time().saturating_sub(before);
        ensure!(
            used < Duration::from_millis(100) && wanted < TIMES * 3 / 4,
            "it spins: {used:?} of processor time in a second, and it runs or waits to run at \
             {wanted} of {TIMES} moments"
        );
        Ok(())
    }
}

/// A socket of the test itself, and the server that it asks.
pub enum Peer {
    /// Over IP.
    Udp(UdpSocket, SocketAddr),
    /// To a path.
    #[cfg(unix)]
    Unix(UnixDatagram, String, TempDir),
}

impl Peer {
    /// Sends a datagram.
    pub fn send(&self, bytes: &[u8]) -> Kept {
        let sent = match self {
            Peer::Udp(socket, server) => socket.send_to(bytes, server),
            #[cfg(unix)]
            Peer::Unix(socket, server, _) => socket.send_to(bytes, server),
        };
        sent.promised("it takes what is sent").map(drop)
    }

    /// Returns the next datagram, which comes from the server.
    pub fn receive(&self) -> Result<Vec<u8>, Broken> {
        let mut buffer = vec![0; 65_536];
        let len = match self {
            Peer::Udp(socket, server) => {
                let (len, from) =
                    uninterrupted(|| socket.recv_from(&mut buffer)).promised("an echo")?;
                ensure_eq!(from, *server, "the echo comes from where the datagram went");
                len
            }
            #[cfg(unix)]
            Peer::Unix(socket, ..) => {
                uninterrupted(|| socket.recv(&mut buffer)).promised("an echo")?
            }
        };
        buffer.truncate(len);
        Ok(buffer)
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
