//! Measures how the cost of a server grows with its connections: its rate and its memory.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::Path;

use harness::measure::loads;
use harness::measure::placement::Placement::{self, Free, Together};
use harness::measure::servers::{GO_4K, Peer, Started, TCP, Wanted, named};
use harness::{allow_descriptors, memory_kib, not_run};

use crate::turns::median;

/// From one connection to thousands.
pub const SIZES: [usize; 5] = [1, 10, 100, 1000, 9000];

/// How many messages a turn has, approximately. With few connections it has fewer.
const MESSAGES: usize = 18_000;
const MOST_ROUNDS: usize = 2000;

/// One server for each way to serve many clients: a thread for each connection, events, and two
/// runtimes that use events.
const SERVERS: [&str; 4] = ["tcp-server", "event_loop", "tokio", "go_4k"];

/// The servers of which only the memory is measured. The remaining servers of the bench start a
/// process for each connection, or serve too few connections.
const OF_MEMORY_ALONE: [&str; 6] = ["plain", "c_threads", "epoll", "tokio_48k", "smol", "go"];

/// What one server costs with one number of connections.
pub struct Point {
    pub server: &'static str,
    pub connections: usize,
    /// `None` if only the memory is measured.
    pub messages_per_second: Option<f64>,
    /// The resident memory of the process, without the memory that the kernel uses for it.
    pub memory_kib: u64,
}

/// Measures each server with each number of connections. `turns` says how often to measure a rate.
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
        fastrand::shuffle(&mut peers); // See turns.rs.
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

/// Returns whether there are enough descriptors and the server is installed. Prints `NOT RUN` if
/// not.
fn can_hold(peer: &Peer, connections: usize) -> bool {
    // Go copies through a pipe in the kernel, which needs two more for each connection.
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

/// With one connection, client and server take turns, so they share a processor.
fn placement(connections: usize) -> Placement {
    if connections == 1 { Together } else { Free }
}

/// Starts a server and opens the connections. The server has accepted all of them.
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

/// Returns the messages per second, on all connections together.
fn rate(peer: &Peer, connections: usize) -> f64 {
    let (_server, mut streams) = hold(peer, connections);
    let rounds = (MESSAGES / connections).clamp(1, MOST_ROUNDS) as u64;
    let mut ask = || {
        placement(connections).of_client(|| loads::rounds_on(&mut streams, loads::MESSAGE, rounds))
    };
    ask(); // Not counted: see turns.rs.
    let time = ask();
    loads::reset(streams);
    (rounds * connections as u64) as f64 / time.as_secs_f64()
}
