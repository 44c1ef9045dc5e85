//! A relay between UDP clients and a server. It acts like a bad network: it loses, doubles,
//! reorders and delays datagrams, in the same way each time.
//!
//! ```console
//! $ cargo run -p udp-server                 # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example relay -- --drop 0.3 --duplicate 0.1 --delay 20 \
//!     --seed 3                              # terminal 2
//! listening on 127.0.0.1:7008
//! 127.0.0.1:50931: question 1: lost
//! 127.0.0.1:50931: question 2: passed
//! 127.0.0.1:50931: answer 1: doubled
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- --addr 127.0.0.1:7008 hello        # terminal 3
//! 127.0.0.1:7008: no answer to attempt 1 of 3
//! hello
//! 127.0.0.1:7008: answered in 1.1s
//! ```
//!
//! Try next:
//!
//! - Start the relay again. It loses the same datagrams. With another `--seed` it loses others,
//!   but about as many.
//! - `--drop 0.9`: the client gives up. How many `--attempts` does it need?
//! - `--duplicate 1`: the server answers twice, four answers come, and the client prints one.
//! - `--delay 2000`: the answers come, but only after the client has given up.
//! - `--reorder 1`: the client has only one datagram on the way at a time, so nothing changes
//!   but the time.
//!
//! Read next: `udp-client`, which copes with all of this, and `tests/tests/pairs/udp/relay.rs`, which shows
//! that it does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// The longest payload, in bytes; `udp-server` explains it.
const MAX_PAYLOAD: usize = 65_527;

/// How many clients the relay knows at the same time. Each needs a socket and a thread, and a
/// UDP client never says that it has gone.
const MAX_CLIENTS: usize = 128;

/// How many datagrams are on the way at the same time. Without a limit, many datagrams with a
/// long delay would fill the memory. A router does the same: it drops what its queue cannot hold.
const MAX_WAITING: usize = 1024;

/// How long a datagram is held back if no other comes to overtake it. Without a limit, a client
/// that sends nothing more before the answer comes would wait forever.
const HOLD: Duration = Duration::from_millis(100);

/// How often the thread of a client checks whether the relay still knows this client. Also the
/// pause after an error, so that an error that lasts does not make the loop spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Relay UDP datagrams between clients and a server, and lose, double, reorder and delay them
#[derive(Clone, Parser)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7008")]
    listen: SocketAddr,

    /// Address of the server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7007")]
    to: SocketAddr,

    /// Probability from 0 to 1 that a datagram is lost
    #[arg(long, value_name = "P", default_value = "0")]
    #[arg(value_parser = probability, allow_negative_numbers = true)]
    drop: f64,

    /// Probability from 0 to 1 that a datagram is doubled
    #[arg(long, value_name = "P", default_value = "0")]
    #[arg(value_parser = probability, allow_negative_numbers = true)]
    duplicate: f64,

    /// Probability from 0 to 1 that a datagram is held back until the next has overtaken it
    #[arg(long, value_name = "P", default_value = "0")]
    #[arg(value_parser = probability, allow_negative_numbers = true)]
    reorder: f64,

    /// Milliseconds that each datagram is on the way
    #[arg(long, value_name = "MS", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=60_000))]
    delay: u64,

    /// Start of the random numbers; the same number loses the same datagrams
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Do not log datagrams
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let socket = listen(&args)?;
    let local = socket
        .local_addr()
        .context("cannot read the address of the socket")?;
    // Each socket has a thread that waits for datagrams. All these threads send what they receive
    // into one channel, and one thread decides, so they share nothing. The channel is short,
    // because the kernel has a receive queue for each socket.
    let (sender, arrivals) = mpsc::sync_channel(1);
    let mut relay = Relay::new(socket, sender, args);
    relay
        .receive_at(&relay.listener, None)
        .context("cannot start a thread")?;
    // Nobody may be reading stdout any more: println! would panic, and this does not.
    let _ = writeln!(io::stdout(), "listening on {local}");
    relay.run(&arrivals)
}

/// Reads a probability.
fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("write a number from 0 to 1".into()),
    }
}

/// Binds the socket that the clients send to. Fails if this is the server's address too, because
/// the relay would then send each datagram to itself, forever.
fn listen(args: &Args) -> Result<UdpSocket> {
    let was_free = UdpSocket::bind(args.to).is_ok();
    let socket = UdpSocket::bind(args.listen);
    let socket = socket.with_context(|| format!("cannot bind a UDP socket to {}", args.listen))?;
    // The server's address was free and is taken now, so we have taken it. Comparing the two
    // addresses is not enough, because 0.0.0.0 stands for every address of this machine.
    let is_itself = was_free && UdpSocket::bind(args.to).is_err();
    ensure!(
        !is_itself,
        "cannot relay from {} to itself: name the server with --to",
        args.listen
    );
    Ok(socket)
}

struct Relay {
    args: Args,
    /// The socket that the clients send to.
    listener: Arc<UdpSocket>,
    /// The oldest comes first.
    clients: VecDeque<Client>,
    /// How many clients there have been.
    met: u64,
    queue: Queue,
    sender: SyncSender<Datagram>,
}

struct Client {
    addr: SocketAddr,
    /// The socket from which this client's datagrams go to the server. Only the answers to
    /// this client come back here.
    socket: Arc<UdpSocket>,
    questions: Flow,
    answers: Flow,
}

/// The datagrams of one client in one direction.
struct Flow {
    random: Random,
    count: u64,
    /// Where in the queue the datagram is that the next one overtakes.
    held_back: Option<Place>,
}

struct Datagram {
    client: SocketAddr,
    is_answer: bool,
    bytes: Vec<u8>,
    /// How often to send it.
    copies: u32,
}

impl Relay {
    fn new(listener: UdpSocket, sender: SyncSender<Datagram>, args: Args) -> Relay {
        let queue = Queue {
            waiting: BTreeMap::new(),
            pushed: 0,
        };
        Relay {
            args,
            listener: Arc::new(listener),
            clients: VecDeque::new(),
            met: 0,
            queue,
            sender,
        }
    }

    /// Sends the datagrams that are due, and takes new ones until the next is due.
    fn run(&mut self, arrivals: &Receiver<Datagram>) -> ! {
        loop {
            while let Some(datagram) = self.queue.pop_due() {
                self.send(&datagram);
            }
            if let Ok(datagram) = arrivals.recv_timeout(self.queue.time_left()) {
                self.take(datagram);
            }
        }
    }

    /// Decides what happens to a datagram, and logs it before the datagram goes on.
    fn take(&mut self, datagram: Datagram) {
        let addr = datagram.client;
        let is_known = self.clients.iter().any(|client| client.addr == addr);
        if !is_known && !datagram.is_answer {
            if let Err(error) = self.meet(addr) {
                return self
                    .args
                    .log(format_args!("{addr}: cannot serve this client: {error}"));
            }
        }
        let Some(client) = self.clients.iter_mut().find(|client| client.addr == addr) else {
            return; // It is an answer to a client that the relay has forgotten.
        };
        let (flow, name) = match datagram.is_answer {
            true => (&mut client.answers, "answer"),
            false => (&mut client.questions, "question"),
        };
        let fate = flow.next_fate(&self.args);
        let number = flow.count;
        if self.queue.waiting.len() == MAX_WAITING {
            return self.args.log(format_args!(
                "{addr}: {name} {number}: lost, too many are on the way"
            ));
        }
        self.args
            .log(format_args!("{addr}: {name} {number}: {fate}"));
        let due = Instant::now() + Duration::from_millis(self.args.delay);
        flow.meet_fate(fate, datagram, due, &mut self.queue);
    }

    /// Makes room for a new client, opens its socket and starts its thread.
    fn meet(&mut self, addr: SocketAddr) -> io::Result<()> {
        if self.clients.len() == MAX_CLIENTS {
            self.clients.pop_front();
        }
        let socket = UdpSocket::bind(if self.args.to.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        })?;
        socket.connect(self.args.to)?;
        socket.set_read_timeout(Some(PAUSE))?;
        let socket = Arc::new(socket);
        self.receive_at(&socket, Some(addr))?;
        self.met += 1;
        let flow = |number| Flow {
            random: Random::of(self.args.seed, number),
            count: 0,
            held_back: None,
        };
        let (questions, answers) = (flow(2 * self.met), flow(2 * self.met + 1));
        self.clients.push_back(Client {
            addr,
            socket,
            questions,
            answers,
        });
        Ok(())
    }

    /// Starts a thread that receives at a socket: at that of one client, or at `listener`.
    fn receive_at(&self, socket: &Arc<UdpSocket>, client: Option<SocketAddr>) -> io::Result<()> {
        let (socket, sender, args) = (
            Arc::downgrade(socket),
            self.sender.clone(),
            self.args.clone(),
        );
        thread::Builder::new().spawn(move || receive(&socket, client, &sender, &args))?;
        Ok(())
    }

    fn send(&self, datagram: &Datagram) {
        let Some(client) = self
            .clients
            .iter()
            .find(|client| client.addr == datagram.client)
        else {
            return; // The relay has forgotten this client since.
        };
        for _ in 0..datagram.copies {
            let sent = match datagram.is_answer {
                true => self.listener.send_to(&datagram.bytes, client.addr),
                false => client.socket.send(&datagram.bytes),
            };
            if let Err(error) = sent {
                self.args
                    .log(format_args!("{}: cannot send: {error}", client.addr));
            }
        }
    }
}

/// What happens to a datagram.
struct Fate {
    /// 0 if it is lost.
    copies: u32,
    is_held_back: bool,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match (self.copies, self.is_held_back) {
            (0, _) => "lost",
            (1, false) => "passed",
            (1, true) => "held back",
            (_, false) => "doubled",
            (_, true) => "doubled and held back",
        })
    }
}

impl Flow {
    // ANCHOR: fate
    /// Draws all three random numbers for each datagram, even if it needs only the first. So the
    /// numbers of a datagram do not depend on what happened to earlier ones.
    fn next_fate(&mut self, args: &Args) -> Fate {
        self.count += 1;
        let [is_lost, is_doubled, is_late] = [args.drop, args.duplicate, args.reorder]
            .map(|probability| self.random.happens(probability));
        let copies = match (is_lost, is_doubled) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        // Only one at a time: two that wait for the same datagram would stay in order.
        Fate {
            copies,
            is_held_back: is_late && self.held_back.is_none(),
        }
    }
    // ANCHOR_END: fate

    fn meet_fate(&mut self, fate: Fate, mut datagram: Datagram, due: Instant, queue: &mut Queue) {
        datagram.copies = fate.copies;
        if fate.copies == 0 {
            return;
        }
        if fate.is_held_back {
            self.held_back = Some(queue.push(due + HOLD, datagram));
            return;
        }
        queue.push(due, datagram);
        // The datagram that was held back follows, unless its time was up and it has gone.
        if let Some(overtaken) = self
            .held_back
            .take()
            .and_then(|place| queue.waiting.remove(&place))
        {
            queue.push(due, overtaken);
        }
    }
}

/// Receives until the relay has forgotten the client of the socket, and so has closed it.
fn receive(
    socket: &Weak<UdpSocket>,
    client: Option<SocketAddr>,
    sender: &SyncSender<Datagram>,
    args: &Args,
) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    while let Some(socket) = socket.upgrade() {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                let (client, is_answer) = (client.unwrap_or(from), client.is_some());
                let _ = sender.send(Datagram {
                    client,
                    is_answer,
                    bytes: buffer[..len].to_vec(),
                    copies: 1,
                });
            }
            // Nothing came in time, or the call was interrupted, because we were suspended and
            // resumed (signal(7)).
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                match client {
                    Some(addr) => args.log(format_args!(
                        "{addr}: cannot receive from {}: {error}",
                        args.to
                    )),
                    None => args.log(format_args!("cannot receive: {error}")),
                }
                thread::sleep(PAUSE);
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// The datagrams on the way, in the order in which they are due.
struct Queue {
    waiting: BTreeMap<Place, Datagram>,
    pushed: u64,
}

/// When a datagram is due. The number keeps datagrams in order that are due at the same time.
type Place = (Instant, u64);

impl Queue {
    fn push(&mut self, due: Instant, datagram: Datagram) -> Place {
        self.pushed += 1;
        let place = (due, self.pushed);
        self.waiting.insert(place, datagram);
        place
    }

    fn pop_due(&mut self) -> Option<Datagram> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    fn time_left(&self) -> Duration {
        let first = self.waiting.keys().next();
        first.map_or(Duration::MAX, |(due, _)| {
            due.saturating_duration_since(Instant::now())
        })
    }
}

/// Numbers that look random but are the same each time (splitmix64 by Sebastiano Vigna).
struct Random(u64);

impl Random {
    /// Each flow has its own sequence, so it does not matter how the clients take turns.
    fn of(seed: u64, flow: u64) -> Random {
        Random(Random(seed).next() ^ flow)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn happens(&mut self, probability: f64) -> bool {
        // At least 0 and less than 1, so that the probability 0 means never and 1 means always.
        // A float has 53 bits for it.
        let number = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        number < probability
    }
}

impl Args {
    /// Writes a line to stderr with one system call, so that lines of different threads do not
    /// mix. eprintln! would panic if nobody reads stderr any more.
    fn log(&self, line: fmt::Arguments) {
        if !self.quiet {
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}
