//! What std and the kernel do with UDP sockets, and with all sockets, shown by one for UDP:
//! time limits, addresses and ports. Each test shows one fact, without our programs.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
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
    harness::wait_until(|| UdpSocket::bind(addr).is_ok());
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

/// And it answers from an address of the host.
#[test]
fn a_socket_on_the_broadcast_address_hears_broadcasts_alone() {
    if !cfg!(target_os = "linux") {
        return not_run("only Linux has a broadcast address on loopback");
    }
    let receiver = udp_socket("127.255.255.255");
    let port = receiver.local_addr().unwrap().port();
    let sender = udp_socket("0.0.0.0");
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"to one", ("127.0.0.1", port)).unwrap();
    sender
        .send_to(b"to all", ("127.255.255.255", port))
        .unwrap();
    let mut buffer = [0; 8];
    let (len, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..len], *b"to all");
    receiver.send_to(b"answer", from).unwrap();
    let (len, from) = sender.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..len], *b"answer");
    assert_eq!(from, ([127, 0, 0, 1], port).into());
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
fn ports_are_counted_per_protocol() {
    let sockets = [(); 10].map(|()| udp_socket("127.0.0.1"));
    // There are ten, because another program may have the same port for TCP.
    assert!(
        sockets
            .iter()
            .any(|udp| TcpListener::bind(udp.local_addr().unwrap()).is_ok())
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

/// Shows what udp(7) says of UDP_SEGMENT. The MTU is 1000 bytes, 28 of which are headers.
#[test]
#[cfg(target_os = "linux")]
fn the_kernel_cuts_64_datagrams_that_fit_the_mtu_and_refuses_longer_ones_and_far_more() {
    let script = "
import socket, struct
UDP_SEGMENT = 103
sender, receiver = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
receiver.bind(('127.0.0.1', 0))
receiver.settimeout(10)

def are_cut(count, length):
    cut = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack('=H', length))
    try:
        sender.sendmsg([bytes(length)] * count, [cut], 0, receiver.getsockname())
    except OSError:
        return False
    return [len(receiver.recv(65536)) for _ in range(count)] == [length] * count

assert are_cut(2, 972) and not are_cut(2, 973)
assert are_cut(64, 64) and not are_cut(1000, 64)
";
    let Some(mut python) = harness::foreign("python3") else {
        return;
    };
    let set_up = "ip link set lo up mtu 1000";
    let Some(mut python) = harness::unshared("-rn", set_up, python.args(["-c", script])) else {
        return;
    };
    let finished = harness::run(&mut python, b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// The control messages that tell the destination address of a datagram.
#[cfg(target_os = "linux")]
mod destinations {
    use std::io::{IoSlice, IoSliceMut};
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::os::fd::AsRawFd;

    use harness::{has_ipv6, udp_socket};
    use nix::cmsg_space;
    use nix::errno::Errno;
    use nix::libc::{in_pktinfo, in6_pktinfo};
    use nix::sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    };

    /// Sends a datagram over IPv4 to a socket on `[::]`. Returns its sender, and what the socket
    /// receives with it.
    fn received(
        socket: &UdpSocket,
        to: &str,
    ) -> (UdpSocket, SockaddrStorage, Vec<ControlMessageOwned>) {
        let client = udp_socket("127.0.0.1");
        client.set_broadcast(true).unwrap();
        let port = socket.local_addr().unwrap().port();
        client.send_to(b"hello", (to, port)).unwrap();
        let mut room = cmsg_space!(in_pktinfo, in6_pktinfo);
        let mut buffer = [0; 8];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
        let message = recvmsg(fd, &mut slices, Some(&mut room), flags).unwrap();
        let controls = message.cmsgs().unwrap().collect();
        (client, message.address.unwrap(), controls)
    }

    fn answer(
        socket: &UdpSocket,
        peer: &SockaddrStorage,
        control: ControlMessage,
    ) -> nix::Result<usize> {
        let (slices, flags) = ([IoSlice::new(b"hello")], MsgFlags::empty());
        sendmsg(socket.as_raw_fd(), &slices, &[control], flags, Some(peer))
    }

    fn heard_from(client: &UdpSocket) -> String {
        let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
        from.ip().to_string()
    }

    #[test]
    fn ipv6_recvpktinfo_alone_tells_the_destination_over_ipv4_too_and_can_send_from_it() {
        if !has_ipv6() {
            return;
        }
        let socket = udp_socket("::");
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        let (client, peer, controls) = received(&socket, "127.0.0.2");
        let [ControlMessageOwned::Ipv6PacketInfo(info)] = controls[..] else {
            panic!("{controls:?}");
        };
        let destination = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        assert_eq!(destination.to_string(), "::ffff:127.0.0.2");
        answer(&socket, &peer, ControlMessage::Ipv6PacketInfo(&info)).unwrap();
        assert_eq!(heard_from(&client), "127.0.0.2");
    }

    /// After a broadcast, only that of IPv4 has an address that the kernel sends from.
    #[test]
    fn with_both_options_both_control_messages_come() {
        if !has_ipv6() {
            return;
        }
        let socket = udp_socket("::");
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
        for (to, ours) in [("127.0.0.2", "127.0.0.2"), ("127.255.255.255", "127.0.0.1")] {
            let (client, peer, controls) = received(&socket, to);
            let mut v4 = controls.iter().filter_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(*info),
                _ => None,
            });
            let mut v6 = controls.iter().filter_map(|control| match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(*info),
                _ => None,
            });
            let (Some(v4), Some(v6), 2) = (v4.next(), v6.next(), controls.len()) else {
                panic!("{controls:?}");
            };
            let address = |addr: u32| Ipv4Addr::from(addr.to_ne_bytes()).to_string();
            assert_eq!(address(v4.ipi_addr.s_addr), to);
            assert_eq!(address(v4.ipi_spec_dst.s_addr), ours);
            let destination = Ipv6Addr::from(v6.ipi6_addr.s6_addr);
            assert_eq!(destination.to_string(), format!("::ffff:{to}"));
            if to != ours {
                let sent = answer(&socket, &peer, ControlMessage::Ipv6PacketInfo(&v6));
                assert_eq!(sent, Err(Errno::ENETUNREACH));
            }
            answer(&socket, &peer, ControlMessage::Ipv4PacketInfo(&v4)).unwrap();
            assert_eq!(heard_from(&client), ours);
        }
    }
}

/// IP_MULTICAST_ALL (ip(7)), which is on by default.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_on_all_addresses_hears_a_group_that_another_one_has_joined() {
    use std::net::Ipv4Addr;
    let group = Ipv4Addr::new(239, 255, 70, 9);
    let member = udp_socket("127.0.0.1");
    member
        .join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .unwrap();
    let other = udp_socket("0.0.0.0");
    let port = other.local_addr().unwrap().port();
    let sender = udp_socket("127.0.0.1");
    socket2::SockRef::from(&sender)
        .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
        .unwrap();
    sender.send_to(b"to the group", (group, port)).unwrap();
    assert_eq!(other.recv(&mut [0; 32]).unwrap(), 12);
    socket2::SockRef::from(&other)
        .set_multicast_all_v4(false)
        .unwrap();
    // They come in order.
    sender.send_to(b"to the group", (group, port)).unwrap();
    sender.send_to(b"to you", ("127.0.0.1", port)).unwrap();
    assert_eq!(other.recv(&mut [0; 32]).unwrap(), 6);
}
