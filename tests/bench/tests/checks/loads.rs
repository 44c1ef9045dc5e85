//! The loads of the bench notice a server that does not send back what it was sent.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::panic;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use bench::loads;

/// Changes each [`NTH`] piece that a server sends back. It also gets the piece before.
type Fault = fn(piece: &mut [u8], before: &[u8]);

/// More than the first echo on each connection, which is not part of the work.
const NTH: usize = 60;

const FAULTS: [(&str, Fault); 3] = [
    ("a bit of its last byte is wrong", |piece, _| {
        piece[piece.len() - 1] ^= 1
    }),
    ("two bytes have changed places", |piece, _| {
        let other = piece.iter().position(|byte| *byte != piece[0]).unwrap();
        piece.swap(0, other);
    }),
    (
        "its second half is from the piece before",
        |piece, before| {
            let (half, len) = (piece.len() / 2, piece.len().min(before.len()));
            piece[half..len].copy_from_slice(&before[half..len]);
        },
    ),
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

fn tcp_server(fault: Option<Fault>) -> String {
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
    addr.to_string()
}

fn udp_server(fault: Option<Fault>) -> String {
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
    addr.to_string()
}

fn unix_server(path: PathBuf, fault: Option<Fault>) -> String {
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let echo = Echo::new(fault);
        while let Ok((stream, _)) = listener.accept() {
            serve(stream, &echo);
        }
    });
    path.into_os_string().into_string().unwrap()
}

fn unix_datagram_server(path: PathBuf, fault: Option<Fault>) -> String {
    let socket = UnixDatagram::bind(&path).unwrap();
    thread::spawn(move || {
        let (echo, mut buffer) = (Echo::new(fault), [0; 2048]);
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            let datagram = echo.lock().unwrap().of(&buffer[..len]);
            // The client may have gone, because it has noticed.
            let _ = socket.send_to_addr(&datagram, &peer);
        }
    });
    path.into_os_string().into_string().unwrap()
}

/// The load passes with an honest server, and with no other.
fn assert_notices<T>(load: impl Fn(&str) -> T, server: impl Fn(Option<Fault>) -> String) {
    load(&server(None));
    for (what, fault) in FAULTS {
        let addr = server(Some(fault));
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| load(&addr)));
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
fn a_fixed_rate_notices_each_wrong_byte() {
    let load = |addr: &str| {
        let latencies = loads::fixed_rate(&loads::connections(addr, 10), 200);
        assert_eq!(latencies.len(), 200);
        for latency in latencies {
            assert!(latency.of_client <= latency.whole);
        }
    };
    assert_notices(load, tcp_server);
}

/// A client that waits for each echo would see one late message on each connection.
#[test]
fn a_stop_of_the_server_makes_all_messages_late_that_are_due_meanwhile() {
    const STOP: Duration = Duration::from_millis(50);
    let addr = tcp_server(Some(|_, _| thread::sleep(STOP)));
    // The server stops at each fiftieth piece, in which it may have read several messages. 500 are due meanwhile.
    let latencies = loads::fixed_rate(&loads::connections(&addr, 10), 2000);
    let late = latencies.iter().filter(|latency| latency.whole > STOP / 2);
    assert!(late.count() > 100);
}

#[test]
fn long_messages_notice_each_wrong_byte() {
    assert_notices(|addr| loads::long_messages(addr, 20), tcp_server);
}

#[test]
fn a_stream_notices_each_wrong_byte() {
    assert_notices(|addr| loads::bulk(addr, 1), tcp_server);
}

#[test]
fn short_connections_notice_each_wrong_byte() {
    assert_notices(|addr| loads::short_connections(addr, 100), tcp_server);
    assert_notices(|addr| loads::four_short_connections(addr, 100), tcp_server);
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
        loads::reset(vec![first.into()]);
        let echo = Echo::new(None);
        while let Ok((stream, _)) = listener.accept() {
            serve(stream, &echo);
        }
    });
    loads::burst(&addr.to_string(), 1);
}

#[test]
fn datagrams_notice_each_wrong_byte() {
    assert_notices(|addr| loads::udp_stop_and_wait(addr, 100), udp_server);
    assert_notices(|addr| loads::udp_window(addr, 200), udp_server);
}

#[test]
fn unix_sockets_notice_each_wrong_byte() {
    let folder = harness::folder();
    let path = || {
        let count = std::fs::read_dir(folder.path()).unwrap().count();
        folder.path().join(count.to_string())
    };
    let stream = |fault| unix_server(path(), fault);
    assert_notices(|path| loads::one_connection(path, 100), stream);
    assert_notices(|path| loads::bulk(path, 1), stream);
    let datagram = |fault| unix_datagram_server(path(), fault);
    assert_notices(|path| loads::unix_datagrams(path, 100), datagram);
}
