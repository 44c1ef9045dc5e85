//! Several hosts on one network: which sockets join them, who receives what is sent to all,
//! and how many datagrams and segments an echo takes.

use std::process::Command;

use harness::{Network, Running, example_of, program, run, succeed};

fn udp_server(network: &Network, number: usize, addr: &str) -> Running {
    network.server(number, program("udp-server").args(["--addr", addr]))
}

fn member(network: &Network, number: usize, args: &[&str]) -> Running {
    network.server(number, example_of("udp-server", "multicast").args(args))
}

#[test]
fn udp_and_tcp_join_hosts() {
    let Some(network) = Network::of(2) else {
        return;
    };
    for (server, client, options) in [
        ("udp-server", "udp-client", &["--timeout", "10"][..]),
        ("tcp-server", "tcp-client", &["--timeout", "20"]),
    ] {
        for addr in ["10.77.0.2:7007", "[fd77::2]:7007"] {
            let mut server =
                Running::start(&mut network.on(2, program(server).args(["--addr", addr])));
            assert_eq!(server.announced(), addr);
            let mut client = network.on(
                1,
                program(client)
                    .args(options)
                    .args(["--addr", addr, "hello"]),
            );
            let client = run(&mut client, b"");
            client.assert_printed(b"hello\n");
            let from = addr
                .replace("0.2:7007", "0.1:")
                .replace("::2]:7007", "::1]:");
            assert!(
                server.stderr_line().starts_with(&from),
                "the other host has the address {from}"
            );
        }
    }
}

/// An abstract name belongs to a network namespace, and a path to a file system. Another host
/// has its own.
#[test]
fn unix_sockets_do_not_join_hosts() {
    let Some(network) = Network::of(2) else {
        return;
    };
    for host in [1, 2] {
        succeed(network.on(
            host,
            Command::new("mount").args(["-t", "tmpfs", "none", "/mnt"]),
        ));
    }
    for options in [&[][..], &["--datagram"]] {
        for (path, error) in [
            ("/mnt/s", "No such file or directory"),
            ("@s", "Connection refused"),
        ] {
            let command = |role| {
                let mut command = program("unix-echo");
                command.arg(role).args(options).args(["--path", path]);
                command
            };
            let mut server = Running::start(&mut network.on(2, &command("server")));
            server.announced();
            let same_host = run(&mut network.on(2, command("client").arg("hello")), b"");
            same_host.assert_printed(b"hello\n");
            let other_host = run(&mut network.on(1, command("client").arg("hello")), b"");
            assert_eq!(other_host.code, Some(1));
            other_host.assert_stderr(error);
            drop(server);
            let _ = run(
                &mut network.on(2, Command::new("rm").args(["-f", path])),
                b"",
            );
        }
    }
}

/// Returns who answered: the addresses that the client prints.
fn answered(network: &Network, addr: &str, options: &[&str]) -> Vec<String> {
    let mut client = example_of("udp-client", "one_to_many");
    client.args(["--timeout", "2", "--addr", addr, "anybody?"]);
    let client = run(&mut network.on(1, client.args(options)), b"");
    assert_eq!(client.code, Some(0), "{client:?}");
    assert!(
        client
            .stdout
            .split_inclusive(|byte| *byte == b'\n')
            .all(|answer| answer == b"anybody?\n")
    );
    let mut senders: Vec<String> = client
        .stderr
        .lines()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    senders.sort();
    senders
}

#[test]
fn one_broadcast_is_answered_by_every_server_of_the_network() {
    let Some(network) = Network::of(4) else {
        return;
    };
    let _servers = [2, 3, 4].map(|host| udp_server(&network, host, "0.0.0.0:7007"));
    let everybody = ["10.77.0.2:7007", "10.77.0.3:7007", "10.77.0.4:7007"];
    assert_eq!(answered(&network, "10.77.0.255:7007", &[]), everybody);
}

#[test]
fn one_datagram_to_a_group_reaches_each_member_and_no_other() {
    let Some(network) = Network::of(4) else {
        return;
    };
    let _servers = [
        member(&network, 2, &["239.1.2.3"]),
        member(&network, 3, &["239.1.2.3", "--interface", "10.77.0.3"]),
        udp_server(&network, 4, "0.0.0.0:7007"),
    ];
    assert_eq!(
        answered(&network, "239.1.2.3:7007", &[]),
        ["10.77.0.2:7007", "10.77.0.3:7007"]
    );
}

#[test]
fn one_datagram_to_an_ipv6_group_reaches_each_member_and_no_other() {
    let Some(network) = Network::of(4) else {
        return;
    };
    let interface = |host| {
        let link = succeed(network.on(
            host,
            Command::new("ip").args(["-o", "link", "show", "dev", "eth0"]),
        ));
        String::from_utf8(link)
            .unwrap()
            .split(':')
            .next()
            .unwrap()
            .to_owned()
    };
    let _servers = [
        member(&network, 2, &["ff15::7007", "--interface", &interface(2)]),
        member(&network, 3, &["ff15::7007", "--interface", &interface(3)]),
        udp_server(&network, 4, "[::]:7007"),
    ];
    let everybody = ["[fd77::2]:7007", "[fd77::3]:7007"];
    let group = "[ff15::7007]:7007";
    assert_eq!(
        answered(&network, group, &["--interface", &interface(1)]),
        everybody
    );
    // The number of the interface can also be in the address.
    let group = format!("[ff15::7007%{}]:7007", interface(1));
    assert_eq!(answered(&network, &group, &[]), everybody);
}

/// Returns a counter of a host's kernel, such as `Udp: InDatagrams`. New hosts begin at 0.
fn counter(network: &Network, host: usize, protocol: &str, name: &str) -> u64 {
    let snmp = String::from_utf8(succeed(
        network.on(host, Command::new("cat").arg("/proc/net/snmp")),
    ))
    .unwrap();
    let mut rows = snmp
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.split(' ').position(|column| column == name).unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

#[test]
fn an_echo_takes_two_datagrams_and_many_more_segments() {
    let Some(network) = Network::of(2) else {
        return;
    };
    let client = |name: &str| {
        let mut client = network.on(1, program(name).args(["--addr", "10.77.0.2:7007", "hello"]));
        assert_eq!(run(&mut client, b"").code, Some(0));
    };
    let count = |protocol, sent, received| {
        counter(&network, 1, protocol, sent) + counter(&network, 1, protocol, received)
    };
    let _udp = udp_server(&network, 2, "10.77.0.2:7007");
    client("udp-client");
    assert_eq!(
        count("Udp", "OutDatagrams", "InDatagrams"),
        2,
        "there, and back"
    );
    assert_eq!(count("Tcp", "OutSegs", "InSegs"), 0);

    let mut tcp = Running::start(
        &mut network.on(2, program("tcp-server").args(["--addr", "10.77.0.2:7007"])),
    );
    tcp.announced();
    client("tcp-client");
    assert!(tcp.stderr_line().ends_with(": connected"));
    assert!(tcp.stderr_line().ends_with(": closed, bytes echoed: 6"));
    let segments = count("Tcp", "OutSegs", "InSegs");
    println!("an echo of 6 bytes: 2 datagrams over UDP, {segments} segments over TCP");
    // Three segments connect, two carry the bytes, two are FINs, and others acknowledge.
    assert!((8..=16).contains(&segments), "{segments} segments");
    assert_eq!(count("Udp", "OutDatagrams", "InDatagrams"), 2, "none more");
}
