//! Stands between UDP clients and a server, and loses, doubles, reorders and delays what they send: a bad
//! network, the same each time.
//!
//! ```console
//! $ cargo run -p udp-server                 # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: length 5 "hello"
//! ```
//!
//! ```console
//! $ cargo run -p tests --example relay -- --drop 0.3 --duplicate 0.1 --delay 20 --seed 3    # terminal 2
//! listening on 127.0.0.1:7008
//! 127.0.0.1:50931: question 1: lost
//! 127.0.0.1:50931: question 2: passed
//! 127.0.0.1:50931: answer 1: doubled
//! ```
//!
//! ```console
//! $ cargo run -p udp-client -- --addr 127.0.0.1:7008 hello        # terminal 3
//! hello
//! 127.0.0.1:7008: no answer, attempt 2 of 3
//! 127.0.0.1:7008: answered in 1.1s
//! ```
//!
//! Try next:
//!
//! - Start it again: the same are lost. Another `--seed` is another network, as bad as this one.
//! - `--drop 0.9`, and the client gives up. How many `--attempts` does it need?
//! - `--duplicate 1`: the server answers twice, four answers come, the client prints one.
//! - `--delay 2000`: the answers come, but each after the client has gone.
//! - `--reorder 1`: the client has one datagram under way at a time, and notices nothing but the time.
//!
//! Read next: `udp-client`, which copes with all of this, and `tests/udp_relay.rs`, which shows that it does.

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

/// The most bytes that a datagram carries, which is over IPv6.
const MAX_PAYLOAD: usize = 65_527;

/// How many clients are known at once. Each costs a socket and a thread, and UDP clients never say that
/// they have gone.
const MAX_CLIENTS: usize = 128;

/// How many datagrams are under way at once, so that a flood and a long delay cannot fill the memory. A
/// router does the same: what finds its queue full is lost.
const MAX_WAITING: usize = 1024;

/// How long a datagram is held back if no other comes to overtake it. Who sends nothing more before the
/// answer is there would wait for ever.
const HOLD: Duration = Duration::from_millis(100);

/// How often the thread of a client looks whether it is still wanted. Also the pause after a failed receive,
/// so that a lasting failure does not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Relay UDP datagrams between clients and a server, badly: each probability is from 0 to 1
#[derive(Clone, Parser)]
struct Args {
    /// Where the clients send to; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7008")]
    listen: SocketAddr,

    /// The server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7007")]
    to: SocketAddr,

    /// How probably a datagram is lost
    #[arg(long, value_name = "P", default_value = "0", value_parser = probability, allow_negative_numbers = true)]
    drop: f64,

    /// How probably a datagram arrives twice
    #[arg(long, value_name = "P", default_value = "0", value_parser = probability, allow_negative_numbers = true)]
    duplicate: f64,

    /// How probably a datagram is held back until the next has overtaken it
    #[arg(long, value_name = "P", default_value = "0", value_parser = probability, allow_negative_numbers = true)]
    reorder: f64,

    /// How many milliseconds each datagram is under way
    #[arg(long, value_name = "MS", default_value = "0", value_parser = clap::value_parser!(u64).range(..=60_000))]
    delay: u64,

    /// Another number is another network; the same number loses the same datagrams
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Log nothing
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let socket = listen(&args)?;
    let local = socket
        .local_addr()
        .context("cannot read the socket's own address")?;
    // Each socket has a thread that waits there. What they receive comes together in a channel, and one
    // thread decides, so that nothing is shared. It is short: the kernel has a queue for each socket.
    let (sender, arrivals) = mpsc::sync_channel(1);
    let mut relay = Relay::new(socket, sender, args);
    relay
        .receive_at(&relay.listener, None)
        .context("cannot start a thread")?;
    let _ = writeln!(io::stdout(), "listening on {local}");
    relay.run(&arrivals)
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("write a number from 0 to 1".into()),
    }
}

/// Binds the socket that the clients know, unless it would be the server as well: then a datagram would go
/// round for ever.
fn listen(args: &Args) -> Result<UdpSocket> {
    let was_free = UdpSocket::bind(args.to).is_ok();
    let socket = UdpSocket::bind(args.listen);
    let socket = socket.with_context(|| format!("cannot bind a UDP socket to {}", args.listen))?;
    // The server's address was free, and now it is taken: by us. To compare the two would not tell, for
    // `0.0.0.0` is every address of this machine.
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
    /// The socket that the clients know.
    listener: Arc<UdpSocket>,
    /// The oldest first.
    clients: VecDeque<Client>,
    /// How many clients there have been.
    met: u64,
    queue: Queue,
    sender: SyncSender<Datagram>,
}

struct Client {
    addr: SocketAddr,
    /// A socket towards the server for this client alone: what comes back there is for nobody else.
    socket: Arc<UdpSocket>,
    questions: Flow,
    answers: Flow,
}

/// What goes one way for one client.
struct Flow {
    random: Random,
    count: u64,
    /// The place in the queue of what the next datagram is to overtake.
    held_back: Option<Place>,
}

struct Datagram {
    client: SocketAddr,
    is_answer: bool,
    bytes: Vec<u8>,
    /// How many times it is sent.
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

    /// Sends what is due, and takes what comes until the next is.
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

    /// Decides what becomes of a datagram, and says so before it goes on.
    fn take(&mut self, datagram: Datagram) {
        let addr = datagram.client;
        let is_known = self.clients.iter().any(|client| client.addr == addr);
        if !is_known && !datagram.is_answer {
            if let Err(error) = self.meet(addr) {
                return self.args.log(format_args!(
                    "{addr}: cannot open a way to the server: {error}"
                ));
            }
        }
        let Some(client) = self.clients.iter_mut().find(|client| client.addr == addr) else {
            return; // It answers a client that has been forgotten.
        };
        let (flow, name) = match datagram.is_answer {
            true => (&mut client.answers, "answer"),
            false => (&mut client.questions, "question"),
        };
        let fate = flow.next_fate(&self.args);
        let number = flow.count;
        if self.queue.waiting.len() == MAX_WAITING {
            return self.args.log(format_args!(
                "{addr}: {name} {number}: lost, too many are under way"
            ));
        }
        self.args
            .log(format_args!("{addr}: {name} {number}: {fate}"));
        let due = Instant::now() + Duration::from_millis(self.args.delay);
        flow.meet_fate(fate, datagram, due, &mut self.queue);
    }

    /// Makes place for a new client, opens its socket and starts its thread.
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

    /// Starts the thread of a socket: of a client's, or of the one that all clients know.
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
            return; // It was forgotten meanwhile.
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

/// What becomes of a datagram.
struct Fate {
    /// None: it is lost.
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
    /// All three chances are drawn each time, so that each datagram has its own three numbers, whatever
    /// became of those before it.
    fn next_fate(&mut self, args: &Args) -> Fate {
        self.count += 1;
        let [is_lost, is_doubled, is_late] = [args.drop, args.duplicate, args.reorder]
            .map(|probability| self.random.happens(probability));
        let copies = match (is_lost, is_doubled) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        // One at a time: two that wait for the same datagram would still be in order.
        Fate {
            copies,
            is_held_back: is_late && self.held_back.is_none(),
        }
    }

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
        // What was held back goes behind it, unless its time was up and it has gone.
        if let Some(overtaken) = self
            .held_back
            .take()
            .and_then(|place| queue.waiting.remove(&place))
        {
            queue.push(due, overtaken);
        }
    }
}

/// Receives until nobody holds the socket any more: then its client has been forgotten.
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
            // Nothing came, or we were suspended and woken.
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                match client {
                    Some(addr) => {
                        args.log(format_args!("{addr}: cannot hear {}: {error}", args.to))
                    }
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

/// What is under way, in the order in which it is due.
struct Queue {
    waiting: BTreeMap<Place, Datagram>,
    pushed: u64,
}

/// When a datagram is due. The number keeps those in order that are due at the same time.
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

/// Numbers that look like chance and are the same each time (splitmix64 by Sebastiano Vigna).
struct Random(u64);

impl Random {
    /// Each flow draws from a sequence of its own: how the clients take turns then changes nothing.
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
        // From 0 up to but not 1, so that 0 is never and 1 always. A float has 53 bits for it.
        let number = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        number < probability
    }
}

impl Args {
    /// Tells something on stderr, each line in one piece. That nobody reads it is no reason to stop.
    fn log(&self, line: fmt::Arguments) {
        if !self.quiet {
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
}
