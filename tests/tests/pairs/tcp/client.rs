//! What only `tcp-client` promises. What every client of streams promises is in `promises`.

use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::net::SocketAddr;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[cfg(target_os = "linux")]
use harness::run;
use harness::{LIMIT, Running, program};
use socket2::SockRef;
#[cfg(target_os = "linux")]
use socket2::{Domain, Socket, Type};

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Returns a socket that is bound, but does not listen yet.
#[cfg(target_os = "linux")]
fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Starts the client and accepts its connection.
fn accept_from(listener: &TcpListener, args: &[&str]) -> (Running, TcpStream) {
    let addr = listener.local_addr().unwrap().to_string();
    let client = Running::start(program("tcp-client").args(["--addr", &addr]).args(args));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    (client, stream)
}

#[test]
fn a_reset_is_told_with_what_came_back() {
    let (client, mut stream) = accept_from(&listener(), &["hello"]);
    let mut sent = Vec::new();
    stream
        .read_to_end(&mut sent)
        .expect("the client's half-close");
    assert_eq!(sent, b"hello\n");
    stream.write_all(b"he").unwrap();
    let mut client = client;
    assert_eq!(client.stdout_bytes(2), b"he");
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    let reset = if cfg!(windows) {
        "os error 10054"
    } else {
        "1: Connection reset"
    };
    let error = "2 of 6 bytes came back\n\nCaused by:\n    0: cannot receive\n";
    assert!(
        client.stderr.contains(error) && client.stderr.contains(reset),
        "{client:?}"
    );
}

/// Linux drops a request for a connection while the listener's backlog is full.
#[test]
#[cfg(target_os = "linux")]
fn a_server_that_cannot_be_reached_in_time_is_given_up() {
    let (full, addr) = bound();
    full.listen(0).unwrap();
    let in_the_queue: Vec<TcpStream> = (0..8)
        .map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok())
        .collect();
    assert!(in_the_queue.len() < 8, "the queue takes all");
    let client = run(
        program("tcp-client").args(["--addr", &addr.to_string(), "--timeout", "0.3", "hello"]),
        b"",
    );
    let error = format!(
        "Error: cannot connect to {addr}: nobody answers there, or the server's backlog is full\n"
    );
    client.assert_failed(&error);
}

#[test]
fn an_address_that_is_none_is_refused_and_the_message_says_what_is_right() {
    harness::assert_refuses_addresses(
        |addr| harness::at(program("tcp-client"), addr),
        "cannot find the address of ",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_a_name_has_twice_is_tried_once() {
    let (_deaf, addr) = bound();
    let client = harness::at(program("tcp-client"), &format!("twice:{}", addr.port()));
    let hosts = r"127.0.0.1 twice\n127.0.0.2 twice\n127.0.0.1 twice\n";
    let Some(mut client) = harness::with_hosts(hosts, &client) else {
        return;
    };
    let client = run(client.arg("hello"), b"");
    assert_eq!(
        client.stderr.matches("trying the next address").count(),
        1,
        "{client:?}"
    );
    assert_eq!(
        client.stderr.matches("cannot connect to 127.0.0.1").count(),
        1,
        "{client:?}"
    );
}

/// The first name server is silent, so the lookup alone takes longer than the time limit. The
/// request for a connection then finds a full backlog, and the kernel sends it again after a second.
#[test]
#[cfg(target_os = "linux")]
fn the_time_for_connecting_begins_after_the_lookup_of_the_name() {
    let name = "tcp::client::a_name_whose_first_name_server_is_silent";
    let set_up = r"ip link set lo up && file=$(mktemp) && echo 'hosts: dns' >$file &&
        if [ -e /etc/nsswitch.conf ]; then mount --bind $file /etc/nsswitch.conf; fi && rm $file &&
        echo 'options timeout:3 attempts:1' >$file &&
        printf 'nameserver 127.0.0.%s\n' 1 2 >>$file &&
        mount --bind $file /etc/resolv.conf && rm $file";
    harness::assert_passes_unshared("-rnm", set_up, name);
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "the test above starts it where it is the name server"]
fn a_name_whose_first_name_server_is_silent() {
    use std::net::UdpSocket;
    let _silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    let dns = UdpSocket::bind("127.0.0.2:53").unwrap();
    let (full, addr) = bound();
    full.listen(0).unwrap();
    let in_the_queue =
        (0..8).map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok());
    let in_the_queue: Vec<TcpStream> = in_the_queue.collect();
    assert!(in_the_queue.len() < 8, "the queue takes all");
    let addr = format!("name.test:{}", addr.port());
    let mut client = program("tcp-client");
    client.args(["--addr", &addr, "--timeout", "3", "hello"]);
    let client = Running::start(&mut client);
    // It asks for an IPv4 address (type 1) and for an IPv6 address (type 28), which there is not.
    for _ in 0..2 {
        let mut message = [0; 512];
        let (len, peer) = dns.recv_from(&mut message).unwrap();
        // The question ends with the name's last length 0, two bytes of type, two of class.
        let end = 12 + message[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
        assert!(end <= len);
        let mut answer = message[..end].to_vec();
        let has_answer = answer[end - 3] == 1;
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
        if has_answer {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        dns.send_to(&answer, peer).unwrap();
    }
    // The first request gets no answer. When the kernel repeats it, there is room.
    std::thread::sleep(Duration::from_millis(300));
    for _ in &in_the_queue {
        full.accept().unwrap();
    }
    let limit = Duration::from_secs(10); // Applies to accept as well.
    full.set_read_timeout(Some(limit)).unwrap();
    let (mut stream, _) = full
        .accept()
        .expect("the client, which was refused at first");
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    client.finish().assert_printed(b"hello\n");
}

/// Linux drops what asks for a connection when the queue of a listener is full, and so the first
/// address is silent. The second must get its share of the time.
#[test]
#[cfg(target_os = "linux")]
fn a_silent_address_leaves_time_for_the_next() {
    let server = harness::Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0"]));
    let silent = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    silent.set_only_v6(true).unwrap();
    let addr = SocketAddr::new("::1".parse().unwrap(), server.addr.port());
    if let Err(error) = silent.bind(&addr.into()) {
        return harness::not_run(&format!("no IPv6 on this port: {error}"));
    }
    silent.listen(0).unwrap();
    let _in_the_queue: Vec<TcpStream> = (0..8)
        .map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok())
        .collect();
    let addr = format!("twofold:{}", server.addr.port());
    let client = harness::with_twofold_name(program("tcp-client").args([
        "--addr",
        &addr,
        "--timeout",
        "6",
        "hello",
    ]));
    let Some(mut client) = client else { return };
    let started = std::time::Instant::now();
    run(&mut client, b"").assert_printed(b"hello\n");
    let time = started.elapsed();
    assert!(time < Duration::from_millis(5800), "it took {time:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn tcp_client_tells_of_each_address_why_it_failed() {
    // Both ports are bound, so that nobody else listens there, but neither listens.
    let bound = |domain, addr: SocketAddr| {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into()).map(|()| socket)
    };
    let v4 = bound(Domain::IPV4, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let port = v4.local_addr().unwrap().as_socket().unwrap().port();
    let v6 = bound(Domain::IPV6, SocketAddr::new("::1".parse().unwrap(), port));
    if let Err(error) = v6 {
        return harness::not_run(&format!("no IPv6 on this port: {error}"));
    }
    let mut client = harness::at(program("tcp-client"), &format!("twofold:{port}"));
    let Some(mut client) = harness::with_twofold_name(client.arg("hello")) else {
        return;
    };
    let client = run(&mut client, b"");
    assert_eq!(client.code, Some(1));
    for addr in [format!("[::1]:{port}"), format!("127.0.0.1:{port}")] {
        client.assert_stderr(&format!("cannot connect to {addr}: nobody listens there"));
    }
}
