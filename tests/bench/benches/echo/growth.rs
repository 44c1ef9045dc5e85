//! Measures how the cost of a server grows with its connections: its rate and its memory.

use std::collections::BTreeMap;

use bench::loads;
use bench::questions::Placement::{Free, Together};
use bench::questions::{Effort, in_turn, median};
use bench::servers::{Peer, TCP, named};
use harness::memory_kib;

/// The name of the question.
pub const NAME: &str = "growth";

/// How many messages a turn has, approximately. With few connections it has fewer.
const MESSAGES: usize = 18_000;
const MOST_ROUNDS: usize = 2000;

/// Two runtimes that use events. Beside them are ours: a thread for each connection, and events.
const RUNTIMES: [&str; 2] = ["tokio", "go_4k"];

/// The servers of which only the memory is measured. The remaining servers of the bench start a
/// process for each connection, or serve too few connections.
const OF_MEMORY_ALONE: [&str; 7] = [
    "plain",
    "c_threads",
    "epoll",
    "tokio_48k",
    "smol",
    "io_uring",
    "go",
];

/// The figures of one server, by the number of connections.
pub struct Growth {
    pub server: &'static str,
    /// Messages per second, on all connections together.
    pub rates: BTreeMap<usize, f64>,
    /// The resident memory that each connection after the first adds to the process, without the
    /// memory that the kernel uses for it.
    pub kib_for_each: BTreeMap<usize, f64>,
}

/// Returns the servers, in the order of the tables.
pub fn peers() -> Vec<&'static Peer> {
    let ours = TCP.iter().filter(|peer| peer.is_ours());
    let others = RUNTIMES.iter().chain(&OF_MEMORY_ALONE);
    ours.chain(others.map(|name| named(&TCP, name))).collect()
}

/// Measures each server with each number of connections.
pub fn measure(peers: &[&'static Peer], effort: &Effort) -> Vec<Growth> {
    let growth = |peer: &&Peer| Growth {
        server: peer.name,
        rates: BTreeMap::new(),
        kib_for_each: BTreeMap::new(),
    };
    let mut all: Vec<Growth> = peers.iter().map(growth).collect();
    let mut with_one = BTreeMap::new();
    for &connections in effort.sizes {
        let able = peers.iter().filter(|peer| can_hold(peer, connections));
        let able: Vec<&Peer> = able.copied().collect();
        let turn = |peer| turn(peer, connections);
        let mut turns = in_turn(&able, effort.turns, effort.time, turn);
        for growth in &mut all {
            let server = growth.server;
            let Some(turns) = turns.remove(server) else {
                continue;
            };
            let (kib, rates): (Vec<f64>, Vec<Option<f64>>) = turns.into_iter().unzip();
            let kib = median(kib);
            print!("{NAME}/{server}, {connections} connections: {kib:.0} KiB");
            if let Some(rates) = rates.into_iter().collect() {
                let rate = median::<Vec<f64>>(rates);
                print!(", {rate:.0} messages/s");
                growth.rates.insert(connections, rate);
            }
            println!();
            let added = kib - *with_one.entry(server).or_insert(kib);
            // With fewer connections, the memory that they share hides what each of them costs.
            if connections >= 100 {
                let for_each = added.max(0.0) / (connections - 1) as f64;
                growth.kib_for_each.insert(connections, for_each);
            }
        }
    }
    all
}

/// Returns whether there are enough descriptors. Prints `NOT RUN` if not.
fn can_hold(peer: &Peer, connections: usize) -> bool {
    // With io.Copy, Go copies through a pipe in the kernel, which needs two more for each.
    let for_each = if peer.name == "go" { 3 } else { 1 };
    harness::descriptors((for_each * connections + 100) as u64).is_some()
}

/// Starts a server and opens the connections. Returns the memory of the process in KiB and, for
/// some servers, the messages per second.
fn turn(peer: &Peer, connections: usize) -> (f64, Option<f64>) {
    // With one connection, client and server take turns, so they share a processor.
    let placement = if connections == 1 { Together } else { Free };
    let server = peer.start(connections, placement);
    let streams = loads::connections(&server.addr, connections);
    let memory_kib = memory_kib(server.running.id(), "VmRSS").unwrap() as f64;
    let has_rate = peer.is_ours() || RUNTIMES.contains(&peer.name);
    let rate = has_rate.then(|| {
        let rounds = (MESSAGES / connections).clamp(1, MOST_ROUNDS) as u64;
        let ask = || placement.of_client(|| loads::rounds_on(&streams, loads::MESSAGE, rounds));
        ask(); // Not counted: some things are slow only once.
        (rounds * connections as u64) as f64 / ask().as_secs_f64()
    });
    loads::reset(streams);
    (memory_kib, rate)
}
