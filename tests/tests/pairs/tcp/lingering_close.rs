//! The example `lingering_close` of `tcp-server`: it closes while the client still sends, and
//! the client gets all that it said.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use harness::{LIMIT, Server, at, echo, example_of, noise, run};
use socket2::{Domain, Socket, Type};

/// How much the server echoes. It fits into the buffers of the kernel, so neither side ever
/// waits for a client that sends all before it reads.
const ECHOED: usize = 64 * 1024;

/// A time limit that the server does not reach during a test.
const ENDLESS: [&str; 2] = ["--linger", "86400"];

fn start(options: &[&str]) -> Server {
    let command = example_of("tcp-server", "lingering_close");
    Server::start(at(command, "127.0.0.1:0").args(options))
}

fn start_with_limit(limit: usize, options: &[&str]) -> Server {
    start(&[&["--limit", &limit.to_string()], options].concat())
}

fn last_words(limit: usize) -> String {
    format!("\nlimit reached: {limit} bytes\n")
}

/// Connects with a small receive buffer, so most of the echo stays in the server's kernel.
fn connect(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Returns how many of 200 clients do not get the server's last words. Each sends twice as
/// much as the server reads, and only then reads.
fn losses(server: &Server) -> usize {
    let sent = noise(2 * ECHOED);
    let expected = [&sent[..ECHOED], last_words(ECHOED).as_bytes()].concat();
    let is_lost = |_: &u32| {
        let mut stream = connect(server);
        // This fails if the server has reset the connection already.
        let _ = stream
            .write_all(&sent)
            .and_then(|()| stream.shutdown(Shutdown::Write));
        let mut received = Vec::new();
        // What came before a reset is in `received`.
        let _ = stream.read_to_end(&mut received);
        received != expected
    };
    (0..200).filter(is_lost).count()
}

#[test]
fn a_client_that_still_sends_gets_the_last_words() {
    assert_eq!(losses(&start_with_limit(ECHOED, &ENDLESS)), 0);
}

/// The same client, and the same server except for the close.
#[test]
fn a_close_at_once_loses_the_last_words() {
    let lost = losses(&start_with_limit(ECHOED, &["--naive"]));
    println!("{lost} of 200 clients lost the end");
    assert!(lost > 0, "{lost}");
}

#[test]
fn the_log_says_how_much_was_echoed_and_discarded() {
    let mut server = start_with_limit(5, &ENDLESS);
    let mut client = connect(&server);
    client.write_all(b"hello, world").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "hello\nlimit reached: 5 bytes\n");
    let expected = format!(
        "{}: closed, bytes echoed: 5, discarded: 7",
        client.local_addr().unwrap()
    );
    assert_eq!(server.running.stderr_line(), expected);
}

#[test]
fn a_client_that_ends_before_the_limit_gets_its_echo_and_no_more() {
    let mut server = start_with_limit(1000, &ENDLESS);
    let client = connect(&server);
    let back = harness::echo_all(&client, b"hello", |client| client.shutdown(Shutdown::Write));
    assert_eq!(back, b"hello");
    let expected = format!("{}: closed, bytes echoed: 5", client.local_addr().unwrap());
    assert_eq!(server.running.stderr_line(), expected);
}

/// Reads what the server says, up to its half-close.
fn read_all(mut client: &TcpStream) -> String {
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    received
}

#[test]
fn a_client_that_never_closes_is_left_when_the_time_has_passed() {
    let mut server = start_with_limit(5, &["--linger", "0.3"]);
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    assert_eq!(read_all(&client), "hello\nlimit reached: 5 bytes\n");
    let expected = format!(
        "{}: closed, bytes echoed: 5, discarded: 0, but the client did not close",
        client.local_addr().unwrap()
    );
    assert_eq!(server.running.stderr_line(), expected);
}

/// A time limit for each read would begin anew with each byte.
#[test]
fn a_client_that_drips_is_left_when_the_time_has_passed() {
    let mut server = start_with_limit(5, &["--linger", "0.5"]);
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    thread::scope(|scope| {
        let dripping = scope.spawn(|| {
            let drip = |_| {
                thread::sleep(std::time::Duration::from_millis(20));
                (&client).write_all(b".").is_ok()
            };
            // 30 seconds at least.
            (0..1500).all(drip)
        });
        let line = server.running.stderr_line();
        assert!(line.ends_with(", but the client did not close"), "{line}");
        assert!(!dripping.join().unwrap(), "no write ever failed");
    });
}

#[test]
fn a_client_that_sends_without_end_is_left_when_the_amount_is_reached() {
    let mut server = start_with_limit(5, &ENDLESS);
    let client = connect(&server);
    thread::scope(|scope| {
        let sending = scope.spawn(|| while (&client).write_all(&[b'x'; 64 * 1024]).is_ok() {});
        let line = server.running.stderr_line();
        assert!(line.ends_with(", but the client did not close"), "{line}");
        let discarded = line.split("discarded: ").nth(1).unwrap();
        let discarded: u64 = discarded.split(',').next().unwrap().parse().unwrap();
        let limit = 16 * 1024 * 1024;
        assert!((limit..limit + 64 * 1024).contains(&discarded), "{line}");
        sending.join().unwrap();
    });
}

#[test]
fn others_are_served_while_it_waits_for_one_to_close() {
    let server = start_with_limit(5, &ENDLESS);
    let waiting = connect(&server);
    (&waiting).write_all(b"hello").unwrap();
    assert_eq!(read_all(&waiting), "hello\nlimit reached: 5 bytes\n");
    echo(connect(&server), b"hi");
}

/// The first clients get their echo and leave, so that those in the backlog are accepted.
#[test]
#[cfg(target_os = "linux")]
fn out_of_descriptors_it_waits_and_then_serves_again() {
    let command = at(example_of("tcp-server", "lingering_close"), "127.0.0.1:0");
    let mut server = Server::start(&mut harness::limited("--nofile=12", &command));
    let started = std::time::Instant::now();
    let clients: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    let line = server.running.stderr_line();
    assert!(line.starts_with("cannot accept: Too many open"), "{line}");
    clients.into_iter().for_each(|client| echo(client, b"hi"));
    let log = server.running.kill().stderr;
    let errors = log.matches("cannot accept: ").count();
    let most = started.elapsed().as_millis() as usize / 100 + 1;
    assert!(errors <= most, "{errors} failures in {most} pauses");
}

/// macOS refuses every option of a socket once both sides have ended.
#[test]
#[cfg(target_os = "linux")]
fn no_option_is_set_after_the_half_close() {
    let (Some(mut strace), folder) = (harness::foreign("strace"), harness::folder()) else {
        return;
    };
    let log = folder.path().join("calls");
    strace
        .args(["-D", "-f", "-e", "setsockopt,shutdown", "-o"])
        .arg(&log);
    strace.arg(example_of("tcp-server", "lingering_close").get_program());
    let mut server = Server::start(at(strace, "127.0.0.1:0").args(["--limit", "5"]));
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    assert_eq!(read_all(&client), "hello\nlimit reached: 5 bytes\n");
    (&client).write_all(b"more").unwrap();
    drop(client);
    server.running.stderr_line();
    drop(server);
    let calls = std::fs::read_to_string(log).unwrap();
    let after = calls.split("shutdown(").nth(1).expect("a half-close");
    assert!(!after.contains("setsockopt("), "{calls}");
}

/// Linux interrupts a call with a time limit when a program is suspended. If the call then began
/// anew, the time would never pass here.
#[test]
#[cfg(unix)]
fn to_be_suspended_does_not_prolong_the_time() {
    let mut server = start_with_limit(5, &["--linger", "0.5"]);
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    assert_eq!(read_all(&client), "hello\nlimit reached: 5 bytes\n");
    let deadline = std::time::Instant::now() + LIMIT;
    // At its limit the server closes. The client has not, so its next bytes are answered by a reset.
    while (&client).write(b".").is_ok() {
        assert!(std::time::Instant::now() < deadline, "it has not closed");
        server.running.suspend();
        server.running.resume();
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let line = server.running.stderr_line();
    assert!(line.ends_with(", but the client did not close"), "{line}");
}

/// Linux interrupts a call with a time limit when a program is suspended.
#[test]
#[cfg(unix)]
fn a_suspended_server_still_waits_for_the_client_to_close() {
    let mut server = start_with_limit(5, &ENDLESS);
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    assert_eq!(read_all(&client), "hello\nlimit reached: 5 bytes\n");
    for _ in 0..3 {
        server.running.suspend();
        server.running.resume();
        (&client).write_all(b"more").unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let line = server.running.stderr_line();
    assert!(line.ends_with("discarded: 12"), "{line}");
}

#[test]
fn a_client_that_resets_does_not_end_it() {
    let mut server = start_with_limit(5, &ENDLESS);
    let client = connect(&server);
    (&client).write_all(b"hello").unwrap();
    assert_eq!(read_all(&client), "hello\nlimit reached: 5 bytes\n");
    super::reset(client);
    let line = server.running.stderr_line();
    assert!(line.contains(": closed, "), "{line}");
    echo(connect(&server), b"hi");
}

#[test]
fn wrong_options_are_refused() {
    let example = || example_of("tcp-server", "lingering_close");
    harness::assert_refuses(
        example,
        &[
            (["--limit", "0"], "0 is not in 1.."),
            (["--linger", "0"], "write a number of seconds"),
            (["--linger", "x"], "write a number of seconds"),
        ],
    );
    let server = start(&[]);
    let second = run(&mut at(example(), &server.addr.to_string()), b"");
    second.assert_failed(&format!("Error: cannot listen on {}", server.addr));
}
