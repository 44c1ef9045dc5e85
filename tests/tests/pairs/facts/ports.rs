//! How many ports and connections there are, and who may share a port. What changes the settings of the
//! kernel runs in a network namespace of its own: a test starts this program again in one, with a test that
//! is otherwise ignored.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use harness::{LIMIT, not_run, udp_socket};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

/// Runs an ignored test in a network namespace where the kernel chooses from four ports, and where a port
/// in TIME-WAIT stays taken as it does between machines.
fn passes_with_four_ports(name: &str) {
    let set_up = "ip link set lo up && cd /proc/sys/net/ipv4 && cat ip_local_port_range >&2 && \
        echo 40000 40003 >ip_local_port_range && echo 0 >tcp_tw_reuse && cd /";
    harness::assert_passes_unshared("-rn", set_up, &format!("facts::ports::{name}"));
}

#[test]
fn the_kernel_chooses_from_28232_ports_by_default() {
    let mut range = Command::new("cat");
    range.arg("/proc/sys/net/ipv4/ip_local_port_range");
    let Some(mut range) = harness::unshared("-rn", "true", &range) else {
        return;
    };
    let range = harness::run(&mut range, b"");
    let range = String::from_utf8_lossy(&range.stdout);
    let mut ends = range.split_whitespace().map(|end| end.parse::<u32>());
    let (first, last) = (ends.next().unwrap().unwrap(), ends.next().unwrap().unwrap());
    assert_eq!((first, last, last - first + 1), (32768, 60999, 28232));
}

/// The address of a server in a namespace of its own.
const SERVER: &str = "127.0.0.1:7007";

/// The kernel's error, as Linux numbers it.
fn number<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

const EADDRINUSE: Option<i32> = Some(98);
const EADDRNOTAVAIL: Option<i32> = Some(99);
const EINPROGRESS: Option<i32> = Some(115);

#[test]
fn a_client_without_a_free_port_cannot_connect_to_this_server_but_to_another() {
    passes_with_four_ports("four_connections_and_a_fifth");
}

#[test]
#[ignore = "the test above starts it where there are four ports"]
fn four_connections_and_a_fifth() {
    let _server = TcpListener::bind(SERVER).unwrap();
    let _other = TcpListener::bind("127.0.0.2:7007").unwrap();
    let connections = [(); 4].map(|()| TcpStream::connect(SERVER).unwrap());
    assert_eq!(number(TcpStream::connect(SERVER)), EADDRNOTAVAIL);
    let to_other = TcpStream::connect("127.0.0.2:7007").unwrap();
    let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
    assert!(connections.iter().any(|one| port(one) == port(&to_other)));
    // The clients close first, so the four ports are in TIME-WAIT.
    drop(connections);
    assert_eq!(number(TcpStream::connect(SERVER)), EADDRNOTAVAIL);
}

#[test]
fn a_port_is_free_again_at_once_if_the_server_has_closed_first() {
    passes_with_four_ports("ten_connections_that_the_server_closes");
}

#[test]
#[ignore = "the test above starts it where there are four ports"]
fn ten_connections_that_the_server_closes() {
    let server = TcpListener::bind(SERVER).unwrap();
    for _ in 0..10 {
        let client = TcpStream::connect(SERVER).unwrap();
        let (accepted, _) = server.accept().unwrap();
        drop(accepted);
        assert_eq!(io::copy(&mut &client, &mut io::sink()).unwrap(), 0);
    }
}

#[test]
fn bind_to_port_0_without_a_free_port_says_address_in_use() {
    passes_with_four_ports("four_sockets_and_a_fifth");
}

#[test]
#[ignore = "the test above starts it where there are four ports"]
fn four_sockets_and_a_fifth() {
    let _sockets = [(); 4].map(|()| udp_socket("127.0.0.1"));
    assert_eq!(number(UdpSocket::bind("127.0.0.1:0")), EADDRINUSE);
}

#[test]
fn an_address_of_another_machine_has_the_same_error_as_no_free_port() {
    // 192.0.2.0/24 is for documentation (RFC 5737).
    assert_eq!(number(TcpListener::bind("192.0.2.1:0")), EADDRNOTAVAIL);
}

/// With a client that binds its own address first, the kernel chooses the port before it knows the server.
#[test]
fn a_client_that_binds_its_address_first_has_one_range_for_all_servers_unless_the_port_is_left_open()
 {
    let script = "
import errno, socket
IP_BIND_ADDRESS_NO_PORT = 24
servers = [socket.create_server((f'127.0.0.{n}', 7007)) for n in (1, 2)]
def connect(server, *options):
    client = socket.socket()
    for option in options:
        client.setsockopt(socket.IPPROTO_IP, option, 1)
    client.bind(('127.0.0.9', 0))
    client.connect(server.getsockname())
    return client

kept = [connect(server) for server in servers * 2]
try:
    connect(servers[0])
    assert False, 'four ports for both servers'
except OSError as error:
    assert error.errno == errno.EADDRINUSE
for client in kept:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    client.close()
kept = [connect(server, IP_BIND_ADDRESS_NO_PORT) for server in servers * 4]
try:
    connect(servers[0], IP_BIND_ADDRESS_NO_PORT)
    assert False, 'four ports for each server'
except OSError as error:
    assert error.errno == errno.EADDRNOTAVAIL
";
    let Some(mut python) = harness::foreign("python3") else {
        return;
    };
    python.args(["-c", script]);
    let set_up = "ip link set lo up && echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range";
    if let Some(mut python) = harness::unshared("-rn", set_up, &python) {
        let finished = harness::run(&mut python, b"");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}

/// Opens a socket with these options, and binds it to an address.
fn bound(kind: Type, addr: SocketAddr, options: &[Share]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    for option in options {
        match option {
            Share::ReuseAddr => socket.set_reuse_address(true)?,
            Share::ReusePort => socket.set_reuse_port(true)?,
        }
    }
    socket.bind(&addr.into())?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

#[derive(Clone, Copy)]
enum Share {
    ReuseAddr,
    ReusePort,
}
use Share::{ReuseAddr, ReusePort};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// Two clients have the same port, and two servers have the same port; all four connections live.
#[test]
fn connections_with_equal_ports_are_four_if_one_address_differs() {
    let servers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let first = bound(Type::STREAM, ANY_PORT, &[ReuseAddr]).unwrap();
    let port = address_of(&first).port();
    let mut peers = Vec::new();
    let mut clients = vec![first];
    for (host, server) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let addr = SocketAddr::from(([127, 0, 0, host], port));
        if (host, server) != (1, 0) {
            clients.push(bound(Type::STREAM, addr, &[ReuseAddr]).unwrap());
        }
        let server: &TcpListener = &servers[server];
        let client = clients.last().unwrap();
        client
            .connect(&server.local_addr().unwrap().into())
            .unwrap();
        let (accepted, peer) = server.accept().unwrap();
        assert_eq!((peer, peer.port()), (addr, port));
        peers.push(accepted);
    }
    for (client, mut peer) in clients.iter().zip(&peers) {
        let port = client.peer_addr().unwrap().as_socket().unwrap().port();
        client.send(&port.to_ne_bytes()).unwrap();
        let mut received = [0; 2];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(received, peer.local_addr().unwrap().port().to_ne_bytes());
    }
}

#[test]
fn two_tcp_listeners_share_a_port_only_by_so_reuseport_on_both() {
    let may_share = |first: &[Share], second: &[Share]| {
        let one = bound(Type::STREAM, ANY_PORT, first).unwrap();
        one.listen(8).unwrap();
        let other = bound(Type::STREAM, address_of(&one), second);
        other.and_then(|other| other.listen(8)).is_ok()
    };
    assert!(may_share(&[ReusePort], &[ReusePort]));
    for (first, second) in [
        (&[][..], &[][..]),
        (&[ReuseAddr], &[ReuseAddr]),
        (&[ReusePort], &[]),
        (&[], &[ReusePort]),
    ] {
        assert!(!may_share(first, second));
    }
}

/// The side that closed first has its port in TIME-WAIT, and this remembers the option of the listener.
#[test]
fn so_reuseaddr_frees_a_port_in_time_wait_only_if_the_old_listener_had_it_too() {
    let starts_again = |old: &[Share], new: &[Share]| {
        let listener = bound(Type::STREAM, ANY_PORT, old).unwrap();
        listener.listen(8).unwrap();
        let addr = address_of(&listener);
        let client = TcpStream::connect(addr).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(accepted);
        assert_eq!(io::copy(&mut &client, &mut io::sink()).unwrap(), 0);
        drop((client, listener));
        // A program that another test is starting may have the old listener for a moment longer.
        (0..100).any(|_| {
            thread::sleep(Duration::from_millis(10));
            bound(Type::STREAM, addr, new).is_ok()
        })
    };
    assert!(starts_again(&[ReuseAddr], &[ReuseAddr]));
    assert!(starts_again(&[ReusePort], &[ReusePort]));
    assert!(!starts_again(&[ReuseAddr], &[]));
    assert!(!starts_again(&[], &[ReuseAddr]));
}

#[test]
fn two_udp_sockets_share_a_port_only_if_both_have_the_same_option() {
    let may_share = |first: &[Share], second: &[Share]| {
        let one = bound(Type::DGRAM, ANY_PORT, first).unwrap();
        bound(Type::DGRAM, address_of(&one), second).is_ok()
    };
    for option in [ReuseAddr, ReusePort] {
        assert!(may_share(&[option], &[option]));
        assert!(!may_share(&[option], &[]));
        assert!(!may_share(&[], &[option]));
    }
    assert!(!may_share(&[ReuseAddr], &[ReusePort]));
}

#[test]
fn of_udp_sockets_that_share_by_so_reuseaddr_the_last_bound_gets_each_datagram() {
    let first = bound(Type::DGRAM, ANY_PORT, &[ReuseAddr]).unwrap();
    let addr = address_of(&first);
    let others = [(); 2].map(|()| bound(Type::DGRAM, addr, &[ReuseAddr]).unwrap());
    for _ in 0..20 {
        udp_socket("127.0.0.1").send_to(b"hello", addr).unwrap();
    }
    let [second, last] = others.map(UdpSocket::from);
    for _ in 0..20 {
        assert_eq!(last.recv(&mut [0; 8]).unwrap(), 5);
    }
    for socket in [UdpSocket::from(first), second] {
        socket.set_nonblocking(true).unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_connected_udp_socket_that_shares_its_port_keeps_its_answers() {
    let server = udp_socket("127.0.0.1");
    let client = bound(Type::DGRAM, ANY_PORT, &[ReuseAddr]).unwrap();
    let addr = address_of(&client);
    client
        .connect(&server.local_addr().unwrap().into())
        .unwrap();
    let _other = bound(Type::DGRAM, addr, &[ReuseAddr]).unwrap();
    server.send_to(b"hello", addr).unwrap();
    let client = UdpSocket::from(client);
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
}

#[test]
fn with_so_reuseport_each_peer_stays_with_one_of_the_sockets_and_the_peers_are_spread() {
    let first = bound(Type::DGRAM, ANY_PORT, &[ReusePort]).unwrap();
    let addr = address_of(&first);
    let second = bound(Type::DGRAM, addr, &[ReusePort]).unwrap();
    let peers: Vec<UdpSocket> = (0..40).map(|_| udp_socket("127.0.0.1")).collect();
    for _ in 0..3 {
        for peer in &peers {
            peer.send_to(b"hello", addr).unwrap();
        }
    }
    let heard = [first, second].map(|socket| {
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok());
        let senders: Vec<SocketAddr> = received.map(|(_, sender)| sender).collect();
        let different: BTreeSet<SocketAddr> = senders.iter().copied().collect();
        assert_eq!(senders.len(), 3 * different.len());
        different
    });
    println!("{} and {} peers", heard[0].len(), heard[1].len());
    assert!(heard[0].is_disjoint(&heard[1]));
    assert!(heard.iter().all(|peers| !peers.is_empty()));
    assert_eq!(heard[0].len() + heard[1].len(), peers.len());
}

#[test]
fn a_broadcast_reaches_each_socket_that_shares_the_port() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    for option in [ReuseAddr, ReusePort] {
        let first = bound(Type::DGRAM, everywhere, &[option]).unwrap();
        let second = bound(Type::DGRAM, address_of(&first), &[option]).unwrap();
        let sender = udp_socket("127.0.0.1");
        sender.set_broadcast(true).unwrap();
        let everybody = ("127.255.255.255", address_of(&first).port());
        sender.send_to(b"hello", everybody).unwrap();
        for socket in [first, second] {
            assert_eq!(UdpSocket::from(socket).recv(&mut [0; 8]).unwrap(), 5);
        }
    }
}

const SHARED: &str = "SHARED_ADDRESS";

/// Another user may not share a port by SO_REUSEPORT. By SO_REUSEADDR he may, and gets what is sent there.
#[test]
fn so_reuseport_keeps_other_users_out_and_so_reuseaddr_does_not() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can ask as another user");
    }
    let by_port = bound(Type::DGRAM, ANY_PORT, &[ReusePort]).unwrap();
    let by_addr = bound(Type::DGRAM, ANY_PORT, &[ReuseAddr]).unwrap();
    let name = "another_user_shares_by_so_reuseaddr_alone";
    let (_folder, copy) = harness::copy_of(&Command::new(env::current_exe().unwrap()));
    let test = harness::ignored_test(&format!("facts::ports::{name}"));
    let mut command = Command::new(copy);
    let addresses = format!("{} {}", address_of(&by_port), address_of(&by_addr));
    command
        .args(test.get_args())
        .env(SHARED, addresses)
        .current_dir("/");
    harness::assert_test_passes(harness::as_nobody(&mut command));
}

#[test]
#[ignore = "the test above starts it as another user"]
fn another_user_shares_by_so_reuseaddr_alone() {
    let shared = env::var(SHARED).unwrap();
    let (by_port, by_addr) = shared.split_once(' ').unwrap();
    let by_port = bound(Type::DGRAM, by_port.parse().unwrap(), &[ReusePort]);
    assert_eq!(number(by_port), EADDRINUSE);
    let by_addr = by_addr.parse().unwrap();
    let thief = UdpSocket::from(bound(Type::DGRAM, by_addr, &[ReuseAddr]).unwrap());
    udp_socket("127.0.0.1").send_to(b"secret", by_addr).unwrap();
    assert_eq!(thief.recv(&mut [0; 8]).unwrap(), 6);
}

/// Waits until a socket is writable, and returns what the kernel then says of the connection.
fn outcome(socket: &Socket) -> Option<io::Error> {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    let limit = Timespec::try_from(LIMIT).unwrap();
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1);
    assert!(fds[0].revents().contains(PollFlags::OUT));
    socket.take_error().unwrap()
}

#[test]
fn a_connect_that_does_not_wait_is_in_progress_and_writable_means_connected_or_failed() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = server.local_addr().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = closed.local_addr().unwrap();
    drop(closed);
    let begin = |addr: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let connect = socket.connect(&SockAddr::from(addr));
        assert_eq!(number(connect), EINPROGRESS);
        socket
    };
    let connecting = begin(open);
    assert!(outcome(&connecting).is_none());
    assert_eq!(connecting.peer_addr().unwrap().as_socket(), Some(open));
    let failing = begin(refusing);
    let error = outcome(&failing).unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // SO_ERROR is told once.
    assert!(failing.take_error().unwrap().is_none());
    assert!(failing.peer_addr().is_err());
}

/// The first pause between two attempts, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];

/// The limit for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Connects, with so many attempts at most. Each pause is twice as long as the one before, up to
/// a limit, and of each pause a random part is waited: from half of it to all.
fn reconnect(addr: &SocketAddr, attempts: u32) -> io::Result<TcpStream> {
    let [mut pause, longest] = PAUSES;
    for _ in 1..attempts {
        if let Ok(stream) = TcpStream::connect_timeout(addr, ATTEMPT) {
            return Ok(stream);
        }
        thread::sleep(pause.mul_f64(0.5 + random() / 2.0));
        pause = longest.min(pause * 2);
    }
    TcpStream::connect_timeout(addr, ATTEMPT)
}

/// Returns a random number from 0 to 1. std has random numbers only for its hash tables.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[test]
fn a_client_that_tries_again_with_pauses_finds_the_server_when_it_is_there() {
    // An address that no other test uses, so that nobody takes the port meanwhile.
    let early = TcpListener::bind("127.70.7.7:0").unwrap();
    let addr = early.local_addr().unwrap();
    drop(early);
    let error = reconnect(&addr, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let server = thread::spawn(move || {
        thread::sleep(Duration::from_millis(150));
        let listener = TcpListener::bind(addr).unwrap();
        listener.accept().unwrap().1
    });
    let stream = reconnect(&addr, 20).unwrap();
    assert_eq!(server.join().unwrap(), stream.local_addr().unwrap());
}

#[test]
fn the_random_part_of_a_pause_differs_from_time_to_time() {
    let parts: Vec<f64> = (0..1000).map(|_| random()).collect();
    assert!(parts.iter().all(|part| (0.0..=1.0).contains(part)));
    for tenth in 0..10 {
        let tenth = f64::from(tenth) / 10.0;
        let within = parts
            .iter()
            .filter(|part| (tenth..tenth + 0.1).contains(*part));
        assert!(within.count() > 20, "{parts:?}");
    }
}

fn key(key: u64) -> EventData {
    EventData::new_u64(key)
}

/// Returns how many events there are now.
fn events_now(epoll: &impl std::os::fd::AsFd) -> usize {
    let mut events = Vec::with_capacity(8);
    let spare = rustix::buffer::spare_capacity(&mut events);
    epoll::wait(epoll, spare, Some(&Timespec::default())).unwrap()
}

#[test]
fn level_triggered_is_told_each_time_and_edge_triggered_once_for_each_arrival() {
    let receiver = udp_socket("127.0.0.1");
    let told = |flags: EventFlags| {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &receiver, key(0), flags).unwrap();
        epoll
    };
    let level = told(EventFlags::IN);
    let edge = told(EventFlags::IN | EventFlags::ET);
    let send = || {
        let sender = udp_socket("127.0.0.1");
        sender
            .send_to(b"hello", receiver.local_addr().unwrap())
            .unwrap();
    };
    assert_eq!((events_now(&level), events_now(&edge)), (0, 0));
    send();
    assert_eq!((events_now(&level), events_now(&edge)), (1, 1));
    assert_eq!((events_now(&level), events_now(&edge)), (1, 0));
    send();
    assert_eq!((events_now(&level), events_now(&edge)), (1, 1));
    // Nothing has been read, so both datagrams are there, and `edge` does not tell it any more.
    assert_eq!((events_now(&level), events_now(&edge)), (1, 0));
    // To register again makes it tell once more what is ready.
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::modify(&edge, &receiver, key(0), flags).unwrap();
    assert_eq!(events_now(&edge), 1);
}

#[test]
fn a_closed_descriptor_stays_registered_while_a_clone_is_open() {
    let receiver = udp_socket("127.0.0.1");
    let clone = receiver.try_clone().unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, &receiver, key(0), EventFlags::IN).unwrap();
    drop(receiver);
    let sender = udp_socket("127.0.0.1");
    sender
        .send_to(b"hello", clone.local_addr().unwrap())
        .unwrap();
    assert_eq!(events_now(&epoll), 1);
}

#[test]
fn a_file_is_always_ready_for_poll_and_epoll_refuses_it() {
    let file = fs::File::open("/proc/self/exe").unwrap();
    let mut fds = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())).unwrap(), 1);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let refused = epoll::add(&epoll, &file, key(0), EventFlags::IN);
    assert_eq!(refused, Err(rustix::io::Errno::PERM));
}

/// Four threads wait for one listener, each with an epoll of its own. None accepts before all are told.
#[test]
fn one_connection_wakes_each_event_loop_that_waits_for_the_listener_and_one_gets_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let epolls = [(); 4].map(|()| {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &listener, key(0), EventFlags::IN | EventFlags::ET).unwrap();
        epoll
    });
    let all_are_told = Barrier::new(epolls.len());
    let got = thread::scope(|scope| {
        let waiting = epolls.each_ref().map(|epoll| {
            let (listener, all_are_told) = (&listener, &all_are_told);
            scope.spawn(move || {
                let mut events = Vec::with_capacity(8);
                let spare = rustix::buffer::spare_capacity(&mut events);
                let limit = Timespec::try_from(LIMIT).unwrap();
                assert_eq!(epoll::wait(epoll, spare, Some(&limit)).unwrap(), 1);
                all_are_told.wait();
                listener.accept().map_err(|error| error.kind()).err()
            })
        });
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        waiting.map(|waiting| waiting.join().unwrap())
    });
    let nothing = |got: &&Option<ErrorKind>| **got == Some(ErrorKind::WouldBlock);
    assert_eq!(got.iter().filter(|got| got.is_none()).count(), 1);
    assert_eq!(got.iter().filter(nothing).count(), 3);
}
