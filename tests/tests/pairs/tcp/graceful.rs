//! What only the example `graceful` of `tcp-server` promises: how it ends, and how another server
//! takes its place. What it promises like `tcp-server` is in `promises`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, LIMIT, Running, Server, echo, noise, program, run};
use rustix::process::Signal;

use crate::tcp::{assert_serves, connect};
use promises::catalog::GRACEFUL;

/// Tells a server to go, and returns how many connections it has open.
fn tell(server: &mut Server) -> usize {
    server.running.signal(Signal::TERM);
    told(server)
}

/// Waits until a server says that it ends, and returns how many connections it has open.
fn told(server: &mut Server) -> usize {
    loop {
        let line = server.running.stderr_line();
        if let Some(open) = line.strip_prefix("ending, connections open: ") {
            return open.parse().unwrap();
        }
    }
}

fn assert_ended(server: Server, finished: usize, cut: usize) {
    let ended = server.running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.assert_stderr(&format!("ended, finished: {finished}, cut: {cut}\n"));
}

/// Sends the bytes from `sent` on, half-closes, and asserts that all of them come back.
fn assert_rest_comes_back(stream: &TcpStream, bytes: &[u8], sent: usize) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&bytes[sent..]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut stream = stream;
        let (mut received, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut buffer).expect("the rest of the echo") {
                0 => break,
                len => {
                    assert!(bytes[received..].starts_with(&buffer[..len]));
                    received += len;
                }
            }
        }
        assert_eq!(received, bytes.len());
    });
}

/// When the signal comes, a part of the bytes is on the way: in the kernel or in the server.
#[test]
fn who_is_in_the_middle_of_something_gets_every_byte() {
    const CLIENTS: usize = 50;
    const ON_THE_WAY: usize = 256 * 1024;
    let mut server = GRACEFUL.start(&["--grace", "600"]);
    let bytes = noise(8 << 20);
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    for mut client in &clients {
        client.write_all(&bytes[..ON_THE_WAY]).unwrap();
    }
    assert_eq!(tell(&mut server), CLIENTS);
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| assert_rest_comes_back(client, &bytes, ON_THE_WAY));
        }
    });
    assert_ended(server, CLIENTS, 0);
}

#[test]
fn who_stays_idle_is_cut_when_the_grace_is_over_and_not_earlier() {
    let mut server = GRACEFUL.start(&["--grace", "0.5"]);
    let mut idle = connect(&server);
    echo(&idle, b"hello");
    let told = Instant::now();
    assert_eq!(tell(&mut server), 1);
    echo(&idle, b"still served");
    assert_eq!(idle.read(&mut [0; 8]).expect("a FIN, and no reset"), 0);
    assert!(told.elapsed() >= Duration::from_millis(500));
    assert_ended(server, 0, 1);
}

/// Linux interrupts a call with a time limit when a program is suspended. If the call then began
/// anew, the grace would never be over here.
#[test]
fn to_be_suspended_does_not_prolong_the_grace() {
    let mut server = GRACEFUL.start(&["--grace", "0.5"]);
    let _idle = connect(&server);
    assert_eq!(tell(&mut server), 1);
    let deadline = Instant::now() + LIMIT;
    while server.running.is_running() {
        assert!(Instant::now() < deadline, "it has not ended");
        server.running.suspend();
        server.running.resume();
        thread::sleep(Duration::from_millis(50));
    }
    assert_ended(server, 0, 1);
}

/// The grace is a day here. A client that has half-closed has finished.
#[test]
fn it_ends_with_its_last_client() {
    let mut server = GRACEFUL.start(&["--grace", "86400"]);
    let clients = [connect(&server), connect(&server)];
    clients.iter().for_each(|client| echo(client, b"hello"));
    assert_eq!(tell(&mut server), 2);
    for client in &clients {
        assert!(server.running.is_running());
        assert_rest_comes_back(client, b"goodbye", 0);
    }
    assert_ended(server, 2, 0);
}

#[test]
fn without_a_client_it_ends_at_once_whatever_the_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let server = GRACEFUL.start(&["--grace", "86400"]);
        server.running.signal(signal);
        assert_ended(server, 0, 0);
    }
}

/// All places are taken, so nobody waits in accept when the signal comes.
#[test]
fn who_waits_for_a_place_is_served_and_who_comes_later_is_refused() {
    let mut server = GRACEFUL.start(&["--max-connections", "1"]);
    let busy = connect(&server);
    echo(&busy, b"hello");
    let waiting = [(); 20].map(|()| connect(&server));
    for mut client in &waiting {
        client.write_all(b"a request").unwrap();
    }
    assert_eq!(tell(&mut server), 21);
    let late = TcpStream::connect_timeout(&server.addr, LIMIT).expect_err("no connection");
    assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    for client in &waiting {
        assert_rest_comes_back(client, b"a request and more", b"a request".len());
    }
    assert_ended(server, 21, 0);
}

/// When the signal comes, clients wait in the backlog, and a worker waits for them. strace would
/// disturb the signals, so the server is suspended until both are there.
#[test]
fn who_is_in_the_backlog_when_the_signal_comes_is_served() {
    for _ in 0..10 {
        let server = GRACEFUL.start(&["--max-connections", "3"]);
        assert_serves(&server);
        server.running.suspend();
        let waiting = [(); 20].map(|()| connect(&server));
        for mut client in &waiting {
            client.write_all(b"a request").unwrap();
        }
        server.running.signal(Signal::TERM);
        server.running.resume();
        for client in &waiting {
            assert_rest_comes_back(client, b"a request and more", b"a request".len());
        }
        let ended = server.running.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.assert_stderr(", cut: 0\n");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = GRACEFUL.start(&["--grace", "86400"]);
    let idle = connect(&server);
    echo(&idle, b"hello");
    assert_eq!(tell(&mut server), 1);
    thread::sleep(Duration::from_millis(600));
    server.running.signal(Signal::INT);
    let ended = server.running.finish();
    assert_eq!((ended.code, &ended.stderr[..]), (Some(1), ""));
}

/// GNU timeout and npm send a signal to a process, and then to its group.
#[test]
fn a_signal_that_is_delivered_twice_counts_once() {
    for _ in 0..10 {
        let mut server = GRACEFUL.start(&["--grace", "86400"]);
        let busy = connect(&server);
        echo(&busy, b"hello");
        // Two of the same number could become one on their way.
        server.running.signal(Signal::TERM);
        server.running.signal(Signal::HUP);
        assert_eq!(told(&mut server), 1);
        assert_rest_comes_back(&busy, b"goodbye", 0);
        assert_ended(server, 1, 0);
    }
}

/// As nohup(1) ignores SIGHUP, and a shell ignores SIGINT for what a script starts with `&`.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT && exec \"$0\" --addr 127.0.0.1:0"]);
    let server = Server::start(shell.arg(GRACEFUL.command().get_program()));
    for signal in [Signal::HUP, Signal::INT] {
        server.running.signal(signal);
        thread::sleep(Duration::from_millis(100));
        assert_serves(&server);
    }
    server.running.signal(Signal::TERM);
    let ended = server.running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.assert_stderr(", cut: 0\n");
}

/// A full pipe, or a terminal that is stopped with Ctrl-S, holds up whoever writes there.
#[test]
fn a_quiet_server_ends_even_if_nobody_reads_its_stderr() {
    use std::os::unix::net::UnixStream;
    let (stderr, _ours) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    while (&stderr).write(b"a full page\n").is_ok() {}
    stderr.set_nonblocking(false).unwrap();
    let mut command = GRACEFUL.command();
    command.args(["-q", "--addr", "127.0.0.1:0"]);
    let stderr = OwnedFd::from(stderr).into();
    let server = Running::start_with(&mut command, std::process::Stdio::piped(), stderr);
    let server = Server::of(server);
    assert_serves(&server);
    server.running.signal(Signal::TERM);
    assert_eq!(server.running.finish().code, Some(0));
}

/// poll(2) fails if it shall watch more descriptors than the process may have.
#[test]
#[cfg(target_os = "linux")]
fn if_the_kernel_refuses_to_wait_it_neither_spins_nor_misses_the_signal() {
    use rustix::process::{Pid, Resource, getrlimit, prlimit};
    let server = GRACEFUL.start(&["-q"]);
    let busy = connect(&server);
    echo(&busy, b"hello");
    let (id, mut limit) = (server.running.id(), getrlimit(Resource::Nofile));
    limit.current = Some(1);
    prlimit(Pid::from_raw(id as i32), Resource::Nofile, limit).unwrap();
    // The next call fails. The call that waits now ends with this client.
    let _waiting = connect(&server);
    let before = harness::processor_time(id);
    thread::sleep(Duration::from_secs(1));
    let used = harness::processor_time(id) - before;
    assert!(used < Duration::from_millis(100), "it spins: {used:?}");
    server.running.signal(Signal::TERM);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    assert_eq!(server.running.finish().code, Some(0));
}

/// strace makes the first message of each thread fail. The only client of the first connection sends
/// nothing, so it would be the message that its place is free.
#[test]
#[cfg(target_os = "linux")]
fn no_place_is_lost_with_a_message_that_cannot_be_sent() {
    let Some(mut strace) = harness::foreign("strace") else {
        return;
    };
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", "inject=sendto:error=ENOBUFS:when=1"]);
    strace.arg(GRACEFUL.command().get_program());
    strace.args(["-q", "--max-connections", "1", "--addr", "127.0.0.1:0"]);
    let server = Server::start(&mut strace);
    drop(connect(&server));
    let mut second = connect(&server);
    second.write_all(b"hello").unwrap();
    // This is the first message of the thread if there was none before.
    assert!(second.read(&mut [0; 5]).is_ok(), "its place is lost");
    assert_serves(&server);
}

/// The server loses what it has no descriptor for, and ends all the same.
#[test]
#[cfg(target_os = "linux")]
fn out_of_descriptors_it_ends_as_well() {
    let mut command = GRACEFUL.command();
    command.args(["--grace", "0.2", "--addr", "127.0.0.1:0"]);
    command.args(["--max-connections", "1"]);
    let mut server = Server::start(&mut harness::limited("--nofile=24", &command));
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(&server)).collect();
    echo(&clients[0], b"hello");
    let open = tell(&mut server);
    assert!((2..24).contains(&open), "{open} connections");
    assert_ended(server, 0, open);
}

/// Starts a server on the listener of the test.
fn inherit(listener: &TcpListener, args: &[&str]) -> Server {
    let mut command = GRACEFUL.command();
    let stdin = OwnedFd::from(listener.try_clone().unwrap());
    let server = Running::start_with_stdin(command.arg("--inherit").args(args), stdin);
    Server::of(server)
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

/// Waits until a condition is true.
fn wait_until(is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "not after {LIMIT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The second server starts before the first is told to go. At least 2000 clients come, one after
/// the other on four threads, and the signal comes in the middle.
#[test]
fn while_one_server_takes_the_place_of_another_no_client_is_refused_or_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = inherit(&listener, &[]);
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
        let second = inherit(&listener, &[]);
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
    first.assert_stderr(", cut: 0\n");
    let (first, second) = (connections(&first), connections(&second.running.kill()));
    let served = served.load(SeqCst);
    println!("{served} clients: {first} by the first server, {second} by the second");
    assert_eq!(first + second, served + 1);
    assert!(first > 500 && second > 0);
}

/// The first server serves one client and has no time for the others.
#[test]
fn who_is_in_the_backlog_of_an_inherited_listener_is_left_to_the_next_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = inherit(&listener, &["--max-connections", "1"]);
    let busy = connect(&first);
    echo(&busy, b"hello");
    let waiting = [(); 20].map(|()| connect(&first));
    assert_eq!(tell(&mut first), 1);
    let second = inherit(&listener, &[]);
    waiting
        .iter()
        .for_each(|client| echo(client, b"in good hands"));
    assert_eq!(connections(&second.running.kill()), 20);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    assert_ended(first, 1, 0);
}

/// Descriptor 0 would keep the listener open until the server ends.
#[test]
fn when_nobody_else_holds_an_inherited_listener_who_comes_later_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = inherit(&listener, &["--grace", "86400"]);
    drop(listener);
    let busy = connect(&server);
    echo(&busy, b"hello");
    assert_eq!(tell(&mut server), 1);
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
    assert_ended(server, 1, 0);
}

#[test]
fn what_is_not_a_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = harness::udp_socket("127.0.0.1");
    for stdin in [OwnedFd::from(connection), OwnedFd::from(udp)] {
        let mut command = GRACEFUL.command();
        let server = Running::start_with_stdin(command.arg("--inherit"), stdin);
        let error = "Error: cannot listen on stdin: it must be a listener\n";
        server.finish().assert_failed(error);
    }
    // Here stdin is a pipe.
    let server = run(GRACEFUL.command().arg("--inherit"), b"");
    server.assert_failed("Error: cannot listen on stdin: it must be a listener\n");
}

#[test]
fn wrong_usage_of_its_own_options_is_refused() {
    let wrong = [
        (["--grace", "0"], "seconds from 0.001 to 86400"),
        (["--grace", "-1"], "seconds from 0.001 to 86400"),
        (["--inherit", "--addr=127.0.0.1:0"], "cannot be used with"),
    ];
    harness::assert_refuses(|| GRACEFUL.command(), &wrong);
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
    let graceful = GRACEFUL.command();
    let graceful = graceful.get_program().to_str().unwrap();
    let start = format!("{graceful} --inherit <&9 &\n");
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
    let command = GRACEFUL.command();
    let graceful = command.get_program().to_str().unwrap();
    let service = format!("7007 stream tcp wait root {graceful} graceful -q --inherit\n");
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
