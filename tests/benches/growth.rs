//! How the cost of a server grows with its connections: its rate and its memory.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::Path;

use harness::placement::Placement::{self, Free, Together};
use harness::servers::{GO_4K, Peer, Started, TCP, Wanted, named};
use harness::{allow_descriptors, loads, memory_kib, not_run};

use crate::turns::median;

/// From one connection to thousands.
pub const SIZES: [usize; 5] = [1, 10, 100, 1000, 9000];

/// How many messages a turn has, about; with few connections it is fewer.
const MESSAGES: usize = 18_000;
const MOST_ROUNDS: usize = 2000;

/// One for each way to serve many: a thread for each connection, readiness events, and what runtimes make
/// of them.
const SERVERS: [&str; 4] = ["tcp-server", "event_loop", "tokio", "go_4k"];

/// Of these, the memory alone. The others of the bench start a process for each connection, or have too few
/// places.
const OF_MEMORY_ALONE: [&str; 6] = ["plain", "c_threads", "epoll", "tokio_48k", "smol", "go"];

/// What one server costs with so many connections.
pub struct Point {
    pub server: &'static str,
    pub connections: usize,
    /// `None` where only the memory is of interest.
    pub messages_per_second: Option<f64>,
    /// The memory of the process (resident), not of the kernel for it.
    pub memory_kib: u64,
}

/// Measures each server with each number of connections. For their rates they take so many turns.
pub fn measure(sizes: &[usize], turns: usize) -> Vec<Point> {
    sizes
        .iter()
        .flat_map(|connections| measure_with(*connections, turns))
        .collect()
}

fn measure_with(connections: usize, turns: usize) -> Vec<Point> {
    println!("growth: {connections} connections");
    let all = [&TCP[..], &[GO_4K]].concat();
    let able = |names: &[&str]| -> Vec<Peer> {
        names
            .iter()
            .map(|name| named(&all, name))
            .filter(|peer| can_hold(peer, connections))
            .collect()
    };
    let (mut peers, of_memory_alone) = (able(&SERVERS), able(&OF_MEMORY_ALONE));
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut points = Vec::new();
    for peer in peers.iter().chain(&of_memory_alone) {
        let (server, streams) = hold(peer, connections);
        let memory_kib = memory_kib(server.running.id(), "VmRSS").unwrap();
        loads::reset(streams);
        points.push(Point {
            server: peer.name,
            connections,
            messages_per_second: None,
            memory_kib,
        });
    }
    for _ in 0..turns {
        fastrand::shuffle(&mut peers); // As in turns.rs.
        for peer in &peers {
            rates
                .entry(peer.name)
                .or_default()
                .push(rate(peer, connections));
        }
    }
    for point in &mut points {
        point.messages_per_second = rates.remove(point.server).map(median);
    }
    points
}

/// Whether there are so many descriptors, and the server is there. Says so if not.
fn can_hold(peer: &Peer, connections: usize) -> bool {
    // Go copies from a socket to itself through a pipe, in the kernel: two more for each connection.
    let descriptors = if peer.name == "go" {
        3 * connections
    } else {
        connections
    };
    if allow_descriptors(descriptors as u64 + 100).is_none() {
        let name = peer.name;
        not_run(&format!(
            "growth: {name} with {connections} connections needs {descriptors} descriptors"
        ));
        return false;
    }
    peer.is_installed()
}

/// With one connection, client and server take turns.
fn placement(connections: usize) -> Placement {
    if connections == 1 { Together } else { Free }
}

/// A server that has served so many connections, and holds them.
fn hold(peer: &Peer, connections: usize) -> (Started, Vec<TcpStream>) {
    let wanted = Wanted {
        path: Path::new(""),
        connections,
        placement: placement(connections),
    };
    let server = peer.start(&wanted);
    let streams = loads::connections(server.addr.parse().unwrap(), connections);
    (server, streams)
}

/// Messages a second, on all connections together.
fn rate(peer: &Peer, connections: usize) -> f64 {
    let (_server, mut streams) = hold(peer, connections);
    let rounds = (MESSAGES / connections).clamp(1, MOST_ROUNDS) as u64;
    let mut ask = || {
        placement(connections).of_client(|| loads::rounds_on(&mut streams, loads::MESSAGE, rounds))
    };
    ask(); // Not counted, as in turns.rs.
    let time = ask();
    loads::reset(streams);
    (rounds * connections as u64) as f64 / time.as_secs_f64()
}
