//! Several hosts on one network: which sockets join them, who receives what is sent to all,
//! and how many datagrams and segments an echo takes. Each host is a network namespace with
//! its own interface, and a bridge joins them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use harness::{
    LIMIT, Running, example_of, foreign, inside, not_run, payloads, program, run, short_payloads,
    start_and_expect_echo,
};

/// The hosts 10.77.0.1, fd77::1, 10.77.0.2, fd77::2 and so on. They end when this is dropped.
pub struct Network {
    hosts: Vec<Running>,
    _bridge: Running,
}

/// Starts a process that keeps a namespace alive: a namespace ends with its last process.
fn hold(command: &mut Command) -> Running {
    let mut holder = Running::start(command);
    assert_eq!(holder.stdout_line(), "ready");
    holder
}

impl Network {
    /// Creates a network of this many hosts. If a test may not create namespaces, this prints
    /// `NOT RUN` and returns `None`.
    pub fn of(count: usize) -> Option<Network> {
        let bridge =
            "ip link set lo up && ip link add bridge0 type bridge && ip link set bridge0 up";
        let mut ready = Command::new("sh");
        ready.args(["-c", "echo ready; exec cat"]);
        let bridge = hold(&mut harness::unshared("-rnm", bridge, &ready)?);
        let hosts = (1..=count)
            .map(|number| Network::host(&bridge, number, &ready))
            .collect();
        Some(Network {
            hosts,
            _bridge: bridge,
        })
    }

    fn host(bridge: &Running, number: usize, ready: &Command) -> Running {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-nm", "--"])
            .arg(ready.get_program())
            .args(ready.get_args());
        let host = hold(&mut inside(bridge, &unshare));
        let id = host.id();
        let link = format!(
            "ip link add host{number} type veth peer name eth0 netns {id} && ip link set host{number} master bridge0 up"
        );
        succeed(inside(bridge, Command::new("sh").args(["-c", &link])));
        let set_up = format!(
            "ip link set lo up && ip addr add 10.77.0.{number}/24 broadcast + dev eth0 &&
             ip addr add fd77::{number}/64 dev eth0 nodad && ip link set eth0 up && ip route add 224.0.0.0/4 dev eth0"
        );
        succeed(inside(&host, Command::new("sh").args(["-c", &set_up])));
        host
    }

    /// Returns the command on the host with this number. The first is 1.
    pub fn on(&self, number: usize, command: &Command) -> Command {
        inside(&self.hosts[number - 1], command)
    }

    /// Returns the process that keeps this host alive.
    pub fn process(&self, number: usize) -> u32 {
        self.hosts[number - 1].id()
    }

    fn udp_server(&self, number: usize, addr: &str) -> Running {
        self.server(number, program("udp-server").args(["--addr", addr]))
    }

    fn member(&self, number: usize, args: &[&str]) -> Running {
        self.server(number, example_of("udp-server", "multicast").args(args))
    }

    pub fn server(&self, number: usize, command: &Command) -> Running {
        let mut server = Running::start(&mut self.on(number, command));
        server.announced();
        server
    }
}

pub fn succeed(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
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
    let _servers = [2, 3, 4].map(|host| network.udp_server(host, "0.0.0.0:7007"));
    let everybody = ["10.77.0.2:7007", "10.77.0.3:7007", "10.77.0.4:7007"];
    assert_eq!(answered(&network, "10.77.0.255:7007", &[]), everybody);
}

#[test]
fn one_datagram_to_a_group_reaches_each_member_and_no_other() {
    let Some(network) = Network::of(4) else {
        return;
    };
    let _servers = [
        network.member(2, &["239.1.2.3"]),
        network.member(3, &["239.1.2.3", "--interface", "10.77.0.3"]),
        network.udp_server(4, "0.0.0.0:7007"),
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
        network.member(2, &["ff15::7007", "--interface", &interface(2)]),
        network.member(3, &["ff15::7007", "--interface", &interface(3)]),
        network.udp_server(4, "[::]:7007"),
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
    let _udp = network.udp_server(2, "10.77.0.2:7007");
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

/// The echo of RFC 862, as Unix has always had it. Its port, 7, belongs to the system, but the
/// test has all rights in its namespaces. inetd does not answer datagrams from its own
/// machine.
#[test]
fn our_clients_talk_to_inetd_on_another_host() {
    let Some(mut inetd) = foreign("inetd") else {
        return;
    };
    if !fs::read_to_string("/etc/services").is_ok_and(|services| services.contains("\necho")) {
        return not_run("/etc/services does not name the port of echo");
    }
    let Some(network) = Network::of(2) else {
        return;
    };
    let folder = harness::folder();
    let config = folder.path().join("inetd.conf");
    fs::write(
        &config,
        "echo stream tcp nowait root internal\necho dgram udp wait root internal\n",
    )
    .unwrap();
    let _inetd = Running::start(&mut network.on(2, inetd.arg("-i").arg(&config)));
    for (name, payloads) in [("tcp-client", payloads()), ("udp-client", short_payloads())] {
        let client = || network.on(1, program(name).args(["--addr", "10.77.0.2:7"]));
        let deadline = Instant::now() + LIMIT;
        // inetd does not say when it listens.
        while run(client().arg("ready?"), b"").code != Some(0) {
            assert!(Instant::now() < deadline, "inetd does not answer {name}");
        }
        for bytes in payloads {
            let client = start_and_expect_echo(&mut client(), &bytes).finish();
            client.assert_printed(b"");
        }
    }
}
