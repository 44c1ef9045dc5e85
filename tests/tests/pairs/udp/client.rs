//! What `udp-client` promises, shown by servers that are slow, silent or wrong, and by a bad
//! network. What every client of datagrams, or of a server on IP, promises is in `promises`.

use std::net::{SocketAddr, UdpSocket};

use harness::{Running, Server, not_run, program, run, udp_socket};

/// Starts the client with the address of a server that the test plays.
fn ask(server: &UdpSocket, args: &[&str]) -> Running {
    let addr = server.local_addr().unwrap().to_string();
    Running::start(program("udp-client").args(["--addr", &addr]).args(args))
}

/// Returns the next datagram that the client sends, and its sender.
fn receive(server: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, client) = server
        .recv_from(&mut buffer)
        .expect("a datagram from the client");
    (buffer[..len].to_vec(), client)
}

/// Counts the datagrams in the receive queue, and takes them out.
fn count_waiting(socket: &UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    (0..)
        .take_while(|_| socket.recv(&mut [0; 64]).is_ok())
        .count()
}

/// Starts a real server. Returns it and a client that knows its address.
fn pair() -> (Server, std::process::Command) {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let mut client = program("udp-client");
    client.args(["--addr", &server.addr.to_string(), "--timeout", "10.5"]); // Fractions work.
    (server, client)
}

#[test]
fn each_message_is_a_datagram_and_each_echo_a_line() {
    let (mut server, mut client) = pair();
    let client = run(client.args(["hello", "", "two words", "你好"]), b"");
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(client.stdout, "hello\n\ntwo words\n你好\n".as_bytes());
    assert_eq!(client.stderr.lines().count(), 4);
    for line in client.stderr.lines() {
        assert!(
            line.starts_with(&format!("{}: answered in ", server.addr)),
            "{line}"
        );
    }
    for length in [5, 0, 9, 6] {
        let line = server.running.stderr_line();
        assert!(line.contains(&format!(": length {length} ")), "{line}");
    }
}

#[test]
fn without_messages_each_line_of_stdin_is_one_whatever_its_bytes() {
    let (_server, mut client) = pair();
    let client = run(&mut client, b"one\n\n\xff\x00\x1b\r\nno newline at the end");
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(
        client.stdout,
        b"one\n\n\xff\x00\x1b\r\nno newline at the end\n"
    );
}

#[test]
fn a_line_is_sent_as_soon_as_it_is_typed() {
    let (_server, mut client) = pair();
    let mut client = Running::start(&mut client);
    for line in ["first", "second"] {
        client.write(format!("{line}\n").as_bytes());
        assert_eq!(client.stdout_line(), line);
    }
    assert_eq!(client.finish().code, Some(0));
}

#[test]
fn quiet_prints_the_answers_alone() {
    let (_server, mut client) = pair();
    let client = run(client.args(["-q", "hello"]), b"");
    assert_eq!(
        (client.code, &client.stdout[..], &client.stderr[..]),
        (Some(0), &b"hello\n"[..], "")
    );
}

#[test]
fn a_silent_server_is_asked_as_often_as_said_and_then_given_up() {
    let server = udp_socket("127.0.0.1");
    let client = ask(
        &server,
        &[
            "--timeout",
            "0.05",
            "--attempts",
            "4",
            "hello",
            "never sent",
        ],
    )
    .finish();
    assert_eq!(client.code, Some(1));
    assert_eq!(client.stdout, b"");
    let error = format!(
        "Error: cannot get an answer from {} (attempts: 4, each of 50ms)\n\nCaused by:\n    timed out\n",
        server.local_addr().unwrap()
    );
    assert!(client.stderr.ends_with(&error), "{}", client.stderr);
    assert_eq!(count_waiting(&server), 4);
}

#[test]
fn the_third_attempt_may_be_the_one_that_is_answered() {
    let server = udp_socket("127.0.0.1");
    let client = ask(&server, &["--timeout", "0.1", "--attempts", "100", "hello"]);
    let (_, first) = receive(&server);
    receive(&server);
    let (message, third) = receive(&server);
    assert_eq!(
        first, third,
        "all attempts come from one socket: an answer to any of them counts"
    );
    server.send_to(&message, third).unwrap();
    let client = client.finish();
    client.assert_printed(b"hello\n");
    client.assert_stderr("no answer to attempt 2 of 100\n");
}

#[test]
fn a_doubled_answer_is_not_taken_for_the_answer_to_the_next_message() {
    let server = udp_socket("127.0.0.1");
    let client = ask(
        &server,
        &["--timeout", "0.2", "--attempts", "100", "same", "same"],
    );
    let (message, first) = receive(&server);
    for _ in 0..3 {
        server.send_to(&message, first).unwrap();
    }
    let second = loop {
        match receive(&server) {
            (_, addr) if addr == first => {} // The answer was too late.
            (_, addr) => break addr,
        }
    };
    server.send_to(&message, first).unwrap();
    receive(&server); // It asks again, because nobody has answered the second message yet.
    server.send_to(&message, second).unwrap();
    let client = client.finish();
    client.assert_printed(b"same\nsame\n");
}

#[test]
fn a_late_answer_is_not_taken_for_the_answer_to_the_next_message() {
    let server = udp_socket("127.0.0.1");
    let client = ask(
        &server,
        &["--timeout", "0.2", "--attempts", "100", "one", "two"],
    );
    let (one, first) = receive(&server);
    receive(&server); // The second attempt. We answer the first one now, and this one later.
    server.send_to(&one, first).unwrap();
    let second = loop {
        match receive(&server) {
            (message, addr) if message == b"two" => break addr,
            _ => {}
        }
    };
    server.send_to(&one, first).unwrap();
    server.send_to(&one, second).unwrap();
    server.send_to(b"two", second).unwrap();
    let client = client.finish();
    client.assert_printed(b"one\ntwo\n");
}

#[test]
fn a_garbled_or_cut_answer_is_passed_over() {
    let server = udp_socket("127.0.0.1");
    let client = ask(&server, &["--timeout", "0.2", "--attempts", "100", "hello"]);
    let (message, addr) = receive(&server);
    for wrong in [&b"hellO"[..], b"hell", b"hello!", b"", &[b'h'; 9000]] {
        server.send_to(wrong, addr).unwrap();
    }
    receive(&server); // It asks again.
    server.send_to(&message, addr).unwrap();
    let client = client.finish();
    client.assert_printed(b"hello\n");
    client.assert_stderr("no answer to attempt 1 of 100");
}

#[test]
fn an_answer_from_somebody_else_is_passed_over() {
    let server = udp_socket("127.0.0.1");
    let stranger = udp_socket("127.0.0.1");
    let client = ask(&server, &["--timeout", "0.2", "--attempts", "100", "hello"]);
    let (message, addr) = receive(&server);
    stranger.send_to(&message, addr).unwrap();
    let (_, again) = receive(&server);
    server.send_to(&message, again).unwrap();
    let client = client.finish();
    client.assert_printed(b"hello\n");
    client.assert_stderr("no answer to attempt 1 of 100");
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_is_silent_is_asked_for_the_first_message_only() {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let silent = match UdpSocket::bind(("::1", server.addr.port())) {
        Ok(socket) => socket,
        Err(error) => return not_run(&format!("no IPv6 on this port: {error}")),
    };
    let addr = format!("twofold:{}", server.addr.port());
    let args = [
        "--addr",
        &addr,
        "--timeout",
        "1",
        "--attempts",
        "2",
        "one",
        "two",
        "three",
    ];
    let Some(mut client) = harness::with_twofold_name(program("udp-client").args(args)) else {
        return;
    };
    let client = run(&mut client, b"");
    client.assert_printed(b"one\ntwo\nthree\n");
    client.assert_stderr("(attempts: 2, each of 1s): timed out; trying the next address");
    assert_eq!(count_waiting(&silent), 2);
}

#[test]
#[cfg(target_os = "linux")]
fn a_name_that_nobody_knows_is_told() {
    // In a network namespace without a network, the client can ask nobody.
    let client = harness::unshared(
        "-rn",
        "true",
        program("udp-client").args(["--addr", "nowhere.invalid:7007", "x"]),
    );
    let Some(mut client) = client else { return };
    let client = run(&mut client, b"");
    client.assert_failed("Error: cannot find the address of nowhere.invalid:7007\n");
}

#[test]
fn the_longest_datagram_passes_and_a_longer_one_is_explained() {
    let (server, mut command) = pair();
    if cfg!(target_os = "macos") {
        not_run("65507 bytes: macOS sends at most net.inet.udp.maxdgram");
    } else {
        let client = run(&mut command, &[b'x'; 65_507]);
        assert_eq!(
            (client.code, client.stdout.len()),
            (Some(0), 65_508),
            "{}",
            client.stderr
        );
    }
    for size in [65_508, 10_000_000] {
        let client = run(&mut command, &vec![b'x'; size]);
        assert_eq!((client.code, client.stdout.len()), (Some(1), 0));
        let limit = "a UDP datagram carries at most 65507 bytes over IPv4";
        let error = format!(
            "Error: cannot send the message to {}: {limit}\n",
            server.addr
        );
        assert_eq!(client.stderr, error);
    }
}

#[test]
fn wrong_usage_is_refused_with_what_is_right() {
    let wrong = [(["--attempts", "0"], "0 is not in 1..")];
    harness::assert_refuses(|| program("udp-client"), &wrong);
    harness::assert_refuses_addresses(
        |addr| harness::at(program("udp-client"), addr),
        "cannot find the address of ",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_a_name_has_twice_is_asked_once() {
    let server = udp_socket("127.0.0.1");
    let addr = format!("double:{}", server.local_addr().unwrap().port());
    let mut client = harness::at(program("udp-client"), &addr);
    client.args(["--timeout", "0.1", "--attempts", "2", "hello"]);
    let hosts = r"127.0.0.1 double\n127.0.0.2 double\n127.0.0.1 double\n";
    let Some(mut client) = harness::with_hosts(hosts, &client) else {
        return;
    };
    assert_eq!(run(&mut client, b"").code, Some(1));
    assert_eq!(count_waiting(&server), 2);
}

/// None of these is a broadcast address, but the error is the same.
#[test]
#[cfg(target_os = "linux")]
fn a_permission_that_is_denied_may_mean_a_broadcast_address_or_not() {
    let set_up = "ip link set lo up && ip route add prohibit 198.51.100.255 && \
                  ip route add prohibit 2001:db8::/64";
    for host in ["198.51.100.255", "[2001:db8::1]"] {
        let mut client = harness::at(program("udp-client"), &format!("{host}:7007"));
        let Some(mut client) = harness::unshared("-rn", set_up, client.arg("hello")) else {
            return;
        };
        let error = format!(
            "Error: cannot reach {host}:7007: if this is a broadcast address, \
             run the example one_to_many\n\nCaused by:\n    Permission denied"
        );
        run(&mut client, b"").assert_failed(&error);
    }
}

#[test]
fn its_own_answers_to_help_and_version_are_no_errors() {
    for program_name in ["udp-client", "udp-server"] {
        for arg in ["--help", "--version"] {
            let finished = run(program(program_name).arg(arg), b"");
            assert_eq!((finished.code, &finished.stderr[..]), (Some(0), ""));
            assert!(!finished.stdout.is_empty());
        }
    }
}

#[test]
fn over_ipv6_a_datagram_may_be_20_bytes_longer() {
    if !harness::has_ipv6() {
        return;
    }
    let server = Server::start(program("udp-server").args(["--addr", "[::1]:0", "-q"]));
    let addr = server.addr.to_string();
    let client = |size| {
        run(
            program("udp-client").args(["--addr", &addr]),
            &vec![b'x'; size],
        )
    };
    let longest = client(65_527);
    assert_eq!((longest.code, longest.stdout.len()), (Some(0), 65_528));
    let longer = client(65_528);
    assert_eq!((longer.code, longer.stdout.len()), (Some(1), 0));
    let limit = "a UDP datagram carries at most 65527 bytes over IPv6";
    assert!(longer.stderr.contains(limit), "{}", longer.stderr);
}

/// An IPv6 socket reaches it by the protocol of IPv4, which has the lower limit.
#[test]
fn an_ipv4_address_in_the_form_of_ipv6_has_the_limit_of_ipv4() {
    if !harness::has_ipv6() {
        return;
    }
    let mut client = harness::at(program("udp-client"), "[::ffff:127.0.0.1]:7007");
    let client = run(&mut client, &[b'x'; 65_510]);
    client.assert_stderr("a UDP datagram carries at most 65507 bytes over IPv4");
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    use std::io::Write;
    let (_server, mut client) = pair();
    let mut client = Running::start(&mut client);
    let mut stdin = client.stdin.take().unwrap(); // It stays open.
    let _ = stdin.write_all(&[b'x'; 200_000]); // It may end before it has read this.
    let client = client.finish();
    assert_eq!((client.code, client.stdout.len()), (Some(1), 0));
    let limit = "a UDP datagram carries at most 65507 bytes over IPv4";
    assert!(client.stderr.contains(limit), "{}", client.stderr);
}

#[test]
#[cfg(unix)]
fn it_asks_on_when_nobody_reads_its_stderr() {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let (_server, mut client) = pair();
    let stderr = OwnedFd::from(UnixStream::pair().unwrap().0).into();
    client.args(["one", "two"]);
    let client = Running::start_with(&mut client, std::process::Stdio::piped(), stderr);
    client.finish().assert_printed(b"one\ntwo\n");
}

/// Runs the client under strace(1), which makes this happen to its system calls. Returns `None` if
/// strace does not work here.
#[cfg(target_os = "linux")]
fn injected(inject: &str, args: &[&str]) -> Option<harness::Finished> {
    if !harness::can_trace() {
        return None;
    }
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0"]));
    let client = harness::at(program("udp-client"), &server.addr.to_string());
    let mut strace = std::process::Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={inject}")]);
    strace.arg(client.get_program()).args(client.get_args());
    Some(run(strace.args(args), b""))
}

#[test]
#[cfg(target_os = "linux")]
fn an_error_of_one_datagram_is_a_lost_datagram_and_the_next_attempt_follows() {
    for (error, text) in [
        ("sendto:error=EPERM", "Operation not permitted"), // A firewall.
        ("sendto:error=ENOBUFS", "No buffer space"),       // A full queue.
        ("recvfrom:error=EMSGSIZE", "Message too long"),   // A link on the way.
    ] {
        let once = format!("{error}:when=1");
        let args = ["--timeout", "0.5", "hello"];
        let Some(client) = injected(&once, &args) else {
            return;
        };
        client.assert_printed(b"hello\n");
        client.assert_stderr("no answer to attempt 1 of 3\n");
        let Some(client) = injected(error, &args) else {
            return;
        };
        assert_eq!((client.code, &client.stdout[..]), (Some(1), &b""[..]));
        client.assert_stderr("Error: cannot get an answer from 127.0.0.1:");
        client.assert_stderr(&format!("Caused by:\n    {text}"));
    }
}

/// A router between the hosts 1 and 3 cannot pass on what is longer than 1300 bytes. It tells so,
/// and the kernel then cuts the next datagram into fragments.
#[test]
#[cfg(target_os = "linux")]
fn a_datagram_that_is_too_long_for_a_router_is_sent_again() {
    use harness::{Network, succeed};
    let Some(network) = Network::of(3) else {
        return;
    };
    let set_up = [
        "ip route add 10.78.0.3 via 10.77.0.2 && ip route add fd78::3 via fd77::2 &&
         echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_redirects",
        "ip route add 10.78.0.3 via 10.77.0.3 mtu lock 1300 &&
         ip route add fd78::3 via fd77::3 mtu lock 1300 && cd /proc/sys/net &&
         echo 1 >ipv4/ip_forward && echo 1 >ipv6/conf/all/forwarding &&
         echo 0 >ipv4/conf/all/send_redirects && echo 0 >ipv4/conf/eth0/send_redirects",
        "ip addr add 10.78.0.3 dev lo && ip addr add fd78::3 dev lo nodad",
    ];
    for (host, commands) in (1..).zip(set_up) {
        let mut shell = std::process::Command::new("sh");
        succeed(network.on(host, shell.args(["-c", commands])));
    }
    let message = "x".repeat(1400);
    for addr in ["10.78.0.3:7007", "[fd78::3]:7007"] {
        let _server = network.server(3, program("udp-server").args(["-q", "--addr", addr]));
        let mut client = program("udp-client");
        let client = client.args(["--addr", addr, "--attempts", "5", &message]);
        let client = run(&mut network.on(1, client), b"");
        client.assert_printed(format!("{message}\n").as_bytes());
        client.assert_stderr("no answer to attempt 1 of 5\n");
    }
}

/// As with cat(1): the first Ctrl-D ends the line, and the second the input.
#[test]
#[cfg(target_os = "linux")]
fn on_a_terminal_two_ctrl_d_end_a_line_without_newline_and_the_input() {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    use std::io::Write;
    let (_server, mut client) = pair();
    // Or a program that another test starts at this moment would inherit it.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = openpt(flags).unwrap();
    unlockpt(&keyboard).unwrap();
    let terminal = ptsname(&keyboard, Vec::new()).unwrap();
    let terminal = std::fs::File::open(terminal.to_str().unwrap()).unwrap();
    let client = Running::start_with_stdin(&mut client, terminal);
    let mut keyboard = std::fs::File::from(keyboard);
    keyboard.write_all(b"first\nhello\x04\x04").unwrap();
    client.finish().assert_printed(b"first\nhello\n");
}

#[test]
fn it_names_the_example_for_a_broadcast_address() {
    let mut client = harness::at(program("udp-client"), "127.255.255.255:7007");
    let error = "Error: cannot reach 127.255.255.255:7007: \
                 if this is a broadcast address, run the example one_to_many\n";
    run(client.arg("hello"), b"").assert_failed(error);
}

#[test]
fn it_gets_every_echo_through_a_bad_network_complete_and_in_order() {
    let messages: String = (0..40)
        .map(|number| format!("message {number}\n"))
        .collect();
    let start = |seed| {
        let options = format!("--drop 0.3 --duplicate 0.1 --reorder 0.2 --delay 5 --seed {seed}");
        let (relay, server) = super::relay::relay_to_echo(&options);
        let mut client = harness::at(program("udp-client"), &relay.addr.to_string());
        client.args(["--timeout", "0.02", "--attempts", "2000"]);
        let mut client = Running::start(&mut client);
        client.write(messages.as_bytes());
        (client, relay, server)
    };
    let mut log = String::new();
    // All run at the same time, because each of them mostly waits.
    for (client, relay, _server) in [1, 2, 3, 4].map(start) {
        client.finish().assert_printed(messages.as_bytes());
        log += &relay.running.kill().stderr;
    }
    for name in ["question", "answer"] {
        for fate in ["lost", "doubled", "held back", "passed"] {
            let is_it = |line: &str| line.contains(name) && line.contains(fate);
            assert!(log.lines().any(is_it), "no {name} was {fate}: {log}");
        }
    }
}
