//! The example `one_to_many` of `udp-client`: one datagram, many answers.
//!
//! On Linux 127.255.255.255 is the broadcast address of the loopback network, so nothing
//! leaves the machine. Multicast groups are in `udp/multicast.rs`, and several hosts in
//! `peers/hosts.rs`.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, Server, program, run};
use socket2::{Domain, Socket, Type};

fn one_to_many(args: &[&str]) -> Command {
    let mut command = harness::example_of("udp-client", "one_to_many");
    command.args(args);
    command
}

/// Starts the client with the broadcast address and the port of a server.
fn broadcast(port: u16, args: &[&str]) -> Running {
    let addr = format!("127.255.255.255:{port}");
    Running::start(one_to_many(&["--addr", &addr]).args(args))
}

/// Binds a socket on all addresses that shares its port with others.
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
    for message in ["who", "", "two words"] {
        let client = broadcast(server.addr.port(), &["--timeout", "1", message]).finish();
        let line = format!("{message}\n");
        client.assert_printed(line.as_bytes());
        let answer = format!("127.0.0.1:{}: answered in ", server.addr.port());
        assert!(client.stderr.starts_with(&answer), "{client:?}");
        assert_eq!(client.stderr.lines().count(), 1, "{client:?}");
    }
}

/// Server and client have their own network namespace, where port 7007 is free.
#[test]
fn by_default_it_asks_port_7007_of_the_loopback_network() {
    let script = r#""$0" --addr 0.0.0.0:7007 >ready 2>log & until [ -s ready ]; do sleep 0.01; done
        "$@"; code=$?; kill $!; exit $code"#;
    let folder = harness::folder();
    let mut shell = Command::new("sh");
    shell.args(["-c", script]);
    shell.arg(program("udp-server").get_program());
    shell.arg(one_to_many(&[]).get_program()).arg("hello");
    let Some(mut shell) = harness::unshared("-rn", "ip link set lo up", &shell) else {
        return;
    };
    let client = run(shell.current_dir(folder.path()), b"");
    client.assert_printed(b"hello\n");
}

#[test]
fn a_server_on_one_address_does_not() {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let client = broadcast(server.addr.port(), &["--timeout", "0.1", "hello"]).finish();
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
    let client = broadcast(port_of(&first), &["--timeout", "2", "hello"]);
    let mut buffer = [0; 64];
    for (heard_by, answered_by) in [(&first, &first), (&second, &third)] {
        let (len, client) = heard_by
            .recv_from(&mut buffer)
            .expect("each of them hears it");
        answered_by.send_to(b"not what was sent", client).unwrap();
        answered_by.send_to(&buffer[..len], client).unwrap();
    }
    let client = client.finish();
    client.assert_printed(b"hello\nhello\n");
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
fn quiet_prints_the_answers_alone() {
    let server = Server::start(program("udp-server").args(["--addr", "0.0.0.0:0"]));
    let client = broadcast(server.addr.port(), &["-q", "--timeout", "1", "hello"]).finish();
    assert_eq!(
        (client.code, &client.stdout[..], &client.stderr[..]),
        (Some(0), &b"hello\n"[..], "")
    );
}

#[test]
fn a_stream_of_answers_cannot_hold_it_beyond_its_deadline() {
    let server = shared_socket(0);
    let mut client = broadcast(port_of(&server), &["--timeout", "0.2", "hello"]);
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
fn it_does_not_take_itself_for_a_server() {
    // It asks for a second port, but the kernel has none, so it fails.
    for addr in ["127.255.255.255:7007", "0.0.0.0:7007"] {
        let client = one_to_many(&["--addr", addr, "hello"]);
        let client = harness::where_7007_is_the_only_free_port(&client);
        let client = client.map_err(|why| harness::not_run(&why));
        let Ok(mut client) = client else { return };
        let client = run(&mut client, b"");
        client.assert_failed("Error: cannot open a UDP socket on a free port\n");
    }
}

#[test]
fn ipv6_has_no_broadcast() {
    let client = run(&mut one_to_many(&["--addr", "[::1]:7007", "hello"]), b"");
    assert_eq!(client.code, Some(1));
    assert_eq!(
        client.stderr,
        "Error: cannot send to [::1]:7007: IPv6 has no broadcast; give a multicast group\n"
    );
}

#[test]
fn wrong_usage_is_refused_with_what_is_right() {
    let wrong = [(["-q", "-q"], "cannot be used multiple times")];
    harness::assert_refuses(|| one_to_many(&[]), &wrong);
    for (addr, interface, right) in [
        ("239.1.2.3:7007", "lo", "for IPv4, write its address"),
        ("[ff12::7007]:7007", "lo", "for IPv6, write its number"),
        ("127.0.0.1", "lo", "cannot find the address of 127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1", "cannot send to 127.0.0.1:0"),
    ] {
        let client = run(
            &mut one_to_many(&["--addr", addr, "--interface", interface, "x"]),
            b"",
        );
        assert_eq!(client.code, Some(1), "{client:?}");
        client.assert_stderr(right);
    }
    let long = "x".repeat(65_508);
    let client = run(&mut one_to_many(&[&long]), b"");
    assert_eq!(client.code, Some(1));
    client.assert_stderr("Error: cannot send to 127.255.255.255:7007\n");
}

/// Which interface the kernel chooses by itself differs from machine to machine, so here it is
/// whether the kernel is told.
#[test]
fn it_tells_the_kernel_the_interface_for_an_ipv6_group() {
    if !harness::has_ipv6() {
        return;
    }
    if !harness::can_trace() {
        return;
    }
    let folder = harness::folder();
    let log = folder.path().join("calls");
    let args = ["--addr", "[ff12::7007]:7007", "--interface", "1"];
    let client = one_to_many(&args);
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=setsockopt", "-o"]).arg(&log);
    strace.arg(client.get_program()).args(client.get_args());
    run(strace.args(["--timeout", "0.1", "hello"]), b"");
    let calls = std::fs::read_to_string(log).unwrap();
    assert!(calls.contains("IPV6_MULTICAST_IF, [1]"), "{calls}");
}
