//! What every server and every client of streams promises, over TCP and Unix sockets. What
//! only one kind promises is in `tcp` and `unix`.

mod client;
mod pair;
pub mod server;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Running, echo, program};
use rstest_reuse::template;
use socket2::SockRef;
use tempfile::TempDir;

use crate::tcp::server::TcpServer;

/// The servers of streams.
#[derive(Clone, Copy)]
pub enum Service {
    TcpServer,
    EventLoop,
    #[cfg(unix)]
    UnixEcho,
    #[cfg(unix)]
    Graceful,
}

#[cfg(unix)]
#[template]
#[export]
#[rstest]
#[case::tcp_server(Service::TcpServer)]
#[case::event_loop(Service::EventLoop)]
#[case::unix_echo(Service::UnixEcho)]
#[case::graceful(Service::Graceful)]
pub fn every_stream_server(#[case] service: Service) {}

#[cfg(not(unix))]
#[template]
#[export]
#[rstest]
#[case::tcp_server(Service::TcpServer)]
#[case::event_loop(Service::EventLoop)]
pub fn every_stream_server(#[case] service: Service) {}

impl Service {
    pub fn command(self) -> Command {
        match self {
            Service::TcpServer => TcpServer::Threads.command(),
            Service::EventLoop => TcpServer::EventLoop.command(),
            #[cfg(unix)]
            Service::Graceful => TcpServer::Graceful.command(),
            #[cfg(unix)]
            Service::UnixEcho => {
                let mut command = program("unix-echo");
                command.arg("server");
                command
            }
        }
    }

    pub fn start(self, args: &[&str]) -> Listening {
        self.start_on(|command| Running::start(command.args(args)))
    }

    /// Starts a command that is made from the server's, for example with a limit.
    pub fn start_as(self, change: impl FnOnce(Command) -> Command) -> Listening {
        self.start_on(|command| {
            let mut plain = Command::new(command.get_program());
            plain.args(command.get_args());
            Running::start(&mut change(plain))
        })
    }

    /// Starts the server under strace with these options. strace writes the calls into a file.
    #[cfg(target_os = "linux")]
    pub fn start_traced(self, log: &Path, options: &[&str]) -> Option<Listening> {
        let mut strace = harness::foreign("strace")?;
        // With -D the server is our child, and strace is not its parent.
        strace.args(["-D", "-f", "-o"]).arg(log).args(options);
        Some(self.start_as(|command| {
            strace.arg(command.get_program()).args(command.get_args());
            strace
        }))
    }

    /// Starts the server at its own address, and waits until it listens.
    pub fn start_on(self, start: impl FnOnce(&mut Command) -> Running) -> Listening {
        let mut command = self.command();
        let folder = match self {
            #[cfg(unix)]
            Service::UnixEcho => {
                let folder = harness::folder();
                command.arg("--path").arg(folder.path().join("s"));
                Some(folder)
            }
            _ => {
                command.args(["--addr", "127.0.0.1:0"]);
                None
            }
        };
        let mut running = start(&mut command);
        let addr = running.announced();
        Listening {
            running,
            service: self,
            addr,
            _folder: folder,
        }
    }
}

/// A server that listens.
pub struct Listening {
    pub running: Running,
    service: Service,
    /// The address that it announced.
    pub addr: String,
    _folder: Option<TempDir>,
}

impl Listening {
    pub fn connect(&self) -> Stream {
        let stream = match self.service {
            #[cfg(unix)]
            Service::UnixEcho => Stream::Unix(UnixStream::connect(&self.addr).unwrap()),
            _ => {
                let addr: SocketAddr = self.addr.parse().unwrap();
                Stream::Tcp(TcpStream::connect_timeout(&addr, LIMIT).unwrap())
            }
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Returns the client of this server.
    pub fn client(&self) -> Command {
        client_of(self.service, &self.addr)
    }

    pub fn assert_serves(&self) {
        echo(&self.connect(), b"still there?");
    }
}

/// Returns the client that belongs to a server, with this address.
pub fn client_of(service: Service, addr: &str) -> Command {
    let (mut command, option) = match service {
        #[cfg(unix)]
        Service::UnixEcho => {
            let mut command = program("unix-echo");
            command.arg("client");
            (command, "--path")
        }
        _ => (program("tcp-client"), "--addr"),
    };
    command.args([option, addr]);
    command
}

/// A connection of the test itself.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Does the same for both kinds of streams.
macro_rules! each {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($inner) => $do,
            #[cfg(unix)]
            Stream::Unix($inner) => $do,
        }
    };
}

impl Stream {
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        each!(self, stream => stream.set_read_timeout(limit))
    }

    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        each!(self, stream => stream.set_write_timeout(limit))
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        each!(self, stream => stream.set_nonblocking(nonblocking))
    }

    pub fn half_close(&self) -> io::Result<()> {
        each!(self, stream => stream.shutdown(Shutdown::Write))
    }

    /// Closes the connection with a reset instead of a FIN. A Unix socket has no resets: there
    /// it is closed with unread bytes, which is an error for the peer as well.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self {
            SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    /// Returns the name of this client in the server's log.
    pub fn name_in_logs(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.local_addr().unwrap().to_string(),
            #[cfg(unix)]
            Stream::Unix(_) => "unnamed".to_owned(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => { let mut stream = stream; stream.read(buffer) })
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => { let mut stream = stream; stream.write(bytes) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
