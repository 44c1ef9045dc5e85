//! What the kernel makes of addresses: the one that it chooses, those that need an interface, and how
//! long one belongs to a socket.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddrV6, ToSocketAddrs, UdpSocket};

use harness::udp_socket;
use socket2::{Domain, Protocol, Socket, Type};

/// Runs a script of Python in a network namespace where a cable joins eth0 and eth1, two interfaces of
/// the same host.
fn run_between_two_interfaces(set_up: &str, script: &str) {
    let set_up = format!(
        "ip link set lo up && ip link add eth0 type veth peer name eth1 && {set_up} &&
         ip link set eth0 up && ip link set eth1 up"
    );
    let Some(mut python) = harness::foreign("python3") else {
        return;
    };
    let python = python.args(["-c", script]);
    let Some(mut python) = harness::unshared("-rn", &set_up, python) else {
        return;
    };
    let finished = harness::run(&mut python, b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

fn our_address(peer: &str) -> std::io::Result<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[test]
fn connect_of_udp_finds_our_own_address_and_sends_nothing() {
    let peer = udp_socket("127.0.0.1");
    let address = our_address(&peer.local_addr().unwrap().to_string()).unwrap();
    assert_eq!(address.to_string(), "127.0.0.1");
    peer.set_nonblocking(true).unwrap();
    let received = peer.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(received.kind(), ErrorKind::WouldBlock);
}

/// The socket has its family before the peer comes.
#[test]
fn an_ipv4_socket_cannot_be_connected_to_an_ipv6_peer() {
    let error = our_address("[::1]:9").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(97));
}

/// With the colon, it cannot be a name, so no server is asked.
#[test]
fn a_port_inside_of_a_host_name_is_name_or_service_not_known() {
    let error = ("localhost:7007", 7007).to_socket_addrs().unwrap_err();
    assert!(
        error.to_string().ends_with("Name or service not known"),
        "{error}"
    );
    assert_eq!(error.raw_os_error(), None);
}

#[test]
fn of_several_addresses_the_route_to_the_peer_decides_which_is_ours() {
    let addresses = "ip addr add 192.0.2.1/24 dev eth0 && ip addr add 198.51.100.1/24 dev eth1";
    let script = "
import errno, socket
def our_address(peer):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((peer, 9))
    return udp.getsockname()[0]

assert our_address('192.0.2.9') == '192.0.2.1'
assert our_address('198.51.100.9') == '198.51.100.1'
try:
    our_address('203.0.113.9')
    assert False, 'no route leads there'
except OSError as error:
    assert error.errno == errno.ENETUNREACH
";
    run_between_two_interfaces(addresses, script);
}

#[test]
fn a_link_local_address_needs_an_interface_and_exists_once_for_each() {
    let addresses =
        "ip addr add fe80::1/64 dev eth0 nodad && ip addr add fe80::1/64 dev eth1 nodad";
    let script = "
import errno, socket
def bound(interface):
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(('fe80::1', 7007, 0, interface))
    udp.settimeout(10)
    return udp

try:
    bound(0)
    assert False, 'without an interface'
except OSError as error:
    assert error.errno == errno.EINVAL
zero, one = [bound(socket.if_nametoindex(name)) for name in ('eth0', 'eth1')]
zero.sendto(b'hello', zero.getsockname())
assert zero.recv(8) == b'hello'
one.setblocking(False)
try:
    one.recv(8)
    assert False, 'the datagram was for the other interface'
except BlockingIOError:
    pass
";
    run_between_two_interfaces(addresses, script);
}

#[test]
fn std_reads_the_number_of_an_interface_in_brackets_and_a_name_without_them() {
    let parsed: SocketAddrV6 = "[fe80::1%1]:7007".parse().unwrap();
    assert_eq!(parsed.scope_id(), 1);
    assert_eq!(parsed.to_string(), "[fe80::1%1]:7007");
    assert!("[fe80::1%lo]:7007".parse::<SocketAddrV6>().is_err());
    let resolved = std::net::ToSocketAddrs::to_socket_addrs("fe80::1%lo:7007");
    assert_eq!(resolved.unwrap().next(), Some(parsed.into()));
}

#[test]
fn port_0_gives_a_port_of_the_ephemeral_range() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut ends = range.split_whitespace().map(|end| end.parse().unwrap());
    let range = ends.next().unwrap()..=ends.next().unwrap();
    let port: u16 = udp_socket("127.0.0.1").local_addr().unwrap().port();
    assert!(range.contains(&port), "{port} is not in {range:?}");
}

#[test]
fn a_port_is_in_the_header_with_its_high_byte_first() {
    let script = "
import socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.settimeout(10)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(b'hello', ('127.0.0.1', 7007))
header = raw.recv(64)[20:28]
assert header[2:6] == bytes([0x1b, 0x5f, 0, 13]), header
";
    run_between_two_interfaces("true", script);
}

#[test]
fn the_address_is_free_when_the_last_clone_is_dropped() {
    let socket = udp_socket("127.0.0.1");
    let addr = socket.local_addr().unwrap();
    let clone = socket.try_clone().unwrap();
    drop(socket);
    assert_eq!(
        UdpSocket::bind(addr).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    drop(clone);
    harness::wait_until(|| UdpSocket::bind(addr).is_ok());
}

#[test]
fn protocol_0_is_udp_for_datagrams_and_tcp_for_a_stream() {
    for (kind, protocol) in [(Type::DGRAM, Protocol::UDP), (Type::STREAM, Protocol::TCP)] {
        let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
        assert_eq!(socket.protocol().unwrap(), Some(protocol));
    }
}

/// Whoever sends to a group and is a member of it hears itself, unless it says otherwise. (On `lo`
/// everything comes back, whatever it says.)
#[test]
fn a_member_hears_itself_unless_ip_multicast_loop_is_off() {
    let script = "
import socket
group, ours = socket.inet_aton('239.1.2.3'), socket.inet_aton('192.0.2.1')
member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
member.bind(('239.1.2.3', 7007))
member.settimeout(10)
member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + ours)
member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ours)
member.sendto(b'aloud', ('239.1.2.3', 7007))
assert member.recv(64) == b'aloud'
member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
member.sendto(b'silently', ('239.1.2.3', 7007))
member.setblocking(False)
try:
    member.recv(64)
    assert False, 'nothing comes back'
except BlockingIOError:
    pass
";
    run_between_two_interfaces("ip addr add 192.0.2.1/24 dev eth0", script);
}
