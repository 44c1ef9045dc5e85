//! The loads of the bench notice a server that sends back other than it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::panic;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use harness::measure::loads;

/// What is wrong with each [`NTH`] piece that a server sends back. It also gets the piece before.
type Fault = fn(piece: &mut [u8], before: &[u8]);

/// Later than the first echo of each connection, which a load does not count.
const NTH: usize = 60;

const FAULTS: [(&str, Fault); 3] = [
    ("a bit of its last byte is another", |piece, _| {
        piece[piece.len() - 1] ^= 1
    }),
    ("two bytes have changed places", |piece, _| {
        let other = piece.iter().position(|byte| *byte != piece[0]).unwrap();
        piece.swap(0, other);
    }),
    ("its second half is of the piece before", |piece, before| {
        let (half, len) = (piece.len() / 2, piece.len().min(before.len()));
        piece[half..len].copy_from_slice(&before[half..len]);
    }),
];

/// The pieces that a server has sent back.
struct Echo {
    fault: Option<Fault>,
    count: usize,
    before: Vec<u8>,
}

impl Echo {
    fn new(fault: Option<Fault>) -> Mutex<Echo> {
        Mutex::new(Echo {
            fault,
            count: 0,
            before: Vec::new(),
        })
    }

    fn of(&mut self, received: &[u8]) -> Vec<u8> {
        let mut piece = received.to_vec();
        self.count += 1;
        if let (Some(fault), true) = (self.fault, self.count % NTH == 0) {
            fault(&mut piece, &self.before);
        }
        self.before = received.to_vec();
        piece
    }
}

fn serve(mut stream: impl Read + Write, echo: &Mutex<Echo>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        let piece = echo.lock().unwrap().of(&buffer[..len]);
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
}

fn tcp_server(fault: Option<Fault>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let echo = Echo::new(fault);
        thread::scope(|scope| {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).unwrap();
                scope.spawn(|| serve(stream, &echo));
            }
        });
    });
    addr
}

fn udp_server(fault: Option<Fault>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let (echo, mut buffer) = (Echo::new(fault), [0; 2048]);
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            let datagram = echo.lock().unwrap().of(&buffer[..len]);
            socket.send_to(&datagram, peer).unwrap();
        }
    });
    addr
}

/// The load passes with an honest server, and with no other.
fn assert_notices<A>(load: impl Fn(A) -> Duration, server: impl Fn(Option<Fault>) -> A) {
    load(server(None));
    for (what, fault) in FAULTS {
        let addr = server(Some(fault));
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| load(addr)));
        assert!(
            result.is_err(),
            "the load does not notice a piece when {what}"
        );
    }
}

#[test]
fn round_trips_notice_each_wrong_byte() {
    assert_notices(|addr| loads::one_connection(addr, 100), tcp_server);
}

#[test]
fn many_connections_notice_each_wrong_byte() {
    assert_notices(|addr| loads::many_connections(addr, 5), tcp_server);
}

#[test]
fn long_messages_notice_each_wrong_byte() {
    assert_notices(|addr| loads::long_messages(addr, 20), tcp_server);
}

#[test]
fn a_stream_notices_each_wrong_byte() {
    assert_notices(|addr| loads::bulk(addr, 2), tcp_server);
}

#[test]
fn short_connections_notice_each_wrong_byte() {
    assert_notices(|addr| loads::short_connections(addr, 100), tcp_server);
    assert_notices(
        |addr| loads::short_connections_at_once(addr, 100),
        tcp_server,
    );
}

#[test]
fn a_burst_notices_each_wrong_byte() {
    assert_notices(|addr| loads::burst(addr, 100), tcp_server);
}

#[test]
fn a_burst_connects_again_where_it_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        first.peek(&mut [0]).unwrap();
        loads::reset(vec![first]);
        let echo = Echo::new(None);
        while let Ok((stream, _)) = listener.accept() {
            serve(stream, &echo);
        }
    });
    loads::burst(addr, 1);
}

#[test]
fn datagrams_notice_each_wrong_byte() {
    assert_notices(|addr| loads::udp_stop_and_wait(addr, 100), udp_server);
    assert_notices(|addr| loads::udp_window(addr, 200), udp_server);
}

#[test]
fn unix_sockets_notice_each_wrong_byte() {
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::PathBuf;
    let folder = harness::folder();
    let new_path = || {
        let count = std::fs::read_dir(folder.path()).unwrap().count();
        folder.path().join(count.to_string())
    };
    let stream_server = |fault| -> PathBuf {
        let path = new_path();
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let echo = Echo::new(fault);
            while let Ok((stream, _)) = listener.accept() {
                serve(stream, &echo);
            }
        });
        path
    };
    let datagram_server = |fault| -> PathBuf {
        let path = new_path();
        let socket = UnixDatagram::bind(&path).unwrap();
        thread::spawn(move || {
            let (echo, mut buffer) = (Echo::new(fault), [0; 2048]);
            loop {
                let (len, peer) = socket.recv_from(&mut buffer).unwrap();
                let datagram = echo.lock().unwrap().of(&buffer[..len]);
                // The client may have seen enough.
                let _ = socket.send_to_addr(&datagram, &peer);
            }
        });
        path
    };
    assert_notices(
        |path| loads::unix::one_connection(&path, 100),
        stream_server,
    );
    assert_notices(|path| loads::unix::bulk(&path, 2), stream_server);
    assert_notices(|path| loads::unix::datagrams(&path, 100), datagram_server);
}
