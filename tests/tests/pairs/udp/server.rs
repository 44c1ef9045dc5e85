//! What `udp-server` promises, and each example that can take its place. What only one of them
//! promises is in `udp/batch.rs`, `udp/multicast.rs` and `udp/wildcard.rs`.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Command;

use harness::{Server, example_of, not_run, program, run, udp_socket};
use rstest::rstest;
use rstest_reuse::{apply, template};

/// A group for the tests on one host.
pub const GROUP: &str = "239.255.70.7";

/// The servers that keep these promises.
#[derive(Clone, Copy)]
pub enum UdpServer {
    Plain,
    #[cfg(target_os = "linux")]
    Batch,
    Multicast,
    #[cfg(target_os = "linux")]
    Wildcard,
}

#[cfg(target_os = "linux")]
#[template]
#[rstest]
#[case::udp_server(UdpServer::Plain)]
#[case::batch(UdpServer::Batch)]
#[case::multicast(UdpServer::Multicast)]
#[case::wildcard(UdpServer::Wildcard)]
fn every_udp_server(#[case] udp: UdpServer) {}

#[cfg(not(target_os = "linux"))]
#[template]
#[rstest]
#[case::udp_server(UdpServer::Plain)]
#[case::multicast(UdpServer::Multicast)]
fn every_udp_server(#[case] udp: UdpServer) {}

impl UdpServer {
    /// Returns the command that starts the server on this address.
    pub fn command(self, addr: &str) -> Command {
        let mut command = match self {
            UdpServer::Plain => program("udp-server"),
            #[cfg(target_os = "linux")]
            UdpServer::Batch => example_of("udp-server", "batch"),
            UdpServer::Multicast => example_of("udp-server", "multicast"),
            #[cfg(target_os = "linux")]
            UdpServer::Wildcard => example_of("udp-server", "wildcard"),
        };
        if let UdpServer::Multicast = self {
            // A member with an IPv6 address must join an IPv6 group.
            let (group, interface) = match addr.starts_with('[') {
                true => ("ff12::7007", "1"),
                false => (GROUP, "127.0.0.1"),
            };
            command.args([group, "--interface", interface]);
        }
        harness::at(command, addr)
    }

    pub fn start(self, addr: &str) -> Server {
        Server::start(&mut self.command(addr))
    }

    pub fn start_on_loopback(self) -> Server {
        self.start("127.0.0.1:0")
    }
}

/// Sends a datagram and returns the next one that comes back.
pub fn echo(socket: &UdpSocket, server: &Server, datagram: &[u8]) -> Vec<u8> {
    socket.send_to(datagram, server.addr).unwrap();
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("an echo");
    assert_eq!(
        from, server.addr,
        "the echo comes from where the datagram went"
    );
    buffer[..len].to_vec()
}

fn assert_serves(server: &Server) {
    assert_eq!(
        echo(&udp_socket("127.0.0.1"), server, b"still there?"),
        b"still there?"
    );
}

/// Asserts that no answer has come. Call it after the server has answered a later datagram,
/// because the server answers in order.
fn assert_no_answer(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv_from(&mut [0; 64]).expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

fn assert_comes_back_whole(socket: &UdpSocket, server: &Server, size: usize) {
    if cfg!(target_os = "macos") && size > 9216 {
        return not_run(&format!(
            "{size} bytes: macOS sends at most net.inet.udp.maxdgram"
        ));
    }
    let datagram: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let echo = echo(socket, server, &datagram);
    assert!(
        echo == datagram,
        "{size} bytes went out, {} came back",
        echo.len()
    );
}

#[apply(every_udp_server)]
fn a_datagram_of_any_size_comes_back_whole(#[case] udp: UdpServer) {
    let server = udp.start_on_loopback();
    let socket = udp_socket("127.0.0.1");
    for size in [0, 1, 1472, 9000, 65_507] {
        assert_comes_back_whole(&socket, &server, size);
    }
}

#[apply(every_udp_server)]
fn ipv6_works_up_to_its_longer_limit(#[case] udp: UdpServer) {
    if !harness::has_ipv6() {
        return;
    }
    let server = udp.start("[::1]:0");
    let socket = udp_socket("::1");
    for size in [0, 5, 65_527] {
        assert_comes_back_whole(&socket, &server, size);
    }
}

#[apply(every_udp_server)]
fn one_socket_on_all_addresses_serves_both_families(#[case] udp: UdpServer) {
    if cfg!(windows) {
        return not_run(
            "on Windows an IPv6 socket takes IPv6 alone, unless an option says otherwise",
        );
    }
    if !harness::has_ipv6() {
        return;
    }
    let mut server = udp.start("[::]:0");
    for host in ["::1", "127.0.0.1"] {
        let socket = udp_socket(host);
        socket.connect((host, server.addr.port())).unwrap();
        socket.send(host.as_bytes()).unwrap();
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).expect("an echo");
        assert_eq!(&buffer[..len], host.as_bytes());
    }
    assert!(server.running.stderr_line().starts_with("[::1]:"));
    let line = server.running.stderr_line();
    assert!(
        line.starts_with("[::ffff:127.0.0.1]:"),
        "an IPv4 peer in the form of IPv6: {line}"
    );
}

#[apply(every_udp_server)]
fn a_datagram_from_our_own_port_number_is_not_answered(#[case] udp: UdpServer) {
    let mut server = udp.start_on_loopback();
    let twin = match UdpSocket::bind(("127.0.0.2", server.addr.port())) {
        Ok(socket) => socket,
        Err(error) => return not_run(&format!("no second loopback address: {error}")),
    };
    twin.send_to(b"forged", server.addr).unwrap();
    assert_serves(&server);
    assert_no_answer(&twin);
    let line = server.running.stderr_line();
    assert!(line.contains("not answered, our own port number"), "{line}");
}

#[apply(every_udp_server)]
fn a_datagram_from_a_port_of_the_system_is_not_answered(#[case] udp: UdpServer) {
    let mut server = udp.start_on_loopback();
    let privileged = (512..1024)
        .rev()
        .find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok());
    let Some(privileged) = privileged else {
        return not_run("no right to a port below 1024");
    };
    privileged.send_to(b"forged", server.addr).unwrap();
    assert_serves(&server);
    assert_no_answer(&privileged);
    let line = server.running.stderr_line();
    assert!(line.contains("not answered, ports below 1024"), "{line}");
}

/// Sends the server a datagram with a forged sender, which a UDP socket cannot do. If the
/// right to it is missing, prints `NOT RUN` and returns `false`.
#[cfg(target_os = "linux")]
pub fn forge(from: std::net::SocketAddrV4, server: &Server) -> bool {
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    const IPPROTO_RAW: i32 = 255; // We also write the IP header (raw(7)).
    let raw = match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))) {
        Ok(socket) => socket,
        Err(error) => {
            not_run(&format!("no raw socket: {error}"));
            return false;
        }
    };
    let payload = b"forged";
    // RFC 791. The kernel fills in the length, the identification and the checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend([127, 0, 0, 1]);
    // RFC 768: ports, length, no checksum.
    for field in [from.port(), server.addr.port(), 8 + payload.len() as u16, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    raw.send_to(&packet, &SockAddr::from(server.addr)).unwrap();
    true
}

/// The server must log the reason for each of these, and go on serving.
#[apply(every_udp_server)]
#[cfg(target_os = "linux")]
fn a_forged_sender_neither_gets_an_answer_nor_ends_the_server(#[case] udp: UdpServer) {
    let mut server = udp.start_on_loopback();
    let own_port = server.addr.port();
    let senders = [
        ("127.0.0.1", 0, "not answered, port 0"),
        ("127.0.0.1", 7, "not answered, ports below 1024"),
        ("127.0.0.1", 1023, "not answered, ports below 1024"),
        ("127.0.0.1", 1024, "length 6 \"forged\""),
        ("127.0.0.1", own_port, "not answered, our own port number"),
        ("239.1.2.3", 40_000, "not answered, an address that no host"),
        (
            "127.255.255.255",
            40_000,
            "cannot send the echo: Permission denied",
        ),
    ];
    for (host, port, logged) in senders {
        let from = std::net::SocketAddrV4::new(host.parse().unwrap(), port);
        if !forge(from, &server) {
            return;
        }
        let line = server.running.stderr_line();
        assert!(line.starts_with(&format!("{from}: {logged}")), "{line}");
        assert_serves(&server);
        assert!(
            server
                .running
                .stderr_line()
                .ends_with("length 12 \"still there?\"")
        );
    }
}

/// Adds 16 bits at a time, and each carry again (RFC 1071).
#[cfg(target_os = "linux")]
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks_exact(2);
    let sum: u32 = pairs
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// An answer to `::` would go to this host itself, to a socket that only listens on loopback.
#[apply(every_udp_server)]
#[cfg(target_os = "linux")]
fn a_sender_without_an_address_gets_no_answer(#[case] udp: UdpServer) {
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    if !harness::has_ipv6() {
        return;
    }
    let victim = udp_socket("::1");
    let raw = match Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))) {
        Ok(socket) => socket,
        Err(error) => return not_run(&format!("no raw socket: {error}")),
    };
    let mut server = udp.start("[::1]:0");
    let from = SocketAddrV6::new(
        Ipv6Addr::UNSPECIFIED,
        victim.local_addr().unwrap().port(),
        0,
        0,
    );
    let addresses = [from.ip().octets(), Ipv6Addr::LOCALHOST.octets()].concat();
    let ports = [from.port(), server.addr.port()]
        .map(u16::to_be_bytes)
        .concat();
    let len = 14_u16.to_be_bytes(); // RFC 768: a header of 8 bytes, and 6 bytes.
    let without = [&ports[..], &len, &[0, 0], b"forged"].concat();
    let pseudo = [&addresses[..], &[0, 0], &len, &[0, 0, 0, 17]].concat(); // RFC 8200, 8.1.
    let sum = checksum(&[&pseudo[..], &without].concat()).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &len, &[17, 64], &addresses].concat();
    let packet = [&header[..], &ports, &len, &sum, b"forged"].concat();
    let mut to = server.addr;
    to.set_port(0); // A raw socket of IPv6 takes no other (raw(7)).
    raw.send_to(&packet, &SockAddr::from(to)).unwrap();
    let line = server.running.stderr_line();
    assert_eq!(
        line,
        format!("{from}: not answered, an address that no host has")
    );
    echo(&udp_socket("::1"), &server, b"still there?");
    assert_no_answer(&victim);
}

#[apply(every_udp_server)]
fn what_a_peer_sends_can_neither_forge_a_log_line_nor_command_a_terminal(#[case] udp: UdpServer) {
    let mut server = udp.start_on_loopback();
    let socket = udp_socket("127.0.0.1");
    let peer = socket.local_addr().unwrap();
    let hostile = b"\x1b[2J\x1b]0;x\x07\r\n127.0.0.1:1: length 1 \"forged\"\n\0\x7f\x9b\xff";
    echo(&socket, &server, hostile);
    echo(&socket, &server, b"the next line");
    let line = server.running.stderr_line();
    assert!(
        line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{line:?}"
    );
    assert!(
        line.starts_with(&format!("{peer}: length {} \"\\x1b[2J", hostile.len())),
        "{line}"
    );
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: length 13 \"the next line\"")
    );
}

#[apply(every_udp_server)]
fn a_long_datagram_is_cut_short_in_the_log_only(#[case] udp: UdpServer) {
    let mut server = udp.start_on_loopback();
    let socket = udp_socket("127.0.0.1");
    assert_eq!(echo(&socket, &server, &[0; 5000]).len(), 5000);
    let line = server.running.stderr_line();
    assert!(
        line.contains(": length 5000 ") && line.ends_with("\"..."),
        "{line}"
    );
    assert!(line.len() < 400, "{} bytes", line.len());
}

#[apply(every_udp_server)]
fn quiet_logs_nothing_per_datagram(#[case] udp: UdpServer) {
    let server = Server::start(udp.command("127.0.0.1:0").arg("-q"));
    // A server logs an echo after it has sent it, so only the first has its line for sure.
    assert_serves(&server);
    assert_serves(&server);
    assert_eq!(server.running.kill().stderr, "");
}

/// A pair of datagram sockets keeps the boundaries of writes. A pipe would join the writes.
#[apply(every_udp_server)]
#[cfg(unix)]
fn a_log_line_is_one_write(#[case] udp: UdpServer) {
    use std::os::{fd::OwnedFd, unix::net::UnixDatagram};
    let (stderr, log) = UnixDatagram::pair().unwrap();
    log.set_read_timeout(Some(harness::LIMIT)).unwrap();
    let mut command = udp.command("127.0.0.1:0");
    let running = harness::Running::start_with(
        &mut command,
        std::process::Stdio::piped(),
        OwnedFd::from(stderr).into(),
    );
    let server = Server::of(running);
    let socket = udp_socket("127.0.0.1");
    for datagram in [&b"hello"[..], b"", &[0xff; 9000]] {
        echo(&socket, &server, datagram);
        let mut write = [0; 4096];
        let len = log.recv(&mut write).unwrap();
        let write = String::from_utf8_lossy(&write[..len]);
        assert!(
            write.starts_with("127.0.0.1:") && write.ends_with('\n'),
            "a part of a line: {write:?}"
        );
        assert_eq!(write.lines().count(), 1, "{write:?}");
    }
}

#[apply(every_udp_server)]
#[cfg(unix)]
fn it_serves_on_when_nobody_reads_its_output_any_more(#[case] udp: UdpServer) {
    use std::io::{BufRead, BufReader};
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let (stdout, our_stdout) = UnixStream::pair().unwrap();
    let (stderr, our_stderr) = UnixStream::pair().unwrap();
    let mut command = udp.command("127.0.0.1:0");
    let mut running = harness::Running::start_with(
        &mut command,
        OwnedFd::from(stdout).into(),
        OwnedFd::from(stderr).into(),
    );
    drop(command); // It holds copies of the program's ends.
    let mut line = String::new();
    BufReader::new(our_stdout).read_line(&mut line).unwrap();
    let addr = line
        .trim_end()
        .strip_prefix("listening on ")
        .unwrap()
        .parse()
        .unwrap();
    drop(our_stderr);
    let socket = udp_socket("127.0.0.1");
    socket.connect::<std::net::SocketAddr>(addr).unwrap();
    for _ in 0..100 {
        socket.send(b"anybody?").unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).expect("an echo"), 8);
    }
    assert!(running.is_running());
}

#[apply(every_udp_server)]
fn an_address_that_cannot_be_bound_is_told(#[case] udp: UdpServer) {
    let first = udp_socket("127.0.0.1");
    // 192.0.2.0/24 is reserved for documentation (RFC 5737). Nothing is sent there.
    for (addr, cause) in [
        (&first.local_addr().unwrap().to_string()[..], "in use"),
        ("192.0.2.1:0", "assign requested address"),
        ("127.0.0.1:65536", "invalid port value"),
        ("", "invalid socket address"),
    ] {
        let second = run(&mut udp.command(addr), b"");
        second.assert_failed(&format!("Error: cannot bind a UDP socket to {addr}"));
        if cfg!(target_os = "linux") {
            second.assert_stderr(cause);
        }
    }
}

/// Runs `udp-server` with this address. It must not start.
fn refused(addr: &str) -> String {
    let server = run(&mut UdpServer::Plain.command(addr), b"");
    assert_eq!((server.code, &server.stdout[..]), (Some(1), &b""[..]));
    server.stderr
}

#[test]
fn a_second_server_on_the_address_is_told_that_it_is_in_use() {
    let first = UdpServer::Plain.start_on_loopback();
    let addr = first.addr.to_string();
    let error = format!("Error: cannot bind a UDP socket to {addr}: another socket uses it; ");
    assert!(refused(&addr).starts_with(&error));
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = refused("192.0.2.1:0");
    assert!(
        error.contains("192.0.2.1:0: not an address of this machine\n"),
        "{error}"
    );
}

#[test]
fn an_address_that_is_none_is_refused_and_the_message_says_what_is_right() {
    let server = |addr: &str| UdpServer::Plain.command(addr);
    harness::assert_refuses_addresses(server, "cannot bind a UDP socket to ");
}

#[test]
#[cfg(target_os = "linux")]
fn a_port_of_the_system_needs_the_right_to_it() {
    let first_free =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim().parse::<u16>().unwrap() <= 1 {
        return not_run("here every port is everybody's (ip_unprivileged_port_start)");
    }
    let server = UdpServer::Plain.command("127.0.0.1:1");
    let (_folder, copy) = harness::copy_of(&server);
    let mut command = std::process::Command::new(copy);
    command.args(server.get_args()).env_remove("RUST_BACKTRACE");
    harness::as_nobody(&mut command);
    let server = run(&mut command, b"");
    assert_eq!(server.code, Some(1), "{server:?}");
    server.assert_stderr("127.0.0.1:1: ports below 1024 often need a privilege");
}

/// Where no port is free, another port is no help; and a sandbox may refuse any port.
#[test]
#[cfg(target_os = "linux")]
fn advice_is_given_only_where_it_is_true() {
    let server = UdpServer::Plain.command("127.0.0.1:0");
    let Some(mut server) = harness::where_no_port_is_free(&server) else {
        return;
    };
    let error = "Error: cannot bind a UDP socket to 127.0.0.1:0\n";
    run(&mut server, b"").assert_failed(error);
    if !harness::can_trace() {
        return;
    }
    let server = UdpServer::Plain.command("127.0.0.1:7150");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "inject=bind:error=EACCES"]);
    strace.arg(server.get_program()).args(server.get_args());
    let error = "Error: cannot bind a UDP socket to 127.0.0.1:7150\n";
    run(&mut strace, b"").assert_failed(error);
}

/// Forges datagrams from hosts of the network that do not exist, 200 in a second.
#[cfg(target_os = "linux")]
const FORGER: &str = r"
import itertools, socket, struct, time
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in itertools.count():
    header = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 100 + number % 150, 10, 77, 0, 1])
    raw.sendto(header + struct.pack('!4H', 40000, 7007, 14, 0) + b'forged', ('10.77.0.1', 0))
    time.sleep(0.005)
";

/// What is for them waits in the send buffer of the server while the kernel looks for them. Another
/// host is answered meanwhile.
#[apply(every_udp_server)]
#[cfg(target_os = "linux")]
fn hosts_that_do_not_exist_cannot_make_it_wait(#[case] udp: UdpServer) {
    use harness::Network;
    let Some(mut python) = harness::foreign("python3") else {
        return;
    };
    let Some(network) = Network::of(3) else {
        return;
    };
    let mut server = match udp {
        // The test network routes groups to the interface, and this is its address.
        UdpServer::Multicast => {
            let mut member = example_of("udp-server", "multicast");
            member.args([GROUP, "--interface", "10.77.0.1"]);
            network.server(1, &member)
        }
        _ => network.server(1, &udp.command("10.77.0.1:7007")),
    };
    let client = |args: &[&str]| {
        let mut client = harness::at(program("udp-client"), "10.77.0.1:7007");
        run(&mut network.on(3, client.args(args)), b"")
    };
    client(&["hello"]).assert_printed(b"hello\n");
    let _forger = harness::Running::start(&mut network.on(2, python.args(["-c", FORGER])));
    let dropped = ": cannot send the echo: Resource temporarily";
    let drops = (0..2000).any(|_| server.stderr_line().contains(dropped));
    assert!(drops, "it waits for hosts that do not exist");
    let answered = (0..12)
        .filter(|_| client(&["--attempts", "1", "hello"]).code == Some(0))
        .count();
    assert!(answered > 3, "{answered} of 12 answered");
}

/// strace makes the first five calls fail.
#[apply(every_udp_server)]
#[cfg(target_os = "linux")]
fn after_an_error_of_receive_it_pauses_and_goes_on(#[case] udp: UdpServer) {
    if !harness::can_trace() {
        return;
    }
    let server = udp.command("127.0.0.1:0");
    let mut strace = Command::new("strace");
    strace.args([
        "-D",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=recvfrom,recvmsg,recvmmsg",
    ]);
    strace.args([
        "-e",
        "inject=recvfrom,recvmsg,recvmmsg:error=ENOMEM:when=1..5",
    ]);
    strace.arg(server.get_program()).args(server.get_args());
    let started = std::time::Instant::now();
    let mut server = Server::start(&mut strace);
    assert_serves(&server);
    let time = started.elapsed();
    for _ in 0..5 {
        let line = server.running.stderr_line();
        assert!(
            line.starts_with("cannot receive: Cannot allocate"),
            "{line}"
        );
    }
    assert!(time.as_millis() >= 500, "five pauses took {time:?}");
}

/// Nobody hears where it listens, so the test chooses the port.
#[apply(every_udp_server)]
#[cfg(unix)]
fn it_serves_when_nobody_reads_even_where_it_listens(#[case] udp: UdpServer) {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    use std::process::Stdio;
    let start = |addr: std::net::SocketAddr| {
        let stdout = OwnedFd::from(UnixStream::pair().unwrap().0).into();
        let mut command = udp.command(&addr.to_string());
        Some(harness::Running::start_with(
            &mut command,
            stdout,
            Stdio::piped(),
        ))
    };
    let answers = |addr| {
        let socket = udp_socket("127.0.0.1");
        let limit = std::time::Duration::from_millis(200);
        socket.set_read_timeout(Some(limit)).unwrap();
        socket.send_to(b"anybody?", addr).is_ok() && socket.recv(&mut [0; 64]).is_ok()
    };
    harness::on_a_free_port(start, answers);
}
