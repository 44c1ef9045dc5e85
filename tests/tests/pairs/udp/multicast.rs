//! The example `multicast` of `udp-server`: one datagram to a group reaches each member. What
//! a member promises as a server is in `promises`.
//!
//! The servers join the group on the loopback interface, so nothing leaves the machine.
//! Several servers, each on its own host, are in `peers/hosts.rs`.

use std::process::Command;

use harness::{Server, example_of, not_run, program, run, udp_socket};

use promises::catalog::{GROUP, MULTICAST};

fn multicast(args: &[&str]) -> Command {
    let mut command = example_of("udp-server", "multicast");
    command.args(args);
    command
}

#[test]
fn a_member_of_an_ipv4_group_hears_it() {
    let mut server = MULTICAST.start_at("0.0.0.0:0");
    let to = format!("{GROUP}:{}", server.addr.port());
    let mut client = example_of("udp-client", "one_to_many");
    client.args(["--addr", &to, "--interface", "127.0.0.1", "to all members"]);
    let client = run(&mut client, b"");
    client.assert_printed(b"to all members\n");
    let member = format!("127.0.0.1:{}: answered in ", server.addr.port());
    assert!(
        client.stderr.starts_with(&member),
        "the answer comes from the member's own address: {client:?}"
    );
    let line = server.running.stderr_line();
    assert!(line.starts_with("127.0.0.1:"), "{line}");
}

/// Sends to this address, and returns who answers, and with what port.
fn answers(to: &str) -> Vec<String> {
    let mut client = example_of("udp-client", "one_to_many");
    client.args(["--addr", to, "--interface", "127.0.0.1", "hello"]);
    let lines = run(&mut client, b"").stderr;
    let lines = lines.lines().filter(|line| line.contains(": answered in "));
    lines
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn two_members_on_one_host_both_answer() {
    let first = MULTICAST.start_at("0.0.0.0:0");
    let port = first.addr.port();
    let _second = MULTICAST.start_at(&format!("0.0.0.0:{port}"));
    let member = format!("127.0.0.1:{port}");
    assert_eq!(answers(&format!("{GROUP}:{port}")), [&member[..], &member]);
    // Only the group is for both.
    assert_eq!(answers(&member), [&member[..]]);
}

#[test]
#[cfg(unix)]
fn on_the_address_of_the_group_it_answers_the_group_alone() {
    let member = MULTICAST.start_at(&format!("{GROUP}:0"));
    let port = member.addr.port();
    let own = format!("127.0.0.1:{port}");
    assert_eq!(answers(&format!("{GROUP}:{port}")), [&own[..]]);
    assert!(answers(&own).is_empty());
    // By default it also answers what is sent to the host.
    let member = MULTICAST.start_at("0.0.0.0:0");
    let own = format!("127.0.0.1:{}", member.addr.port());
    assert_eq!(answers(&own), [&own[..]]);
}

/// Nobody on this machine has joined this group. A socket on all addresses also receives what
/// is sent to a group that another socket has joined (IP_MULTICAST_ALL, ip(7)).
#[test]
fn who_has_not_joined_does_not_hear_it() {
    let server = Server::start(program("udp-server").args(["--addr", "0.0.0.0:0"]));
    let socket = udp_socket("127.0.0.1");
    socket2::SockRef::from(&socket)
        .set_multicast_if_v4(&std::net::Ipv4Addr::LOCALHOST)
        .unwrap();
    socket
        .send_to(b"to all members", ("239.255.70.8", server.addr.port()))
        .unwrap();
    // The server answers in order.
    socket
        .send_to(b"to you alone", ("127.0.0.1", server.addr.port()))
        .unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).expect("an echo");
    assert_eq!(&buffer[..len], b"to you alone");
}

/// By default, it listens on all addresses of the group's family, and on port 7007.
#[test]
#[cfg(target_os = "linux")]
fn it_listens_on_all_addresses_of_the_family_unless_told_otherwise() {
    for (group, addr) in [(GROUP, "0.0.0.0:7007"), ("ff12::7007", "[::]:7007")] {
        // The kernel needs interfaces to choose from, and a route to choose by.
        let set_up = "ip link add one type veth peer name two && ip link set one up && \
                      ip link set two up && ip route add 224.0.0.0/4 dev one";
        let Some(mut server) = harness::unshared("-rn", set_up, &multicast(&[group])) else {
            return;
        };
        assert_eq!(Server::start(&mut server).addr.to_string(), addr);
    }
}

#[test]
fn what_is_no_group_is_refused() {
    for (group, addr) in [("192.0.2.1", "127.0.0.1:0"), ("::1", "[::1]:0")] {
        if group == "::1" && !harness::has_ipv6() {
            return;
        }
        let server = run(&mut multicast(&[group, "--addr", addr]), b"");
        server.assert_failed(&format!("Error: cannot join {group} on the interface that"));
    }
    let server = run(&mut multicast(&["everybody"]), b"");
    assert_eq!(server.code, Some(2), "{server:?}");
    server.assert_stderr("invalid IP address syntax");
}

#[test]
fn what_is_no_interface_is_refused() {
    for (group, interface, addr, reason) in [
        (
            GROUP,
            "eth0",
            "127.0.0.1:0",
            "for IPv4, write the interface's address",
        ),
        (
            "ff12::7",
            "eth0",
            "127.0.0.1:0",
            "for IPv6, write the interface's number",
        ),
        // An IPv4 socket cannot join an IPv6 group.
        ("ff12::7", "1", "127.0.0.1:0", ""),
    ] {
        let args = [group, "--interface", interface, "--addr", addr];
        let server = run(&mut multicast(&args), b"");
        assert_eq!((server.code, &server.stdout[..]), (Some(1), &b""[..]));
        let error = format!("Error: cannot join {group} on the interface {interface}\n");
        assert!(server.stderr.starts_with(&error), "{}", server.stderr);
        server.assert_stderr(reason);
    }
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    let args = [GROUP, "--interface", "192.0.2.1", "--addr", "0.0.0.0:0"];
    let server = run(&mut multicast(&args), b"");
    if cfg!(windows) {
        return not_run("Windows takes any address for an interface");
    }
    let error = format!("Error: cannot join {GROUP} on the interface 192.0.2.1\n");
    server.assert_failed(&error);
}

/// The group is one that no other test joins.
#[test]
#[cfg(target_os = "linux")]
fn an_ipv6_group_is_joined_on_the_interface_that_was_named() {
    if !harness::has_ipv6() {
        return;
    }
    let args = ["ff12::7:1", "--interface", "1", "--addr", "[::1]:0"];
    let _server = Server::start(&mut multicast(&args));
    let groups = std::fs::read_to_string("/proc/net/igmp6").unwrap();
    let mut joined = groups
        .lines()
        .filter(|line| line.contains("ff120000000000000000000000070001"));
    let interface = joined.next().map(|line| line.split(' ').next());
    assert_eq!(interface, Some(Some("1")), "{groups}");
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_network_the_kernel_finds_no_interface_for_a_group() {
    use harness::{example_of, run, unshared};
    let group = "239.255.70.46";
    let with_loopback_alone = |package, name, args: &[&str]| {
        let mut command = example_of(package, name);
        unshared("-rn", "ip link set lo up", command.args(args))
    };
    let Some(mut member) = with_loopback_alone("udp-server", "multicast", &[group]) else {
        return;
    };
    let member = run(&mut member, b"");
    member.assert_failed("Error: cannot join 239.255.70.46 on the interface that the kernel");
    member.assert_stderr("No such device");
    let args = ["--addr", "239.255.70.46:7007", "hello"];
    let Some(mut sender) = with_loopback_alone("udp-client", "one_to_many", &args) else {
        return;
    };
    run(&mut sender, b"").assert_stderr("Network is unreachable");
}
