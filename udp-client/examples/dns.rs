//! Asks a DNS server for the IPv4 addresses of a name: one datagram there, one back.
//!
//! ```console
//! $ dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --port=7053 \
//!     --listen-address=127.0.0.1 --bind-interfaces --address=/name.test/192.0.2.7    # terminal 1
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example dns -- --server 127.0.0.1:7053 name.test       # terminal 2
//! 192.0.2.7
//! ```
//!
//! UDP suits DNS: question and answer fit a datagram each, no connection is made first, the server keeps
//! nothing for a client between two questions, and to ask again does no harm. Its price is that anybody can
//! send a datagram in the server's name, so all of an answer is checked before it is believed.
//!
//! A real resolver does more. It asks again, and another server, when no answer comes, since UDP may lose
//! either datagram. It asks over TCP when the answer is truncated. And no forger may be able to guess the id
//! of its question (see `random_id`).
//!
//! What is `pub` here is called by `tests/dns.rs` as well.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;

/// Every message begins with six numbers of 16 bits: the id, the flags, and how many questions, answers
/// and two other kinds of records follow (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// The most bytes of an answer over UDP (RFC 1035, 4.2.1), unless the question allows more (EDNS).
const MAX_ANSWER: usize = 512;

/// Type A, an IPv4 address, and class IN, the internet. Questions and records have them behind the name.
const IPV4_ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Ask a DNS server for the IPv4 addresses of a name
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The DNS server
    #[arg(long, value_name = "HOST:PORT")]
    server: String,

    /// How long to wait for the answer; fractions are allowed
    #[arg(long, value_name = "SECS", default_value = "2", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// The name whose addresses are wanted
    #[arg(value_name = "NAME")]
    name: String,
}

fn main() -> Result<()> {
    let Args {
        server,
        timeout,
        name,
    } = Args::parse();
    let query = query(random_id(), &name)?;
    let answer = ask_any(&server, &query, timeout)?;
    let found = addresses(&answer)
        .with_context(|| format!("cannot get an address of {name} from {server}"))?;
    for address in found {
        writeln!(io::stdout(), "{address}").context("cannot write to stdout")?;
    }
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write seconds from 0.001 to 86400".into()),
    }
}

/// A number that a forger cannot guess. Who could guess it, and the port that the kernel chose for us, could
/// answer before the server does.
///
/// std has no random numbers, but each `HashMap` has a random key, so that nobody can choose data which
/// makes it slow. What is hashed with such a key is as good as random.
fn random_id() -> u16 {
    RandomState::new().hash_one("id") as u16
}

/// The message that asks for a name's IPv4 addresses.
pub fn query(id: u16, name: &str) -> Result<Vec<u8>> {
    const RECURSION_DESIRED: u16 = 0x0100; // The server is to ask others if it does not know.
    const ONE_QUESTION: [u16; 4] = [1, 0, 0, 0];
    let header = [id, RECURSION_DESIRED].into_iter().chain(ONE_QUESTION);
    let mut query: Vec<u8> = header.flat_map(u16::to_be_bytes).collect();
    query.extend(encode(name)?);
    query.extend(IPV4_ADDRESS);
    Ok(query)
}

/// A name as DNS writes it: each label behind its length, and an empty label at the end (RFC 1035, 3.1).
fn encode(name: &str) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    // Names are often written with a dot at the end, which stands for the empty label.
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length));
        encoded.push(
            length
                .with_context(|| format!("cannot ask for {name:?}: a label has 1 to 63 bytes"))?,
        );
        encoded.extend(label.bytes());
    }
    encoded.push(0);
    ensure!(
        encoded.len() <= 255,
        "cannot ask for {name:?}: a name has at most 253 bytes"
    );
    Ok(encoded)
}

/// Asks each address of the server in turn: `localhost` often has two. Returns the first answer.
fn ask_any(server: &str, query: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    let found = server
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {server}"))?;
    let mut outcome = Err(anyhow!("cannot ask {server}: it has no address"));
    for server in found {
        outcome = ask(server, query, timeout);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Asks one address, and says what a failure means.
fn ask(server: SocketAddr, query: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    let answer =
        exchange(server, query, timeout).with_context(|| format!("cannot ask {server}"))?;
    answer.with_context(|| format!("cannot get an answer from {server} within {timeout:?}"))
}

/// Sends the query and waits for the answer, `None` if it does not come in time.
fn exchange(server: SocketAddr, query: &[u8], timeout: Duration) -> io::Result<Option<Vec<u8>>> {
    let socket = UdpSocket::bind(if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    })?;
    // From now on the kernel keeps out other senders, and reports when nobody listens there.
    socket.connect(server)?;
    socket.send(query)?;
    let deadline = Instant::now() + timeout;
    next_answer(&socket, query, deadline)
}

/// Waits until the deadline for a datagram that answers the query. All others are passed over.
fn next_answer(socket: &UdpSocket, query: &[u8], deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let peer = socket.peer_addr()?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        // The kernel counts a time limit for each call anew, so each call gets what is left. Zero is not
        // allowed, and the least that is still takes what has already come.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_micros(1));
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            // What a stranger sent between bind and connect is still in the queue.
            Ok((len, from)) if from == peer && is_answer(&buffer[..len], query) => {
                return Ok(Some(buffer[..len].to_vec()));
            }
            Ok(_) => {}
            // The limit has passed, in the words of Unix and of Windows.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // We were suspended and woken (SIGSTOP, SIGCONT), and the answer may have come meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Whether a datagram answers the query: it has its id, is marked as an answer (in a query the bit is 0), and
/// repeats the question.
pub fn is_answer(datagram: &[u8], query: &[u8]) -> bool {
    let Some((asked, question)) = query.split_first_chunk::<HEADER>() else {
        return false;
    };
    let Some((header, rest)) = datagram.split_first_chunk::<HEADER>() else {
        return false;
    };
    let same_id = header[..2] == asked[..2];
    let marked = header[2] & 0x80 != 0;
    let one_question = header[4..6] == asked[4..6];
    // In a name `a` and `A` are the same. The length of a label is at most 63, and no letter is that low.
    let repeated = rest
        .get(..question.len())
        .is_some_and(|it| it.eq_ignore_ascii_case(question));
    same_id && marked && one_question && repeated
}

/// The addresses in an answer to a query of ours, or why there are none.
pub fn addresses(answer: &[u8]) -> Result<Vec<Ipv4Addr>> {
    let mut reader = Reader(answer);
    let [_, _, flags, more_flags, _, _, count_high, count_low, ..] = reader.array::<HEADER>()?;
    check_code(more_flags & 0x0F)?;
    ensure!(
        flags & 0x02 == 0,
        "the answer is too long for a datagram, one would have to ask over TCP"
    );
    reader.skip_name()?;
    reader.array::<4>()?; // The question's type and class.
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes([count_high, count_low]) {
        found.extend(reader.record()?);
    }
    ensure!(
        !found.is_empty(),
        "the name exists, but has no IPv4 address"
    );
    Ok(found)
}

/// What the server says of our question (RFC 1035, 4.1.1).
fn check_code(code: u8) -> Result<()> {
    match code {
        0 => Ok(()),
        2 => bail!("the server cannot find out (SERVFAIL)"),
        3 => bail!("there is no such name (NXDOMAIN)"),
        5 => bail!("the server does not answer this question, ask another (REFUSED)"),
        _ => bail!("the server reports error {code}"),
    }
}

/// What is left of an answer. A server may send anything, so everything that is taken may be missing.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .context("the answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    /// Skips a name. It ends with an empty label, or with a pointer to a place where its rest stands already.
    /// Who follows pointers must beware of circles; to us the first one is the end.
    fn skip_name(&mut self) -> Result<()> {
        loop {
            let [length] = self.array()?;
            match length {
                0 => return Ok(()),
                1..=63 => self.take(length.into())?,
                0xC0.. => return self.take(1).map(|_| ()),
                _ => bail!("the answer has a label of an unknown kind"),
            };
        }
    }

    /// Takes a record, and returns the address if it is one. Others are passed over: a CNAME only says which
    /// other name has the addresses, and they follow.
    fn record(&mut self) -> Result<Option<Ipv4Addr>> {
        self.skip_name()?;
        let kind = self.array()?;
        self.array::<4>()?; // How many seconds the record may be kept.
        let length = u16::from_be_bytes(self.array()?);
        let data = self.take(length.into())?;
        if kind != IPV4_ADDRESS {
            return Ok(None);
        }
        let octets: [u8; 4] = data
            .try_into()
            .context("the answer has an IPv4 address that is not 4 bytes")?;
        Ok(Some(octets.into()))
    }
}
