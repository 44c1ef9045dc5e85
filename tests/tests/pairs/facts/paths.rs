//! What IP does with a datagram on its way: it cuts what is too long, and loses what is incomplete or
//! changed.

use std::process::Command;

use harness::{Network, program, run, succeed};

/// Runs a script of Python that sends what it likes, header and all, on the loopback of a namespace.
fn run_with_raw_datagrams(script: &str) {
    let helpers = "
import socket, struct
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(('127.0.0.1', 0))
receiver.settimeout(10)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
ends = bytes([127, 0, 0, 1] * 2)

def udp(payload, checksum=0):
    port = receiver.getsockname()[1]
    return struct.pack('!4H', 9999, port, 8 + len(payload), checksum) + payload

def send(part, number, offset=0, more=False):
    flags = (more << 13) | offset // 8
    header = struct.pack('!BBHHHBBH', 0x45, 0, 0, number, flags, 64, socket.IPPROTO_UDP, 0)
    raw.sendto(header + ends + part, ('127.0.0.1', 0))
";
    let Some(mut python) = harness::foreign("python3") else {
        return;
    };
    let python = python.args(["-c", &format!("{helpers}{script}")]);
    let Some(mut python) = harness::unshared("-rn", "ip link set lo up", python) else {
        return;
    };
    let finished = run(&mut python, b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// Each datagram has two fragments. Of the first datagram only one of them arrives.
#[test]
fn a_datagram_without_one_of_its_fragments_is_lost() {
    run_with_raw_datagrams(
        "
first, second = [udp(letter * 2000) for letter in (b'1', b'2')]
send(first[:1480], 1, more=True)
send(second[:1480], 2, more=True)
send(second[1480:], 2, offset=1480)
assert receiver.recv(65536) == b'2' * 2000
receiver.setblocking(False)
try:
    receiver.recv(65536)
    assert False, 'the rest of the first datagram never came'
except BlockingIOError:
    pass
",
    );
}

#[test]
fn a_datagram_with_a_wrong_checksum_is_dropped_and_one_without_is_not() {
    run_with_raw_datagrams(
        "
def sum_of(data):
    words = struct.unpack('!%dH' % (len(data) // 2), data)
    return sum(words) % 65535

wrong = udp(b'changed!', checksum=0xabcd)
pseudo = ends + struct.pack('!2H', socket.IPPROTO_UDP, 16)
right = udp(b'in order', checksum=65535 - sum_of(pseudo + udp(b'in order')))
send(wrong, 1)
send(right, 2)
send(udp(b'without!'), 3)
assert [receiver.recv(64) for _ in range(2)] == [b'in order', b'without!']
",
    );
}

/// A router between the hosts 1 and 3 cannot pass on what is longer than 1300 bytes, and has no way to
/// tell host 1, as if a firewall dropped its ICMP messages. Host 3 has the address 10.78.0.3 as well, and
/// the way there leads through the router. The way back does not.
fn narrow_path_without_icmp() -> Option<Network> {
    let network = Network::of(3)?;
    let set_up = [
        "ip route add 10.78.0.3 via 10.77.0.2",
        "ip route add 10.78.0.3 via 10.77.0.3 mtu lock 1300 && ip route add prohibit 10.77.0.1 &&
         cd /proc/sys/net/ipv4 && echo 1 >ip_forward",
        "ip addr add 10.78.0.3 dev lo",
    ];
    for (host, commands) in (1..).zip(set_up) {
        succeed(network.on(host, Command::new("sh").args(["-c", commands])));
    }
    Some(network)
}

#[test]
fn without_icmp_a_datagram_that_is_too_long_for_the_path_vanishes_each_time() {
    let Some(network) = narrow_path_without_icmp() else {
        return;
    };
    let addr = "10.78.0.3:7007";
    let _server = network.server(3, program("udp-server").args(["-q", "--addr", addr]));
    let ask = |message: &str, timeout| {
        let mut client = program("udp-client");
        let client = client.args(["--addr", addr, "--timeout", timeout, message]);
        run(&mut network.on(1, client), b"")
    };
    let short = "x".repeat(1272);
    ask(&short, "10").assert_printed(format!("{short}\n").as_bytes());
    let long = ask(&"x".repeat(1273), "0.2");
    assert_eq!(long.code, Some(1), "{long:?}");
    long.assert_stderr("no answer to attempt 3 of 3\n");
    long.assert_stderr("Caused by:\n    timed out");
}

/// The segments of the handshake and of a short message are short. A smaller MTU of the route makes the
/// others short as well.
#[test]
fn without_icmp_tcp_connects_over_a_narrow_path_and_a_long_transfer_stands_still() {
    let Some(network) = narrow_path_without_icmp() else {
        return;
    };
    let addr = "10.78.0.3:7007";
    let _server = network.server(3, program("tcp-server").args(["-q", "--addr", addr]));
    let ask = |len, timeout| {
        let mut client = program("tcp-client");
        let client = client.args(["--addr", addr, "--timeout", timeout]);
        run(&mut network.on(1, client), &vec![b'x'; len])
    };
    ask(1000, "10").assert_printed(&[b'x'; 1000]);
    let long = ask(10_000, "1");
    assert_eq!(long.code, Some(1), "{long:?}");
    long.assert_stderr(" of 10000 bytes came back");
    let route = "ip route change 10.78.0.3 via 10.77.0.2 mtu 1300";
    succeed(network.on(1, Command::new("sh").args(["-c", route])));
    ask(10_000, "10").assert_printed(&[b'x'; 10_000]);
}
