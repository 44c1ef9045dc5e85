//! How fast `udp-server` is, beside the plainest loop that std allows, in one run.

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
#[ignore = "a measurement, of use in a release build: cargo test --release --test udp_speed -- --ignored --nocapture"]
fn the_echo_loop_keeps_up_with_the_plainest_one() {
    let ours = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "--quiet"]));
    let plain = Server::start(&mut example("plain_udp_echo"));
    let socket = udp_socket("127.0.0.1");
    let ratio = median_ratio(|| rate(&socket, &ours), || rate(&socket, &plain));
    println!("round trips, udp-server to the plainest loop: {ratio}");
    assert!(ratio.median > 0.9, "{ratio}");
}
