//! What only the example `wildcard` of `udp-server` promises: on all addresses, its echo comes from
//! the destination address of the datagram. What it promises like `udp-server` is in `promises`.

use std::process::Command;

use harness::{Finished, Server, example_of, program, run};

use harness::{Network, succeed};
use promises::catalog::{UDP_SERVER, WILDCARD};

/// `udp-client` connects its socket, so it hears only the address that it asks.
fn udp_client(addr: &str) -> Command {
    let mut client = program("udp-client");
    client.args(["--addr", addr, "hello"]);
    client
}

fn ask(server: &Server, host: &str) -> Finished {
    run(
        &mut udp_client(&format!("{host}:{}", server.addr.port())),
        b"",
    )
}

#[test]
fn the_echo_comes_from_the_destination_address() {
    let server = WILDCARD.start_at("0.0.0.0:0");
    for host in ["127.0.0.2", "127.0.0.1", "127.1.2.3"] {
        ask(&server, host).assert_printed(b"hello\n");
    }
}

/// The server answers each attempt. But the kernel chooses 127.0.0.1 as the sender.
#[test]
fn udp_server_on_all_addresses_is_not_heard_at_the_second() {
    let mut server = UDP_SERVER.start_at("0.0.0.0:0");
    ask(&server, "127.0.0.1").assert_printed(b"hello\n");
    let addr = format!("127.0.0.2:{}", server.addr.port());
    let mut client = udp_client(&addr);
    let client = run(client.args(["--timeout", "0.2", "--attempts", "2"]), b"");
    let error = format!("Error: cannot get an answer from {addr} (attempts: 2");
    assert_eq!(client.code, Some(1));
    client.assert_stderr(&error);
    for _ in 0..3 {
        let line = server.running.stderr_line();
        assert!(line.ends_with(": length 5 \"hello\""), "{line}");
    }
}

#[test]
fn on_one_socket_for_both_families_it_does_the_same() {
    if !harness::has_ipv6() {
        return;
    }
    let mut server = WILDCARD.start_at("[::]:0");
    for (host, peer) in [
        ("127.0.0.2", "[::ffff:127.0.0.1]:"),
        ("[::1]", "[::1]:"),
        ("127.0.0.1", "[::ffff:127.0.0.1]:"),
    ] {
        ask(&server, host).assert_printed(b"hello\n");
        let line = server.running.stderr_line();
        assert!(line.starts_with(peer), "{line}");
    }
}

#[test]
fn bound_to_one_address_it_answers_from_it_as_well() {
    let server = WILDCARD.start_at("127.0.0.2:0");
    ask(&server, "127.0.0.2").assert_printed(b"hello\n");
}

/// Asks all hosts, and returns the hosts that answer.
fn answers(mut client: Command) -> Vec<String> {
    let client = run(&mut client, b"");
    assert_eq!(client.code, Some(0), "{client:?}");
    let sender = |line: &str| line.rsplit_once(": answered in ").unwrap().0.to_owned();
    client.stderr.lines().map(sender).collect()
}

fn one_to_many(addr: &str) -> Command {
    let mut client = example_of("udp-client", "one_to_many");
    client.args(["--timeout", "2", "--addr", addr, "hello"]);
    client
}

/// Nobody can send from a broadcast address.
#[test]
fn a_broadcast_is_answered_from_an_address_of_its_own() {
    for addr in ["0.0.0.0:0", "[::]:0"] {
        if addr.starts_with('[') && !harness::has_ipv6() {
            return;
        }
        let server = WILDCARD.start_at(addr);
        let port = server.addr.port();
        let answers = answers(one_to_many(&format!("127.255.255.255:{port}")));
        assert_eq!(answers, [format!("127.0.0.1:{port}")]);
    }
}

/// Host 2 has a second address of each family. Returns a network with this server on it.
fn with_second_addresses(server: Command) -> Option<(Network, harness::Running)> {
    let network = Network::of(2)?;
    for address in ["10.77.0.22/24", "10.99.0.2/32", "fd77::22/64"] {
        let mut ip = Command::new("ip");
        ip.args(["addr", "add", address, "dev", "eth0"]);
        if address.starts_with("fd77") {
            ip.arg("nodad");
        }
        succeed(network.on(2, &ip));
    }
    let mut route = Command::new("ip");
    route.args(["route", "add", "10.99.0.2/32", "via", "10.77.0.2"]);
    succeed(network.on(1, &route));
    let server = network.server(2, &server);
    Some((network, server))
}

/// Host 1 asks over the network, and host 2 asks itself.
#[test]
fn the_second_address_of_an_interface_answers() {
    for (listens, asked) in [
        (
            "0.0.0.0:7007",
            &["10.77.0.22", "10.99.0.2", "10.77.0.2"][..],
        ),
        ("[::]:7007", &["10.77.0.22", "[fd77::22]", "[fd77::2]"]),
    ] {
        let Some((network, _server)) = with_second_addresses(WILDCARD.at(listens)) else {
            return;
        };
        for host in asked {
            for from in [1, 2] {
                let client = udp_client(&format!("{host}:7007"));
                let client = run(&mut network.on(from, &client), b"");
                assert_eq!(client.code, Some(0), "{from} asks {host}: {client:?}");
            }
        }
    }
}

/// The same network without the answer: the client asks one address, and another answers.
#[test]
fn udp_server_is_not_heard_at_the_second_address_of_an_interface() {
    let Some((network, _server)) = with_second_addresses(UDP_SERVER.at("0.0.0.0:7007")) else {
        return;
    };
    let first = run(&mut network.on(1, &udp_client("10.77.0.2:7007")), b"");
    first.assert_printed(b"hello\n");
    let mut client = udp_client("10.77.0.22:7007");
    client.args(["--timeout", "0.2", "--attempts", "2"]);
    let second = run(&mut network.on(1, &client), b"");
    assert_eq!(second.code, Some(1), "{second:?}");
    second.assert_stderr("cannot get an answer from 10.77.0.22:7007 (attempts: 2");
}

/// A second wire joins the hosts, with its own addresses. Host 1 asks over the first wire, but from
/// its address on the second. So the way back is another one. On the first wire, host 1 does not
/// say that it has this address (arp_ignore, arp_announce), and host 2 does not object (rp_filter).
#[test]
fn the_answer_takes_the_way_that_the_routing_table_says() {
    for (listens, asked) in [
        ("0.0.0.0:7007", &["10.77.0.22"][..]),
        ("[::]:7007", &["10.77.0.22", "[fd77::22]"]),
    ] {
        let Some((network, mut server)) = with_second_addresses(WILDCARD.at(listens)) else {
            return;
        };
        let wire = format!(
            "ip link add wire type veth peer name wire netns {}",
            network.process(2)
        );
        let conf = "/proc/sys/net/ipv4/conf";
        let up = |host| {
            format!(
                "for i in all eth0 wire; do echo 0 >{conf}/$i/rp_filter; done &&
                 echo 1 >{conf}/all/arp_ignore && echo 2 >{conf}/all/arp_announce && ip link set wire up &&
                 ip addr add 10.88.0.{host}/24 dev wire && ip addr add fd88::{host}/64 dev wire nodad"
            )
        };
        let by_the_first = "ip route add 10.77.0.22/32 dev eth0 src 10.88.0.1 &&
             ip -6 route add fd77::22/128 dev eth0 src fd88::1";
        for (host, script) in [(1, &wire[..]), (1, &up(1)), (2, &up(2)), (1, by_the_first)] {
            succeed(network.on(host, Command::new("sh").args(["-c", script])));
        }
        for host in asked {
            let client = udp_client(&format!("{host}:7007"));
            let client = run(&mut network.on(1, &client), b"");
            assert_eq!(client.code, Some(0), "{host}: {client:?}");
            let line = server.stderr_line();
            assert!(
                line.contains("88::1]:") || line.contains("10.88.0.1"),
                "{line}"
            );
        }
    }
}

/// A link-local address needs an interface. All hosts of a link are in the group ff02::1, and
/// nobody can send from a group.
#[test]
fn link_local_addresses_and_groups_of_ipv6_are_answered() {
    let Some((network, _server)) = with_second_addresses(WILDCARD.at("[::]:7007")) else {
        return;
    };
    // A new address is checked for a twin on the link first, unless `nodad` says otherwise.
    for host in [1, 2] {
        let address = format!("fe80::77:{host}/64");
        let mut ip = Command::new("ip");
        ip.args(["addr", "add", &address, "dev", "eth0", "nodad"]);
        succeed(network.on(host, &ip));
    }
    let mut ip = Command::new("ip");
    let link = succeed(network.on(1, ip.args(["-o", "link", "show", "dev", "eth0"])));
    let link = String::from_utf8(link).unwrap();
    let interface = link.split(':').next().unwrap();
    let asked = format!("[fe80::77:2%{interface}]:7007");
    let client = run(&mut network.on(1, &udp_client(&asked)), b"");
    client.assert_printed(b"hello\n");
    let group = one_to_many(&format!("[ff02::1%{interface}]:7007"));
    let answers = answers(network.on(1, &group));
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("[fe80::"), "{answers:?}");
}
