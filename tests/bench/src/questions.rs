//! The questions of the bench, and how a server answers one. The speed tests ask them too.
//!
//! A server is started anew for each of its turns, because chance decides where a process has its
//! memory. The servers take turns in random order. So if the machine is slow for a while, it is
//! slow for all of them, and no server always comes after the same one. A figure is the median of
//! all turns.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::loads;
use super::servers::{Peer, Started, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM};
use Placement::{Apart, Free, Together};

/// A question: how fast servers handle a load.
pub struct Question {
    /// The name in tables and on the command line.
    pub name: &'static str,
    /// What one repetition of the load is.
    pub title: &'static str,
    /// The server that the others are compared with.
    pub limit: &'static str,
    /// All servers of this kind.
    pub peers: &'static [Peer],
    /// The servers that are not asked, each with the reason.
    pub without: &'static [(&'static str, &'static str)],
    /// How many clients the servers must be able to serve at the same time.
    clients: usize,
    placement: Placement,
    /// The work for a server that runs, repeated as often as the second argument says. `None` is
    /// the start of the server, and one echo.
    load: Option<fn(&str, u64) -> Duration>,
}

/// How many connections one burst opens.
pub const BURST: usize = 1000;

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
    title: "a message of 512 bytes on one connection, and its echo",
    limit: "epoll",
    peers: &TCP,
    without: &[],
    clients: 100,
    placement: Together,
    load: Some(loads::one_connection),
};

/// All questions.
pub static ALL: [Question; 13] = [
    ONE_CONNECTION,
    Question {
        name: "tcp_50_connections",
        title: "a message of 512 bytes on each of 50 connections, and the echoes",
        placement: Free,
        load: Some(loads::many_connections),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_16k_messages",
        title: "a message of 16 KiB on each of 8 connections, and the echoes",
        without: &[NCAT_STALLS],
        placement: Free,
        load: Some(loads::long_messages),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_bulk",
        title: "a stream of 16 MiB",
        without: &[NCAT_STALLS, SOCAT_STALLS],
        placement: Apart,
        load: Some(loads::bulk),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects",
        title: "connecting, one echo, and closing",
        load: Some(loads::short_connections),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects_of_four",
        title: "the same, by four clients at the same time",
        placement: Free,
        load: Some(loads::four_short_connections),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_connects_of_1000",
        title: "opening a thousand connections at the same time, and an echo on each",
        without: &[
            ("python", "it serves at most a hundred clients at a time"),
            ("socat", "it starts a process for each connection"),
            ("ncat", "it starts a process for each connection"),
        ],
        clients: BURST,
        placement: Free,
        load: Some(|addr, count| (0..count).map(|_| loads::burst(addr, BURST)).sum()),
        ..ONE_CONNECTION
    },
    Question {
        name: "tcp_first_echo",
        title: "from the start of the process to the first echo",
        load: None,
        ..ONE_CONNECTION
    },
    Question {
        name: "udp_stop_and_wait",
        title: "a datagram of 64 bytes, whose echo comes back before the next is sent",
        limit: "c_loop",
        peers: &UDP,
        load: Some(loads::udp_stop_and_wait),
        ..ONE_CONNECTION
    },
    Question {
        name: "udp_128_on_their_way",
        title: "a datagram of 64 bytes, one of 128 that are on the way at the same time",
        limit: "c_gro",
        peers: &UDP,
        placement: Apart,
        load: Some(loads::udp_window),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_one_connection",
        limit: "plain",
        peers: &UNIX_STREAM,
        load: Some(loads::one_connection),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_bulk",
        title: "a stream of 16 MiB",
        limit: "plain",
        peers: &UNIX_STREAM,
        without: &[SOCAT_STALLS],
        placement: Apart,
        load: Some(loads::bulk),
        ..ONE_CONNECTION
    },
    Question {
        name: "unix_datagrams",
        title: "a datagram of 512 bytes, whose echo comes back before the next is sent",
        limit: "plain",
        peers: &UNIX_DATAGRAM,
        load: Some(loads::unix_datagrams),
        ..ONE_CONNECTION
    },
];

/// Returns the question with this name.
pub fn named(name: &str) -> &'static Question {
    let found = ALL.iter().find(|question| question.name == name);
    found.unwrap_or_else(|| panic!("no question is called {name}"))
}

/// How much is measured.
pub struct Effort {
    /// A turn of a question repeats its load until it takes this long, and then once more.
    pub turn: Duration,
    /// Each server has at least this many turns,
    pub turns: usize,
    /// and more until all servers have had this much time each.
    pub time: Duration,
    /// How many messages a turn sends at a fixed rate.
    pub messages: u32,
    /// With how many connections the growth is measured.
    pub sizes: &'static [usize],
}

impl Question {
    /// Returns the servers that are asked.
    pub fn asked_peers(&self) -> Vec<&'static Peer> {
        let is_asked = |peer: &&Peer| self.without.iter().all(|(name, _)| *name != peer.name);
        self.peers.iter().filter(is_asked).collect()
    }

    /// Starts a server, unless the question is about the start. The function that is returned does
    /// so many repetitions of the load, and returns how long they took.
    pub fn start<'a>(&'a self, peer: &'a Peer) -> impl Fn(u64) -> Duration + 'a {
        let start = || peer.start(self.clients, self.placement);
        let first_echo = move |_| {
            let begin = Instant::now();
            let server: Started = start();
            harness::echo(TcpStream::connect(&server.addr).unwrap(), b"hello");
            begin.elapsed()
        };
        let running = self.load.map(|load| (load, start()));
        move |count| {
            self.placement.of_client(|| match &running {
                Some((load, server)) => load(&server.addr, count),
                None => (0..count).map(first_echo).sum(),
            })
        }
    }

    /// Returns how many seconds one repetition of the load takes with each of these servers.
    pub fn ask(&self, peers: &[&'static Peer], effort: &Effort) -> BTreeMap<&'static str, f64> {
        let turn = |peer: &'static Peer| {
            let (repeat, mut count) = (self.start(peer), 1);
            // Not counted: some things are slow only once.
            while repeat(count) < effort.turn {
                count *= 2;
            }
            repeat(count).as_secs_f64() / count as f64
        };
        let times = in_turn(peers, effort.turns, effort.time, turn).into_iter();
        times.map(|(name, times)| (name, median(times))).collect()
    }
}

/// Lets the servers take turns: at least so many, and more until all of them have had so much time
/// each. Returns what each of them got.
pub fn in_turn<T>(
    peers: &[&'static Peer],
    turns: usize,
    time: Duration,
    mut turn: impl FnMut(&'static Peer) -> T,
) -> BTreeMap<&'static str, Vec<T>> {
    let (mut peers, mut answers) = (peers.to_vec(), BTreeMap::<_, Vec<T>>::new());
    let begin = Instant::now();
    for number in 1.. {
        fastrand::shuffle(&mut peers);
        for peer in &peers {
            answers.entry(peer.name).or_default().push(turn(peer));
        }
        if number >= turns && begin.elapsed() >= time * peers.len() as u32 {
            break;
        }
    }
    answers
}

/// Returns the figure that this share of all figures does not exceed.
pub fn percentile<F: IntoIterator<Item = f64>>(figures: F, share: f64) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() as f64 * share) as usize]
}

/// Returns the middle figure, or the upper one of two.
pub fn median<F: IntoIterator<Item = f64>>(figures: F) -> f64 {
    percentile(figures, 0.5)
}

/// On which processors client and server run.
///
/// If the kernel decides, a round trip takes several times as long with one process of a server as
/// with the next: they share a processor or not, by chance, and it is slow to wake a processor
/// that sleeps, especially in a virtual machine.
#[derive(Clone, Copy)]
pub enum Placement {
    /// Both on one processor. They take turns, so a second processor would not help. The time of
    /// a round trip is then the work that it takes.
    Together,
    /// The client on the first processor. The server may use all processors, and the kernel places
    /// it, as if somebody had started it by hand.
    Free,
    /// The client on the first processor, and the server on the others. This is for work that one
    /// thread of a server does, and for a client that does not sleep. Otherwise the kernel may
    /// start the server on the client's processor and leave it there for a while.
    Apart,
}

/// The processors that this process may use.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(None).unwrap();
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|processor| allowed.is_set(*processor)).collect()
});

impl Placement {
    /// Runs the work of a client, with all threads that it starts, on the client's processor.
    pub fn of_client<T>(self, work: impl FnOnce() -> T) -> T {
        on(&PROCESSORS[..1], work)
    }

    /// Starts a server on its processors. It stays there.
    pub fn of_server<T>(self, start: impl FnOnce() -> T) -> T {
        match (self, &PROCESSORS[1..]) {
            (Together, _) => on(&PROCESSORS[..1], start),
            (Free, _) | (Apart, []) => on(&PROCESSORS, start),
            (Apart, others) => on(others, start),
        }
    }
}

fn on<T>(processors: &[usize], work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let mut wanted = CpuSet::new();
    processors
        .iter()
        .for_each(|processor| wanted.set(*processor));
    sched_setaffinity(None, &wanted).unwrap();
    let result = work();
    sched_setaffinity(None, &before).unwrap();
    result
}
