//! What the bench asks, and of whom.

use std::cell::LazyCell;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use harness::servers::{Peer, Started, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM};
use harness::{allow_descriptors, loads, not_run};
use tempfile::TempDir;

/// A question, of which criterion makes a group.
pub struct Question {
    /// The name of the group, and of its folder.
    pub name: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// The server that the others are measured by.
    pub limit: &'static str,
    /// Who is asked.
    pub peers: &'static [Peer],
    /// Who is not, and why not.
    without: &'static [(&'static str, &'static str)],
    /// For how many clients at once they are started.
    clients: usize,
    load: Load,
    /// What one of the load is.
    unit: Throughput,
}

enum Load {
    /// Put on a server that runs, so often.
    Running(fn(&str, u64) -> Duration),
    /// Its start, and one echo.
    Start,
}

/// The MiB of one stream.
const BULK: u64 = 64;

/// The connects of one burst.
const BURST: usize = 1000;

const NCAT_STALLS: (&str, &str) =
    ("ncat", "it waits for the network and two pipes in turn, and may come to a halt");
const SOCAT_STALLS: (&str, &str) =
    ("socat", "it writes to a pipe that only it reads, and may wait for itself");

pub static ALL: [Question; 13] = [
    Question {
        name: "tcp_one_connection",
        title: "messages of 512 bytes on one connection, one after the other",
        limit: "epoll",
        peers: &TCP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| loads::one_connection(ip(addr), count)),
        unit: Throughput::Elements(1),
    },
    Question {
        name: "tcp_50_connections",
        title: "messages of 512 bytes on 50 connections",
        limit: "epoll",
        peers: &TCP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| loads::many_connections(ip(addr), count)),
        unit: Throughput::Elements(loads::CONNECTIONS as u64),
    },
    Question {
        name: "tcp_16k_messages",
        title: "messages of 16 KiB on 8 connections",
        limit: "epoll",
        peers: &TCP,
        without: &[NCAT_STALLS],
        clients: 100,
        load: Load::Running(|addr, count| loads::long_messages(ip(addr), count)),
        unit: Throughput::Bytes((loads::LONG_CONNECTIONS * loads::LONG_MESSAGE) as u64),
    },
    Question {
        name: "tcp_bulk",
        title: "one stream of 64 MiB",
        limit: "epoll",
        peers: &TCP,
        without: &[NCAT_STALLS, SOCAT_STALLS],
        clients: 100,
        load: Load::Running(|addr, count| loads::bulk(ip(addr), count * BULK)),
        unit: Throughput::Bytes(BULK << 20),
    },
    Question {
        name: "tcp_connects",
        title: "connect, echo, close, one after the other",
        limit: "epoll",
        peers: &TCP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| loads::short_connections(ip(addr), count)),
        unit: Throughput::Elements(1),
    },
    Question {
        name: "tcp_connects_of_four",
        title: "connect, echo, close, by four clients at once",
        limit: "epoll",
        peers: &TCP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| {
            loads::short_connections_at_once(ip(addr), count * loads::CLIENTS as u64)
        }),
        unit: Throughput::Elements(loads::CLIENTS as u64),
    },
    Question {
        name: "tcp_connects_of_1000",
        title: "a thousand connects at once, and an echo on each",
        limit: "epoll",
        peers: &TCP,
        without: &[
            ("python", "it serves a hundred clients at a time"),
            ("socat", "it starts a process for each connection"),
            ("ncat", "it starts a process for each connection"),
        ],
        clients: BURST,
        load: Load::Running(|addr, count| (0..count).map(|_| loads::burst(ip(addr), BURST)).sum()),
        unit: Throughput::Elements(BURST as u64),
    },
    Question {
        name: "tcp_first_echo",
        title: "from the start of the process to the first echo",
        limit: "epoll",
        peers: &TCP,
        without: &[],
        clients: 100,
        load: Load::Start,
        unit: Throughput::Elements(1),
    },
    Question {
        name: "udp_stop_and_wait",
        title: "datagrams of 64 bytes, one after the other",
        limit: "c_loop",
        peers: &UDP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| loads::udp_stop_and_wait(ip(addr), count)),
        unit: Throughput::Elements(1),
    },
    Question {
        name: "udp_128_on_their_way",
        title: "datagrams of 64 bytes, 128 on their way at once",
        limit: "c_batch",
        peers: &UDP,
        without: &[],
        clients: 100,
        load: Load::Running(|addr, count| loads::udp_window(ip(addr), count * 1000)),
        unit: Throughput::Elements(1000),
    },
    Question {
        name: "unix_one_connection",
        title: "messages of 512 bytes on one connection, one after the other",
        limit: "plain",
        peers: &UNIX_STREAM,
        without: &[],
        clients: 100,
        load: Load::Running(|path, count| loads::unix::one_connection(Path::new(path), count)),
        unit: Throughput::Elements(1),
    },
    Question {
        name: "unix_bulk",
        title: "one stream of 64 MiB",
        limit: "plain",
        peers: &UNIX_STREAM,
        without: &[SOCAT_STALLS],
        clients: 100,
        load: Load::Running(|path, count| loads::unix::bulk(Path::new(path), count * BULK)),
        unit: Throughput::Bytes(BULK << 20),
    },
    Question {
        name: "unix_datagrams",
        title: "datagrams of 512 bytes, one after the other",
        limit: "plain",
        peers: &UNIX_DATAGRAM,
        without: &[],
        clients: 100,
        load: Load::Running(|path, count| loads::unix::datagrams(Path::new(path), count)),
        unit: Throughput::Elements(1),
    },
];

fn ip(addr: &str) -> SocketAddr {
    addr.parse().unwrap_or_else(|error| panic!("{addr:?}: {error}"))
}

/// Asks all questions, of one server after the other.
pub fn ask(criterion: &mut Criterion) {
    assert!(
        allow_descriptors(BURST as u64 + 100).is_some(),
        "cannot open {BURST} connections: raise ulimit -n"
    );
    for question in &ALL {
        println!("\n{}: {}", question.name, question.title);
        let mut group = criterion.benchmark_group(question.name);
        group.throughput(question.unit.clone());
        for peer in question.peers {
            match question.without.iter().find(|(name, _)| *name == peer.name) {
                Some((name, why)) => not_run(&format!("{name} is left out of {}: {why}", question.name)),
                None if peer.is_installed() => measure(&mut group, question, peer),
                None => {}
            }
        }
    }
}

fn measure(group: &mut BenchmarkGroup<WallTime>, question: &Question, peer: &Peer) {
    // Not before it is needed: the command line may have left it out. The first start may have to build it.
    let asked = LazyCell::new(|| Asked::start(peer, question));
    group.bench_function(peer.name, |bencher| bencher.iter_custom(|count| asked.time(count)));
}

/// A server that is asked a question.
pub struct Asked<'a> {
    peer: &'a Peer,
    question: &'a Question,
    folder: TempDir,
    /// `None` where the question is about the start.
    running: Option<Started>,
}

impl Asked<'_> {
    pub fn start<'a>(peer: &'a Peer, question: &'a Question) -> Asked<'a> {
        let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
        let mut asked = Asked { peer, question, folder, running: None };
        if let Load::Running(_) = question.load {
            asked.running = Some(asked.server());
        }
        asked
    }

    fn server(&self) -> Started {
        self.peer.start(&self.folder.path().join("server"), self.question.clients)
    }

    /// The time that it takes so often.
    pub fn time(&self, count: u64) -> Duration {
        match (&self.running, &self.question.load) {
            (Some(server), Load::Running(load)) => load(&server.addr, count),
            _ => (0..count).map(|_| self.time_to_first_echo()).sum(),
        }
    }

    fn time_to_first_echo(&self) -> Duration {
        let begin = Instant::now();
        let server = self.server();
        harness::echo(TcpStream::connect(&server.addr).unwrap(), b"hello");
        begin.elapsed()
    }
}
