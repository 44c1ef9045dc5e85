//! The example `relay`, a network that loses, duplicates, reorders and delays datagrams. How
//! `udp-client` copes with it is in `udp/client.rs`.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{LIMIT, Server, example_of, noise, not_run, program, run, udp_socket};

/// Returns a command that starts a relay to this server.
fn relay_to(server: SocketAddr, options: &str) -> Command {
    let mut relay = example_of("udp-client", "relay");
    relay
        .args(["--listen", "127.0.0.1:0", "--to", &server.to_string()])
        .args(options.split_whitespace());
    relay
}

/// Starts a relay to a server that the test plays.
fn relay_to_us(options: &str) -> (Server, UdpSocket) {
    let server = udp_socket("127.0.0.1");
    (
        Server::start(&mut relay_to(server.local_addr().unwrap(), options)),
        server,
    )
}

/// Starts a relay to a real server.
pub fn relay_to_echo(options: &str) -> (Server, Server) {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "-q"]));
    (Server::start(&mut relay_to(server.addr, options)), server)
}

fn client_of(relay: &Server) -> UdpSocket {
    let client = udp_socket("127.0.0.1");
    client.connect(relay.addr).unwrap();
    client
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).expect("a datagram");
    buffer[..len].to_vec()
}

/// Returns the next line of the log, without the client's address.
fn fate(relay: &mut Server, client: &UdpSocket) -> String {
    let line = relay.running.stderr_line();
    let start = format!("{}: ", client.local_addr().unwrap());
    line.strip_prefix(&start)
        .unwrap_or_else(|| panic!("{line:?} does not begin with {start:?}"))
        .to_owned()
}

#[test]
fn without_options_everything_passes_unchanged() {
    let (mut relay, _server) = relay_to_echo("");
    let client = client_of(&relay);
    let longest = if cfg!(target_os = "macos") {
        9216 // net.inet.udp.maxdgram
    } else {
        65_507
    };
    for (count, size) in [(1, 0), (2, 1), (3, 9000), (4, longest)] {
        let sent = noise(size);
        client.send(&sent).unwrap();
        assert!(receive(&client) == sent, "{size} bytes came back changed");
        assert_eq!(
            fate(&mut relay, &client),
            format!("question {count}: passed")
        );
        assert_eq!(fate(&mut relay, &client), format!("answer {count}: passed"));
    }
}

#[test]
fn quiet_logs_nothing() {
    let (relay, _server) = relay_to_echo("-q");
    let client = client_of(&relay);
    client.send(b"hello").unwrap();
    assert_eq!(receive(&client), b"hello");
    let relay = relay.running.kill();
    assert_eq!((&relay.stdout[..], &relay.stderr[..]), (&b""[..], ""));
}

/// Returns what happens to 50 questions and 50 answers of each of two clients, which take
/// turns or do not.
fn fates(options: &str, take_turns: bool) -> Vec<String> {
    let (mut relay, server) = relay_to_us(options);
    let clients = [(); 2].map(|()| client_of(&relay));
    let order: Vec<usize> = (0..100)
        .map(|number| if take_turns { number % 2 } else { number / 50 })
        .collect();
    let mut fates = Vec::new();
    for &client in &order {
        clients[client].send(&[client as u8]).unwrap();
        fates.push(format!(
            "client {client}, {}",
            fate(&mut relay, &clients[client])
        ));
    }
    let mut ways_back = [None; 2];
    while ways_back.contains(&None) {
        let mut client = [0];
        let (_, from) = server.recv_from(&mut client).unwrap();
        ways_back[usize::from(client[0])] = Some(from);
    }
    for &client in &order {
        server
            .send_to(b"answer", ways_back[client].unwrap())
            .unwrap();
        fates.push(format!(
            "client {client}, {}",
            fate(&mut relay, &clients[client])
        ));
    }
    fates.sort();
    fates
}

#[test]
fn the_same_seed_is_the_same_network_whoever_sends_when() {
    const BAD: &str = "--drop 0.3 --duplicate 0.3 --reorder 0.3";
    let first = fates(&format!("{BAD} --seed 7"), true);
    assert_eq!(first, fates(&format!("{BAD} --seed 7 --delay 30"), false));
    assert_ne!(first, fates(&format!("{BAD} --seed 8"), true));
    // No two flows of one network have the same fates.
    let flow = |name: &str| -> Vec<&str> {
        first
            .iter()
            .filter(|line| line.starts_with(name))
            .map(|line| &line[name.len()..])
            .collect()
    };
    let flows = [
        "client 0, question",
        "client 1, question",
        "client 0, answer",
        "client 1, answer",
    ]
    .map(flow);
    for (index, flow) in flows.iter().enumerate() {
        assert_eq!(flow.len(), 50);
        assert!(!flows[..index].contains(flow), "{flow:?}");
    }
}

#[test]
fn about_as_many_are_lost_as_was_asked_for() {
    let lost = fates("--drop 0.3", true)
        .iter()
        .filter(|line| line.ends_with(": lost"))
        .count();
    // The 200 random numbers are the same each time, so this cannot fail by chance.
    assert!((40..=80).contains(&lost), "{lost} of 200");
}

#[test]
fn with_duplicate_1_each_comes_twice() {
    let (relay, server) = relay_to_us("--duplicate 1");
    let client = client_of(&relay);
    client.send(b"one").unwrap();
    client.send(b"two").unwrap();
    assert_eq!(
        [(); 4].map(|()| receive(&server)),
        [b"one", b"one", b"two", b"two"]
    );
    client.send(b"three").unwrap();
    let (_, way_back) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"one", way_back).unwrap();
    server.send_to(b"two", way_back).unwrap();
    assert_eq!(
        [(); 4].map(|()| receive(&client)),
        [b"one", b"one", b"two", b"two"]
    );
}

#[test]
fn with_drop_1_nothing_comes() {
    let (mut relay, server) = relay_to_us("--drop 1 --duplicate 1 --reorder 1");
    let client = client_of(&relay);
    for count in 1..=10 {
        client.send(b"hello").unwrap();
        assert_eq!(fate(&mut relay, &client), format!("question {count}: lost"));
    }
    server
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let nothing = server.recv(&mut [0; 8]).unwrap_err().kind();
    assert!(
        matches!(nothing, ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{nothing}"
    );
}

/// Sends numbers without a pause, and returns them in the order in which they arrive.
fn burst(client: &UdpSocket, server: &UdpSocket) -> [u8; 6] {
    for number in 0..6 {
        client.send(&[number]).unwrap();
    }
    [(); 6].map(|()| receive(server)[0])
}

#[test]
fn a_datagram_that_is_held_back_goes_right_behind_the_next() {
    let (relay, server) = relay_to_us("");
    assert_eq!(
        burst(&client_of(&relay), &server),
        [0, 1, 2, 3, 4, 5],
        "nothing is held back"
    );

    let (relay, server) = relay_to_us("--reorder 1");
    let client = client_of(&relay);
    let deadline = Instant::now() + LIMIT;
    // If the machine pauses during a burst, what is held back may go too early. Then we try
    // again.
    loop {
        let mut came = burst(&client, &server);
        if came == [1, 0, 3, 2, 5, 4] {
            break;
        }
        assert!(Instant::now() < deadline, "{came:?}");
        came.sort();
        assert_eq!(came, [0, 1, 2, 3, 4, 5], "each comes once");
    }
}

#[test]
fn the_last_is_not_held_back_for_ever() {
    let (mut relay, server) = relay_to_us("--reorder 1");
    let client = client_of(&relay);
    let started = Instant::now();
    client.send(b"alone").unwrap();
    assert_eq!(fate(&mut relay, &client), "question 1: held back");
    assert_eq!(receive(&server), b"alone");
    assert!(
        started.elapsed() >= Duration::from_millis(100),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_delay_is_waited_in_both_directions() {
    let (relay, _server) = relay_to_echo("--delay 150");
    let client = client_of(&relay);
    let started = Instant::now();
    client.send(b"hello").unwrap();
    assert_eq!(receive(&client), b"hello");
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn datagrams_wait_beside_each_other_and_not_one_after_another() {
    let (relay, server) = relay_to_us("--delay 1000");
    let client = client_of(&relay);
    let started = Instant::now();
    for number in 0..100 {
        client.send(&[number]).unwrap();
    }
    for number in 0..100 {
        assert_eq!(receive(&server), [number]);
    }
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "one after another they would take 100 s"
    );
}

#[test]
fn what_is_too_much_is_lost_and_not_kept() {
    let (mut relay, _server) = relay_to_us("--delay 60000");
    let client = client_of(&relay);
    for count in 1..=1024 {
        client.send(&[0; 100]).unwrap();
        assert_eq!(
            fate(&mut relay, &client),
            format!("question {count}: passed")
        );
    }
    client.send(b"one too many").unwrap();
    assert_eq!(
        fate(&mut relay, &client),
        "question 1025: lost, too many are on the way"
    );
}

#[test]
fn wrong_usage_is_refused() {
    for option in ["--drop", "--duplicate", "--reorder"] {
        for wrong in ["1.5", "-1", "nan", "inf", "", "much"] {
            let relay = run(example_of("udp-client", "relay").args([option, wrong]), b"");
            assert_eq!(
                (relay.code, &relay.stdout[..]),
                (Some(2), &b""[..]),
                "{relay:?}"
            );
            let error = format!(
                "error: invalid value '{wrong}' for '{option} <P>': write a number from 0 to 1"
            );
            assert!(relay.stderr.starts_with(&error), "{relay:?}");
        }
    }
    for args in [
        ["--delay", "-1"],
        ["--delay", "60001"],
        ["--seed", "x"],
        ["--to", "7007"],
        ["--listen", ""],
    ] {
        let relay = run(example_of("udp-client", "relay").args(args), b"");
        assert_eq!(
            (relay.code, &relay.stdout[..]),
            (Some(2), &b""[..]),
            "{relay:?}"
        );
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let (relay, _server) = relay_to_us("");
    let second = run(
        example_of("udp-client", "relay").args(["--listen", &relay.addr.to_string()]),
        b"",
    );
    assert_eq!(
        (second.code, &second.stdout[..]),
        (Some(1), &b""[..]),
        "{second:?}"
    );
    let error = format!("Error: cannot bind a UDP socket to {}\n", relay.addr);
    assert!(second.stderr.starts_with(&error), "{second:?}");
}

/// Returns a relay between ports that the test chooses. In its own network namespace they are
/// free.
#[cfg(target_os = "linux")]
fn relay_alone(listen: &str, to: &str) -> Option<Command> {
    harness::unshared(
        "-rn",
        "ip link set lo up",
        example_of("udp-client", "relay").args(["--listen", listen, "--to", to]),
    )
}

#[test]
#[cfg(target_os = "linux")]
fn it_does_not_send_to_itself() {
    for (listen, to) in [
        ("127.0.0.1:7007", "127.0.0.1:7007"),
        ("0.0.0.0:7007", "0.0.0.0:7007"),
        ("0.0.0.0:7007", "127.0.0.1:7007"),
        ("0.0.0.0:7007", "127.0.0.2:7007"),
        ("127.0.0.1:7007", "0.0.0.0:7007"),
    ] {
        let Some(mut relay) = relay_alone(listen, to) else {
            return;
        };
        let relay = run(&mut relay, b"");
        assert_eq!(
            (relay.code, &relay.stdout[..]),
            (Some(1), &b""[..]),
            "{relay:?}"
        );
        let error =
            format!("Error: cannot relay from {listen} to itself: name the server with --to\n");
        assert_eq!(relay.stderr, error);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_server_may_have_the_same_port_at_another_address() {
    for (listen, to) in [
        ("127.0.0.1:7007", "127.0.0.2:7007"),
        ("0.0.0.0:7007", "192.0.2.1:7007"), // Another machine.
        ("0.0.0.0:7007", "[::1]:7007"),
        ("0.0.0.0:7008", "127.0.0.1:7007"),
    ] {
        let Some(mut relay) = relay_alone(listen, to) else {
            return;
        };
        assert_eq!(harness::Running::start(&mut relay).announced(), listen);
    }
}

/// A server that starts at this moment must find its port free.
#[test]
#[cfg(target_os = "linux")]
fn it_never_binds_the_port_of_the_server() {
    if !harness::can_trace() {
        return;
    }
    let to = udp_socket("127.0.0.1").local_addr().unwrap();
    let folder = harness::folder();
    let log = folder.path().join("calls");
    let relay = relay_to(to, "");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=bind", "-o"]).arg(&log);
    strace.arg(relay.get_program()).args(relay.get_args());
    let _relay = Server::start(&mut strace);
    let calls = std::fs::read_to_string(log).unwrap();
    let port = format!("htons({})", to.port());
    assert!(calls.contains("bind(") && !calls.contains(&port), "{calls}");
}

/// Each relay is the server of the other, so a datagram makes each a new client of the other,
/// again and again.
#[test]
#[cfg(target_os = "linux")]
fn two_relays_in_a_circle_soon_lose_the_datagram() {
    let place = udp_socket("127.0.0.1");
    let listen = place.local_addr().unwrap();
    let second = Server::start(&mut relay_to(listen, "-q"));
    drop(place);
    let mut first = example_of("udp-client", "relay");
    let to = second.addr.to_string();
    first.args(["--listen", &listen.to_string(), "--to", &to]);
    let mut first = Server::start(&mut first);
    client_of(&first).send(b"round").unwrap();
    let lost = ": cannot serve this client: too many clients at once";
    while !first.running.stderr_line().contains(lost) {}
    for relay in [&first, &second] {
        let threads = format!("/proc/{}/task", relay.running.id());
        let threads = std::fs::read_dir(threads).unwrap().count();
        assert!(threads <= 130, "{threads} threads");
    }
}

#[test]
fn what_is_not_sent_to_a_forgotten_client_is_told() {
    let (mut relay, server) = relay_to_us("--delay 5000");
    let clients: Vec<UdpSocket> = (0..129).map(|_| client_of(&relay)).collect();
    let started = Instant::now();
    for client in &clients[..128] {
        client.send(b"hello").unwrap();
        assert_eq!(fate(&mut relay, client), "question 1: passed");
    }
    if started.elapsed() > Duration::from_secs(3) {
        return not_run("too slow: a datagram was sent before its client was forgotten");
    }
    std::thread::sleep(Duration::from_millis(1100)); // By then the first gives up its place.
    clients[128].send(b"hello").unwrap();
    assert_eq!(fate(&mut relay, &clients[128]), "question 1: passed");
    assert_eq!(
        fate(&mut relay, &clients[0]),
        "not sent: the relay has forgotten this client"
    );
    drop(server);
}

#[test]
fn a_stranger_at_the_way_back_is_not_heard() {
    let (relay, server) = relay_to_us("");
    let client = client_of(&relay);
    client.send(b"hello").unwrap();
    let (_, way_back) = server.recv_from(&mut [0; 8]).unwrap();
    udp_socket("127.0.0.1")
        .send_to(b"forged", way_back)
        .unwrap();
    server.send_to(b"true", way_back).unwrap();
    assert_eq!(receive(&client), b"true");
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_is_not_there_does_not_end_it() {
    // This socket is connected elsewhere: it keeps its port, but takes nothing from the relay.
    let (mut relay, deaf) = relay_to_us("");
    deaf.connect(udp_socket("127.0.0.1").local_addr().unwrap())
        .unwrap();
    let client = client_of(&relay);
    client.send(b"hello").unwrap();
    assert_eq!(fate(&mut relay, &client), "question 1: passed");
    let cannot = format!(
        "cannot receive from {}: Connection refused",
        deaf.local_addr().unwrap()
    );
    let said = fate(&mut relay, &client);
    assert!(said.starts_with(&cannot), "{said}");
    let other = client_of(&relay);
    other.send(b"hello").unwrap();
    assert_eq!(fate(&mut relay, &other), "question 1: passed");
}

#[test]
#[cfg(target_os = "linux")]
fn of_many_clients_each_gets_its_own_answer_and_the_oldest_are_forgotten() {
    let (relay, _server) = relay_to_echo("-q");
    // A client keeps its place for a second, so new ones may have to ask again.
    let ask = |client: &UdpSocket, number: u32| {
        let deadline = Instant::now() + LIMIT;
        let number = number.to_be_bytes();
        let mut buffer = [0; 8];
        let limit = Some(Duration::from_millis(100));
        client.set_read_timeout(limit).unwrap();
        loop {
            client.send(&number).unwrap();
            match client.recv(&mut buffer) {
                Ok(len) if buffer[..len] == number => return,
                _ => assert!(Instant::now() < deadline, "no answer"),
            }
        }
    };
    let clients: Vec<UdpSocket> = (0..200).map(|_| client_of(&relay)).collect();
    ask(&clients[0], 0);
    ask(&clients[1], 1);
    ask(&clients[0], 2); // The relay knows it, and has met another one since.
    for round in [1000, 2000] {
        for (number, client) in (round..).zip(&clients) {
            ask(client, number);
        }
    }
    // There is a thread for each client that the relay knows, one that receives from the
    // clients, and the main thread.
    let threads = || {
        std::fs::read_dir(format!("/proc/{}/task", relay.running.id()))
            .unwrap()
            .count()
    };
    let deadline = Instant::now() + LIMIT;
    while threads() != 130 {
        assert!(Instant::now() < deadline, "{} threads", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_for_whom_there_is_no_socket_left_harms_no_other() {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "-q"]));
    let mut relay = Server::start(&mut harness::limited(
        "--nofile=16",
        &relay_to(server.addr, ""),
    ));
    let first = client_of(&relay);
    first.send(b"hello").unwrap();
    assert_eq!(receive(&first), b"hello");
    let others: Vec<UdpSocket> = (0..20).map(|_| client_of(&relay)).collect();
    for client in &others {
        client.send(b"hello").unwrap();
    }
    let refused = ": cannot serve this client: Too many open files";
    while !relay.running.stderr_line().contains(refused) {}
    first.send(b"again").unwrap();
    assert_eq!(receive(&first), b"again");
}

#[test]
fn a_log_that_nobody_reads_is_no_reason_to_stop() {
    let (mut relay, _server) = relay_to_echo("");
    relay.running.close_output();
    let client = client_of(&relay);
    for message in [b"one", b"two"] {
        client.send(message).unwrap();
        assert_eq!(receive(&client), message);
    }
}

#[test]
fn the_server_may_be_of_another_family_than_the_clients() {
    if !harness::has_ipv6() {
        return;
    }
    let server = udp_socket("::1");
    let relay = Server::start(&mut relay_to(server.local_addr().unwrap(), ""));
    let client = client_of(&relay);
    client.send(b"hello").unwrap();
    let (_, way_back) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"from afar", way_back).unwrap();
    assert_eq!(receive(&client), b"from afar");
}
