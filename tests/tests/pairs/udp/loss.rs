//! UDP loses datagrams without an error, and even without a network in between: it is enough
//! that the receiver is slower than the sender.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use harness::{LIMIT, Server, program, udp_socket};

/// More than the queue holds, also on macOS, where it takes 768 KiB.
const SENT: u32 = 100_000;

/// Sends more than anybody could take. The sender learns nothing of what is lost.
fn flood(socket: &UdpSocket, server: SocketAddr) {
    for number in 0..SENT {
        let sent = socket.send_to(&number.to_be_bytes(), server);
        assert!(sent.is_ok(), "an error: {sent:?}");
    }
}

#[test]
fn a_server_that_was_suspended_answers_what_its_queue_could_hold_in_order() {
    let server = Server::start(program("udp-server").args(["--addr", "127.0.0.1:0", "-q"]));
    let socket = udp_socket("127.0.0.1");
    server.running.suspend();
    flood(&socket, server.addr);
    server.running.resume();

    // The server answers in order: once the last message is back, everything before it is back
    // as well. The last message may also be lost while the receive queue is full, and then we
    // send it again.
    let mut came_back = Vec::new();
    let mut buffer = [0; 64];
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        assert!(
            std::time::Instant::now() < deadline,
            "the server no longer answers"
        );
        match socket.recv(&mut buffer) {
            Ok(4) => came_back.push(u32::from_be_bytes([
                buffer[0], buffer[1], buffer[2], buffer[3],
            ])),
            Ok(_) => break,
            Err(_) => drop(socket.send_to(b"the last", server.addr).unwrap()),
        }
    }
    println!("{SENT} sent, {} came back", came_back.len());
    assert!(!came_back.is_empty(), "some were kept");
    assert!(came_back.len() < SENT as usize, "some were lost");
    assert!(
        came_back.is_sorted_by(|a, b| a < b),
        "each once, in the order in which they were sent"
    );
}
