//! What std and the kernel do with TCP sockets: with connections that nobody has accepted, with
//! segments, and with resets. Each test shows one fact, without our programs.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use std::{io, net::SocketAddr, thread};

#[cfg(target_os = "linux")]
use harness::LIMIT;
#[cfg(unix)]
use socket2::SockRef;
use socket2::{Domain, Socket, Type};

/// Nobody accepts here, but all clients connect, because the backlog of std is 128.
#[test]
fn the_kernel_connects_in_the_name_of_a_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(addr).unwrap())
        .collect();
    assert_eq!(clients.len(), 100);
}

/// Asserts that so many clients connect while nobody accepts, and that the SYN of the next is dropped.
#[cfg(target_os = "linux")]
fn assert_places(backlog: i32, places: usize) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any_port.into()).unwrap();
    socket.listen(backlog).unwrap();
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&addr, LIMIT).unwrap();
    let _clients: Vec<TcpStream> = (0..places).map(|_| connect()).collect();
    let next = TcpStream::connect_timeout(&addr, std::time::Duration::from_millis(300));
    assert_eq!(next.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Linux looks whether there are *more* connections in the queue than the backlog.
#[test]
#[cfg(target_os = "linux")]
fn the_backlog_has_one_place_more_than_a_program_asks_for() {
    assert_places(3, 4);
}

/// This is what a server without a graceful end does to its last clients.
#[test]
#[cfg(target_os = "linux")]
fn when_a_listener_is_closed_who_is_in_its_backlog_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut clients = [(); 3].map(|()| TcpStream::connect(addr).unwrap());
    drop(listener);
    for client in &mut clients {
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// Two listeners share a port. Returns how many of 100 clients are reset when one is closed.
#[cfg(target_os = "linux")]
fn resets_when_one_of_two_listeners_is_closed() -> usize {
    let listen = |addr: SocketAddr| -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    };
    let first = listen("127.0.0.1:0".parse().unwrap());
    let addr = first.local_addr().unwrap();
    let second = listen(addr);
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(addr).unwrap())
        .collect();
    drop(first);
    second.set_nonblocking(true).unwrap();
    let mut served = 0;
    while let Ok((stream, _)) = second.accept() {
        drop(stream); // Sends a FIN.
        served += 1;
    }
    let ends = clients.into_iter().map(|mut client| {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.read(&mut [0; 8]).map_err(|error| error.kind())
    });
    let is_reset = |end: &Result<usize, ErrorKind>| *end == Err(ErrorKind::ConnectionReset);
    let resets = ends.filter(is_reset).count();
    assert_eq!(served + resets, 100);
    resets
}

#[test]
#[cfg(target_os = "linux")]
fn with_so_reuseport_each_listener_has_its_own_backlog_and_loses_it() {
    let resets = resets_when_one_of_two_listeners_is_closed();
    println!("{resets} of 100 were reset");
    assert!((1..100).contains(&resets), "{resets} resets");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "the test below starts it where the kernel has the setting"]
fn no_client_is_reset() {
    assert_eq!(resets_when_one_of_two_listeners_is_closed(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn with_tcp_migrate_req_the_other_listener_gets_the_backlog() {
    let set_up = "ip link set lo up && echo 1 >/proc/sys/net/ipv4/tcp_migrate_req";
    harness::assert_passes_unshared("-rn", set_up, "facts::tcp::no_client_is_reset");
}

#[test]
#[cfg(unix)]
fn a_listener_may_reuse_the_address_of_old_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(SockRef::from(&listener).reuse_address().unwrap());
    assert!(
        !SockRef::from(&harness::udp_socket("127.0.0.1"))
            .reuse_address()
            .unwrap()
    );
}

#[test]
fn a_stream_socket_that_is_not_connected_cannot_send() {
    let stream = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let error = stream.send(b"hello").unwrap_err().kind();
    assert!(
        matches!(error, ErrorKind::NotConnected | ErrorKind::BrokenPipe),
        "{error:?}"
    );
}

#[test]
fn a_stream_keeps_no_boundaries() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(!stream.nodelay().unwrap());
}

/// The MTU of Linux's loopback interface is 65,536, but the length field of IPv4 has 16 bits.
/// So a packet has at most 65,535 bytes. Without both headers there is room for 48 KiB, but
/// not for 64. At first a segment is shorter: the kernel lets it take half of the window that
/// the peer has offered, and the window grows.
#[test]
#[cfg(target_os = "linux")]
fn a_segment_within_one_machine_carries_48_kib_but_not_64() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let reading = thread::spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
    for _ in 0..64 {
        stream.write_all(&[b'x'; 1024 * 1024]).unwrap();
    }
    let most = SockRef::from(&stream).tcp_mss().unwrap();
    assert!((48 * 1024..64 * 1024).contains(&most), "{most} bytes");
    drop(stream);
    assert_eq!(reading.join().unwrap(), 64 << 20);
}

/// What Linux does with the reset: the client can still read what its kernel has received
/// before it. RFC 9293 (3.10.7.4) lets a kernel throw it away.
#[test]
#[cfg(target_os = "linux")]
fn on_linux_a_reset_does_not_destroy_what_has_been_received() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        server.write_all(b"last words").unwrap();
        server.peek(&mut [0]).unwrap();
        client.peek(&mut [0]).unwrap();
        drop(server); // A reset, because of what is unread.
        let mut received = Vec::new();
        let error = client.read_to_end(&mut received).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(received, b"last words");
    }
}

/// After the first of two closes nothing is unread, so the peer gets a FIN, and a reset only as the
/// answer to what it still sends. After the second it gets the reset at once.
#[test]
fn a_close_is_a_reset_if_bytes_are_unread_and_later_bytes_are_answered_with_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let is_reset = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
        )
    };
    for is_unread in [false, true] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.peek(&mut [0; 5]).unwrap();
        if !is_unread {
            server.read_exact(&mut [0; 5]).unwrap();
        }
        drop(server);
        let end = client.read(&mut [0; 8]);
        if is_unread {
            assert!(is_reset(&end.unwrap_err()));
            continue;
        }
        assert_eq!(end.unwrap(), 0);
        client.write_all(b"more").unwrap();
        let mut write_again = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            client.write(b"again")
        });
        let error = write_again.find_map(Result::err).unwrap();
        assert!(is_reset(&error), "{error:?}");
    }
}

/// SO_LINGER does not prevent the reset, and with a limit of zero it causes one. If the peer
/// acknowledges nothing, close(2) ends when the time has passed.
#[test]
#[cfg(target_os = "linux")]
fn so_linger_does_not_prevent_a_reset_and_with_zero_it_causes_one() {
    use std::time::Duration;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (is_unread, limit) in [(true, Duration::from_secs(60)), (false, Duration::ZERO)] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        if is_unread {
            client.write_all(b"unread").unwrap();
            server.peek(&mut [0]).unwrap();
        }
        SockRef::from(&server).set_linger(Some(limit)).unwrap();
        drop(server);
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let linger = Duration::from_secs(1);
    let waits = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        while (&server).write(&[0; 64 * 1024]).is_ok() {}
        server.set_nonblocking(false).unwrap();
        SockRef::from(&server).set_linger(Some(linger)).unwrap();
        let started = std::time::Instant::now();
        drop(server);
        drop(client);
        started.elapsed() >= linger
    };
    // A close that waits ends early if the test itself is suspended.
    assert!((0..5).any(|_| waits()), "it did not wait");
}

/// When a write that waits for room reaches its limit, there may be some room, because Linux wakes it
/// only for a third of the buffer. Then the next write moves bytes, waits, and returns their number
/// too. So a program that writes until everything is taken has its error up to twice the limit after
/// the last byte has moved.
#[test]
fn at_its_limit_a_write_that_has_moved_bytes_returns_their_number_and_one_that_has_not_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_peer, _) = listener.accept().unwrap();
    let limit = std::time::Duration::from_millis(300);
    stream.set_write_timeout(Some(limit)).unwrap();
    let bytes = vec![0; 64 << 20];
    let (mut parts, mut moved) = (0, 0);
    let error = loop {
        match stream.write(&bytes[moved..]) {
            Ok(0) => panic!("it waited, and moved nothing"),
            Ok(len) => (parts, moved) = (parts + 1, moved + len),
            Err(error) => break error.kind(),
        }
    };
    println!("{parts} writes moved {moved} bytes before one failed");
    assert!((1..bytes.len()).contains(&moved), "{moved}");
    assert!(
        matches!(error, ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error:?}"
    );
}
