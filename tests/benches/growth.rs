//! How the cost of a server grows with its connections: one thread for each (`tcp-server`), readiness
//! events (`event_loop`), and what runtimes make of them (tokio, Go).

use std::path::Path;
use std::time::Duration;

use harness::servers::{Peer, TCP, named};
use harness::{allow_descriptors, loads, memory_kib, not_run};

/// From one connection to thousands.
pub const SIZES: [usize; 5] = [1, 10, 100, 1000, 9000];

/// How many messages one repetition has.
const MESSAGES: usize = 18_000;

/// One for each way to serve many.
const SERVERS: [&str; 4] = ["tcp-server", "event_loop", "tokio", "go"];

/// What one server costs with so many connections.
pub struct Point {
    pub server: &'static str,
    pub connections: usize,
    pub messages_per_second: f64,
    /// The memory of the process (resident), not of the kernel for it.
    pub memory_kib: u64,
}

/// Measures each server with each number of connections, and takes the median of so many repetitions.
pub fn measure(sizes: &[usize], repetitions: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for connections in sizes {
        for peer in SERVERS.map(|name| named(&TCP, name)) {
            // Go copies from a socket to itself through a pipe, in the kernel: two more for each connection.
            let descriptors = if peer.name == "go" { 3 * connections } else { *connections };
            if allow_descriptors(descriptors as u64 + 100).is_none() {
                not_run(&format!(
                    "growth: {} with {connections} connections needs {descriptors} descriptors",
                    peer.name
                ));
            } else if peer.is_installed() {
                let point = measure_one(&peer, *connections, repetitions);
                println!(
                    "growth: {} with {} connections: {:.0} messages/s, {} KiB",
                    point.server, point.connections, point.messages_per_second, point.memory_kib
                );
                points.push(point);
            }
        }
    }
    points
}

fn measure_one(peer: &Peer, connections: usize, repetitions: usize) -> Point {
    let server = peer.start(Path::new(""), connections);
    let mut streams = loads::connections(server.addr.parse().unwrap(), connections);
    let memory_kib = memory_kib(server.running.id(), "VmRSS").unwrap();
    // About as many messages for each point.
    let rounds = (MESSAGES / connections).max(1) as u64;
    let mut times: Vec<Duration> =
        (0..repetitions).map(|_| loads::rounds_on(&mut streams, loads::MESSAGE, rounds)).collect();
    times.sort();
    let median = times[repetitions / 2].as_secs_f64();
    loads::reset(streams);
    let messages = rounds * connections as u64;
    Point { server: peer.name, connections, messages_per_second: messages as f64 / median, memory_kib }
}
