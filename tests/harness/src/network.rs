//! What the tests send, how they send it, and whether IPv6 is there to carry it.

use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::{not_run, patience};

/// Returns bytes without a pattern (xorshift), so that a lost or moved block is noticed.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Sends a few bytes to an echo server and waits for them to come back.
pub fn echo(mut stream: impl Read + Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert_eq!(back, bytes);
}

/// Sends bytes to an echo server and half-closes, and meanwhile reads all that comes back.
pub fn echo_all<S: Sync>(
    stream: &S,
    bytes: &[u8],
    half_close: impl Fn(&S) -> io::Result<()> + Sync,
) -> Vec<u8>
where
    for<'a> &'a S: Read + Write,
{
    let mut back = Vec::with_capacity(bytes.len());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(bytes).unwrap();
            half_close(stream).unwrap();
        });
        let mut stream = stream;
        stream.read_to_end(&mut back).unwrap();
    });
    back
}

/// Returns a text, and every value of a byte. Both end with a newline, which a client of
/// datagrams does not send but prints again.
pub fn short_payloads() -> Vec<Vec<u8>> {
    vec![b"hello\n".to_vec(), (0..=255).chain(*b"\n").collect()]
}

/// Returns the same and 1 MiB, for streams.
pub fn payloads() -> Vec<Vec<u8>> {
    let mut payloads = short_payloads();
    payloads.push(noise(1024 * 1024));
    payloads
}

/// Binds a UDP socket for the test itself, to a port that the kernel chooses.
pub fn udp_socket(host: &str) -> UdpSocket {
    let socket =
        UdpSocket::bind((host, 0)).unwrap_or_else(|error| panic!("cannot bind to {host}: {error}"));
    socket.set_read_timeout(Some(patience())).unwrap();
    socket
}

/// Returns whether IPv6 works here. If it does not, prints `NOT RUN`.
pub fn has_ipv6() -> bool {
    ipv6().map_err(|why| not_run(&why)).is_ok()
}

/// Returns why IPv6 does not work here, if it does not.
pub fn ipv6() -> Result<(), String> {
    let bound = UdpSocket::bind("[::1]:0");
    bound.map(drop).map_err(|error| format!("no IPv6: {error}"))
}

/// Waits until a condition is true. Also what was just closed can need it: a program that another test is starting has
/// copies of all sockets for a moment.
///
/// # Panics
///
/// It does not become true.
pub fn wait_until(mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !is_true() {
        assert!(Instant::now() < deadline, "not after {:?}", patience());
        thread::sleep(Duration::from_millis(1));
    }
}
