//! The servers that are measured: ours, the simplest that std and C allow, and other people's.

use std::env;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use super::placement::Placement;
use crate::{Running, example_of, foreign, on_a_free_port, peer as peer_program, program, python};

/// A server that can be measured.
#[derive(Clone, Copy)]
pub struct Peer {
    /// The name in tables.
    pub name: &'static str,
    /// The program that must be installed for it.
    needs: Option<&'static str>,
    start: fn(&Wanted) -> Started,
}

/// What a server is started with.
pub struct Wanted<'a> {
    /// The path of a server of Unix sockets.
    pub path: &'a Path,
    /// How many connections it must serve at the same time. Not all servers have such an option.
    pub connections: usize,
    /// On which processors it runs.
    pub placement: Placement,
}

/// A server that listens. Dropping this kills the server and its children.
pub struct Started {
    /// The process.
    pub running: Running,
    /// The address that it listens on.
    pub addr: String,
}

impl Peer {
    /// Returns whether the program that it needs is installed. Prints `NOT RUN` if not.
    pub fn is_installed(&self) -> bool {
        self.needs.is_none_or(|tool| foreign(tool).is_some())
    }

    /// Starts the server. The first time it may have to be built, on all processors.
    pub fn start(&self, wanted: &Wanted) -> Started {
        (self.start)(wanted)
    }
}

/// Returns the server with this name.
pub fn named(peers: &[Peer], name: &str) -> Peer {
    *peers
        .iter()
        .find(|peer| peer.name == name)
        .unwrap_or_else(|| panic!("no peer is called {name}"))
}

const fn peer(name: &'static str, start: fn(&Wanted) -> Started) -> Peer {
    Peer {
        name,
        needs: None,
        start,
    }
}

const fn foreign_peer(
    name: &'static str,
    needs: &'static str,
    start: fn(&Wanted) -> Started,
) -> Peer {
    Peer {
        name,
        needs: Some(needs),
        start,
    }
}

/// TCP servers. The first two are ours. They, `plain`, `epoll` and `c_threads` have a buffer of
/// 48 KiB; other people's servers have the buffers that their authors chose.
pub const TCP: [Peer; 12] = [
    peer("tcp-server", |wanted| {
        wanted.of_ours_for_so_many(&mut program("tcp-server"))
    }),
    peer("event_loop", |wanted| {
        wanted.of_ours_for_so_many(&mut example_of("tcp-server", "event_loop"))
    }),
    peer("plain", |wanted| {
        wanted.of(&mut peer_program("plain_tcp_echo"))
    }),
    peer("epoll", |wanted| wanted.of(&mut peer_program("epoll_echo"))),
    peer("tokio", |wanted| {
        wanted.of(peer_program("tokio_echo").args(["tcp", "1024"]))
    }),
    peer("tokio_48k", |wanted| {
        wanted.of(peer_program("tokio_echo").args(["tcp", "49152"]))
    }),
    peer("smol", |wanted| wanted.of(&mut peer_program("smol_echo"))),
    foreign_peer("c_threads", "cc", |wanted| {
        wanted.of(&mut Command::new(&*C_THREADS))
    }),
    foreign_peer("go", "go", |wanted| {
        wanted.of(Command::new(&*GO).arg("tcp"))
    }),
    foreign_peer("python", "python3", |wanted| {
        wanted.of(python("tcp_server.py")
            .unwrap()
            .args(["--addr", "127.0.0.1:0"]))
    }),
    foreign_peer("socat", "socat", |wanted| {
        wanted.of_socat("TCP-LISTEN:0,bind=127.0.0.1,fork,nodelay")
    }),
    foreign_peer("ncat", "ncat", |wanted| wanted.of_ncat()),
];

/// Go with a buffer. It needs only one descriptor for each connection, where `go` needs three.
pub const GO_4K: Peer = foreign_peer("go_4k", "go", |wanted| {
    wanted.of(Command::new(&*GO).arg("tcp-buffer"))
});

/// UDP servers. The first two are ours; the second exists only on Linux.
pub const UDP: [Peer; if cfg!(target_os = "linux") { 9 } else { 8 }] = [
    peer("udp-server", |wanted| {
        wanted.of_ours(&mut program("udp-server"))
    }),
    #[cfg(target_os = "linux")]
    peer("batch", |wanted| {
        wanted.of_ours(&mut example_of("udp-server", "batch"))
    }),
    peer("plain", |wanted| {
        wanted.of(&mut peer_program("plain_udp_echo"))
    }),
    peer("tokio", |wanted| {
        wanted.of(peer_program("tokio_echo").arg("udp"))
    }),
    foreign_peer("c_loop", "cc", |wanted| {
        wanted.of(&mut Command::new(&*C_LOOP))
    }),
    foreign_peer("c_batch", "cc", |wanted| {
        wanted.of(&mut Command::new(&*C_BATCH))
    }),
    foreign_peer("c_segment", "cc", |wanted| {
        wanted.of(Command::new(&*C_BATCH).arg("segment"))
    }),
    foreign_peer("go", "go", |wanted| {
        wanted.of(Command::new(&*GO).arg("udp"))
    }),
    foreign_peer("python", "python3", |wanted| {
        wanted.of(python("udp_server.py")
            .unwrap()
            .args(["--addr", "127.0.0.1:0"]))
    }),
];

/// Servers of Unix streams. The first is ours.
pub const UNIX_STREAM: [Peer; 6] = [
    peer("unix-echo", |wanted| {
        wanted.of(program("unix-echo")
            .args(["server", "--quiet", "--path"])
            .arg(wanted.path))
    }),
    peer("plain", |wanted| {
        wanted.of(peer_program("plain_unix_echo").arg(wanted.path))
    }),
    peer("tokio_32k", |wanted| {
        wanted.of(peer_program("tokio_echo")
            .args(["unix", "32768"])
            .arg(wanted.path))
    }),
    foreign_peer("go", "go", |wanted| {
        wanted.of(Command::new(&*GO).arg("unix").arg(wanted.path))
    }),
    foreign_peer("python", "python3", |wanted| {
        wanted.of(python("unix_echo.py")
            .unwrap()
            .args(["server", "--path"])
            .arg(wanted.path))
    }),
    foreign_peer("socat", "socat", |wanted| {
        wanted.of_socat(&format!("UNIX-LISTEN:{},fork", wanted.path.display()))
    }),
];

/// Servers of Unix datagrams. The first is ours.
pub const UNIX_DATAGRAM: [Peer; 3] = [
    peer("unix-echo", |wanted| {
        wanted.of(program("unix-echo")
            .args(["server", "--quiet", "--datagram", "--path"])
            .arg(wanted.path))
    }),
    peer("plain", |wanted| {
        wanted.of(peer_program("plain_unix_echo")
            .arg(wanted.path)
            .arg("--datagram"))
    }),
    foreign_peer("python", "python3", |wanted| {
        wanted.of(python("unix_echo.py")
            .unwrap()
            .args(["server", "--datagram", "--path"])
            .arg(wanted.path))
    }),
];

static C_THREADS: LazyLock<PathBuf> = LazyLock::new(|| compiled_c("thread_echo"));
static C_LOOP: LazyLock<PathBuf> = LazyLock::new(|| compiled_c("udp_loop"));
static C_BATCH: LazyLock<PathBuf> = LazyLock::new(|| compiled_c("udp_batch"));
static GO: LazyLock<PathBuf> = LazyLock::new(|| {
    compiled("echo_go", |to| {
        Command::new("go")
            .args(["build", "-o"])
            .arg(to)
            .arg(source("echo.go"))
            .output()
    })
});

fn compiled_c(name: &str) -> PathBuf {
    let source = source(&format!("{name}.c"));
    compiled(name, |to| {
        Command::new("cc")
            .args(["-O2", "-pthread", "-o"])
            .arg(to)
            .arg(source)
            .output()
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(name)
}

/// Compiles a server that cargo does not build, into a folder next to those that it builds.
fn compiled(name: &str, compile: impl FnOnce(&Path) -> io::Result<Output>) -> PathBuf {
    let folder = env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("peers");
    fs::create_dir_all(&folder).unwrap();
    // Renamed only when it is complete, because two processes may build it at the same time.
    let unfinished = folder.join(format!("{name}.{}", std::process::id()));
    let output = compile(&unfinished).unwrap();
    assert!(
        output.status.success(),
        "cannot build {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let program = folder.join(name);
    fs::rename(&unfinished, &program).unwrap();
    program
}

impl Wanted<'_> {
    fn of_ours_for_so_many(&self, command: &mut Command) -> Started {
        self.of_ours(command.args(["--max-connections", &self.connections.to_string()]))
    }

    fn of_ours(&self, command: &mut Command) -> Started {
        self.of(command.args(["--quiet", "--addr", "127.0.0.1:0"]))
    }

    fn of(&self, command: &mut Command) -> Started {
        let mut running = self.placement.of_server(|| Running::start(command));
        let addr = running.announced();
        Started { running, addr }
    }

    fn of_one_with_children(&self, command: &mut Command) -> Running {
        self.placement
            .of_server(|| Running::start_with_children(command))
    }

    /// With `-d -d`, socat prints its address: `... N listening on AF=2 127.0.0.1:41234`.
    fn of_socat(&self, listen: &str) -> Started {
        let mut running =
            self.of_one_with_children(Command::new("socat").args(["-d", "-d", listen, "PIPE"]));
        let line = running.stderr_line();
        let addr = line
            .rsplit([' ', '='])
            .next()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        Started { running, addr }
    }

    fn of_ncat(&self) -> Started {
        let start = |addr: SocketAddr| {
            let mut ncat = Command::new("ncat");
            ncat.args(["--listen", "--keep-open", "--exec", "/bin/cat", "127.0.0.1"]);
            Some(self.of_one_with_children(ncat.arg(addr.port().to_string())))
        };
        let (running, addr) =
            on_a_free_port(start, |addr| TcpStream::connect(addr).is_ok()).unwrap();
        Started {
            running,
            addr: addr.to_string(),
        }
    }
}
