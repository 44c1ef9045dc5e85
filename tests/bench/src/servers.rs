//! The servers that are measured: ours, the simplest that std and C allow, and other people's.

use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use super::questions::Placement;
use harness::{
    Running, compiled, example_of, foreign, not_run, on_a_free_port, peer as peer_program, program,
    python,
};
use promises::Reach::{UnixDatagram, UnixStream};
use promises::catalog::{self, BATCH, EVENT_LOOP, TCP_SERVER, UDP_SERVER, UNIX_ECHO};

/// A server that can be measured.
pub struct Peer {
    /// The name in tables.
    pub name: &'static str,
    program: Program,
    /// The arguments; ours also get an address. Instead of PATH it gets the path of its socket, instead of CLIENTS the number
    /// of clients that it must serve at the same time, and instead of PORT a free port.
    args: &'static str,
}

/// Where the program of a server comes from.
enum Program {
    /// One of our programs.
    Ours(&'static catalog::Program),
    /// The example `first` of a package.
    First(&'static str),
    /// A program of the package `peers`.
    Rust(&'static str),
    /// A program that is a package.
    Package(&'static str),
    /// A file in `peers`.
    C(&'static str),
    Go(&'static str),
    Python(&'static str),
    /// A program that is installed.
    Foreign(&'static str),
}
use Program::{C, First, Foreign, Go, Ours, Package, Python, Rust};

/// A server that listens. Dropping this kills the server and its children.
pub struct Started {
    /// The process.
    pub running: Running,
    /// The address that it listens on.
    pub addr: String,
    /// Holds its socket if that is a file.
    _folder: Option<TempDir>,
}

const fn peer(name: &'static str, program: Program, args: &'static str) -> Peer {
    Peer {
        name,
        program,
        args,
    }
}

const fn ours(program: &'static catalog::Program, args: &'static str) -> Peer {
    peer(called(program), Ours(program), args)
}

/// Returns what tables call one of our programs: its example, or its package.
pub const fn called(program: &catalog::Program) -> &'static str {
    match program.example {
        Some(example) => example,
        None => program.package,
    }
}

const OUR_TCP: &str = "--quiet --max-connections CLIENTS";
const NCAT: &str = "--listen --keep-open --exec /bin/cat 127.0.0.1 PORT";

/// TCP servers. The first two are ours. They, `plain`, `epoll` and `c_threads` have a buffer of
/// 48 KiB; other people's servers have the buffers that their authors chose.
pub static TCP: [Peer; 14] = [
    ours(&TCP_SERVER, OUR_TCP),
    ours(&EVENT_LOOP, OUR_TCP),
    peer("plain", Rust("plain_tcp_echo"), ""),
    peer("epoll", Rust("epoll_echo"), ""),
    peer("c_threads", C("c/thread_echo.c"), ""),
    peer("tokio", Rust("tokio_echo"), "tcp 1024"),
    peer("tokio_48k", Rust("tokio_echo"), "tcp 49152"),
    peer("smol", Rust("smol_echo"), ""),
    peer("io_uring", Package("io_uring_echo"), "tcp"),
    peer("go", Go("go/echo.go"), "tcp"),
    peer("go_4k", Go("go/echo.go"), "tcp-buffer"),
    peer("python", Python("tcp_server.py"), "--addr 127.0.0.1:0"),
    peer(
        "socat",
        Foreign("socat"),
        "-d -d TCP-LISTEN:0,bind=127.0.0.1,fork,nodelay PIPE",
    ),
    peer("ncat", Foreign("ncat"), NCAT),
];

/// UDP servers. The first two are ours.
pub static UDP: [Peer; 11] = [
    ours(&UDP_SERVER, "--quiet"),
    ours(&BATCH, "--quiet"),
    peer("plain", First("udp-server"), "127.0.0.1:0"),
    peer("c_loop", C("c/udp_loop.c"), ""),
    peer("c_batch", C("c/udp_batch.c"), ""),
    peer("c_segment", C("c/udp_batch.c"), "segment"),
    peer("c_gro", C("c/udp_batch.c"), "gro"),
    peer("tokio", Rust("tokio_echo"), "udp"),
    peer("io_uring", Package("io_uring_echo"), "udp"),
    peer("go", Go("go/echo.go"), "udp"),
    peer("python", Python("udp_server.py"), "--addr 127.0.0.1:0"),
];

/// Servers of Unix streams. The first is ours.
pub static UNIX_STREAM: [Peer; 6] = [
    ours(&UNIX_ECHO, "--quiet"),
    peer("plain", Rust("plain_unix_echo"), "PATH"),
    peer("tokio_32k", Rust("tokio_echo"), "unix 32768 PATH"),
    peer("go", Go("go/echo.go"), "unix PATH"),
    peer("python", Python("unix_echo.py"), "server --path PATH"),
    peer(
        "socat",
        Foreign("socat"),
        "-d -d UNIX-LISTEN:PATH,fork PIPE",
    ),
];

/// Servers of Unix datagrams. The first is ours.
pub static UNIX_DATAGRAM: [Peer; 3] = [
    ours(&catalog::UNIX_DATAGRAM, "--quiet"),
    peer("plain", Rust("plain_unix_echo"), "PATH --datagram"),
    peer(
        "python",
        Python("unix_echo.py"),
        "server --datagram --path PATH",
    ),
];

/// Returns the server with this name.
pub fn named(peers: &'static [Peer], name: &str) -> &'static Peer {
    let found = peers.iter().find(|peer| peer.name == name);
    found.unwrap_or_else(|| panic!("no peer is called {name}"))
}

impl Peer {
    /// Returns whether it is a program or an example of this project.
    pub fn is_ours(&self) -> bool {
        matches!(self.program, Ours(_))
    }

    /// Builds the server, on all processors, unless that is done. If what it needs is not
    /// installed, prints `NOT RUN` and returns `false`.
    pub fn is_available(&self) -> bool {
        self.command("").is_some()
    }

    /// Returns the command without its arguments, but with the address if it is ours.
    fn command(&self, addr: &str) -> Option<Command> {
        Some(match self.program {
            Ours(program) => program.at(addr),
            First(package) => example_of(package, "first"),
            Rust(name) => peer_program(name),
            Package(name) => program(name),
            C(file) | Go(file) => compiled(file).map_err(|why| not_run(&why)).ok()?,
            Python(file) => python(file)?,
            Foreign(name) => foreign(name)?,
        })
    }

    /// Whether its address is a path.
    fn has_path(&self) -> bool {
        match self.program {
            Ours(program) => matches!(program.reach, UnixStream | UnixDatagram),
            _ => self.args.contains("PATH"),
        }
    }

    /// Starts the server for so many clients, and waits until it listens.
    pub fn start(&self, clients: usize, placement: Placement) -> Started {
        let folder = self.has_path().then(harness::folder);
        let addr = match &folder {
            Some(folder) => folder.path().join("server").display().to_string(),
            None => "127.0.0.1:0".to_owned(),
        };
        let args = self.args.replace("CLIENTS", &clients.to_string());
        let args = args.replace("PATH", &addr);
        let start = |args: &str, start: fn(&mut Command) -> Running| {
            let mut command = self.command(&addr).expect("a server that is available");
            placement.of_server(|| start(command.args(args.split_whitespace())))
        };
        let (running, addr) = match self.program {
            // It does not say when it listens.
            Foreign("ncat") => {
                let with_port = |port: u16| args.replace("PORT", &port.to_string());
                let start = |port| start(&with_port(port), Running::start_with_children);
                let is_ready = |addr| TcpStream::connect(addr).is_ok();
                let started = on_a_free_port(|addr| Some(start(addr.port())), is_ready);
                let (running, addr) = started.unwrap();
                (running, addr.to_string())
            }
            // With `-d -d`, it prints its address: `... N listening on AF=2 127.0.0.1:41234`.
            Foreign(_) => {
                let mut running = start(&args, Running::start_with_children);
                let line = running.stderr_line();
                let addr = line.rsplit([' ', '=']).next().unwrap();
                let addr = addr.trim_matches('"').to_owned();
                (running, addr)
            }
            _ => {
                let mut running = start(&args, Running::start);
                let addr = running.announced();
                (running, addr)
            }
        };
        Started {
            running,
            addr,
            _folder: folder,
        }
    }
}
