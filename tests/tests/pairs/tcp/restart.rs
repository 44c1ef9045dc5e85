//! What the example `restart` of `tcp-server` promises: another server takes its place, and no client
//! is refused or reset.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, LIMIT, Running, Server, echo, example_of, program, run, wait_until};
use rustix::process::Signal;

use crate::tcp::{assert_ends, assert_rest_comes_back, assert_serves, connect};

fn restart() -> Command {
    example_of("tcp-server", "restart")
}

/// Starts a server on the listener of the test.
fn inherit(listener: &TcpListener) -> Server {
    let stdin = OwnedFd::from(listener.try_clone().unwrap());
    Server::of(Running::start_with_stdin(&mut restart(), stdin))
}

/// Waits until a server no longer accepts connections.
fn wait_until_it_ends(server: &mut Server) {
    while server.running.stderr_line() != "ending" {}
}

fn assert_all_finished(server: Server) {
    let ended = server.running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.assert_stderr("ended, all connections have finished\n");
}

fn connections(finished: &Finished) -> usize {
    let is_one = |line: &&str| line.ends_with(": connected");
    finished.stderr.lines().filter(is_one).count()
}

/// Runs a function when it is dropped, also when a test fails.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The second server starts before the first is told to go. At least 2000 clients come, one after
/// the other on four threads, and the signal comes in the middle.
#[test]
fn while_one_server_takes_the_place_of_another_no_client_is_refused_or_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = inherit(&listener);
    let addr: SocketAddr = first.addr;
    // Clients come in a hurry until so many are served, and then slowly, until the end.
    let (served, hurry, is_over) = (
        AtomicUsize::new(0),
        AtomicUsize::new(500),
        AtomicBool::new(false),
    );
    let (first, second) = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let stream = TcpStream::connect_timeout(&addr, LIMIT).expect("a connection");
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    assert_rest_comes_back(&stream, b"hello", 0);
                    if served.fetch_add(1, SeqCst) > hurry.load(SeqCst) {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
        let _over_at_the_end = OnDrop(|| is_over.store(true, SeqCst));
        let reach = |count| wait_until(|| served.load(SeqCst) >= count);
        reach(500);
        let second = inherit(&listener);
        assert_eq!(second.addr, addr);
        drop(listener);
        hurry.store(served.load(SeqCst) + 1500, SeqCst);
        reach(hurry.load(SeqCst) - 750);
        first.running.signal(Signal::TERM);
        let first = first.running.finish();
        reach(hurry.load(SeqCst));
        (first, second)
    });
    assert_serves(&second);
    assert_eq!(first.code, Some(0), "{first:?}");
    first.assert_stderr("ended, all connections have finished\n");
    let (first, second) = (connections(&first), connections(&second.running.kill()));
    let served = served.load(SeqCst);
    println!("{served} clients: {first} by the first server, {second} by the second");
    assert_eq!(first + second, served + 1);
    assert!(first > 500 && second > 0);
}

/// The first server is suspended, so that it finds the signal and the clients at the same time.
#[test]
fn who_is_in_the_backlog_when_the_signal_comes_is_left_to_the_next_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = inherit(&listener);
    let busy = connect(&first);
    echo(&busy, b"hello");
    first.running.suspend();
    let waiting = [(); 20].map(|()| connect(&first));
    first.running.signal(Signal::TERM);
    first.running.resume();
    wait_until_it_ends(&mut first);
    let second = inherit(&listener);
    waiting
        .iter()
        .for_each(|client| echo(client, b"in good hands"));
    assert_eq!(connections(&second.running.kill()), 20);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    assert_all_finished(first);
}

/// Descriptor 0 would keep the listener open until the server ends.
#[test]
fn when_nobody_else_holds_the_listener_who_comes_later_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = inherit(&listener);
    drop(listener);
    let busy = connect(&server);
    echo(&busy, b"hello");
    server.running.signal(Signal::TERM);
    wait_until_it_ends(&mut server);
    // A program that another test is starting may have the listener open for a moment longer.
    let deadline = Instant::now() + LIMIT;
    let late = loop {
        match TcpStream::connect_timeout(&server.addr, LIMIT) {
            Ok(_) => assert!(Instant::now() < deadline, "it still listens"),
            Err(error) => break error,
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    assert_all_finished(server);
}

#[test]
fn who_stays_is_cut_after_ten_seconds_and_not_earlier() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = inherit(&listener);
    let mut idle = connect(&server);
    echo(&idle, b"hello");
    let told = Instant::now();
    server.running.signal(Signal::TERM);
    assert_ends(&mut idle);
    assert!(told.elapsed() >= Duration::from_secs(10));
    let ended = server.running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.assert_stderr("ended, some connections are cut\n");
}

/// poll tells both servers of a client that only one of them can accept. strace makes them slow, so
/// that none accepts it before the other is told.
#[test]
#[cfg(target_os = "linux")]
fn a_client_of_which_both_servers_are_told_keeps_neither_from_its_signal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        let mut strace = harness::foreign("strace")?;
        strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
        strace.args(["-e", "inject=accept4:delay_enter=300000"]);
        strace.arg(restart().get_program());
        let stdin = OwnedFd::from(listener.try_clone().unwrap());
        Some(Server::of(Running::start_with_stdin(&mut strace, stdin)))
    };
    let (Some(first), Some(second)) = (start(), start()) else {
        return;
    };
    (0..3).for_each(|_| assert_serves(&first));
    for server in [first, second] {
        server.running.signal(Signal::TERM);
        assert_all_finished(server);
    }
}

#[test]
fn what_is_not_a_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = harness::udp_socket("127.0.0.1");
    for stdin in [OwnedFd::from(connection), OwnedFd::from(udp)] {
        let server = Running::start_with_stdin(&mut restart(), stdin);
        let error = "Error: cannot listen on stdin: it must be a listener\n";
        server.finish().assert_failed(error);
    }
    // Here stdin is a pipe.
    let server = run(&mut restart(), b"");
    server.assert_failed("Error: cannot listen on stdin: it must be a listener\n");
}

/// This runs the lines that the head of the program shows, with another port.
#[test]
fn a_shell_can_keep_the_listener_as_the_text_says() {
    let (Some(mut shell), Some(_)) = (
        harness::python("keep_listener.py"),
        harness::foreign("bash"),
    ) else {
        return;
    };
    let mut shell = Running::start_with_children(shell.args(["0", "bash"]));
    let command = restart();
    let start = format!("{} <&9 &\n", command.get_program().to_str().unwrap());
    shell.write(start.as_bytes());
    let first = shell.announced();
    shell.write(start.as_bytes());
    let addr = shell.announced();
    assert_eq!(first, addr);
    shell.write(b"kill %1; wait %1; echo ended with $?\n");
    assert_eq!(shell.stdout_line(), "ended with 0");
    for _ in 0..3 {
        let client = run(harness::at(program("tcp-client"), &addr).arg("hello"), b"");
        client.assert_printed(b"hello\n");
    }
}

/// With `wait`, inetd passes the listener as stdin at the first connection, and keeps it. When the
/// server ends, the next connection starts another. inetd does not say when it listens. It starts
/// the server in a session of its own, which only the end of a process namespace reaches.
#[test]
#[cfg(target_os = "linux")]
fn inetd_can_keep_the_listener() {
    use harness::Network;
    let (Some(inetd), Some(network)) = (harness::foreign("inetd"), Network::of(2)) else {
        return;
    };
    let folder = harness::folder();
    let config = folder.path().join("inetd.conf");
    let command = restart();
    let path = command.get_program().to_str().unwrap();
    let service = format!("7007 stream tcp wait root {path} restart\n");
    std::fs::write(&config, service).unwrap();
    let mut contained = Command::new("unshare");
    contained.args(["--pid", "--fork", "--kill-child"]);
    contained.arg(inetd.get_program()).arg("-i").arg(&config);
    let _inetd = Running::start(&mut network.on(2, &contained));
    let client = || {
        let client = harness::at(program("tcp-client"), "10.77.0.2:7007");
        run(network.on(1, &client).arg("hello"), b"")
    };
    wait_until(|| client().code == Some(0));
    for _ in 0..3 {
        client().assert_printed(b"hello\n");
    }
}
