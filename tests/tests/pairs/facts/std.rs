//! What the texts of this repository say about std and the kernel. Each test shows one fact,
//! without our programs.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use harness::{not_run, udp_socket};

#[test]
fn an_expired_time_limit_is_would_block_on_unix_and_timed_out_on_windows() {
    let socket = udp_socket("127.0.0.1");
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let error = socket.recv(&mut [0; 8]).unwrap_err().kind();
    let expected = if cfg!(windows) {
        ErrorKind::TimedOut
    } else {
        ErrorKind::WouldBlock
    };
    assert_eq!(error, expected);
}

#[test]
fn a_time_limit_of_zero_is_refused() {
    let error = udp_socket("127.0.0.1")
        .set_read_timeout(Some(Duration::ZERO))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn send_to_uses_only_the_first_address_of_a_name() {
    let receiver = udp_socket("127.0.0.1");
    let port = receiver.local_addr().unwrap().port();
    let both = [
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
        SocketAddr::from(([127, 0, 0, 1], port)),
    ];
    let sent = udp_socket("127.0.0.1").send_to(b"hello", &both[..]);
    assert!(
        sent.is_err(),
        "an IPv4 socket cannot send to the first, and std does not try the second"
    );
}

#[test]
fn what_does_not_fit_the_buffer_is_lost() {
    let receiver = udp_socket("127.0.0.1");
    let sender = udp_socket("127.0.0.1");
    for datagram in [&b"hello"[..], b"next"] {
        sender
            .send_to(datagram, receiver.local_addr().unwrap())
            .unwrap();
    }
    let mut buffer = [0; 4];
    match receiver.recv(&mut buffer) {
        Ok(len) => assert_eq!(&buffer[..len], b"hell"),
        Err(_) if cfg!(windows) => {} // Windows reports the loss.
        Err(error) => panic!("{error}"),
    }
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer, b"next");
}

#[test]
fn connect_leaves_in_the_queue_what_strangers_sent_before() {
    let socket = udp_socket("127.0.0.1");
    let [stranger, peer] = [(); 2].map(|()| udp_socket("127.0.0.1"));
    stranger
        .send_to(b"before", socket.local_addr().unwrap())
        .unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    stranger
        .send_to(b"after", socket.local_addr().unwrap())
        .unwrap();
    peer.send_to(b"wanted", socket.local_addr().unwrap())
        .unwrap();
    let mut buffer = [0; 16];
    for (expected, from) in [(&b"before"[..], &stranger), (b"wanted", &peer)] {
        let (len, addr) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], addr),
            (expected, from.local_addr().unwrap())
        );
    }
}

#[test]
fn an_empty_host_is_no_address() {
    if cfg!(windows) {
        return not_run("to Windows an empty host is this machine");
    }
    assert!(UdpSocket::bind(":0").is_err());
}

#[test]
fn dropping_a_socket_frees_its_address() {
    let socket = udp_socket("127.0.0.1");
    let addr = socket.local_addr().unwrap();
    assert_eq!(
        UdpSocket::bind(addr).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    drop(socket);
    UdpSocket::bind(addr).unwrap();
}

#[test]
fn a_datagram_that_nobody_hears_is_sent_without_an_error() {
    let nobody = udp_socket("127.0.0.1").local_addr().unwrap();
    let sender = udp_socket("127.0.0.1");
    for _ in 0..3 {
        assert_eq!(sender.send_to(b"hello", nobody).unwrap(), 5);
    }
}

#[test]
fn a_socket_on_all_addresses_may_answer_from_another_than_was_asked() {
    if !cfg!(target_os = "linux") {
        return not_run("only Linux has all of 127.0.0.0/8 as its own");
    }
    let server = udp_socket("0.0.0.0");
    let client = udp_socket("127.0.0.1");
    client
        .send_to(b"hello", ("127.0.0.2", server.local_addr().unwrap().port()))
        .unwrap();
    let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"hello", peer).unwrap();
    let (_, answered_from) = client.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(answered_from.ip().to_string(), "127.0.0.1");
}

#[test]
fn broadcasting_needs_an_option() {
    let sender = udp_socket("127.0.0.1");
    if !cfg!(target_os = "linux") {
        return not_run("only Linux has a broadcast address on loopback");
    }
    let receiver = udp_socket("0.0.0.0");
    let everybody = ("127.255.255.255", receiver.local_addr().unwrap().port());
    assert_eq!(
        sender.send_to(b"hello", everybody).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"hello", everybody).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
}

#[test]
#[cfg(unix)]
fn a_listener_may_reuse_the_address_of_old_connections() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(socket2::SockRef::from(&listener).reuse_address().unwrap());
    assert!(
        !socket2::SockRef::from(&udp_socket("127.0.0.1"))
            .reuse_address()
            .unwrap()
    );
}

/// Nobody accepts here, but all clients connect, because the backlog of std is 128.
#[test]
fn the_kernel_connects_in_the_name_of_a_listener() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(addr).unwrap())
        .collect();
    assert_eq!(clients.len(), 100);
}

#[test]
fn a_stream_keeps_no_boundaries() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    for word in [&b"three"[..], b"writes", b"one stream"] {
        sender.write_all(word).unwrap();
    }
    drop(sender);
    let mut stream = String::new();
    receiver.read_to_string(&mut stream).unwrap();
    assert_eq!(stream, "threewritesone stream");
}

#[test]
fn a_socket_holds_small_segments_back_unless_told_otherwise() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(!stream.nodelay().unwrap());
}

#[test]
fn nobody_hears_what_was_sent_before_bind_and_what_was_sent_after_waits() {
    let sender = udp_socket("127.0.0.1");
    let first = udp_socket("127.0.0.1");
    let addr = first.local_addr().unwrap();
    drop(first);
    sender.send_to(b"before bind", addr).unwrap();
    let receiver = UdpSocket::bind(addr).unwrap();
    receiver.set_read_timeout(Some(harness::LIMIT)).unwrap();
    sender.send_to(b"before recv", addr).unwrap();
    let mut buffer = [0; 16];
    let len = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"before recv");
}

#[test]
fn a_stream_socket_that_is_not_connected_cannot_send() {
    use socket2::{Domain, Socket, Type};
    let stream = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let error = stream.send(b"hello").unwrap_err().kind();
    assert!(
        matches!(error, ErrorKind::NotConnected | ErrorKind::BrokenPipe),
        "{error:?}"
    );
}

#[test]
fn ports_are_counted_per_protocol() {
    let sockets = [(); 10].map(|()| udp_socket("127.0.0.1"));
    // There are ten, because another program may have the same port for TCP.
    assert!(
        sockets
            .iter()
            .any(|udp| std::net::TcpListener::bind(udp.local_addr().unwrap()).is_ok())
    );
}

#[test]
fn ports_end_at_65535() {
    assert!("127.0.0.1:65535".parse::<SocketAddr>().is_ok());
    assert!("127.0.0.1:65536".parse::<SocketAddr>().is_err());
}

#[test]
fn three_datagrams_stay_three() {
    let receiver = udp_socket("127.0.0.1");
    let sender = udp_socket("127.0.0.1");
    for word in [&b"three"[..], b"", b"datagrams"] {
        sender
            .send_to(word, receiver.local_addr().unwrap())
            .unwrap();
    }
    let mut buffer = [0; 64];
    assert_eq!(
        [(); 3].map(|()| receiver.recv(&mut buffer).unwrap()),
        [5, 0, 9]
    );
}

#[test]
fn a_datagram_of_65507_bytes_is_the_longest_over_ipv4() {
    let sender = udp_socket("127.0.0.1");
    let receiver = udp_socket("127.0.0.1");
    if cfg!(target_os = "macos") {
        return not_run("macOS sends at most net.inet.udp.maxdgram, 9216 bytes");
    }
    let addr = receiver.local_addr().unwrap();
    assert_eq!(sender.send_to(&[0; 65_507], addr).unwrap(), 65_507);
    assert!(sender.send_to(&[0; 65_508], addr).is_err());
}

/// The MTU of Linux's loopback interface is 65,536, but the length field of IPv4 has 16 bits.
/// So a packet has at most 65,535 bytes. Without both headers there is room for 48 KiB, but
/// not for 64. At first a segment is shorter: the kernel lets it take half of the window that
/// the peer has offered, and the window grows.
#[test]
#[cfg(target_os = "linux")]
fn a_segment_within_one_machine_carries_48_kib_but_not_64() {
    use std::io::{self, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let reading = std::thread::spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
    for _ in 0..64 {
        stream.write_all(&[b'x'; 1024 * 1024]).unwrap();
    }
    let most = socket2::SockRef::from(&stream).tcp_mss().unwrap();
    assert!((48 * 1024..64 * 1024).contains(&most), "{most} bytes");
    drop(stream);
    assert_eq!(reading.join().unwrap(), 64 << 20);
}
