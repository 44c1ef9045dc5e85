//! The example `batch` of `udp-server`: it keeps all that `udp-server` promises, and answers what waits in
//! its queue with few system calls. On Linux alone.

use std::process::Command;

#[cfg(target_os = "linux")]
#[path = "promises/udp_multicast.rs"]
mod multicast;
#[cfg(target_os = "linux")]
#[path = "promises/udp_server.rs"]
mod promises;

fn server() -> Command {
    harness::example_of("udp-server", "batch")
}

#[test]
#[cfg(not(target_os = "linux"))]
fn elsewhere_it_says_that_it_is_for_linux() {
    let server = harness::run(&mut server(), b"");
    assert_eq!(server.code, Some(1));
    assert!(server.stderr.contains("recvmmsg and sendmmsg are Linux's"), "{}", server.stderr);
}

/// A server that is suspended takes nothing, so what is sent meanwhile waits for it in one queue.
#[cfg(target_os = "linux")]
mod queued {
    use std::fs;
    use std::net::{SocketAddrV4, UdpSocket};
    use std::process::Command;

    use harness::{Server, can_trace, udp_socket};

    use super::promises::{echo, forge, start_on_loopback};
    use super::server;

    fn send(socket: &UdpSocket, server: &Server, datagram: &[u8]) {
        assert_eq!(socket.send_to(datagram, server.addr).unwrap(), datagram.len());
    }

    /// One after the other. A limit of the socket ends the wait for one that is missing.
    fn assert_next_echo(socket: &UdpSocket, datagram: &[u8]) {
        let mut buffer = vec![0; 65_536];
        let len = socket.recv(&mut buffer).expect("an echo");
        assert!(buffer[..len] == *datagram, "{len} bytes, and not the {} that come next", datagram.len());
    }

    #[test]
    fn a_lone_datagram_is_not_held_up_until_more_come() {
        let server = start_on_loopback();
        let socket = udp_socket("127.0.0.1");
        assert_eq!(echo(&socket, &server, b"alone"), b"alone");
    }

    /// More than go into one call, long ones and empty ones among them.
    #[test]
    fn all_that_waited_come_back_whole_and_in_order_to_the_peer_they_came_from() {
        let server = start_on_loopback();
        let sockets = [(); 3].map(|()| udp_socket("127.0.0.1"));
        let datagram = |peer: usize, number: usize| match number {
            7 | 8 | 29 => vec![],
            15 => harness::noise(9000 + peer),
            _ => format!("peer {peer}, number {number}").into_bytes(),
        };
        server.running.suspend();
        for number in 0..30 {
            for (peer, socket) in sockets.iter().enumerate() {
                send(socket, &server, &datagram(peer, number));
            }
        }
        server.running.resume();
        for (peer, socket) in sockets.iter().enumerate() {
            for number in 0..30 {
                assert_next_echo(socket, &datagram(peer, number));
            }
        }
    }

    /// A long datagram must leave nothing behind in its slot for the short ones that come there later.
    #[test]
    fn a_slot_that_held_a_long_datagram_then_holds_a_short_one() {
        let server = start_on_loopback();
        let socket = udp_socket("127.0.0.1");
        for datagram in [&harness::noise(65_507)[..], b"short", b"", b"again"] {
            assert_eq!(echo(&socket, &server, datagram), datagram);
        }
    }

    #[test]
    fn those_that_cannot_be_answered_harm_none_that_wait_with_them() {
        let mut server = start_on_loopback();
        let socket = udp_socket("127.0.0.1");
        let broadcast = SocketAddrV4::new([127, 255, 255, 255].into(), 40_000);
        let port_0 = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
        server.running.suspend();
        // At the start, in the middle, twice in a row, and at the end.
        for part in [b"first", b"2nd  ", b"third"] {
            for forged in [broadcast, port_0, broadcast] {
                if !forge(forged, &server) {
                    return;
                }
            }
            send(&socket, &server, part);
        }
        forge(broadcast, &server);
        server.running.resume();
        for part in [b"first", b"2nd  ", b"third"] {
            assert_next_echo(&socket, part);
        }
        let lines: Vec<String> = (0..13).map(|_| server.running.stderr_line()).collect();
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(count(&format!("{broadcast}: cannot send the echo: Permission denied")), 7, "{lines:#?}");
        assert_eq!(count(&format!("{port_0}: not answered, port 0")), 3, "{lines:#?}");
        let answered: Vec<&str> = lines.iter().filter_map(|line| line.split(": length 5 ").nth(1)).collect();
        assert_eq!(answered, ["\"first\"", "\"2nd  \"", "\"third\""]);
    }

    #[test]
    fn it_needs_fewer_system_calls_than_datagrams() {
        const DATAGRAMS: usize = 96;
        if !can_trace() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("calls");
        let mut strace = Command::new("strace");
        // -D: the server, and not strace, is the process that was started, and can be suspended.
        strace.args(["-D", "-qq", "-e", "trace=%network", "-o"]).arg(&log);
        strace.arg(server().get_program()).args(["--addr", "127.0.0.1:0", "--quiet"]);
        let server = Server::start(&mut strace);
        let socket = udp_socket("127.0.0.1");
        server.running.suspend();
        for number in 0..DATAGRAMS {
            send(&socket, &server, &number.to_le_bytes());
        }
        server.running.resume();
        for number in 0..DATAGRAMS {
            assert_next_echo(&socket, &number.to_le_bytes());
        }
        server.running.kill(); // Returns when strace has ended too: it has the same stderr.
        let log = fs::read_to_string(log).unwrap();
        let count = |name: &str| log.lines().filter(|call| call.starts_with(name)).count();
        let (receives, sends) = (count("recv"), count("send"));
        println!("{DATAGRAMS} datagrams, received by {receives} calls, sent by {sends}");
        assert!(receives > 0 && sends > 0 && receives + sends <= DATAGRAMS / 8, "{log}");
    }
}
