//! A DNS client: asks a server for the IPv4 addresses of a name, with one datagram.
//!
//! ```console
//! $ dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --log-facility=/dev/null \
//!     --no-resolv --no-hosts --port=7053 --listen-address=127.0.0.1 --bind-interfaces \
//!     --address=/name.test/192.0.2.7    # terminal 1
//! ```
//!
//! ```console
//! $ cargo run -p udp-client --example dns -- --server 127.0.0.1:7053 name.test       # terminal 2
//! 192.0.2.7
//! ```
//!
//! UDP suits DNS. A question and its answer usually fit into one datagram each, no connection has
//! to be made first, the server keeps nothing about a client between two questions, and asking
//! twice does no harm. The price is that an answer can be forged: nothing proves who has sent a
//! datagram. So the client checks that an answer fits its question.
//!
//! A real resolver does more. It asks again, and asks other servers, because UDP can lose either
//! datagram. It asks over TCP when an answer is cut (*truncated*). And it draws the ids of its
//! questions from a source that is made for it (see `random_id`).
//!
//! Try next:
//!
//! - Ask for another name, such as `other.test`. dnsmasq does not know it, and we have told it to
//!   ask nobody else. So it refuses, and the client says that it was refused.
//! - Ask a server that sends back what it gets: `cargo run -p udp-server`, and then
//!   `cargo run -p udp-client --example dns -- --server 127.0.0.1:7007 name.test`. The id and the
//!   question are right, but a question is no answer, and the client waits until its time limit.
//!
//! Read `udp-client` first: how it waits is not explained again. Read next: RFC 1035, section 4.

#[cfg(unix)]
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;

/// The length of the header, in bytes. It consists of six numbers of 16 bits: the id, the flags,
/// and how many questions, answers and two other kinds of records follow (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// The length of the buffer, in bytes. Our question allows an answer of 512 (RFC 1035, 4.2.1). But
/// a server may send more, and the end of a datagram that is longer than the buffer is lost.
const MAX_ANSWER: usize = 65_535;

/// Type A, an IPv4 address, and class IN, the internet. They follow the name in questions
/// and records.
const IPV4_ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Ask a DNS server for the IPv4 addresses of a name
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the DNS server
    #[arg(long, value_name = "HOST:PORT")]
    server: String,

    /// Seconds to wait for the answer, such as 0.5
    #[arg(long, value_name = "SECS", default_value = "2")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// The name whose addresses are wanted
    #[arg(value_name = "NAME")]
    name: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (name, server) = (&args.name, &args.server);
    let query = query_for(name, random_id())?;
    let answer = ask_any(server, &query, args.timeout)?;
    let found = addresses(&answer);
    for address in
        found.with_context(|| format!("cannot get an address of {name} from {server}"))?
    {
        print(address).context("cannot write to stdout")?;
    }
    Ok(())
}

/// Returns a number that is hard to predict. Whoever knows it, and the port that the kernel has
/// chosen for us, can answer before the server does.
///
/// std has no random numbers. But its hash maps have a secret key, which it makes from random
/// numbers of the system, and a hash with such a key is hard to predict. std does not promise how
/// hard. A real resolver asks the system itself, with the crate getrandom.
fn random_id() -> u16 {
    RandomState::new().hash_one("id") as u16
}

/// Builds the message that asks for the IPv4 addresses of a name.
fn query_for(name: &str, id: u16) -> Result<Vec<u8>> {
    const RECURSION_DESIRED: u16 = 0x0100; // The server should ask others if it does not know.
    const ONE_QUESTION: [u16; 4] = [1, 0, 0, 0];
    let header = [id, RECURSION_DESIRED].into_iter().chain(ONE_QUESTION);
    let mut query: Vec<u8> = header.flat_map(u16::to_be_bytes).collect();
    query.extend(encode(name)?);
    query.extend(IPV4_ADDRESS);
    Ok(query)
}

/// Writes a name as DNS does: each label after its length, and an empty label at the end
/// (RFC 1035, 3.1).
fn encode(name: &str) -> Result<Vec<u8>> {
    ensure!(
        name.is_ascii(),
        "cannot ask for {name:?}: write it in ASCII, as xn--..."
    );
    let mut encoded = Vec::new();
    // A dot at the end of a name stands for the empty label.
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        ensure!(
            (1..=63).contains(&label.len()),
            "cannot ask for {name:?}: a label has 1 to 63 bytes"
        );
        encoded.push(label.len() as u8);
        encoded.extend(label.bytes());
    }
    encoded.push(0);
    ensure!(
        encoded.len() <= 255,
        "cannot ask for {name:?}: a name has at most 253 bytes"
    );
    Ok(encoded)
}

/// Asks one address of the server after the other, and returns the first answer.
fn ask_any(server: &str, query: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    let found = server
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {server}"))?;
    let mut servers: Vec<_> = found.collect();
    servers.dedup(); // The same address can stand twice in /etc/hosts.
    let mut outcome = Err(anyhow!("cannot ask {server}: the name has no address"));
    for server in servers {
        outcome = ask(server, query, timeout);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Sends the query to one address, and waits for a datagram that answers it. All others are
/// ignored: if one of them were an error, a forger could make us give up.
fn ask(server: SocketAddr, query: &[u8], timeout: Duration) -> Result<Vec<u8>> {
    ensure!(
        server.port() != 0,
        "cannot send to {server}: port 0 stands for no socket; give the server's port"
    );
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    // A new socket for each question has a new port: one more number that a forger must guess.
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket on a free port")?;
    let failed = || format!("cannot ask {server}");
    socket.connect(server).with_context(failed)?;
    socket.send(query).with_context(failed)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv(&mut buffer) {
            Ok(len) if is_answer(&buffer[..len], query) => return Ok(buffer[..len].to_vec()),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error).with_context(failed),
        }
        if left.is_zero() {
            bail!("cannot get an answer from {server} within {timeout:?}");
        }
    }
}

/// Tells whether a datagram answers the query: it has the same id, it is marked as an
/// answer (a query has 0 in this bit), and it repeats the question.
///
/// A server that did not read the question, or will not, may send an error as a header alone.
fn is_answer(datagram: &[u8], query: &[u8]) -> bool {
    let Some((asked, question)) = query.split_first_chunk::<HEADER>() else {
        return false;
    };
    let Some((header, rest)) = datagram.split_first_chunk::<HEADER>() else {
        return false;
    };
    let same_id = header[..2] == asked[..2];
    let marked = header[2] & 0x80 != 0;
    let one_question = header[4..6] == asked[4..6];
    // Case does not matter in names. Lengths of labels are at most 63, and letters begin at 65.
    let repeated = rest
        .get(..question.len())
        .is_some_and(|it| it.eq_ignore_ascii_case(question));
    // FORMERR, SERVFAIL, NOTIMP and REFUSED say nothing about the name.
    let bare_error = datagram.len() == HEADER && matches!(header[3] & 0x0F, 1 | 2 | 4 | 5);
    same_id && marked && (one_question && repeated || bare_error)
}

/// Returns the addresses in an answer, or an error that tells why there are none.
fn addresses(answer: &[u8]) -> Result<Vec<Ipv4Addr>> {
    let mut reader = Reader(answer);
    let [_, _, flags, more_flags, _, _, count_high, count_low, ..] = reader.array::<HEADER>()?;
    // The server's response code (RFC 1035, 4.1.1).
    match more_flags & 0x0F {
        0 => {}
        2 => bail!("the server failed to find an answer (SERVFAIL)"),
        3 => bail!("there is no such name (NXDOMAIN)"),
        5 => bail!("the server refuses to answer; ask another (REFUSED)"),
        code => bail!("the server reports error {code}"),
    }
    ensure!(
        flags & 0x02 == 0,
        "the answer does not fit into a datagram; it would have to be asked over TCP"
    );
    reader.skip_name()?;
    reader.array::<4>()?; // The question's type and class.
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes([count_high, count_low]) {
        found.extend(reader.record()?);
    }
    ensure!(!found.is_empty(), "the answer has no IPv4 address");
    Ok(found)
}

/// Reads an answer from its beginning to its end. The server may send anything, so any part may be
/// missing.
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

    /// Skips a name. It ends with an empty label, or with a pointer to an earlier place
    /// where the rest stands. A program that follows pointers must not be led in circles;
    /// we stop at the first.
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

    /// Reads a record, and returns its address if it has one. Other records do not matter here: a
    /// CNAME, for example, says which other name has the addresses, and those follow.
    fn record(&mut self) -> Result<Option<Ipv4Addr>> {
        self.skip_name()?;
        let kind = self.array()?;
        self.array::<4>()?; // For how many seconds the record is valid.
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

/// Prints an address; `udp-client` says why std's own stdout does not suffice.
fn print(address: Ipv4Addr) -> io::Result<()> {
    #[cfg(unix)]
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    #[cfg(not(unix))]
    let mut stdout = io::stdout();
    writeln!(stdout, "{address}")
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}
