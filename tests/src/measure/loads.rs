//! Loads for echo servers. The bench and the speed tests measure them.
//!
//! Each load gets the server's address and a count, and opens its sockets. Only then does it start
//! the clock, unless the question is about connecting. It returns how long it took, and it panics
//! unless every byte that came back is the byte that was sent. It starts at most two threads, so
//! that the server is measured and not the client.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{LIMIT, noise, udp_socket};

/// How many connections [`many_connections`] holds.
pub const CONNECTIONS: usize = 50;

/// The length of a message on a stream, and of a Unix datagram.
pub const MESSAGE: usize = 512;

/// How many connections [`long_messages`] holds.
pub const LONG_CONNECTIONS: usize = 8;

/// The length of a long message.
pub const LONG_MESSAGE: usize = 16 * 1024;

/// How many clients [`short_connections_at_once`] has.
pub const CLIENTS: usize = 4;

/// The length of a UDP datagram.
pub const DATAGRAM: usize = 64;

/// How many datagrams [`udp_window`] has on the way at the same time.
pub const WINDOW: usize = 128;

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
    assert!(
        back == sent,
        "{} bytes came back, but not those that were sent",
        back.len()
    );
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr)
        .unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Opens a connection and waits for one echo. Then the server has accepted the connection.
fn connect_and_wait(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    round_trip(&mut stream, MESSAGE);
    stream
}

fn round_trip(stream: &mut (impl Read + Write), len: usize) {
    let sent = message(len);
    stream.write_all(sent).unwrap();
    read_echo(stream, sent);
}

fn read_echo(stream: &mut impl Read, sent: &[u8]) {
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert_same(&back, sent);
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// One connection, one message after the other.
pub fn one_connection(addr: SocketAddr, messages: u64) -> Duration {
    let mut stream = connect_and_wait(addr);
    timed(|| (0..messages).for_each(|_| round_trip(&mut stream, MESSAGE)))
}

/// Many connections, one message after the other on each. A round is one message on each
/// connection.
pub fn many_connections(addr: SocketAddr, rounds: u64) -> Duration {
    rounds_on(&mut connections(addr, CONNECTIONS), MESSAGE, rounds)
}

/// The same with fewer connections and long messages.
pub fn long_messages(addr: SocketAddr, rounds: u64) -> Duration {
    rounds_on(
        &mut connections(addr, LONG_CONNECTIONS),
        LONG_MESSAGE,
        rounds,
    )
}

/// Opens `count` connections. The server has accepted all of them.
pub fn connections(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect_and_wait(addr)).collect()
}

/// Sends one message on each connection in each round. Fifty messages are on the way at a time:
/// it writes to fifty connections, then reads from these. It uses one thread, and so leaves the
/// other processor to the server.
pub fn rounds_on(streams: &mut [TcpStream], len: usize, rounds: u64) -> Duration {
    timed(|| {
        for _ in 0..rounds {
            streams
                .chunks_mut(CONNECTIONS)
                .for_each(|some| round(some, len));
        }
    })
}

/// Closes connections with a reset, so that the kernel does not remember them for a minute
/// (TIME_WAIT).
pub fn reset(streams: Vec<TcpStream>) {
    for stream in &streams {
        socket2::SockRef::from(stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

fn round(streams: &mut [TcpStream], len: usize) {
    let messages: Vec<&[u8]> = streams.iter().map(|_| message(len)).collect();
    for (stream, sent) in streams.iter_mut().zip(&messages) {
        stream.write_all(sent).unwrap();
    }
    for (stream, sent) in streams.iter_mut().zip(&messages) {
        read_echo(stream, sent);
    }
}

/// One stream of `mebibytes` MiB, until the server closes it after our half-close.
pub fn bulk(addr: SocketAddr, mebibytes: u64) -> Duration {
    let stream = connect_and_wait(addr);
    timed(|| {
        stream_through(&stream, mebibytes, || {
            stream.shutdown(Shutdown::Write).unwrap()
        })
    })
}

/// Sends a block again and again, and reads at the same time. The length of the block is a prime
/// number, so the block begins at another place in each buffer that is read or written. This
/// makes sure that a part that is lost, doubled or moved is noticed.
fn stream_through<S: Sync>(stream: &S, mebibytes: u64, half_close: impl FnOnce() + Send)
where
    for<'a> &'a S: Read + Write,
{
    let total = usize::try_from(mebibytes << 20).unwrap();
    let block = &NOISE[..PLACES];
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut writer, mut left) = (stream, total);
            while left > 0 {
                let len = left.min(block.len());
                writer.write_all(&block[..len]).unwrap();
                left -= len;
            }
            half_close();
        });
        let (mut reader, mut received, mut buffer) = (stream, 0, vec![0; 64 * 1024]);
        let mut first_wrong = None;
        loop {
            let len = reader.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            let mut back = &buffer[..len];
            while !back.is_empty() {
                let rest = &block[received % block.len()..];
                let (part, others) = back.split_at(back.len().min(rest.len()));
                // Goes on reading, because otherwise the writer could not go on.
                if part != &rest[..part.len()] {
                    first_wrong.get_or_insert(received);
                }
                received += part.len();
                back = others;
            }
        }
        assert_eq!(
            received, total,
            "bytes that came back, and bytes that were sent"
        );
        assert_eq!(
            first_wrong, None,
            "where other bytes came back than were sent"
        );
    });
}

/// Connects, echoes one message and closes, `connections` times, one after the other.
pub fn short_connections(addr: SocketAddr, connections: u64) -> Duration {
    timed(|| (0..connections).for_each(|_| round_trip(&mut connect(addr), MESSAGE)))
}

/// The same with several connections at the same time: two threads have two each.
pub fn short_connections_at_once(addr: SocketAddr, connections: u64) -> Duration {
    const THREADS: u64 = 2;
    timed(|| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let mut left = usize::try_from((connections + thread) / THREADS).unwrap();
                scope.spawn(move || {
                    while left > 0 {
                        let together = left.min(CLIENTS / THREADS as usize);
                        let mut streams: Vec<TcpStream> =
                            (0..together).map(|_| connect(addr)).collect();
                        round(&mut streams, MESSAGE);
                        left -= together;
                    }
                });
            }
        });
    })
}

/// Opens many connections at the same time, waits for one echo on each, and closes them. Returns
/// the time from the first connect to the last echo.
///
/// When the backlog is full, the server's kernel drops requests for a connection, and the client's
/// kernel repeats them after a second. This is what the load measures. The server's kernel may
/// forget and reset a connection that waits for some seconds; then the client connects again.
pub fn burst(addr: SocketAddr, connections: usize) -> Duration {
    use rustix::event::epoll::EventFlags;
    let started = Instant::now();
    let mut streams: Vec<TcpStream> = (0..connections).map(|_| start_to_connect(addr)).collect();
    let messages: Vec<&[u8]> = streams.iter().map(|_| message(DATAGRAM)).collect();
    each_when_ready(&mut streams, EventFlags::OUT, |number, stream| {
        assert!(stream.take_error().unwrap().is_none(), "a connect failed");
        // A new connection has room for a message as short as this.
        assert_eq!(stream.write(messages[number]).unwrap(), DATAGRAM);
    });
    each_when_ready(&mut streams, EventFlags::IN, |number, stream| {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        if stream
            .peek(&mut [0])
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        {
            *stream = connect(addr);
            stream.write_all(messages[number]).unwrap();
        }
        read_echo(stream, messages[number]);
    });
    let took = started.elapsed();
    reset(streams);
    took
}

/// Starts to connect, and returns before the connection is complete.
fn start_to_connect(addr: SocketAddr) -> TcpStream {
    use rustix::io::Errno;
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    match socket.connect(&addr.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => {
            panic!("cannot connect to {addr}: {error}")
        }
        _ => socket.into(),
    }
}

/// Calls `work` once for each stream, in the order in which the streams become ready.
///
/// It uses epoll(7). With poll(2) the kernel would look at all streams each time, which would make
/// the client slow.
fn each_when_ready(
    streams: &mut [TcpStream],
    wanted: rustix::event::epoll::EventFlags,
    mut work: impl FnMut(usize, &mut TcpStream),
) {
    use rustix::event::Timespec;
    use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create, wait};
    let limit = Timespec::try_from(LIMIT).unwrap();
    let epoll = create(CreateFlags::CLOEXEC).unwrap();
    for (number, stream) in streams.iter().enumerate() {
        add(
            &epoll,
            stream,
            EventData::new_u64(number as u64),
            wanted | EventFlags::ONESHOT,
        )
        .unwrap();
    }
    let mut events = Vec::with_capacity(64);
    let mut left = streams.len();
    while left > 0 {
        events.clear();
        wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&limit),
        )
        .unwrap();
        assert!(
            !events.is_empty(),
            "{left} of {} connections are still not served",
            streams.len()
        );
        left -= events.len();
        for event in &events {
            let number = event.data.u64() as usize;
            work(number, &mut streams[number]);
        }
    }
}

/// One datagram after the other: each comes back before the next is sent.
pub fn udp_stop_and_wait(addr: SocketAddr, datagrams: u64) -> Duration {
    let socket = udp_socket("127.0.0.1");
    socket.connect(addr).unwrap();
    timed(|| {
        let mut back = [0; 2 * DATAGRAM];
        for _ in 0..datagrams {
            let sent = message(DATAGRAM);
            socket.send(sent).unwrap();
            let len = socket.recv(&mut back).expect("an echo");
            assert_same(&back[..len], sent);
        }
    })
}

/// Keeps [`WINDOW`] datagrams on the way, until `datagrams` have come back.
///
/// Like `batch`, the client takes many datagrams with one system call, and sends many as one
/// piece. Otherwise it would be slower than the server. It does not sleep, because waking it would
/// be work for the server. The receive queues hold twice as many datagrams, so none is lost.
pub fn udp_window(addr: SocketAddr, datagrams: u64) -> Duration {
    use nix::errno::Errno;
    use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;
    let socket = udp_socket("127.0.0.1");
    socket.connect(addr).unwrap();
    let mut headers = MultiHeaders::<()>::preallocate(WINDOW, None);
    let mut buffers = [[0; DATAGRAM + 1]; WINDOW];
    let mut on_their_way = BTreeMap::new();
    let (mut next, mut last_echo) = (0, Instant::now());
    timed(|| {
        while next < datagrams || !on_their_way.is_empty() {
            let count = (datagrams - next).min((WINDOW - on_their_way.len()) as u64);
            let more: Vec<_> = (next..next + count)
                .map(|number| (number, numbered(number)))
                .collect();
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
fn send_in_pieces(socket: &std::net::UdpSocket, datagrams: &[(u64, [u8; DATAGRAM])]) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    const LONGEST_PIECE: usize = 64; // In datagrams.
    let cut = [ControlMessage::UdpGsoSegments(&(DATAGRAM as u16))];
    for piece in datagrams.chunks(LONGEST_PIECE) {
        let slices: Vec<_> = piece
            .iter()
            .map(|(_, datagram)| IoSlice::new(datagram))
            .collect();
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

/// The same over Unix sockets, with paths as addresses.
pub mod unix {
    use std::net::Shutdown;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::path::Path;
    use std::time::Duration;

    use super::{LIMIT, MESSAGE, assert_same, message, round_trip, stream_through, timed};

    fn connect_and_wait(path: &Path) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        round_trip(&mut stream, MESSAGE);
        stream
    }

    /// One connection, one message after the other.
    pub fn one_connection(path: &Path, messages: u64) -> Duration {
        let mut stream = connect_and_wait(path);
        timed(|| (0..messages).for_each(|_| round_trip(&mut stream, MESSAGE)))
    }

    /// One stream of `mebibytes` MiB.
    pub fn bulk(path: &Path, mebibytes: u64) -> Duration {
        let stream = connect_and_wait(path);
        timed(|| {
            stream_through(&stream, mebibytes, || {
                stream.shutdown(Shutdown::Write).unwrap()
            })
        })
    }

    /// One datagram after the other: each comes back before the next is sent.
    pub fn datagrams(path: &Path, datagrams: u64) -> Duration {
        // The server can answer only a client that has an address.
        let folder = crate::folder();
        let socket = UnixDatagram::bind(folder.path().join("client")).unwrap();
        socket.connect(path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        timed(|| {
            let mut back = [0; 2 * MESSAGE];
            for _ in 0..datagrams {
                let sent = message(MESSAGE);
                socket.send(sent).unwrap();
                let len = socket.recv(&mut back).expect("an echo");
                assert_same(&back[..len], sent);
            }
        })
    }
}
