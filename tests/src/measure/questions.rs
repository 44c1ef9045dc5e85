//! The questions of the bench, and the servers that it asks. The speed tests ask them too.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::loads;
use super::placement::Placement::{self, Apart, Free, Together};
use super::servers::{Peer, Started, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM, Wanted};

/// A question: how fast servers handle a load.
pub struct Question {
    /// The name of criterion's group, and of its folder.
    pub name: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// The server that the others are compared with.
    pub limit: &'static str,
    /// All servers of this kind.
    pub peers: &'static [Peer],
    /// The servers that are not asked, each with the reason.
    pub without: &'static [(&'static str, &'static str)],
    /// How much one repetition of the load is.
    pub unit: Unit,
    /// How many clients the servers must be able to serve at the same time.
    clients: usize,
    placement: Placement,
    load: Load,
}

/// How much one repetition of a load is.
pub enum Unit {
    /// Messages, datagrams or connections.
    Elements(u64),
    /// Bytes.
    Bytes(u64),
}

enum Load {
    /// Work for a server that runs, repeated as often as the second argument says.
    Running(fn(&str, u64) -> Duration),
    /// The start of the server, and one echo.
    Start,
}

/// The length of one stream, in MiB.
const BULK: u64 = 16;

/// How many connections one burst opens.
pub const BURST: usize = 1000;

/// How many datagrams one repetition of `udp_128_on_their_way` sends.
const DATAGRAMS: u64 = 1000;

const NCAT_STALLS: (&str, &str) = (
    "ncat",
    "it waits for the network and two pipes in turn, and may wait forever",
);
const SOCAT_STALLS: (&str, &str) = (
    "socat",
    "it writes to a pipe that only it reads, and may wait for itself",
);

/// One question. The others differ from it only in the fields that they set.
const ONE_CONNECTION: Question = Question {
    name: "tcp_one_connection",
    title: "messages of 512 bytes on one connection, one after the other",
    limit: "epoll",
    peers: &TCP,
    without: &[],
    unit: Unit::Elements(1),
    clients: 100,
    placement: Together,
    load: Load::Running(|addr, count| loads::one_connection(ip(addr), count)),
};

/// All questions.
pub static ALL: [Question; 13] = [
    ONE_CONNECTION,
    Question {
        name: "tcp_50_connections",
        title: "messages of 512 bytes on 50 connections",
        unit: Unit::Elements(loads::CONNECTIONS as u64),
        placement: Free,
        load: Load::Running(|addr, count| loads::many_connections(ip(addr), count)),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_16k_messages",
        title: "messages of 16 KiB on 8 connections",
        without: &[NCAT_STALLS],
        unit: Unit::Bytes((loads::LONG_CONNECTIONS * loads::LONG_MESSAGE) as u64),
        placement: Free,
        load: Load::Running(|addr, count| loads::long_messages(ip(addr), count)),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_bulk",
        title: "a stream of 16 MiB",
        without: &[NCAT_STALLS, SOCAT_STALLS],
        unit: Unit::Bytes(BULK << 20),
        placement: Apart,
        load: Load::Running(|addr, count| (0..count).map(|_| loads::bulk(ip(addr), BULK)).sum()),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects",
        title: "connect, echo, close, one after the other",
        load: Load::Running(|addr, count| loads::short_connections(ip(addr), count)),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects_of_four",
        title: "connect, echo, close, by four clients at the same time",
        unit: Unit::Elements(loads::CLIENTS as u64),
        placement: Free,
        load: Load::Running(|addr, count| {
            loads::short_connections_at_once(ip(addr), count * loads::CLIENTS as u64)
        }),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects_of_1000",
        title: "opening a thousand connections at the same time, and an echo on each",
        without: &[
            (
                "python",
                "it serves only a hundred clients at the same time",
            ),
            ("socat", "it starts a process for each connection"),
            ("ncat", "it starts a process for each connection"),
        ],
        unit: Unit::Elements(BURST as u64),
        clients: BURST,
        placement: Free,
        load: Load::Running(|addr, count| (0..count).map(|_| loads::burst(ip(addr), BURST)).sum()),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_first_echo",
        title: "from the start of the process to the first echo",
        load: Load::Start,
        ..ONE_CONNECTION
    },
    Question {
        name: "udp_stop_and_wait",
        title: "datagrams of 64 bytes, one after the other",
        limit: "c_loop",
        peers: &UDP,
        load: Load::Running(|addr, count| loads::udp_stop_and_wait(ip(addr), count)),
        ..ONE_CONNECTION
    },
    Question {
        name: "udp_128_on_their_way",
        title: "datagrams of 64 bytes, 128 on the way at the same time",
        limit: "c_segment",
        peers: &UDP,
        unit: Unit::Elements(DATAGRAMS),
        placement: Apart,
        load: Load::Running(|addr, count| loads::udp_window(ip(addr), count * DATAGRAMS)),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_one_connection",
        limit: "plain",
        peers: &UNIX_STREAM,
        load: Load::Running(|path, count| loads::unix::one_connection(Path::new(path), count)),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_bulk",
        title: "a stream of 16 MiB",
        limit: "plain",
        peers: &UNIX_STREAM,
        without: &[SOCAT_STALLS],
        unit: Unit::Bytes(BULK << 20),
        placement: Apart,
        load: Load::Running(|path, count| {
            (0..count)
                .map(|_| loads::unix::bulk(Path::new(path), BULK))
                .sum()
        }),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_datagrams",
        title: "datagrams of 512 bytes, one after the other",
        limit: "plain",
        peers: &UNIX_DATAGRAM,
        load: Load::Running(|path, count| loads::unix::datagrams(Path::new(path), count)),
        ..ONE_CONNECTION
    },
];

/// Returns the question with this name.
pub fn named(name: &str) -> &'static Question {
    let found = ALL.iter().find(|question| question.name == name);
    found.unwrap_or_else(|| panic!("no question is called {name}"))
}

fn ip(addr: &str) -> SocketAddr {
    addr.parse()
        .unwrap_or_else(|error| panic!("{addr:?}: {error}"))
}

/// A server that is asked a question.
pub struct Asked<'a> {
    peer: &'a Peer,
    question: &'a Question,
    folder: TempDir,
    /// `None` if the question is about the start.
    running: Option<Started>,
}

impl Asked<'_> {
    /// Starts the server, unless the question is about the start.
    pub fn start<'a>(peer: &'a Peer, question: &'a Question) -> Asked<'a> {
        let folder = crate::folder();
        let mut asked = Asked {
            peer,
            question,
            folder,
            running: None,
        };
        if let Load::Running(_) = question.load {
            asked.running = Some(asked.server());
        }
        asked
    }

    fn server(&self) -> Started {
        let Question {
            clients, placement, ..
        } = *self.question;
        let path = self.folder.path().join("server");
        self.peer.start(&Wanted {
            path: &path,
            connections: clients,
            placement,
        })
    }

    /// Returns how long `count` repetitions of the load take.
    pub fn time(&self, count: u64) -> Duration {
        self.question
            .placement
            .of_client(|| match (&self.running, &self.question.load) {
                (Some(server), Load::Running(load)) => load(&server.addr, count),
                _ => (0..count).map(|_| self.time_to_first_echo()).sum(),
            })
    }

    fn time_to_first_echo(&self) -> Duration {
        let begin = Instant::now();
        let server = self.server();
        crate::echo(TcpStream::connect(&server.addr).unwrap(), b"hello");
        begin.elapsed()
    }
}
