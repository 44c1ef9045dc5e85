//! What `udp-server` promises, and each example that can take its place.

use std::io::ErrorKind;
use std::net::UdpSocket;
#[cfg(target_os = "linux")]
use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};
#[cfg(target_os = "linux")]
use std::path::Path;
#[cfg(target_os = "linux")]
use std::time::Instant;

use harness::{try_run, udp_socket};
#[cfg(target_os = "linux")]
use socket2::{Domain, SockAddr};

#[cfg(target_os = "linux")]
use crate::catalog::UDP_CLIENT;
#[cfg(target_os = "linux")]
use crate::forge::{forge, raw_socket};
use crate::{Broken, Kept, Listening, Ours, Promised, Said, Subject};

promises! {
    anybody: [
        a_datagram_of_any_size_comes_back_whole,
        ipv6_works_up_to_its_longer_limit,
        a_datagram_from_our_own_port_number_is_not_answered,
        a_datagram_from_a_port_of_the_system_is_not_answered,
        #[cfg(target_os = "linux")] a_forged_sender_does_not_end_it,
    ],
    ours: [
        one_socket_on_all_addresses_serves_both_families,
        a_peer_that_is_not_answered_is_logged,
        #[cfg(target_os = "linux")] a_forged_sender_neither_gets_an_answer_nor_ends_the_server,
        #[cfg(target_os = "linux")] a_sender_without_an_address_gets_no_answer,
        what_a_peer_sends_can_neither_forge_a_log_line_nor_command_a_terminal,
        a_long_datagram_is_cut_short_in_the_log_only,
        an_address_that_cannot_be_bound_is_told,
        #[cfg(target_os = "linux")] hosts_that_do_not_exist_cannot_make_it_wait,
        #[cfg(target_os = "linux")] after_an_error_of_receive_it_pauses_and_goes_on,
    ],
}

/// Breaks a promise if an answer has come. Call it after the server has answered a later datagram,
/// because the server answers in order.
fn got_no_answer(socket: &UdpSocket) -> Kept {
    socket.set_nonblocking(true)?;
    match socket.recv_from(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        got => Err(Broken::Promise(format!("an answer, or an error: {got:?}"))),
    }
}

fn come_back_whole(server: &Listening, socket: &UdpSocket, sizes: &[usize]) -> Kept {
    for &size in sizes {
        if cfg!(target_os = "macos") && size > 9216 {
            return Err(Broken::not_asked(format!(
                "{size} bytes: macOS sends at most net.inet.udp.maxdgram"
            )));
        }
        // These are letters and signs, because this is not about bytes that are no text.
        let datagram: Vec<u8> = (0..size).map(|i| b'!' + (i % 89) as u8).collect();
        let echo = server.echo(socket, &datagram)?;
        ensure!(
            echo == datagram,
            "{size} bytes went out, {} came back",
            echo.len()
        );
    }
    Ok(())
}

pub fn a_datagram_of_any_size_comes_back_whole(subject: &Subject) -> Kept {
    let server = subject.start()?;
    come_back_whole(
        &server,
        &udp_socket("127.0.0.1"),
        &[0, 1, 1472, 9000, 65_507],
    )
}

pub fn ipv6_works_up_to_its_longer_limit(subject: &Subject) -> Kept {
    harness::ipv6().map_err(Broken::NotAsked)?;
    let server = subject.start_on_host("[::1]")?;
    come_back_whole(&server, &udp_socket("::1"), &[0, 5, 65_527])
}

pub fn one_socket_on_all_addresses_serves_both_families(ours: &Ours) -> Kept {
    if cfg!(windows) {
        let why = "on Windows an IPv6 socket takes IPv6 alone, unless an option says otherwise";
        return Err(Broken::not_asked(why));
    }
    harness::ipv6().map_err(Broken::NotAsked)?;
    let mut server = ours.start_on_host("[::]")?;
    for host in ["::1", "127.0.0.1"] {
        let socket = udp_socket(host);
        socket.connect((host, server.ip()?.port()))?;
        socket.send(host.as_bytes())?;
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).promised("an echo")?;
        ensure_eq!(&buffer[..len], host.as_bytes());
    }
    for form in ["[::1]:", "[::ffff:127.0.0.1]:"] {
        let line = server.log_line()?;
        ensure!(line.starts_with(form), "not {form}: {line}");
    }
    Ok(())
}

/// Returns a socket on another address of this host, with the port number of the server.
fn twin_of(server: &Listening) -> Result<UdpSocket, Broken> {
    let twin = UdpSocket::bind(("127.0.0.2", server.ip()?.port()));
    twin.map_err(|error| Broken::not_asked(format!("no second loopback address: {error}")))
}

fn privileged_socket() -> Result<UdpSocket, Broken> {
    let mut ports = (512..1024).rev();
    let socket = ports.find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok());
    socket.ok_or_else(|| Broken::not_asked("no right to a port below 1024"))
}

fn is_not_answered(server: &Listening, socket: &UdpSocket) -> Kept {
    socket.send_to(b"forged", server.ip()?)?;
    server.serves()?;
    got_no_answer(socket)
}

pub fn a_datagram_from_our_own_port_number_is_not_answered(subject: &Subject) -> Kept {
    let server = subject.start()?;
    is_not_answered(&server, &twin_of(&server)?)
}

pub fn a_datagram_from_a_port_of_the_system_is_not_answered(subject: &Subject) -> Kept {
    let server = subject.start()?;
    is_not_answered(&server, &privileged_socket()?)
}

pub fn a_peer_that_is_not_answered_is_logged(ours: &Ours) -> Kept {
    let mut server = ours.start()?;
    let twin = twin_of(&server)?;
    let mut is_logged = |socket: UdpSocket| {
        socket.send_to(b"forged", server.ip()?)?;
        let line = server.log_line()?;
        let begin = format!("{}: not answered", socket.local_addr()?);
        ensure!(line.starts_with(&begin), "{line}");
        Ok(())
    };
    is_logged(twin)?;
    is_logged(privileged_socket()?)
}

/// An answer to port 0, or to a broadcast address, is an error that concerns this datagram alone.
#[cfg(target_os = "linux")]
pub fn a_forged_sender_does_not_end_it(subject: &Subject) -> Kept {
    let server = subject.start()?;
    for (host, port) in [([127, 0, 0, 1], 0), ([127, 255, 255, 255], 40_000)] {
        forge(SocketAddrV4::new(host.into(), port), server.ip()?)?;
        server.serves()?;
    }
    Ok(())
}

/// The server must log the reason for each of these, and go on serving.
#[cfg(target_os = "linux")]
pub fn a_forged_sender_neither_gets_an_answer_nor_ends_the_server(ours: &Ours) -> Kept {
    let mut server = ours.start()?;
    let own_port = server.ip()?.port();
    let broadcast_fails = "cannot send the echo: Permission denied";
    let senders = [
        ([127, 0, 0, 1], 0, "not answered"),
        ([127, 0, 0, 1], 7, "not answered"),
        ([127, 0, 0, 1], 1023, "not answered"),
        ([127, 0, 0, 1], 1024, "length 6"),
        ([127, 0, 0, 1], own_port, "not answered"),
        ([239, 1, 2, 3], 40_000, "not answered"),
        ([127, 255, 255, 255], 40_000, broadcast_fails),
    ];
    for (host, port, logged) in senders {
        let from = SocketAddrV4::new(host.into(), port);
        forge(from, server.ip()?)?;
        let line = server.log_line()?;
        ensure!(line.starts_with(&format!("{from}: {logged}")), "{line}");
        server.serves()?;
        let line = server.log_line()?;
        ensure!(line.contains(": length 12"), "{line}");
    }
    Ok(())
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
#[cfg(target_os = "linux")]
pub fn a_sender_without_an_address_gets_no_answer(ours: &Ours) -> Kept {
    harness::ipv6().map_err(Broken::NotAsked)?;
    let victim = udp_socket("::1");
    let raw = raw_socket(Domain::IPV6)?;
    let mut server = ours.start_on_host("[::1]")?;
    let mut to = server.ip()?;
    let from = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, victim.local_addr()?.port(), 0, 0);
    let addresses = [from.ip().octets(), Ipv6Addr::LOCALHOST.octets()].concat();
    let ports = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    let len = 14_u16.to_be_bytes(); // RFC 768: a header of 8 bytes, and 6 bytes.
    let without = [&ports[..], &len, &[0, 0], b"forged"].concat();
    let pseudo = [&addresses[..], &[0, 0], &len, &[0, 0, 0, 17]].concat(); // RFC 8200, 8.1.
    let sum = checksum(&[&pseudo[..], &without].concat()).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &len, &[17, 64], &addresses].concat();
    let packet = [&header[..], &ports, &len, &sum, b"forged"].concat();
    to.set_port(0); // A raw socket of IPv6 takes no other (raw(7)).
    raw.send_to(&packet, &SockAddr::from(to))?;
    let line = server.log_line()?;
    ensure!(line.starts_with(&format!("{from}: not answered")), "{line}");
    server.serves()?;
    got_no_answer(&victim)
}

pub fn what_a_peer_sends_can_neither_forge_a_log_line_nor_command_a_terminal(ours: &Ours) -> Kept {
    let mut server = ours.start()?;
    let socket = udp_socket("127.0.0.1");
    let peer = socket.local_addr()?;
    let hostile = b"\x1b[2J\x1b]0;x\x07\r\n127.0.0.1:1: length 1 \"forged\"\n\0\x7f\x9b\xff";
    server.echo(&socket, hostile)?;
    server.echo(&socket, b"the next line")?;
    let line = server.log_line()?;
    let is_printable = |byte| (b' '..=b'~').contains(&byte);
    ensure!(line.bytes().all(is_printable), "{line:?}");
    let begin = format!("{peer}: length {}", hostile.len());
    ensure!(line.starts_with(&begin), "{line}");
    let line = server.log_line()?;
    let begin = format!("{peer}: length 13");
    ensure!(line.starts_with(&begin), "{line}");
    Ok(())
}

pub fn a_long_datagram_is_cut_short_in_the_log_only(ours: &Ours) -> Kept {
    let mut server = ours.start()?;
    ensure_eq!(
        server.echo(&udp_socket("127.0.0.1"), &[0; 5000])?.len(),
        5000
    );
    let line = server.log_line()?;
    ensure!(line.contains(": length 5000"), "{line}");
    ensure!(line.len() < 400, "{} bytes: {line}", line.len());
    Ok(())
}

pub fn an_address_that_cannot_be_bound_is_told(ours: &Ours) -> Kept {
    // 192.0.2.0/24 is reserved for documentation (RFC 5737). Nothing is sent there.
    for (addr, cause) in [
        ("192.0.2.1:0", "assign requested address"),
        ("127.0.0.1:65536", "invalid port value"),
        ("", "invalid socket address"),
    ] {
        let second = try_run(&mut ours.at(addr), b"")?;
        second.failed(&format!("Error: cannot bind a UDP socket to {addr}"))?;
        if cfg!(target_os = "linux") {
            second.says(cause)?;
        }
    }
    Ok(())
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
#[cfg(target_os = "linux")]
pub fn hosts_that_do_not_exist_cannot_make_it_wait(ours: &Ours) -> Kept {
    let mut python = harness::installed("python3").map_err(Broken::NotAsked)?;
    let network = harness::Network::try_of(3).map_err(Broken::NotAsked)?;
    let mut server = network.server(1, &ours.at("10.77.0.1:7007"));
    let client = |args: &[&str]| {
        let mut client = UDP_CLIENT.at("10.77.0.1:7007");
        try_run(&mut network.on(3, client.args(args)), b"")
    };
    client(&["hello"])?.printed(b"hello\n")?;
    let forger = &mut network.on(2, python.args(["-c", FORGER]));
    let _forger = harness::Running::start(forger);
    for line in 0.. {
        ensure!(line < 2000, "it waits for hosts that do not exist");
        let dropped = ": cannot send the echo: Resource temporarily";
        if server.try_stderr_line()?.contains(dropped) {
            break;
        }
    }
    let mut answered = 0;
    for _ in 0..12 {
        answered += usize::from(client(&["--attempts", "1", "hello"])?.code == Some(0));
    }
    ensure!(answered > 3, "{answered} of 12 answered");
    Ok(())
}

/// strace makes the first five calls fail.
#[cfg(target_os = "linux")]
pub fn after_an_error_of_receive_it_pauses_and_goes_on(ours: &Ours) -> Kept {
    let inject = "inject=recvfrom,recvmsg,recvmmsg:error=ENOMEM:when=1..5";
    let options = ["-e", "trace=recvfrom,recvmsg,recvmmsg", "-e", inject];
    let started = Instant::now();
    let mut server = ours.start_traced(Path::new("/dev/null"), &options)?;
    server.serves()?;
    let time = started.elapsed();
    for _ in 0..5 {
        let line = server.log_line()?;
        ensure!(
            line.starts_with("cannot receive: Cannot allocate"),
            "{line}"
        );
    }
    ensure!(time.as_millis() >= 500, "five pauses took {time:?}");
    Ok(())
}
