//! How fast `udp-server` and its example `batch` are, beside the plainest loops that std and C allow, in
//! one run.

use std::net::UdpSocket;
use std::time::Instant;

use harness::{Server, example, median_ratio, program, udp_socket};

const ROUND_TRIPS: usize = 4000;

/// Round trips per second, one after the other.
fn rate(socket: &UdpSocket, server: &Server) -> f64 {
    let mut buffer = [0; 128];
    let started = Instant::now();
    for _ in 0..ROUND_TRIPS {
        socket.send_to(&[b'x'; 64], server.addr).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 64);
    }
    ROUND_TRIPS as f64 / started.elapsed().as_secs_f64()
}

/// A slow or busy machine slows both alike, so only the ratio is judged, and only against a loop that
/// would be clearly slower.
#[test]
#[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture --test-threads 1"]
fn the_echo_loop_keeps_up_with_the_plainest_one() {
    let ours = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let plain = Server::start(&mut example("plain_udp_echo"));
    let socket = udp_socket("127.0.0.1");
    let ratio = median_ratio(|| rate(&socket, &ours), || rate(&socket, &plain));
    println!("round trips, udp-server to the plainest loop: {ratio}");
    assert!(ratio.median > 0.9, "{ratio}");
}

/// Many datagrams at once, by a client that takes and sends them in batches: one that does not is itself
/// what is slow.
#[cfg(target_os = "linux")]
mod many_at_once {
    use std::io::{IoSlice, IoSliceMut};
    use std::net::{SocketAddr, UdpSocket};
    use std::ops::Range;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::process::Command;
    use std::time::Instant;

    use harness::{Server, example_of, foreign, median_ratio, program, udp_socket};
    use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
    use tempfile::TempDir;

    use super::rate;

    /// How many are on their way at a time. The queue of a socket holds twice as many of this size.
    const WINDOW: usize = 128;
    const DATAGRAMS: usize = 20_000;
    const SIZE: usize = 64;

    /// Echoes per second, of a client that keeps `WINDOW` datagrams on their way. Each carries its number.
    fn window(addr: SocketAddr) -> f64 {
        let socket = udp_socket("127.0.0.1");
        socket.connect(addr).unwrap();
        let mut headers = MultiHeaders::<()>::preallocate(WINDOW, None);
        let mut buffers = [[0; SIZE + 1]; WINDOW];
        let mut missing = vec![true; DATAGRAMS];
        let (mut sent, mut received) = (0, 0);
        let started = Instant::now();
        while received < DATAGRAMS {
            let end = DATAGRAMS.min(received + WINDOW);
            send(&socket, sent..end);
            sent = end;
            let mut slots = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let flags = MsgFlags::MSG_WAITFORONE;
            // The time limit of the socket ends the wait for one that was lost.
            let echoes =
                recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, flags, None).expect("an echo");
            for echo in echoes {
                let echo = echo.iovs().next().unwrap_or_default();
                let number = usize::from_le_bytes(echo[..8].try_into().unwrap());
                assert!(echo == datagram(number) && missing[number], "an echo that was not sent, or twice");
                missing[number] = false;
                received += 1;
            }
        }
        DATAGRAMS as f64 / started.elapsed().as_secs_f64()
    }

    fn datagram(number: usize) -> [u8; SIZE] {
        let mut datagram = [b'x'; SIZE];
        datagram[..8].copy_from_slice(&number.to_le_bytes());
        datagram
    }

    fn send(socket: &UdpSocket, numbers: Range<usize>) {
        let datagrams: Vec<_> = numbers.map(datagram).collect();
        let slices: Vec<_> = datagrams.iter().map(|datagram| [IoSlice::new(datagram)]).collect();
        let mut controls: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut headers: Vec<_> =
            slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control)).collect();
        assert_eq!(sendmmsg(socket, &mut headers, SendFlags::empty()), Ok(slices.len()));
    }

    /// A server in C, out of `benches`, built into a folder that goes when it is dropped.
    fn c_server(name: &str) -> Option<(TempDir, Server)> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name).with_extension("c");
        let built = folder.path().join(name);
        let compiled = foreign("cc")?.arg("-O2").arg("-o").arg(&built).arg(source).status().unwrap();
        assert!(compiled.success(), "cc cannot build {name}");
        let server = Server::start(&mut Command::new(built));
        Some((folder, server))
    }

    fn udp_server() -> Server {
        Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "--quiet"]))
    }

    fn batch() -> Server {
        Server::start(example_of("udp-server", "batch").args(["--addr", "127.0.0.1:0", "--quiet"]))
    }

    fn assert_ratio(what: &str, ours: &Server, other: &Server, least: f64) {
        let ratio = median_ratio(|| window(ours.addr), || window(other.addr));
        println!("{WINDOW} at once, {what}: {ratio}");
        assert!(ratio.median > least, "{what}: {ratio}");
    }

    #[test]
    #[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture --test-threads 1"]
    fn in_batches_more_are_answered_than_one_by_one() {
        assert_ratio("batch to udp-server", &batch(), &udp_server(), 1.15);
    }

    #[test]
    #[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture --test-threads 1"]
    fn one_after_the_other_batches_cost_little() {
        let (batch, one_by_one) = (batch(), udp_server());
        let socket = udp_socket("127.0.0.1");
        let ratio = median_ratio(|| rate(&socket, &batch), || rate(&socket, &one_by_one));
        println!("round trips, batch to udp-server: {ratio}");
        assert!(ratio.median > 0.85, "{ratio}");
    }

    #[test]
    #[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture --test-threads 1"]
    fn the_batches_keep_up_with_the_same_in_c() {
        let Some((_folder, in_c)) = c_server("udp_batch") else { return };
        assert_ratio("batch to the same in C", &batch(), &in_c, 0.95);
    }

    #[test]
    #[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture --test-threads 1"]
    fn the_echo_loop_keeps_up_with_the_same_in_c() {
        let Some((_folder, in_c)) = c_server("udp_loop") else { return };
        assert_ratio("udp-server to the same in C", &udp_server(), &in_c, 0.95);
    }
}
