//! Mistakes 35 to 50.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{
    AddrParseError, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
#[cfg(target_os = "linux")]
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::connection;
use harness::{LIMIT, not_run, udp_socket};
use socket2::{SockRef, TcpKeepalive};

/// How long a test watches a thread or a socket to see that nothing happens.
const A_WHILE: Duration = Duration::from_millis(200);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Waits until a thread has ended.
fn ends<T>(thread: &ScopedJoinHandle<T>) -> bool {
    let deadline = Instant::now() + LIMIT;
    while !thread.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

// 35. A thread that waits in accept or recv cannot be stopped from outside.

/// Serves one client after the other until the flag is set.
fn serve_until(listener: &TcpListener, stopped: &AtomicBool) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        if stopped.load(Ordering::SeqCst) {
            return Ok(()); // This connection has only woken us.
        }
        let _ = stream.write_all(b"hello\n"); // An error of one client ends nothing.
    }
}

/// Sets the flag. The thread that waits in accept does not look at it.
fn ask_to_stop(stopped: &AtomicBool) {
    stopped.store(true, Ordering::SeqCst);
}

/// Sets the flag, and connects, because accept returns only for a connection.
fn stop(server: SocketAddr, stopped: &AtomicBool) -> io::Result<()> {
    stopped.store(true, Ordering::SeqCst);
    TcpStream::connect(server)?;
    Ok(())
}

#[test]
fn neither_a_flag_nor_a_dropped_clone_wakes_accept_and_a_connection_does() {
    let (listener, addr) = listener();
    let clone = listener.try_clone().unwrap();
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve_until(&listener, &stopped));
        // When a client has been served, the server is in the loop.
        let mut greeting = String::new();
        let mut client = TcpStream::connect(addr).unwrap();
        client.read_to_string(&mut greeting).unwrap();
        thread::sleep(A_WHILE);
        ask_to_stop(&stopped);
        clone.set_nonblocking(true).unwrap();
        drop(clone);
        thread::sleep(A_WHILE);
        let still_waits = !server.is_finished();
        stop(addr, &stopped).unwrap();
        assert!(ends(&server), "a connection does not wake it");
        assert!(still_waits, "something else has woken it");
        server.join().unwrap().unwrap();
    });
}

/// Answers datagrams until the flag is set, and looks at it ten times a second.
fn answer_until(socket: &UdpSocket, stopped: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = vec![0; 65_527];
    while !stopped.load(Ordering::SeqCst) {
        match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => {
                let _ = socket.send_to(&buffer[..len], peer);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[test]
fn a_receiver_with_a_time_limit_sees_the_flag() {
    let socket = udp_socket("127.0.0.1");
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| answer_until(&socket, &stopped));
        let client = udp_socket("127.0.0.1");
        client
            .send_to(b"hello", socket.local_addr().unwrap())
            .unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
        ask_to_stop(&stopped);
        assert!(ends(&server));
        server.join().unwrap().unwrap();
    });
}

#[test]
fn shutdown_wakes_a_thread_that_reads_and_a_dropped_clone_does_not() {
    let (stream, _peer) = connection();
    stream.set_read_timeout(None).unwrap();
    let clones = [(); 2].map(|()| stream.try_clone().unwrap());
    thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 8]));
        let [dropped, kept] = clones;
        drop(dropped);
        thread::sleep(A_WHILE);
        let still_waits = !reader.is_finished();
        kept.shutdown(Shutdown::Both).unwrap();
        assert!(ends(&reader), "shutdown does not wake it");
        assert!(still_waits, "something else has woken it");
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

// 36. Two small writes, then a read.

#[cfg(target_os = "linux")]
/// Makes a system call, and so perhaps a segment, for each part: "get", " ", the key, "\n".
fn ask_in_parts(stream: &mut TcpStream, command: &str, key: &str) -> io::Result<()> {
    writeln!(stream, "{command} {key}")
}

#[cfg(target_os = "linux")]
/// Writes the whole message at once.
fn ask(stream: &mut TcpStream, command: &str, key: &str) -> io::Result<()> {
    let message = format!("{command} {key}\n");
    stream.write_all(message.as_bytes())
}

/// On Linux the peer's kernel acknowledges a small segment after 40 ms, and Nagle's algorithm
/// waits for that. Half of the exchanges may be disturbed, or be quick at the beginning.
#[test]
#[cfg(target_os = "linux")]
fn a_request_in_parts_waits_for_an_acknowledgement_and_a_whole_one_does_not() {
    let median = |nodelay: bool, ask: fn(&mut TcpStream, &str, &str) -> io::Result<()>| {
        let (mut client, server) = connection();
        client.set_nodelay(nodelay).unwrap();
        thread::spawn(move || {
            let mut requests = BufReader::new(&server);
            while requests.read_line(&mut String::new()).unwrap_or(0) > 0 {
                (&server).write_all(b".").unwrap();
            }
        });
        let mut times: Vec<Duration> = (0..31)
            .map(|_| {
                let started = Instant::now();
                ask(&mut client, "get", "key").unwrap();
                client.read_exact(&mut [0]).unwrap();
                started.elapsed()
            })
            .collect();
        times.sort();
        times[15]
    };
    let in_parts = median(false, ask_in_parts);
    let without_nagle = median(true, ask_in_parts);
    let whole = median(false, ask);
    println!("in parts {in_parts:?}, without Nagle {without_nagle:?}, whole {whole:?}");
    assert!(in_parts > 2 * whole, "{in_parts:?} and {whole:?}");
    assert!(
        in_parts > 2 * without_nagle,
        "{in_parts:?} and {without_nagle:?}"
    );
}

// 37. Printing what a peer sends.

/// The peer decides what the terminal does, and how many lines the log has.
fn log_line(peer: SocketAddr, received: &[u8]) -> String {
    format!("{peer}: {}", String::from_utf8_lossy(received))
}

/// Only printable ASCII comes out, on one line.
fn escaped_log_line(peer: SocketAddr, received: &[u8]) -> String {
    format!("{peer}: \"{}\"", received.escape_ascii())
}

/// Keeps the letters of all languages.
fn readable_log_line(peer: SocketAddr, received: &[u8]) -> String {
    let text = String::from_utf8_lossy(received);
    format!("{peer}: \"{}\"", text.escape_debug())
}

#[test]
fn lossy_text_keeps_what_commands_a_terminal_and_escaped_text_does_not() {
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_931));
    // It clears the screen, sets the title, forges a line, and turns the direction of writing.
    let hostile = "\x1b[2J\x1b]0;x\x07\n127.0.0.1:1: \"forged\" \u{9b}2J \u{202e}你好".as_bytes();
    let wrong = log_line(peer, hostile);
    assert!(wrong.contains('\x1b') && wrong.contains('\u{9b}') && wrong.contains('\u{202e}'));
    assert_eq!(wrong.lines().count(), 2);
    let right = escaped_log_line(peer, hostile);
    assert!(right.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let readable = readable_log_line(peer, hostile);
    assert!(readable.ends_with("你好\""), "{readable}");
    assert!(!readable.contains(char::is_control) && !readable.contains('\u{202e}'));
}

// 38. println! panics when nobody reads, or when the disk is full.

#[test]
#[cfg(target_os = "linux")]
fn println_ends_a_server_whose_output_fails_and_writeln_does_not() {
    use harness::{Running, peer};
    use std::fs::OpenOptions;
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    use std::process::{Command, Stdio};
    let outputs = || {
        let unread = UnixStream::pair().unwrap().0; // The other end is closed.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        [
            (OwnedFd::from(unread), "Broken pipe (os error 32)"),
            (OwnedFd::from(full), "No space left on device (os error 28)"),
        ]
    };
    let start = |mut command: Command, stdout: OwnedFd| {
        Running::start_with(&mut command, stdout.into(), Stdio::piped())
    };
    for (stdout, why) in outputs() {
        let server = start(peer("plain_udp_echo"), stdout).finish();
        assert_eq!(server.code, Some(101), "{server:?}");
        server.assert_stderr(&format!("failed printing to stdout: {why}"));
    }
    // A stdout that was never open is harmless: the runtime opens /dev/null in its place.
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" >&-"]);
    closed.arg(peer("plain_udp_echo").get_program());
    let mut closed = Running::start(&mut closed);
    thread::sleep(A_WHILE);
    assert!(closed.is_running());
}

// 39. A server on all addresses answers from another one.

#[cfg(target_os = "linux")]
/// Answers one datagram. On 0.0.0.0 the kernel chooses the address that the answer comes from.
fn answer_one(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_527];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    socket.send_to(&buffer[..len], peer)?;
    Ok(())
}

#[cfg(target_os = "linux")]
/// Opens a socket for each address. Each then answers from its own.
fn bind_each(hosts: &[IpAddr], port: u16) -> io::Result<Vec<UdpSocket>> {
    hosts
        .iter()
        .map(|&host| UdpSocket::bind((host, port)))
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn a_connected_client_does_not_hear_the_answer_from_another_address() {
    let asked = IpAddr::from([127, 0, 0, 2]);
    let client_of = |server: &UdpSocket| {
        let client = udp_socket("0.0.0.0");
        let port = server.local_addr().unwrap().port();
        client.connect((asked, port)).unwrap();
        client.send(b"hello").unwrap();
        client
    };
    let on_all = udp_socket("0.0.0.0");
    let client = client_of(&on_all);
    answer_one(&on_all).unwrap();
    client.set_read_timeout(Some(A_WHILE)).unwrap();
    let error = client.recv(&mut [0; 8]).unwrap_err().kind();
    assert_eq!(error, ErrorKind::WouldBlock, "the time limit");

    let hosts = [IpAddr::from([127, 0, 0, 3]), asked];
    let each = bind_each(&hosts, 0).unwrap();
    let client = client_of(&each[1]);
    answer_one(&each[1]).unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_to_a_listener_on_all_addresses_keeps_the_address_that_was_asked() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.2", port)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.2");
}

// 40. thread::spawn panics when the system has no thread left.

#[test]
#[cfg(target_os = "linux")]
fn spawn_ends_a_server_that_may_start_no_thread() {
    use harness::{Server, as_nobody, copy_of, limited, peer};
    use std::process::Command;
    let (_folder, copy) = copy_of(&peer("plain_tcp_echo"));
    let mut command = limited("--nproc=1", &Command::new(copy));
    let server = Server::start(as_nobody(&mut command));
    let _client = TcpStream::connect(server.addr).unwrap();
    let server = server.running.finish();
    assert_eq!(server.code, Some(101), "{server:?}");
    server.assert_stderr("failed to spawn thread");
    server.assert_stderr("Resource temporarily unavailable");
}

// 41. Decoding what one read returns.

/// Decodes each read by itself. A character may be in two reads.
fn receive_text(stream: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 4];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(text),
            len => text += &String::from_utf8_lossy(&buffer[..len]),
        }
    }
}

/// Reads a whole line, and decodes it then. A wrong byte spoils no other line.
fn receive_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    const LONGEST: u64 = 64 * 1024;
    let mut line = Vec::new();
    let len = stream.take(LONGEST).read_until(b'\n', &mut line)?;
    Ok((len > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[test]
fn a_character_in_two_reads_is_spoilt_unless_the_whole_line_is_decoded() {
    let sent = |text: &[u8]| {
        let (mut client, server) = connection();
        client.write_all(text).unwrap();
        server
    };
    let text = "abc€\n";
    let spoilt = receive_text(&mut sent(text.as_bytes())).unwrap();
    assert!(spoilt.contains('\u{fffd}'), "{spoilt}");
    let mut stream = BufReader::with_capacity(4, sent(text.as_bytes()));
    assert_eq!(receive_line(&mut stream).unwrap().as_deref(), Some(text));
    assert_eq!(receive_line(&mut stream).unwrap(), None);
}

#[test]
fn lines_reports_a_wrong_byte_as_an_error_although_the_stream_goes_on() {
    let bytes = b"\xff\nnext\n";
    let mut lines = BufReader::new(&bytes[..]).lines();
    let error = lines.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(lines.next().unwrap().unwrap(), "next");
    let mut stream = BufReader::new(&bytes[..]);
    for line in ["\u{fffd}\n", "next\n"] {
        assert_eq!(receive_line(&mut stream).unwrap().as_deref(), Some(line));
    }
}

// 42. A connection to nobody succeeds: it is connected to itself.

#[cfg(target_os = "linux")]
/// Returns whether a socket is connected to itself, because no server had its port.
fn is_connected_to_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// The test gives the socket the port that it connects to. Otherwise the kernel does so, if it
/// happens to choose this port.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_that_connects_to_its_own_port_talks_to_itself() {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let own = socket.local_addr().unwrap();
    socket.connect(&own).expect("nobody listens, and yet");
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"is anybody there?").unwrap();
    let mut answer = [0; 17];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"is anybody there?");
    assert!(is_connected_to_itself(&stream).unwrap());
    // It also keeps the server from its port.
    let error = TcpListener::bind(own.as_socket().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(!is_connected_to_itself(&connection().0).unwrap());
}

// 43. An IPv4 peer of an IPv6 socket.

/// Lets only this machine in. But 127.0.0.1 may come as ::ffff:127.0.0.1.
fn is_local(peer: SocketAddr) -> bool {
    peer.ip().is_loopback()
}

/// Turns ::ffff:127.0.0.1 into 127.0.0.1 first.
fn is_local_in_either_form(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

#[test]
fn an_ipv4_peer_of_an_ipv6_listener_is_loopback_only_in_its_canonical_form() {
    let listener = match TcpListener::bind("[::]:0") {
        Ok(listener) => listener,
        Err(error) => return not_run(&format!("no IPv6: {error}")),
    };
    let port = listener.local_addr().unwrap().port();
    if SockRef::from(&listener).only_v6().unwrap() {
        return not_run("here an IPv6 socket takes IPv6 alone (net.ipv6.bindv6only)");
    }
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "::ffff:127.0.0.1");
    assert!(!is_local(peer));
    assert!(is_local_in_either_form(peer));
    let same = SocketAddr::from(([127, 0, 0, 1], peer.port()));
    assert_ne!(peer, same);
    assert_eq!(peer.ip().to_canonical(), same.ip());
}

// 44. An address is not always an IP address and a port.

/// Fails for names, and for IPv6 addresses, which need brackets before a port.
fn server_addr(host: &str, port: u16) -> Result<SocketAddr, AddrParseError> {
    format!("{host}:{port}").parse()
}

/// Takes a name or an address of either family, and returns all addresses.
fn server_addrs(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

#[test]
fn to_socket_addrs_takes_names_and_ipv6_where_parse_does_not() {
    for (host, is_parsed) in [("127.0.0.1", true), ("::1", false), ("localhost", false)] {
        assert_eq!(server_addr(host, 7007).is_ok(), is_parsed, "{host}");
        let addrs = server_addrs(host, 7007).unwrap();
        assert!(
            !addrs.is_empty() && addrs.iter().all(|addr| addr.ip().is_loopback()),
            "{host}: {addrs:?}"
        );
    }
    // The text of an address has brackets, and can be parsed again.
    let addr = server_addrs("::1", 7007).unwrap()[0];
    assert_eq!(addr.to_string(), "[::1]:7007");
    assert_eq!(addr.to_string().parse(), Ok(addr));
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_resolver_takes_old_forms_of_an_address_that_parse_refuses() {
    for (text, meant) in [
        ("127.1:80", "127.0.0.1:80"),
        ("127.0.0.010:80", "127.0.0.8:80"),
        ("::1:80", "[::1]:80"),
    ] {
        assert!(text.parse::<SocketAddr>().is_err(), "{text}");
        let addr = text.to_socket_addrs().unwrap().next().unwrap();
        assert_eq!(addr.to_string(), meant, "{text}");
    }
}

// 46. Multicast where the kernel has no network to choose.

#[cfg(target_os = "linux")]
/// Joins a group on the interface that has this address.
fn join(group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v4(&group, &interface)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
/// Opens a socket that sends to groups from this interface: Linux takes the one that has the
/// address of the socket. Elsewhere, set IP_MULTICAST_IF (socket2).
fn sender(interface: Ipv4Addr) -> io::Result<UdpSocket> {
    UdpSocket::bind((interface, 0))
}

#[test]
#[cfg(target_os = "linux")]
fn a_group_on_loopback_is_heard_if_both_sides_name_the_interface() {
    let group = Ipv4Addr::new(239, 255, 70, 46);
    let member = join(group, Ipv4Addr::LOCALHOST).unwrap();
    member.set_read_timeout(Some(LIMIT)).unwrap();
    let port = member.local_addr().unwrap().port();
    let sender = sender(Ipv4Addr::LOCALHOST).unwrap();
    sender.send_to(b"hello", (group, port)).unwrap();
    assert_eq!(member.recv(&mut [0; 8]).unwrap(), 5);

    // A member with an address of its own does not hear the group.
    let deaf = udp_socket("127.0.0.1");
    deaf.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .unwrap();
    let port = deaf.local_addr().unwrap().port();
    sender.send_to(b"to the group", (group, port)).unwrap();
    sender
        .send_to(b"alone", (Ipv4Addr::LOCALHOST, port))
        .unwrap();
    assert_eq!(deaf.recv(&mut [0; 64]).unwrap(), 5);
}

// 47. Who is non-blocking?

/// Accepts from a non-blocking listener. On macOS the connection is non-blocking as well.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    Ok(stream)
}

/// Accepts from a non-blocking listener a connection that blocks, on every system.
fn accept_blocking(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[test]
fn a_connection_of_a_non_blocking_listener_blocks_on_linux_and_elsewhere_if_told_so() {
    use rustix::fs::{OFlags, fcntl_getfl};
    let (listener, addr) = listener();
    listener.set_nonblocking(true).unwrap();
    for (accept, told) in [
        (accept as fn(&TcpListener) -> io::Result<TcpStream>, false),
        (accept_blocking, true),
    ] {
        let _client = TcpStream::connect(addr).unwrap();
        let deadline = Instant::now() + LIMIT;
        let stream = loop {
            match accept(&listener) {
                Ok(stream) => break stream,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(Instant::now() < deadline);
        };
        let is_blocking = !fcntl_getfl(&stream).unwrap().contains(OFlags::NONBLOCK);
        let expected = told || cfg!(any(target_os = "linux", target_os = "android"));
        assert_eq!(is_blocking, expected);
    }
}

/// Reads what is there without waiting. But now all clones are non-blocking.
fn read_without_waiting(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut clone = stream.try_clone()?;
    clone.set_nonblocking(true)?;
    clone.read(buffer)
}

#[test]
fn clones_share_whether_they_block_and_their_time_limits() {
    let (stream, _peer) = connection();
    let clone = stream.try_clone().unwrap();
    assert!(read_without_waiting(&clone, &mut [0; 8]).is_err());
    drop(clone);
    // The original has 30 seconds, and does not wait any more.
    let error = (&stream).read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let (stream, _peer) = connection();
    let clone = stream.try_clone().unwrap();
    clone.set_read_timeout(None).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);
    // Reading and writing have a limit each, so two threads can each have their own.
    clone.set_write_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);
}

// 48. Two threads on one UDP socket.

/// Several threads do this at the same time, with the same socket.
fn work_and_answer(socket: &UdpSocket, work: impl Fn(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 65_527];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    work(&buffer[..len]);
    socket.send_to(&buffer[..len], peer)?;
    Ok(())
}

/// Chooses a worker for a peer: always the same, so that the peer's datagrams stay in order.
fn worker_for(peer: SocketAddr, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    (hasher.finish() % workers as u64) as usize
}

#[test]
fn two_threads_on_a_socket_share_the_datagrams_and_answer_out_of_order() {
    let socket = udp_socket("127.0.0.1");
    let client = udp_socket("127.0.0.1");
    client.connect(socket.local_addr().unwrap()).unwrap();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    // The first datagram is the one that takes long.
    let work = |datagram: &[u8]| {
        if datagram == b"1" {
            let _ = may_go_on.lock().unwrap().recv_timeout(LIMIT);
        }
    };
    let mut answer = [0];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work_and_answer(&socket, work).unwrap());
        }
        client.send(b"1").unwrap();
        client.send(b"2").unwrap();
        client.recv(&mut answer).unwrap();
        assert_eq!(&answer, b"2");
        go_on.send(()).unwrap();
        client.recv(&mut answer).unwrap();
        assert_eq!(&answer, b"1");
    });
    // Each datagram went to one thread: nothing is left, and nothing came twice.
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut answer).is_err());
}

#[test]
fn with_one_receiver_and_a_worker_for_each_peer_the_order_stays() {
    const WORKERS: usize = 2;
    let socket = udp_socket("127.0.0.1");
    let clients = [(); 4].map(|()| udp_socket("127.0.0.1"));
    for number in 0..10_u8 {
        for client in &clients {
            client
                .send_to(&[number], socket.local_addr().unwrap())
                .unwrap();
        }
    }
    thread::scope(|scope| {
        let queues: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (queue, datagrams) = mpsc::sync_channel::<(u8, SocketAddr)>(100);
                let socket = &socket;
                scope.spawn(move || {
                    for (number, peer) in datagrams {
                        thread::sleep(Duration::from_millis(worker as u64)); // One is slower.
                        socket.send_to(&[number], peer).unwrap();
                    }
                });
                queue
            })
            .collect();
        let mut buffer = [0];
        for _ in 0..clients.len() * 10 {
            let (_, peer) = socket.recv_from(&mut buffer).unwrap();
            let queue = &queues[worker_for(peer, WORKERS)];
            queue.try_send((buffer[0], peer)).unwrap();
        }
    });
    for client in &clients {
        for number in 0..10 {
            let mut answer = [0];
            client.recv(&mut answer).unwrap();
            assert_eq!(answer, [number]);
        }
    }
}

// 49. Several addresses, one error.

/// The first address refuses, which is the reason to know. The second is a broadcast address,
/// to which TCP cannot connect.
#[test]
#[cfg(target_os = "linux")]
fn of_several_addresses_std_reports_only_the_last_error() {
    use socket2::{Domain, Socket, Type};
    // This socket is bound, so that nobody else has its port, but it does not listen.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    bound.bind(&any.into()).unwrap();
    let refused = bound.local_addr().unwrap().as_socket().unwrap();
    let error = TcpStream::connect(refused).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let broadcast = SocketAddr::from(([127, 255, 255, 255], refused.port()));
    let error = TcpStream::connect(&[refused, broadcast][..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);

    let other = udp_socket("127.0.0.1");
    let taken = other.local_addr().unwrap();
    let not_here = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = UdpSocket::bind(&[taken, not_here][..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    let error = UdpSocket::bind(&[not_here, taken][..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

// 50. A peer that has gone without a word.

/// After a minute of silence, asks the peer's kernel every ten seconds, and gives up after
/// three questions without an answer.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let questions = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&questions)
}

#[test]
fn std_does_not_ask_whether_the_peer_is_still_there() {
    let (stream, _peer) = connection();
    assert!(!SockRef::from(&stream).keepalive().unwrap());
    keep_alive(&stream).unwrap();
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

/// A shell in a network of its own is the client of the server. Then the network goes, and
/// after it the client, whose FIN reaches nobody.
#[test]
#[cfg(target_os = "linux")]
fn a_server_without_a_time_limit_keeps_the_connection_of_a_peer_that_has_vanished() {
    use harness::{Running, foreign, peer, unshared};
    let Some(bash) = foreign("bash") else { return };
    let Some(mut bash) = unshared("-rn", "ip link set lo up", &bash) else {
        return;
    };
    let mut shell = Running::start(&mut bash);
    shell.write(b"trap 'kill $(jobs -p)' EXIT\n");
    let server = peer("plain_tcp_echo");
    shell.write(format!("'{}' &\n", server.get_program().to_str().unwrap()).as_bytes());
    let plain: SocketAddr = shell.announced().parse().unwrap();
    let (host, port) = (plain.ip(), plain.port());
    shell.write(format!("exec 3<>/dev/tcp/{host}/{port}\n").as_bytes());
    shell.write(b"ip link set lo down; exec 3>&-\n");
    // /proc/net/tcp shows port and state in hexadecimal; 01 is ESTABLISHED.
    let established = format!(": 0100007F:{:04X} [0-9A-F:]* 01 ", plain.port());
    shell.write(format!("grep -c '{established}' /proc/net/tcp\n").as_bytes());
    assert_eq!(shell.stdout_line(), "1");
    assert_eq!(shell.finish().code, Some(0));
}
