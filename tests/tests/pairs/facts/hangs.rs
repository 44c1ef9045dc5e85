//! What the kernel shows of connections that wait, and what ends them. Most of these tests run alone
//! in a network of their own, where settings and counters belong to them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::{Network, foreign, run, succeed, unshared, wait_until};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// Runs an ignored test in its own network, after shell commands that set it up.
fn assert_passes_where(set_up: &str, test: &str) {
    let set_up = format!("ip link set lo up && {set_up}");
    harness::assert_passes_unshared("-rn", &set_up, &format!("facts::hangs::{test}"));
}

/// A connection: the client's end, and the server's.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Returns what ss(8) shows of the socket with these ports: state, Recv-Q, Send-Q, both addresses,
/// and the timer if there is one.
fn row(local: SocketAddr, peer: SocketAddr) -> Vec<String> {
    let filter = format!("sport = :{} and dport = :{}", local.port(), peer.port());
    let mut ss = foreign("ss").expect("ss");
    ss.args(["-tanoH", &filter]);
    let row = String::from_utf8(succeed(ss)).unwrap();
    row.split_whitespace().map(str::to_owned).collect()
}

fn row_of(stream: &TcpStream) -> Vec<String> {
    row(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

/// Returns a counter of this network, as nstat(8) does.
fn counter(file: &str, protocol: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let mut rows = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.split(' ').position(|column| column == name).unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

/// Returns how many connections a listener with a backlog of 128 takes.
fn taken_of_a_backlog_of_128() -> usize {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let host: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&host.into()).unwrap();
    listener.listen(128).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok();
    let taken: Vec<TcpStream> = (0..200).map_while(connect).collect();
    for name in ["ListenOverflows", "ListenDrops"] {
        assert!(counter("/proc/net/netstat", "TcpExt", name) > 0, "{name}");
    }
    taken.len()
}

#[test]
#[ignore = "a test below starts it where somaxconn is 4096"]
fn it_takes_129() {
    assert_eq!(taken_of_a_backlog_of_128(), 129);
}

#[test]
#[ignore = "a test below starts it where somaxconn is 16"]
fn it_takes_17() {
    assert_eq!(taken_of_a_backlog_of_128(), 17);
}

/// Linux drops a request for a connection if the queue is longer than the backlog, not if it is as
/// long. So there is always one more.
#[test]
fn a_backlog_of_128_takes_129_and_somaxconn_can_make_it_shorter_but_not_longer() {
    let somaxconn = "/proc/sys/net/core/somaxconn";
    assert_passes_where(&format!("echo 4096 >{somaxconn}"), "it_takes_129");
    assert_passes_where(&format!("echo 16 >{somaxconn}"), "it_takes_17");
}

/// With TCP_DEFER_ACCEPT a request stays in SYN-RECV until the client sends bytes. How many the kernel keeps
/// before it sends the first cookie differs by one between versions.
#[test]
fn the_backlog_limits_the_syn_queue_as_well_and_then_cookies_are_sent() {
    let script = "
import socket
listener = socket.socket()
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
listener.bind(('127.0.0.1', 7007))
listener.listen(8)

def cookies():
    rows = [row.split() for row in open('/proc/net/netstat') if row.startswith('TcpExt:')]
    return int(rows[1][rows[0].index('SyncookiesSent')])

clients = []
while cookies() == 0:
    clients.append(socket.create_connection(('127.0.0.1', 7007), 10))
assert len(clients) in (9, 10), len(clients)
";
    let Some(mut python) = foreign("python3") else {
        return;
    };
    python.args(["-c", script]);
    let set_up = "ip link set lo up && echo 1 >/proc/sys/net/ipv4/tcp_syncookies &&
         echo 4096 >/proc/sys/net/ipv4/tcp_max_syn_backlog";
    if let Some(mut python) = unshared("-rn", set_up, &python) {
        let finished = run(&mut python, b"");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}

/// The end of a stream counts as one byte, until `read` has returned 0. The state stays until the
/// program closes.
#[test]
fn in_close_wait_recv_q_is_1_until_the_end_has_been_read_and_then_0() {
    if foreign("ss").is_none() {
        return;
    }
    let (client, mut server) = connection();
    let ends = (server.local_addr().unwrap(), server.peer_addr().unwrap());
    drop(client);
    wait_until(|| row_of(&server).starts_with(&["CLOSE-WAIT".to_owned()]));
    assert_eq!(row_of(&server)[1], "1");
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(row_of(&server)[..2], ["CLOSE-WAIT", "0"]);
    drop(server);
    wait_until(|| row(ends.0, ends.1).is_empty());
}

#[test]
#[ignore = "the test below starts it in a network of its own"]
fn the_state_is_gone_and_the_descriptor_is_not() {
    let second = Duration::from_secs(1);
    let (client, mut server) = connection();
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    let keepalive = keepalive.with_retries(1);
    SockRef::from(&server)
        .set_tcp_keepalive(&keepalive)
        .unwrap();
    let ends = (server.local_addr().unwrap(), server.peer_addr().unwrap());
    drop(client);
    wait_until(|| row_of(&server)[0] == "CLOSE-WAIT");
    take_the_path_down();
    wait_until(|| row(ends.0, ends.1).is_empty());
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    let error = server.write(b"!").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// Keepalive ends even this state if the host of the peer has gone. The program still has to close.
#[test]
fn close_wait_is_left_by_keepalive_if_the_host_of_the_peer_has_gone() {
    if foreign("ss").is_some() {
        assert_passes_where("true", "the_state_is_gone_and_the_descriptor_is_not");
    }
}

#[test]
#[ignore = "the test below starts it where tcp_fin_timeout is 1"]
fn only_what_no_program_holds_leaves() {
    let (held, _silent) = connection();
    held.shutdown(std::net::Shutdown::Write).unwrap();
    wait_until(|| row_of(&held)[0] == "FIN-WAIT-2");
    let (orphan, _silent) = connection();
    let ends = (orphan.local_addr().unwrap(), orphan.peer_addr().unwrap());
    drop(orphan);
    wait_until(|| row(ends.0, ends.1).is_empty());
    let held = row_of(&held);
    assert!(
        held[0] == "FIN-WAIT-2" && held.len() == 5,
        "a timer: {held:?}"
    );
}

#[test]
fn tcp_fin_timeout_ends_fin_wait_2_only_after_the_program_has_closed() {
    if foreign("ss").is_some() {
        let set_up = "echo 1 >/proc/sys/net/ipv4/tcp_fin_timeout";
        assert_passes_where(set_up, "only_what_no_program_holds_leaves");
    }
}

/// Writes until the kernel takes no more. Returns the error.
fn fill(mut stream: &TcpStream) -> io::Error {
    loop {
        if let Err(error) = stream.write(&[0; 64 * 1024]) {
            return error;
        }
    }
}

/// The kernel of the peer answers each probe, so its window may stay closed for as long as it likes.
/// Keepalive does not even begin while there are bytes to send.
#[test]
fn a_peer_that_lives_and_does_not_read_is_ended_by_tcp_user_timeout_and_not_by_keepalive() {
    if foreign("ss").is_none() {
        return;
    }
    let second = Duration::from_secs(1);
    let (kept, _deaf) = connection();
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    let keepalive = keepalive.with_retries(1);
    SockRef::from(&kept).set_tcp_keepalive(&keepalive).unwrap();
    assert!(row_of(&kept)[5].starts_with("timer:(keepalive,"));
    let (given_up, _deaf) = connection();
    let limit = SockRef::from(&given_up).set_tcp_user_timeout(Some(second));
    limit.unwrap();
    for stream in [&kept, &given_up] {
        stream.set_nonblocking(true).unwrap();
    }
    wait_until(|| {
        fill(&kept);
        row_of(&kept)
            .iter()
            .any(|it| it.starts_with("timer:(persist,"))
    });
    wait_until(|| fill(&given_up).kind() == io::ErrorKind::TimedOut);
    thread::sleep(3 * second); // Longer than keepalive waits for an answer.
    assert_eq!(fill(&kept).kind(), io::ErrorKind::WouldBlock);
    assert!(row_of(&kept)[5].starts_with("timer:(persist,"));
}

#[test]
#[ignore = "the test below starts it in a network of its own"]
fn all_counters_agree() {
    let server = harness::udp_socket("127.0.0.1");
    let addr = server.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..1000 {
        client.send_to(&[0; 1000], addr).unwrap();
    }
    let port = format!(":{:04X} ", addr.port());
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    let of_server = sockets.lines().find(|line| line.contains(&port)).unwrap();
    let mut ss = foreign("ss").expect("ss");
    ss.args(["-uamH", &format!("sport = :{}", addr.port())]);
    let ss = String::from_utf8(succeed(ss)).unwrap();
    server.set_nonblocking(true).unwrap();
    let received = std::iter::from_fn(|| server.recv(&mut [0; 1000]).ok()).count();
    let dropped = 1000 - received;
    println!("{dropped} of 1000 dropped");
    assert!((1..1000).contains(&dropped));
    assert_eq!(
        of_server.split_whitespace().last(),
        Some(&*dropped.to_string())
    );
    assert!(ss.contains(&format!(",d{dropped})")), "{ss}");
    let of_host = counter("/proc/net/snmp", "Udp", "RcvbufErrors");
    assert_eq!(of_host, dropped as u64);
}

#[test]
fn a_dropped_datagram_is_counted_for_its_socket_and_for_the_host() {
    if foreign("ss").is_some() {
        assert_passes_where("true", "all_counters_agree");
    }
}

fn connect(addr: &str) -> Option<i32> {
    TcpStream::connect(addr).unwrap_err().raw_os_error()
}

/// Sends from a connected UDP socket and waits for an answer. Returns the first error.
fn ask(addr: &str) -> Option<i32> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let asked = socket.connect(addr).and_then(|()| socket.send(b"hello"));
    let answered = asked.and_then(|_| socket.recv(&mut [0; 8]));
    answered.unwrap_err().raw_os_error()
}

#[test]
#[ignore = "the test below starts it in a network with such routes"]
fn refused_no_route_unreachable_and_silence_are_four_errors() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr();
    let free = free.unwrap().to_string(); // Nobody else is in this network.
    assert_eq!((connect(&free), ask(&free)), (Some(111), Some(111)));
    let unreachable = "10.7.0.8:7007";
    assert_eq!(
        (connect(unreachable), ask(unreachable)),
        (Some(113), Some(113))
    );
    let unknown = "10.7.0.9:7007";
    assert_eq!((connect(unknown), ask(unknown)), (Some(101), Some(101)));
    let silent = "10.7.0.7:7007";
    assert_eq!((connect(silent), ask(silent)), (Some(110), Some(11)));
}

/// The kernel sends what the route to 10.7.0.7 gives to `lo`, and drops it as not its own.
#[test]
fn connect_tells_refused_no_route_and_silence_apart_and_udp_as_well() {
    assert_passes_where(
        "ip route add 10.7.0.7 dev lo src 127.0.0.1 && ip route add unreachable 10.7.0.8 &&
         echo 1 >/proc/sys/net/ipv4/tcp_syn_retries",
        "refused_no_route_unreachable_and_silence_are_four_errors",
    );
}

#[test]
#[ignore = "the test below starts it on a host with such neighbors"]
fn each_of_three_is_no_route_for_tcp_and_only_the_last_for_udp() {
    for (addr, of_udp) in [
        ("10.77.0.99:7007", 11),
        ("10.9.0.1:7007", 11),
        ("10.9.0.2:7007", 113),
    ] {
        let errors = (connect(addr), ask(addr));
        assert_eq!(errors, (Some(113), Some(of_udp)), "{addr}");
    }
}

/// The first of three addresses is nobody's on this network, so nobody answers the question for its
/// link address. To the others, a router answers with ICMP: one says "host unreachable", and the
/// other "prohibited", as firewalls do. Linux tells a UDP socket only of what it takes for final.
#[test]
fn an_absent_neighbor_and_a_router_that_refuses_are_no_route_for_tcp_and_for_udp_often_silence() {
    let Some(network) = Network::of(2) else {
        return;
    };
    let shell = |host, script| {
        succeed(network.on(host, Command::new("sh").args(["-ec", script])));
    };
    shell(1, "ip route add 10.9.0.0/16 via 10.77.0.2");
    shell(
        2,
        "ip route add unreachable 10.9.0.1; ip route add prohibit 10.9.0.2
         echo 1 >/proc/sys/net/ipv4/ip_forward",
    );
    harness::assert_test_passes(&mut network.on(
        1,
        &harness::ignored_test(
            "facts::hangs::each_of_three_is_no_route_for_tcp_and_only_the_last_for_udp",
        ),
    ));
}

/// Returns the name of a timer in a row of ss(8), and its third field: how often the kernel has repeated
/// what it waits for.
fn timer(row: &[String]) -> Option<(String, u32)> {
    let timer = row.get(5)?.strip_prefix("timer:(")?.strip_suffix(')')?;
    let mut fields = timer.split(',');
    let (name, count) = (fields.next()?, fields.next_back()?);
    Some((name.to_owned(), count.parse().unwrap()))
}

fn take_the_path_down() {
    let mut ip = Command::new("ip");
    ip.args(["link", "set", "lo", "down"]);
    succeed(ip);
}

#[test]
#[ignore = "the test below starts it in a network with a slow path"]
fn the_count_is_0_while_bytes_arrive_and_grows_when_none_do() {
    let (mut idle, _its_peer) = connection();
    let (client, server) = connection();
    thread::spawn(move || io::copy(&mut &server, &mut io::sink()));
    client.set_nonblocking(true).unwrap();
    fill(&client);
    wait_until(|| {
        let row = row_of(&client);
        row[2] != "0" && timer(&row) == Some(("on".to_owned(), 0))
    });
    take_the_path_down();
    idle.write_all(b"!").unwrap();
    wait_until(|| timer(&row_of(&idle)).is_some_and(|(name, count)| name == "on" && count >= 2));
}

/// Every transfer under way has the timer `on`. Only its count tells a slow path from a dead one.
#[test]
fn timer_on_belongs_to_a_healthy_sender_too_and_only_its_count_tells_that_nobody_acknowledges() {
    if foreign("ss").is_some() && foreign("tc").is_some() {
        assert_passes_where(
            "ip link set lo mtu 1500 && tc qdisc add dev lo root tbf rate 1mbit burst 32k latency 10s",
            "the_count_is_0_while_bytes_arrive_and_grows_when_none_do",
        );
    }
}

#[test]
#[ignore = "the test below starts it where the kernel gives up early"]
fn it_is_given_up() {
    let (stream, _deaf) = connection();
    stream.set_nonblocking(true).unwrap();
    wait_until(|| {
        fill(&stream);
        timer(&row_of(&stream)).is_some_and(|(name, _)| name == "persist")
    });
    take_the_path_down();
    wait_until(|| fill(&stream).kind() == io::ErrorKind::TimedOut);
}

#[test]
fn zero_window_probes_that_nobody_answers_end_with_etimedout() {
    if foreign("ss").is_some() {
        let set_up = "echo 3 >/proc/sys/net/ipv4/tcp_retries2";
        assert_passes_where(set_up, "it_is_given_up");
    }
}

#[test]
#[ignore = "the test below starts it in a network of its own"]
fn fin_wait_1_waits_for_room_or_an_acknowledgement_and_last_ack_too() {
    let (full, _deaf) = connection();
    full.set_nonblocking(true).unwrap();
    let is_probed = |row: &[String]| timer(row).is_some_and(|(name, _)| name == "persist");
    wait_until(|| {
        fill(&full);
        is_probed(&row_of(&full))
    });
    let ends = (full.local_addr().unwrap(), full.peer_addr().unwrap());
    drop(full);
    let full = row(ends.0, ends.1);
    assert!(full[0] == "FIN-WAIT-1" && is_probed(&full), "{full:?}");

    let (first, _its_peer) = connection();
    let (ended, second) = connection();
    let (first_ends, second_ends) = [&first, &second]
        .map(|stream| (stream.local_addr().unwrap(), stream.peer_addr().unwrap()))
        .into();
    ended.shutdown(std::net::Shutdown::Write).unwrap();
    wait_until(|| row_of(&second)[0] == "CLOSE-WAIT");
    take_the_path_down();
    drop((first, second));
    for (ends, state) in [(first_ends, "FIN-WAIT-1"), (second_ends, "LAST-ACK")] {
        wait_until(|| {
            let row = row(ends.0, ends.1);
            assert_eq!(row[0], state);
            timer(&row).is_some_and(|(name, count)| name == "on" && count > 0)
        });
    }
}

/// No program holds these sockets any more. The kernel repeats the end of the stream, or waits for room at
/// the peer, because bytes are in front of it.
#[test]
fn an_end_that_is_not_acknowledged_is_fin_wait_1_or_last_ack_with_the_timer_on_or_persist() {
    if foreign("ss").is_some() {
        assert_passes_where(
            "true",
            "fin_wait_1_waits_for_room_or_an_acknowledgement_and_last_ack_too",
        );
    }
}
