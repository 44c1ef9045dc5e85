//! What only the example `batch` of `udp-server` promises: it answers the datagrams in its
//! receive queue with few system calls, on Linux. What it promises like `udp-server` is in
//! `promises`.

#[test]
#[cfg(not(target_os = "linux"))]
fn elsewhere_it_says_that_it_is_for_linux() {
    let server = harness::run(&mut harness::example_of("udp-server", "batch"), b"");
    assert_eq!(server.code, Some(1));
    server.assert_stderr("only Linux has UDP_SEGMENT");
}

/// A suspended server receives nothing, so what is sent meanwhile waits in its receive queue.
#[cfg(target_os = "linux")]
mod queued {
    use std::fs;
    use std::io::IoSlice;
    use std::net::{SocketAddrV4, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use harness::{Server, can_trace, udp_socket};
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use promises::catalog::BATCH;
    use promises::{Broken, forge};

    fn send(socket: &UdpSocket, server: &Server, datagram: &[u8]) {
        assert_eq!(
            socket.send_to(datagram, server.addr).unwrap(),
            datagram.len()
        );
    }

    /// Returns datagrams of these lengths, no two of which have the same bytes.
    fn datagrams(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let datagram = |(number, len)| harness::noise(number + len).split_off(number);
        lengths.into_iter().enumerate().map(datagram).collect()
    }

    /// Asserts that this is the next echo. The socket's time limit ends the wait for a missing
    /// one.
    fn assert_next_echo(socket: &UdpSocket, datagram: &[u8]) {
        let mut buffer = vec![0; 65_536];
        let len = socket.recv(&mut buffer).expect("an echo");
        assert!(
            buffer[..len] == *datagram,
            "{len} bytes, and not the {} that come next",
            datagram.len()
        );
    }

    /// There are more datagrams than one call takes, with long and empty ones among them.
    #[test]
    fn all_that_waited_come_back_whole_and_in_order_to_the_peer_they_came_from() {
        let server = BATCH.start(&[]);
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

    /// A long datagram must leave nothing in its slot for the short ones that use it later.
    #[test]
    fn a_slot_that_held_a_long_datagram_then_holds_a_short_one() {
        let server = BATCH.start(&[]);
        let socket = udp_socket("127.0.0.1");
        for datagram in [&harness::noise(65_507)[..], b"short", b"", b"again"] {
            send(&socket, &server, datagram);
            assert_next_echo(&socket, datagram);
        }
    }

    #[test]
    fn those_that_cannot_be_answered_harm_none_that_wait_with_them() {
        let mut server = BATCH.start(&[]);
        let socket = udp_socket("127.0.0.1");
        let broadcast = SocketAddrV4::new([127, 255, 255, 255].into(), 40_000);
        let port_0 = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
        server.running.suspend();
        // They are at the start, in the middle, twice in a row, and at the end.
        for part in [b"first", b"2nd  ", b"third"] {
            for forged in [broadcast, port_0, broadcast] {
                match forge(forged, server.addr) {
                    Err(Broken::NotAsked(why)) => return harness::not_run(&why),
                    forged => forged.unwrap(),
                }
            }
            send(&socket, &server, part);
        }
        forge(broadcast, server.addr).unwrap();
        server.running.resume();
        for part in [b"first", b"2nd  ", b"third"] {
            assert_next_echo(&socket, part);
        }
        let lines: Vec<String> = (0..13).map(|_| server.running.stderr_line()).collect();
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(
            count(&format!(
                "{broadcast}: cannot send the echo: Permission denied"
            )),
            7,
            "{lines:#?}"
        );
        assert_eq!(count(&format!("{port_0}: not answered")), 3, "{lines:#?}");
        let peer = socket.local_addr().unwrap();
        assert_eq!(count(&format!("{peer}: length 5")), 3, "{lines:#?}");
    }

    /// Datagrams of the same length in a row go out as one piece, and must come back
    /// separately.
    #[test]
    fn like_ones_in_a_row_come_back_one_by_one_and_in_order_with_the_unlike_among_them() {
        let server = BATCH.start(&[]);
        let lengths = [
            5, 5, 5, 0, 0, 1200, 1200, 5, 5, 6, 7, 2000, 2000, 2000, 1, 1,
        ];
        let datagrams = datagrams(lengths.into_iter().chain(lengths));
        let peers = datagrams
            .chunks(lengths.len())
            .map(|datagrams| (udp_socket("127.0.0.1"), datagrams));
        let peers: Vec<_> = peers.collect();
        server.running.suspend();
        for (socket, datagrams) in &peers {
            datagrams
                .iter()
                .for_each(|datagram| send(socket, &server, datagram));
        }
        server.running.resume();
        for (socket, datagrams) in &peers {
            datagrams
                .iter()
                .for_each(|datagram| assert_next_echo(socket, datagram));
        }
    }

    #[test]
    fn like_ones_that_are_too_long_for_one_piece_come_back_as_well() {
        let server = BATCH.start(&[]);
        let socket = udp_socket("127.0.0.1");
        let datagrams = datagrams([9000; 8]);
        server.running.suspend();
        datagrams
            .iter()
            .for_each(|datagram| send(&socket, &server, datagram));
        server.running.resume();
        datagrams
            .iter()
            .for_each(|datagram| assert_next_echo(&socket, datagram));
    }

    const WAITING: usize = 96;

    /// Returns the system calls with which the server answers the datagrams that wait for it,
    /// each as a line of strace(1). Returns `None` without strace. Each datagram must come
    /// back, in order, and be logged.
    fn calls(lengths: [usize; WAITING], strace_options: &[&str]) -> Option<Vec<String>> {
        let one_by_one = |socket: &UdpSocket, server: &Server, datagrams: &[Vec<u8>]| {
            for datagram in datagrams {
                send(socket, server, datagram);
            }
        };
        calls_when_sent(one_by_one, lengths, strace_options)
    }

    /// Does the same, and sends the datagrams in this way.
    fn calls_when_sent(
        send_all: impl FnOnce(&UdpSocket, &Server, &[Vec<u8>]),
        lengths: [usize; WAITING],
        strace_options: &[&str],
    ) -> Option<Vec<String>> {
        if !can_trace() {
            return None;
        }
        let folder = harness::folder();
        let log = folder.path().join("calls");
        let mut strace = Command::new("strace");
        // With -D the process that we start, and can suspend, is the server and not strace.
        strace
            .args(["-D", "-qq", "-e", "trace=%network", "-o"])
            .arg(&log)
            .args(strace_options);
        let server = BATCH.at("127.0.0.1:0");
        strace.arg(server.get_program()).args(server.get_args());
        let mut server = Server::start(&mut strace);
        let socket = udp_socket("127.0.0.1");
        let datagrams = datagrams(lengths);
        server.running.suspend();
        send_all(&socket, &server, &datagrams);
        server.running.resume();
        for datagram in &datagrams {
            assert_next_echo(&socket, datagram);
            let line = server.running.stderr_line();
            assert!(
                line.ends_with(&format!(": length {}", datagram.len())),
                "{line}"
            );
        }
        server.running.kill(); // Waits for strace too, which has the same stderr.
        Some(
            fs::read_to_string(log)
                .unwrap()
                .lines()
                .map(String::from)
                .collect(),
        )
    }

    fn count(calls: &[String], start: &str) -> usize {
        calls.iter().filter(|call| call.starts_with(start)).count()
    }

    #[test]
    fn it_needs_few_system_calls_for_datagrams_of_many_lengths() {
        let Some(calls) = calls(std::array::from_fn(|number| number), &[]) else {
            return;
        };
        let (receives, sends) = (count(&calls, "recvmmsg"), count(&calls, "sendmmsg"));
        println!("{WAITING} datagrams, received by {receives} calls, sent by {sends}");
        assert!(
            receives > 0 && sends > 0 && receives + sends <= WAITING / 8,
            "{calls:#?}"
        );
        assert_eq!(count(&calls, "sendmsg"), 0, "{calls:#?}");
    }

    #[test]
    fn like_ones_leave_as_one_piece() {
        let Some(calls) = calls([64; WAITING], &[]) else {
            return;
        };
        let pieces = count(&calls, "sendmsg");
        println!("{WAITING} datagrams, sent in {pieces} pieces");
        assert!(pieces > 0 && pieces <= WAITING / 16, "{calls:#?}");
        assert!(count(&calls, "sendmmsg") <= 1, "{calls:#?}"); // One may be left over.
    }

    /// The sender cuts pieces itself. They are not cut on the way through the kernel (UDP_GRO), and go back as
    /// they are.
    #[test]
    fn what_came_as_one_piece_is_taken_and_sent_as_one_piece() {
        const PIECE: usize = 48;
        let in_pieces = |socket: &UdpSocket, server: &Server, datagrams: &[Vec<u8>]| {
            socket.connect(server.addr).unwrap();
            for piece in datagrams.chunks(PIECE) {
                let bytes = piece.concat();
                let slices = [IoSlice::new(&bytes)];
                let cut = [ControlMessage::UdpGsoSegments(&64)];
                let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
                let sent = sendmsg::<()>(fd, &slices, &cut, flags, None);
                assert_eq!(sent, Ok(bytes.len()));
            }
        };
        let mut lengths = [64; WAITING];
        lengths[PIECE - 1] = 10; // Only the last of a piece may be shorter.
        let Some(calls) = calls_when_sent(in_pieces, lengths, &[]) else {
            return;
        };
        assert_eq!(count(&calls, "sendmsg"), WAITING / PIECE, "{calls:#?}");
        assert_eq!(count(&calls, "sendmmsg"), 0, "{calls:#?}");
        let received = calls.iter().filter(|call| call.starts_with("recvmmsg"));
        let taken = received.filter_map(|call| call.rsplit_once(" = ")?.1.parse::<usize>().ok());
        assert_eq!(taken.sum::<usize>(), WAITING / PIECE, "{calls:#?}");
    }

    /// Linux before 4.18 has no such option, and would send the piece as it is.
    #[test]
    fn it_does_not_start_on_a_kernel_that_cannot_cut() {
        if !can_trace() {
            return;
        }
        let no_option = "inject=setsockopt:error=ENOPROTOOPT";
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", no_option]);
        let server = BATCH.at("127.0.0.1:0");
        strace.arg(server.get_program()).args(server.get_args());
        let error = "Error: cannot use UDP_SEGMENT of Linux 4.18\n";
        harness::run(&mut strace, b"").assert_failed(error);
    }

    /// This happens with a network card that does not compute checksums.
    #[test]
    fn where_no_piece_can_go_each_datagram_goes_for_itself() {
        let Some(calls) = calls([64; WAITING], &["-e", "inject=sendmsg:error=EIO"]) else {
            return;
        };
        assert!(
            count(&calls, "sendmsg") > 0 && count(&calls, "sendmmsg") > 0,
            "{calls:#?}"
        );
    }
}
