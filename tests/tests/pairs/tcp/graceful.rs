//! What only the example `graceful` of `tcp-server` promises: how it ends. What it promises like
//! `tcp-server` is in `promises`.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, Server, echo, noise};
use rustix::process::Signal;

use crate::tcp::{assert_ends, assert_rest_comes_back, assert_serves, connect};
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
fn who_stays_idle_is_cut_when_the_grace_has_passed_and_not_earlier() {
    let mut server = GRACEFUL.start(&["--grace", "0.5"]);
    let mut idle = connect(&server);
    echo(&idle, b"hello");
    let told = Instant::now();
    assert_eq!(tell(&mut server), 1);
    echo(&idle, b"still served");
    assert_ends(&mut idle);
    assert!(told.elapsed() >= Duration::from_millis(500));
    assert_ended(server, 0, 1);
}

/// Linux ends a call with a time limit when a suspended program is resumed. If the call then began
/// anew, the grace would never pass here.
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

/// strace makes each poll(2) fail.
#[test]
#[cfg(target_os = "linux")]
fn if_the_kernel_refuses_to_wait_it_neither_spins_nor_misses_the_signal() {
    let Some(mut strace) = harness::foreign("strace") else {
        return;
    };
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", "inject=?poll,?ppoll:error=ENOMEM"]);
    strace.arg(GRACEFUL.command().get_program());
    let started = Instant::now();
    let server = Server::start(strace.args(["--addr", "127.0.0.1:0"]));
    let busy = connect(&server);
    echo(&busy, b"hello");
    thread::sleep(Duration::from_secs(1));
    server.running.signal(Signal::TERM);
    assert_rest_comes_back(&busy, b"goodbye", 0);
    let ended = server.running.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let failures = ended.stderr.matches("cannot wait: ").count();
    let most = started.elapsed().as_millis() as usize / 100 + 1;
    assert!((1..=most).contains(&failures), "{failures} of {most}");
}

/// strace makes the second thread of the server fail to start: the first waits for signals, and the
/// second would serve the first client.
#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_cannot_be_started_costs_one_connection_and_no_place() {
    let Some(mut strace) = harness::foreign("strace") else {
        return;
    };
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", "inject=clone,clone3:error=EAGAIN:when=2"]);
    strace.arg(GRACEFUL.command().get_program());
    strace.args(["--max-connections", "1", "--addr", "127.0.0.1:0"]);
    let mut server = Server::start(&mut strace);
    let mut first = connect(&server);
    assert_ends(&mut first);
    let peer = first.local_addr().unwrap();
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    let line = server.running.stderr_line();
    let why = format!("{peer}: closed, cannot start a thread: ");
    assert!(line.starts_with(&why), "{line}");
    assert_serves(&server);
    server.running.signal(Signal::TERM);
    let ended = server.running.finish();
    ended.assert_stderr(", cut: 0\n");
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

#[test]
fn wrong_usage_of_its_own_options_is_refused() {
    let wrong = [
        (["--grace", "0"], "seconds from 0.001 to 86400"),
        (["--grace", "-1"], "seconds from 0.001 to 86400"),
    ];
    harness::assert_refuses(|| GRACEFUL.command(), &wrong);
}
