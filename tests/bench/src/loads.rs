//! Loads for echo servers. The bench and the speed tests measure them.
//!
//! Each load gets the server's address, and how often to repeat its work. It opens its sockets, and
//! only then starts the clock, unless the work is to connect. It returns how long the work took,
//! and it panics unless every byte that came back is the byte that was sent. It starts at most two
//! threads, so that the server is measured and not the client.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmsg};
use rustix::event::Timespec;
use rustix::event::epoll;
use socket2::{Domain, SockAddr, Socket, Type};

use harness::{LIMIT, noise};

/// How many connections [`many_connections`] holds, and on how many [`rounds_on`] has a message on
/// the way at a time.
pub const CONNECTIONS: usize = 50;

/// The length of a message on a stream, and of a Unix datagram.
pub const MESSAGE: usize = 512;

/// How many messages [`fixed_rate`] sends in a second, on all connections together.
pub const RATE: u32 = 10_000;

const LONG_CONNECTIONS: usize = 8;
const LONG_MESSAGE: usize = 16 * 1024;

/// The length of the stream of [`bulk`].
const BULK: usize = 16 << 20;

/// The length of a UDP datagram.
const DATAGRAM: usize = 64;

/// How many datagrams [`udp_window`] has on the way at the same time.
const WINDOW: usize = 128;

/// The bytes from which all messages are cut. The number of places at which a message can begin
/// is prime.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(PLACES + LONG_MESSAGE));
const PLACES: usize = 1_000_003;

/// Returns a message that differs from the one before in every part, so that old bytes cannot
/// pass for an echo.
fn message(len: usize) -> &'static [u8] {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let place = NUMBER.fetch_add(1, Ordering::Relaxed) % PLACES;
    &NOISE[place..place + len]
}

fn assert_same(back: &[u8], sent: &[u8]) {
    let len = back.len();
    assert!(
        back == sent,
        "{len} bytes came back, but not those that were sent"
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Opens a socket for a server. An address that begins with a slash is the path of a Unix socket.
fn socket_for(addr: &str, kind: Type) -> (Socket, SockAddr) {
    let addr = match addr.parse::<SocketAddr>() {
        Ok(addr) => addr.into(),
        Err(_) if addr.starts_with('/') => SockAddr::unix(addr).unwrap(),
        Err(error) => panic!("{addr:?}: {error}"),
    };
    let socket = Socket::new(addr.domain(), kind, None).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    match (addr.domain(), kind) {
        // The server can answer only a client that has an address. The kernel chooses one.
        (Domain::UNIX, Type::DGRAM) => socket.bind(&SockAddr::unix("").unwrap()).unwrap(),
        (Domain::UNIX, _) | (_, Type::DGRAM) => {}
        _ => socket.set_tcp_nodelay(true).unwrap(),
    }
    (socket, addr)
}

fn connect(addr: &str, kind: Type) -> Socket {
    let (socket, server) = socket_for(addr, kind);
    let connected = socket.connect(&server);
    connected.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
    socket
}

/// Opens a connection and waits for one echo. Then the server has accepted the connection.
fn connect_and_wait(addr: &str) -> Socket {
    let stream = connect(addr, Type::STREAM);
    round_trip(&stream);
    stream
}

fn round_trip(stream: &Socket) {
    read_echo(stream, send(stream, MESSAGE));
}

fn send(mut stream: &Socket, len: usize) -> &'static [u8] {
    let sent = message(len);
    stream.write_all(sent).unwrap();
    sent
}

fn read_echo(mut stream: &Socket, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert_same(&back, sent);
}

/// One connection, one message after the other.
pub fn one_connection(addr: &str, messages: u64) -> Duration {
    let stream = connect_and_wait(addr);
    timed(|| (0..messages).for_each(|_| round_trip(&stream)))
}

/// Many connections, one message after the other on each. A round is one message on each
/// connection.
pub fn many_connections(addr: &str, rounds: u64) -> Duration {
    rounds_on(&connections(addr, CONNECTIONS), MESSAGE, rounds)
}

/// The same with fewer connections and long messages.
pub fn long_messages(addr: &str, rounds: u64) -> Duration {
    rounds_on(&connections(addr, LONG_CONNECTIONS), LONG_MESSAGE, rounds)
}

/// Opens `count` connections. The server has accepted all of them.
pub fn connections(addr: &str, count: usize) -> Vec<Socket> {
    (0..count).map(|_| connect_and_wait(addr)).collect()
}

/// Sends one message on each connection in each round. Fifty messages are on the way at a time:
/// it writes to fifty connections, then reads from these. It uses one thread, and so leaves the
/// other processor to the server.
pub fn rounds_on(streams: &[Socket], len: usize, rounds: u64) -> Duration {
    timed(|| {
        for _ in 0..rounds {
            streams
                .chunks(CONNECTIONS)
                .for_each(|some| round(some, len));
        }
    })
}

fn round(streams: &[Socket], len: usize) {
    let messages: Vec<&[u8]> = streams.iter().map(|stream| send(stream, len)).collect();
    for (stream, sent) in streams.iter().zip(messages) {
        read_echo(stream, sent);
    }
}

/// Closes connections with a reset, so that the kernel does not remember them for a minute
/// (TIME_WAIT).
pub fn reset(streams: Vec<Socket>) {
    for stream in streams {
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// How long a message of [`fixed_rate`] took.
pub struct Latency {
    /// From when it was due to when it had come back.
    pub whole: Duration,
    /// The part in which the client worked: from when the message was due to when it was written,
    /// and from when the client noticed the echo to when it had compared the bytes.
    pub of_client: Duration,
}

/// Sends [`RATE`] messages a second, on one connection after the other.
///
/// Each message is sent when it is due, whether or not the ones before it have come back, and its
/// latency counts from when it was due. So if the server stops for a while, all messages that are
/// due meanwhile are late. A client that waits for an echo before it sends again would see one
/// late message (this error has the name *coordinated omission*). The client does not sleep: it
/// would wake up too late.
pub fn fixed_rate(streams: &[Socket], messages: u32) -> Vec<Latency> {
    struct OnItsWay {
        rest: &'static [u8],
        due: Instant,
        until_written: Duration,
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (number, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let number = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, stream, number, epoll::EventFlags::IN).unwrap();
    }
    let mut on_their_way: Vec<_> = streams.iter().map(|_| VecDeque::new()).collect();
    let (mut events, mut buffer) = (Vec::with_capacity(CONNECTIONS), vec![0; 64 * 1024]);
    let (mut sent, mut latencies) = (0, Vec::with_capacity(messages as usize));
    let begin = Instant::now();
    let mut last_echo = begin;
    while latencies.len() < messages as usize {
        let due = begin + sent * (Duration::from_secs(1) / RATE);
        if sent < messages && Instant::now() >= due {
            let number = sent as usize % streams.len();
            let rest = send(&streams[number], MESSAGE);
            let until_written = due.elapsed();
            on_their_way[number].push_back(OnItsWay {
                rest,
                due,
                until_written,
            });
            sent += 1;
        }
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&epoll, room, Some(&Timespec::default())).unwrap();
        let noticed = Instant::now();
        if events.is_empty() {
            assert!(noticed - last_echo < LIMIT, "an echo is lost");
            thread::yield_now();
            continue;
        }
        last_echo = noticed;
        for event in &events {
            let number = event.data.u64() as usize;
            let len = (&streams[number]).read(&mut buffer).unwrap();
            assert!(len > 0, "the server has closed a connection");
            let mut back = &buffer[..len];
            while !back.is_empty() {
                let message = on_their_way[number].front_mut();
                let message = message.expect("an echo of what is on its way");
                let (part, others) = back.split_at(back.len().min(message.rest.len()));
                let (sent, rest) = message.rest.split_at(part.len());
                assert_same(part, sent);
                (message.rest, back) = (rest, others);
                if rest.is_empty() {
                    let back_at = Instant::now();
                    latencies.push(Latency {
                        whole: back_at - message.due,
                        of_client: message.until_written + (back_at - noticed),
                    });
                    on_their_way[number].pop_front();
                }
            }
        }
    }
    latencies
}

/// Streams of 16 MiB, one after the other, each until the server closes it after our half-close.
pub fn bulk(addr: &str, streams: u64) -> Duration {
    let stream = |_| {
        let stream = connect_and_wait(addr);
        timed(|| stream_through(&stream))
    };
    (0..streams).map(stream).sum()
}

/// Sends a block again and again, and reads at the same time. The length of the block is a prime
/// number, so the block begins at another place in each buffer that is read or written. This
/// makes sure that a part that is lost, doubled or moved is noticed.
fn stream_through(stream: &Socket) {
    let block = &NOISE[..PLACES];
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut writer, mut left) = (stream, BULK);
            while left > 0 {
                let len = left.min(block.len());
                writer.write_all(&block[..len]).unwrap();
                left -= len;
            }
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let (mut reader, mut received, mut buffer) = (stream, 0, vec![0; 64 * 1024]);
        let mut is_wrong = false;
        while let len @ 1.. = reader.read(&mut buffer).unwrap() {
            let mut back = &buffer[..len];
            while !back.is_empty() {
                let rest = &block[received % block.len()..];
                let (part, others) = back.split_at(back.len().min(rest.len()));
                // Goes on reading, because otherwise the writer could not go on.
                is_wrong |= part != &rest[..part.len()];
                received += part.len();
                back = others;
            }
        }
        assert_eq!(received, BULK, "bytes that came back, and that were sent");
        assert!(!is_wrong, "other bytes came back than were sent");
    });
}

/// Connects, echoes one message and closes, `connections` times, one after the other.
pub fn short_connections(addr: &str, connections: u64) -> Duration {
    timed(|| (0..connections).for_each(|_| drop(connect_and_wait(addr))))
}

/// The same with four connections at the same time: two threads have two each.
pub fn four_short_connections(addr: &str, connections: u64) -> Duration {
    let thread = |count: u64| {
        for begin in (0..count).step_by(2) {
            let streams = (begin..count.min(begin + 2)).map(|_| connect(addr, Type::STREAM));
            round(&streams.collect::<Vec<_>>(), MESSAGE);
        }
    };
    timed(|| {
        thread::scope(|scope| {
            scope.spawn(|| thread(connections / 2));
            scope.spawn(|| thread(connections.div_ceil(2)));
        })
    })
}

/// Opens many connections at the same time, waits for one echo on each, and closes them. Returns
/// the time from the first connect to the last echo.
///
/// When the backlog is full, the server's kernel drops requests for a connection, and the client's
/// kernel repeats them after a second. This is what the load measures. The server's kernel may
/// forget and reset a connection that waits for some seconds; then the client connects again.
pub fn burst(addr: &str, connections: usize) -> Duration {
    let started = Instant::now();
    let mut streams: Vec<Socket> = (0..connections).map(|_| start_to_connect(addr)).collect();
    // A write waits until the connection is there, and returns the error if there will be none.
    let messages = streams.iter().map(|stream| send(stream, DATAGRAM));
    let messages: Vec<&[u8]> = messages.collect();
    for (stream, sent) in streams.iter_mut().zip(messages) {
        let peeked = stream.peek(&mut [MaybeUninit::uninit()]);
        if peeked.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
            *stream = connect(addr, Type::STREAM);
            stream.write_all(sent).unwrap();
        }
        read_echo(stream, sent);
    }
    let took = started.elapsed();
    reset(streams);
    took
}

/// Starts to connect, and returns before the connection is complete.
fn start_to_connect(addr: &str) -> Socket {
    let (socket, server) = socket_for(addr, Type::STREAM);
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&server); // EINPROGRESS, usually.
    socket.set_nonblocking(false).unwrap();
    socket
}

/// One UDP datagram after the other: each comes back before the next is sent.
pub fn udp_stop_and_wait(addr: &str, datagrams: u64) -> Duration {
    stop_and_wait(addr, DATAGRAM, datagrams)
}

/// The same with Unix datagrams, which are longer.
pub fn unix_datagrams(addr: &str, datagrams: u64) -> Duration {
    stop_and_wait(addr, MESSAGE, datagrams)
}

fn stop_and_wait(addr: &str, len: usize, datagrams: u64) -> Duration {
    let mut socket = connect(addr, Type::DGRAM);
    let mut back = [0; 2 * MESSAGE]; // Longer than an echo, so that one that is too long shows.
    timed(|| {
        for _ in 0..datagrams {
            let sent = send(&socket, len);
            let len = socket.read(&mut back).expect("an echo");
            assert_same(&back[..len], sent);
        }
    })
}

/// Keeps `WINDOW` datagrams on the way, until `datagrams` have come back.
///
/// Like `batch`, the client takes many datagrams with one system call, and sends many as one
/// piece. Otherwise it would be slower than the server. It does not sleep, because waking it would
/// be work for the server. The receive queues hold twice as many datagrams, so none is lost.
pub fn udp_window(addr: &str, datagrams: u64) -> Duration {
    let socket = connect(addr, Type::DGRAM);
    let mut headers = MultiHeaders::<()>::preallocate(WINDOW, None);
    let mut buffers = [[0; DATAGRAM + 1]; WINDOW];
    let mut on_their_way = BTreeMap::new();
    let (mut next, mut last_echo) = (0, Instant::now());
    timed(|| {
        while next < datagrams || !on_their_way.is_empty() {
            let count = (datagrams - next).min((WINDOW - on_their_way.len()) as u64);
            let more = (next..next + count).map(|number| (number, numbered(number)));
            let more: Vec<_> = more.collect();
            send_in_pieces(&socket, &more);
            on_their_way.extend(more);
            next += count;
            let mut slots = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let echoes = match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, flags, None) {
                Err(Errno::EAGAIN) => {
                    assert!(last_echo.elapsed() < LIMIT, "an echo is lost");
                    thread::yield_now();
                    continue;
                }
                echoes => echoes.expect("an echo"),
            };
            last_echo = Instant::now();
            for echo in echoes {
                let back = echo.iovs().next().unwrap_or_default();
                let number = back.first_chunk().map(|number| u64::from_le_bytes(*number));
                let sent = number.and_then(|number| on_their_way.remove(&number));
                assert_same(back, &sent.expect("an echo of what is on its way"));
            }
        }
    })
}

/// Sends datagrams as large pieces, which the kernel cuts into datagrams (UDP_SEGMENT in udp(7)).
fn send_in_pieces(socket: &Socket, datagrams: &[(u64, [u8; DATAGRAM])]) {
    const LONGEST_PIECE: usize = 64; // In datagrams.
    let cut = [ControlMessage::UdpGsoSegments(&(DATAGRAM as u16))];
    for piece in datagrams.chunks(LONGEST_PIECE) {
        let slices = piece.iter().map(|(_, datagram)| IoSlice::new(datagram));
        let slices: Vec<_> = slices.collect();
        let sent = sendmsg::<()>(socket.as_raw_fd(), &slices, &cut, MsgFlags::empty(), None);
        assert_eq!(sent, Ok(piece.len() * DATAGRAM));
    }
}

/// Returns a datagram that begins with its number.
fn numbered(number: u64) -> [u8; DATAGRAM] {
    let mut datagram = [0; DATAGRAM];
    datagram.copy_from_slice(message(DATAGRAM));
    datagram[..8].copy_from_slice(&number.to_le_bytes());
    datagram
}
