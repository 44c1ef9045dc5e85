//! `udp-client --broadcast`: one datagram, many answers.
//!
//! On Linux 127.255.255.255 is the broadcast address of the loopback network, so nothing leaves the machine.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, Server, program, run};
use socket2::{Domain, Socket, Type};

/// Starts the client with the broadcast address and the port of a server.
fn broadcast(port: u16, args: &[&str]) -> Running {
    Running::start(
        program("udp-client")
            .args(["--addr", &format!("127.255.255.255:{port}")])
            .args(args),
    )
}

/// A socket on all addresses that shares its port with others.
fn shared_socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
        .bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())
        .unwrap();
    socket.into()
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

#[test]
fn a_server_on_all_addresses_hears_a_broadcast() {
    let server = Server::start(program("udp-server").args(["--addr", "0.0.0.0:0"]));
    let client = broadcast(
        server.addr.port(),
        &["--broadcast", "--timeout", "1", "who", "else"],
    )
    .finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), &b"who\nelse\n"[..]),
        "{client:?}"
    );
    let answer = format!("127.0.0.1:{}: answered in ", server.addr.port());
    assert!(
        client.stderr.lines().all(|line| line.starts_with(&answer)),
        "{client:?}"
    );
}

#[test]
fn a_server_on_one_address_does_not() {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let client = broadcast(
        server.addr.port(),
        &["--broadcast", "--timeout", "0.1", "hello"],
    )
    .finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b""[..]),
        "{client:?}"
    );
    let error = format!(
        "Error: cannot get an answer from 127.255.255.255:{} within 100ms\n",
        server.addr.port()
    );
    assert_eq!(client.stderr, error);
}

#[test]
fn every_answer_is_printed_with_who_sent_it() {
    let first = shared_socket(0);
    let second = shared_socket(port_of(&first));
    let third = shared_socket(0);
    let client = broadcast(port_of(&first), &["--broadcast", "--timeout", "2", "hello"]);
    let mut buffer = [0; 64];
    for (heard_by, answered_by) in [(&first, &first), (&second, &third)] {
        let (len, client) = heard_by
            .recv_from(&mut buffer)
            .expect("each of them hears it");
        answered_by.send_to(b"not what was sent", client).unwrap();
        answered_by.send_to(&buffer[..len], client).unwrap();
    }
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), &b"hello\nhello\n"[..]),
        "{client:?}"
    );
    let senders: Vec<_> = client
        .stderr
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let expected = [&first, &third].map(|socket| format!("127.0.0.1:{}", port_of(socket)));
    assert_eq!(senders, expected);
    first.set_nonblocking(true).unwrap();
    assert!(first.recv(&mut buffer).is_err(), "it is sent once");
}

#[test]
fn a_stream_of_answers_cannot_hold_it_beyond_its_deadline() {
    let server = shared_socket(0);
    let mut client = broadcast(
        port_of(&server),
        &["--broadcast", "--timeout", "0.2", "hello"],
    );
    let (_, addr) = server.recv_from(&mut [0; 64]).unwrap();
    let started = Instant::now();
    while client.is_running() {
        assert!(started.elapsed() < LIMIT, "held by answers");
        server.send_to(b"hello", addr).unwrap();
        thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(client.finish().code, Some(0));
}

#[test]
fn a_broadcast_address_without_the_option_is_refused_with_its_name() {
    let client = broadcast(7007, &["hello"]).finish();
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .contains("127.255.255.255:7007: if it is a broadcast address, use --broadcast"),
        "{client:?}"
    );
}

#[test]
fn ipv6_has_no_broadcast() {
    let client = run(
        program("udp-client").args(["--broadcast", "--addr", "[::1]:7007", "hello"]),
        b"",
    );
    assert_eq!(client.code, Some(1));
    assert_eq!(
        client.stderr,
        "Error: cannot broadcast to [::1]:7007: IPv6 has multicast groups instead\n"
    );
}
