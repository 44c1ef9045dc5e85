//! What an echo costs: its latency at a fixed rate, and the CPU time that it takes the server.

use bench::loads::{self, CONNECTIONS};
use bench::questions::Placement::{Apart, Together};
use bench::questions::{Effort, in_turn, median, percentile};
use bench::servers::{Peer, TCP, UDP, called, named};
use harness::processor_time;
use promises::catalog::{EVENT_LOOP, TCP_SERVER, UDP_SERVER};

/// A question with several figures for each server.
#[derive(Clone, Copy)]
pub struct Question {
    pub name: &'static str,
    /// The title of its section in the summary, and the text above its table.
    pub title: &'static str,
    pub text: &'static str,
    /// All servers of this kind, and the names of those that are asked.
    peers: &'static [Peer],
    servers: &'static [&'static str],
    /// What the figures are, in the order in which [`Question::ask`] returns them. The last is the
    /// CPU time.
    pub figures: &'static [&'static str],
    turn: fn(&Peer, u32) -> Vec<f64>,
}

/// A server and its figures, in microseconds.
pub type Costs = (&'static str, Vec<f64>);

const LATENCY: &str = "\
50 connections together carry 10,000 messages of 512 bytes a second, one every 100 µs. Each
message is sent when it is due, also while echoes are missing, and its latency counts from
when it was due. So a server that stops for a while makes all messages late that are due
meanwhile. All figures are in microseconds. Those of the latency are medians of all turns.

- **p50**, **p99**, **p99.9**: half of the messages, 99 of 100, and 999 of 1000 came back
  within this time.
- **client's p50**, **client's p99.9**: the share of the client in the latency of a message,
  which is the time from when the message was due until it was written, and from when the
  client noticed the echo until it had compared every byte. If this p99.9 is about as high as
  the p99.9 of all, the client was held up, and the figure says nothing about the server. The
  client has a processor for itself and does not sleep. The server has all others.
- **CPU time**: what one message takes the server's process, in its own code and in the
  kernel, by `/proc/PID/stat`, as a mean of all turns. At this rate, 10 µs keep a tenth of one
  processor busy. On one machine, the kernel usually delivers what a program sends within the
  call that sends it. So the server's time contains the arrival of the echo at the client,
  and not the arrival of the message at the server. The client's own time is not in it.
";

const DATAGRAM: &str = "\
Datagrams of 64 bytes over UDP, one after the other. The CPU time of the server for each of
them, in microseconds, is measured as for the messages at a fixed rate.
";

pub const ALL: [Question; 2] = [
    Question {
        name: "tcp_fixed_rate",
        title: "Latency at a fixed rate",
        text: LATENCY,
        peers: &TCP,
        servers: &[
            called(&TCP_SERVER),
            called(&EVENT_LOOP),
            "epoll",
            "c_threads",
            "tokio_48k",
            "io_uring",
            "go",
        ],
        figures: &[
            "p50",
            "p99",
            "p99.9",
            "client's p50",
            "client's p99.9",
            "CPU time",
        ],
        turn: fixed_rate,
    },
    Question {
        name: "udp_cpu_time",
        title: "CPU time of a datagram",
        text: DATAGRAM,
        peers: &UDP,
        servers: &[called(&UDP_SERVER), "c_loop", "tokio", "io_uring", "go"],
        figures: &["CPU time"],
        turn: stop_and_wait,
    },
];

impl Question {
    /// Returns the servers that are asked.
    pub fn asked_peers(&self) -> Vec<&'static Peer> {
        let names = self.servers.iter();
        names.map(|name| named(self.peers, name)).collect()
    }

    /// Measures these servers in turn. A latency is the median of all turns. CPU time is the mean,
    /// because the kernel tells it in steps of 10 ms.
    pub fn ask(&self, peers: &[&'static Peer], effort: &Effort) -> Vec<Costs> {
        if peers.is_empty() {
            return Vec::new();
        }
        let turn = |peer| (self.turn)(peer, effort.messages);
        // A percentile that only a few messages exceed needs more turns than a rate.
        let turns = in_turn(peers, 2 * effort.turns, effort.time, turn);
        let mut all = Vec::new();
        for peer in peers {
            let turns = &turns[peer.name];
            let figure = |number| turns.iter().map(move |turn| turn[number]);
            let last = self.figures.len() - 1;
            let mut figures: Vec<f64> = (0..last).map(|number| median(figure(number))).collect();
            figures.push(figure(last).sum::<f64>() / turns.len() as f64);
            let named = self.figures.iter().zip(&figures);
            let named: Vec<_> = named
                .map(|(name, figure)| format!("{name} {figure:.1} µs"))
                .collect();
            println!("{}/{}: {}", self.name, peer.name, named.join(", "));
            all.push((peer.name, figures));
        }
        all
    }
}

/// 50 TCP connections, and a fixed number of messages a second on all of them together.
fn fixed_rate(peer: &Peer, messages: u32) -> Vec<f64> {
    let server = peer.start(CONNECTIONS, Apart);
    Apart.of_client(|| {
        let streams = loads::connections(&server.addr, CONNECTIONS);
        loads::fixed_rate(&streams, messages / 10); // Not counted: some things are slow only once.
        let before = processor_time(server.running.id());
        let latencies = loads::fixed_rate(&streams, messages);
        let cpu_time = processor_time(server.running.id()) - before;
        let whole = |share| percentile(latencies.iter().map(|one| micros(one.whole)), share);
        let client = |share| percentile(latencies.iter().map(|one| micros(one.of_client)), share);
        let cpu_time = micros(cpu_time) / f64::from(messages);
        vec![
            whole(0.5),
            whole(0.99),
            whole(0.999),
            client(0.5),
            client(0.999),
            cpu_time,
        ]
    })
}

/// One UDP datagram after the other. They take less time than messages at a fixed rate, so there
/// are more of them.
fn stop_and_wait(peer: &Peer, messages: u32) -> Vec<f64> {
    let messages = 4 * messages;
    let server = peer.start(1, Together);
    Together.of_client(|| {
        loads::udp_stop_and_wait(&server.addr, (messages / 10).into());
        let before = processor_time(server.running.id());
        loads::udp_stop_and_wait(&server.addr, messages.into());
        let cpu_time = processor_time(server.running.id()) - before;
        vec![micros(cpu_time) / f64::from(messages)]
    })
}

fn micros(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
