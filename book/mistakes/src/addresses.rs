//! Addresses, and who answers at them: mistakes 14, 15, 16, 39, 42, 43, 44, 46 and 49.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::time::Instant;

use harness::{LIMIT, Running, not_run, udp_socket};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{SHORT, bound, child, connection, listener, said_by};

// 14. A name can have several addresses.

#[test]
fn of_several_addresses_tcp_takes_the_first_that_accepts_and_udp_the_first_it_can_send_to() {
    let (_deaf, dead) = bound();
    let (_listener, live) = listener();
    let stream = TcpStream::connect(&[dead, live][..]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), live);

    let socket = udp_socket("127.0.0.1");
    socket.connect(&[dead, live][..]).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), dead, "nothing was asked");
    let ipv6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], live.port()));
    socket.connect(&[ipv6, live][..]).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), live, "the other family fails");

    let both = ["127.0.0.1:0", "127.0.0.2:0"].map(|addr| addr.parse().unwrap());
    let listener = TcpListener::bind::<&[SocketAddr]>(&both).unwrap();
    assert_eq!(listener.local_addr().unwrap().ip(), both[0].ip());
}

// 15. The local address decides who reaches whom.

#[test]
fn a_server_on_one_loopback_address_is_not_reached_at_another() {
    if !cfg!(target_os = "linux") {
        return harness::not_run("only Linux has all of 127.0.0.0/8 as its own");
    }
    let (_one, addr) = listener();
    let refused = TcpStream::connect(("127.0.0.2", addr.port()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let all = TcpListener::bind("0.0.0.0:0").unwrap();
    TcpStream::connect(("127.0.0.2", all.local_addr().unwrap().port())).unwrap();
}

/// Sends from the loopback address, which leads to no other host.
fn send_from_loopback(message: &[u8], server: SocketAddr) -> io::Result<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(message, server)
}

/// Sends from the address of this host that leads to the server. The kernel chooses it.
fn send_from_any(message: &[u8], server: SocketAddr) -> io::Result<usize> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.send_to(message, server)
}

#[test]
#[ignore = "the test below starts it in a network of its own"]
#[cfg(target_os = "linux")]
fn a_process_that_sends_to_another_host() {
    let other = SocketAddr::from(([192, 0, 2, 2], 7007));
    let wrong = send_from_loopback(b"hello", other);
    println!("said: {:?}", wrong.map_err(|error| error.kind()));
    let right = send_from_any(b"hello", other);
    println!("said: {:?}", right.map_err(|error| error.kind()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_bound_to_loopback_cannot_send_to_another_host() {
    let set_up = "ip link set lo up && ip link add one type veth peer name two &&
        ip addr add 192.0.2.1/24 dev one && ip link set one up && ip link set two up";
    let command = child("addresses::a_process_that_sends_to_another_host");
    let Some(mut command) = harness::unshared("-rn", set_up, &command) else {
        return;
    };
    let mut process = Running::start(&mut command);
    assert_eq!(said_by(&mut process), "Err(InvalidInput)");
    assert_eq!(said_by(&mut process), "Ok(5)");
}

// 16. An address can be in use although no program runs.

/// Opens a listener as C and Python do if nobody asks for SO_REUSEADDR.
fn listen_without_reuse(addr: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    Ok(socket)
}

#[test]
#[cfg(target_os = "linux")]
fn after_the_server_closed_first_its_port_is_taken_unless_it_asks_for_reuse() {
    let (listener, addr) = listener();
    let mut client = TcpStream::connect(addr).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    drop((client, listener));
    let error = listen_without_reuse(addr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let deadline = Instant::now() + LIMIT;
    // std asks for it. A program that another test is starting may have the old listener open for
    // a moment longer.
    while let Err(error) = TcpListener::bind(addr) {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn two_listeners_exclude_each_other_if_one_address_includes_the_other() {
    let kind = |addr: (&str, u16)| TcpListener::bind(addr).map_err(|error| error.kind());
    let (_one, addr) = listener();
    let port = addr.port();
    for taken in ["127.0.0.1", "0.0.0.0", "::"] {
        match kind((taken, port)) {
            // Without IPv6 there is no `::`.
            Err(ErrorKind::AddrInUse) => {}
            other => assert!(taken == "::" && other.is_err(), "{taken}: {other:?}"),
        }
    }
    assert!(kind(("127.0.0.2", port)).is_ok());
}

// 39. A UDP server on 0.0.0.0 may answer from another address.

/// Answers one datagram. On 0.0.0.0 the kernel chooses the address that the answer comes from.
fn answer_one(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65_527];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    socket.send_to(&buffer[..len], peer)?;
    Ok(())
}

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
    client.set_read_timeout(Some(SHORT)).unwrap();
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

// 42. A client can be connected to itself.

/// Returns whether a socket is connected to itself, because no server had its port.
fn is_connected_to_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// The test gives the socket the port that it connects to. Otherwise the kernel does so, if it
/// happens to choose this port.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_that_connects_to_its_own_port_talks_to_itself() {
    let (socket, own) = bound();
    socket
        .connect(&own.into())
        .expect("nobody listens, and yet");
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"is anybody there?").unwrap();
    let mut answer = [0; 17];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"is anybody there?");
    assert!(is_connected_to_itself(&stream).unwrap());
    // It also keeps the server from its port.
    let error = TcpListener::bind(own).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(!is_connected_to_itself(&connection().0).unwrap());
}

// 43. An IPv4 peer of an IPv6 socket is ::ffff:127.0.0.1.

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

// 44. A SocketAddr is no name, and IPv6 needs brackets.

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

// 46. Multicast needs an interface, on both sides.

/// Joins a group on the interface that has this address.
fn join(group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v4(&group, &interface)?;
    Ok(socket)
}

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

// 49. Of several addresses std reports only the last error.

/// The first address refuses, which is the reason to know. The second is a broadcast address,
/// to which TCP cannot connect.
#[test]
#[cfg(target_os = "linux")]
fn of_several_addresses_std_reports_only_the_last_error() {
    let (_deaf, refused) = bound();
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
