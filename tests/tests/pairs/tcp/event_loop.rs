//! What only the example `event_loop` of `tcp-server` promises: it serves all clients in one
//! thread. What it promises like `tcp-server` is in `promises`. At the end is a server with tokio.

use std::thread;
use std::time::{Duration, Instant};
#[cfg(target_os = "linux")]
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::tcp::connect;
#[cfg(target_os = "linux")]
use crate::tcp::{assert_serves, reset};
use harness::{LIMIT, echo};
use promises::catalog::EVENT_LOOP;
#[cfg(target_os = "linux")]
use promises::catalog::TOKIO_SERVER;
#[cfg(target_os = "linux")]
use promises::{Ours, Stream, send_until_stuck};

#[test]
#[cfg(target_os = "linux")]
fn it_serves_all_by_one_thread() {
    let server = EVENT_LOOP.start(&[]);
    let clients: Vec<TcpStream> = (0..50).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let threads = fs::read_dir(format!("/proc/{}/task", server.running.id()))
        .unwrap()
        .count();
    assert_eq!(threads, 1);
}

/// With std only 129 clients could connect: its backlog is 128, and Linux lets one more in.
#[test]
#[cfg(target_os = "linux")] // macOS allows a backlog of 128.
fn a_thousand_clients_fit_the_queue_while_nobody_accepts() {
    const CLIENTS: usize = 1000;
    let Some(_descriptors) = harness::descriptors(CLIENTS as u64 + 100) else {
        return;
    };
    let server = EVENT_LOOP.start(&["--max-connections", &CLIENTS.to_string()]);
    server.running.suspend();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    server.running.resume();
    clients.iter().for_each(|client| echo(client, b"hello"));
}

/// The kernel returns 1024 events at most. It tells of the other clients only later, when the
/// time of all of them is over.
#[test]
#[cfg(target_os = "linux")]
fn after_a_suspend_it_looks_at_a_client_of_which_it_was_not_told_before_it_closes_it() {
    const CLIENTS: usize = 1200;
    let Some(_descriptors) = harness::descriptors(CLIENTS as u64 + 100) else {
        return;
    };
    let count = CLIENTS.to_string();
    let server = EVENT_LOOP.start(&["-q", "--max-connections", &count, "--idle-timeout", "3"]);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    server.running.suspend();
    for client in &mut clients {
        client.write_all(b"are you back?").unwrap();
    }
    thread::sleep(Duration::from_millis(3200));
    server.running.resume();
    for client in &mut clients {
        let mut back = [0; 13];
        client.read_exact(&mut back).expect("an echo");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_connection_costs_less_than_2_kib() {
    const CLIENTS: usize = 1000;
    let Some(_descriptors) = harness::descriptors(CLIENTS as u64 + 100) else {
        return;
    };
    let server = EVENT_LOOP.start(&["--max-connections", &CLIENTS.to_string()]);
    assert_serves(&server);
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let before = memory();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let each = (memory() - before) as f64 / CLIENTS as f64;
    println!("{each:.2} KiB for each idle connection");
    assert!(each < 2.0, "{each} KiB");
}

/// For a client that does not read, the server keeps one read at most, until the client reads.
#[test]
#[cfg(target_os = "linux")]
fn clients_that_do_not_read_cost_one_buffer_each() {
    const CLIENTS: u64 = 20;
    let server = Ours::new(&EVENT_LOOP).start().unwrap();
    server.serves().unwrap();
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let before = memory();
    let deaf: Vec<_> = (0..CLIENTS).map(|_| server.connect().unwrap()).collect();
    for client in &deaf {
        assert!(send_until_stuck(client).unwrap() > 1_000_000);
    }
    let each = (memory() - before) / CLIENTS;
    println!("{each} KiB for each client that does not read");
    assert!(each < 100, "{each} KiB");
    server.serves().unwrap();
}

/// The server gets memory for a few of them only.
#[test]
#[cfg(target_os = "linux")]
fn out_of_memory_for_one_client_it_ends_this_one_and_no_other() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut server = EVENT_LOOP.start(&[]);
    let good = connect(&server);
    echo(&good, b"hello");
    let id = server.running.id();
    let now = 1024 * harness::memory_kib(id, "VmSize").unwrap();
    let limit = Rlimit {
        current: Some(now + 200 * 1024),
        maximum: Some(now + 200 * 1024),
    };
    prlimit(Pid::from_raw(id as i32), Resource::As, limit).unwrap();
    let deaf: Vec<TcpStream> = (0..40).map(|_| connect(&server)).collect();
    for client in &deaf {
        client.set_nonblocking(true).unwrap();
    }
    // Until the server ends one of them, which resets the connection.
    let deadline = Instant::now() + LIMIT;
    let is_ended = |mut client: &TcpStream| {
        let error = client.write(&[b'x'; 64 * 1024]).err();
        error.is_some_and(|error| error.kind() != io::ErrorKind::WouldBlock)
    };
    while !deaf.iter().any(is_ended) {
        assert!(Instant::now() < deadline, "none of them is ended");
        thread::sleep(Duration::from_millis(2));
    }
    echo(&good, b"still there?");
    assert!(server.running.is_running());
    let log = server.running.kill().stderr;
    let ended = log.matches(": closed, out of memory").count();
    assert!((1..40).contains(&ended), "{log}");
}

/// strace makes each call of the server so slow that the greedy client's next bytes always
/// arrive before the server reads again. So it could serve this one client forever.
#[test]
#[cfg(target_os = "linux")]
fn who_sends_faster_than_it_reads_does_not_keep_the_others_from_their_turn() {
    if !harness::can_trace() {
        return;
    }
    let server = Ours::new(&EVENT_LOOP).start_traced(Path::new("/dev/null"), &[]);
    let server = server.unwrap();
    let [greedy, modest] = [(); 2].map(|()| server.connect().unwrap());
    echo(&modest, b"hello");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !enough.load(Relaxed) {
                (&greedy).write_all(&[b'x'; 64 * 1024]).unwrap();
                sent += 64 * 1024;
            }
            greedy.half_close().unwrap();
            sent
        });
        let receiving = scope.spawn(|| io::copy(&mut &greedy, &mut io::sink()).unwrap());
        modest
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let answered = (0..10).all(|_| {
            thread::sleep(Duration::from_millis(20));
            (&modest).write_all(b"ping").is_ok() && (&modest).read_exact(&mut [0; 4]).is_ok()
        });
        enough.store(true, Relaxed);
        assert_eq!(receiving.join().unwrap(), sending.join().unwrap());
        assert!(answered, "the modest client waited for ten seconds");
    });
}

/// Each client leaves with a reset, which frees its port at once.
#[test]
#[cfg(target_os = "linux")]
fn connections_that_have_ended_cost_nothing() {
    let server = EVENT_LOOP.start(&["-q"]);
    let serve = |count: usize| {
        for _ in 0..count {
            let client = connect(&server);
            echo(&client, b"hello");
            reset(client);
        }
        harness::memory_kib(server.running.id(), "VmRSS").unwrap()
    };
    let before = serve(1000);
    let after = serve(10_000);
    assert!(
        after < before + 100,
        "{before} KiB, and after 10,000 connections {after} KiB"
    );
}

/// The first client's byte has moved its deadline between those of the two others.
#[test]
fn each_is_closed_when_its_own_time_is_over() {
    let mut server = EVENT_LOOP.start(&["--idle-timeout", "0.6"]);
    let mut open = || {
        let client = connect(&server);
        let addr = client.local_addr().unwrap();
        assert_eq!(server.running.stderr_line(), format!("{addr}: connected"));
        thread::sleep(Duration::from_millis(150));
        (client, addr)
    };
    let (first, first_addr) = open();
    let (_second, second_addr) = open();
    echo(&first, b"still here");
    thread::sleep(Duration::from_millis(150));
    let (_third, third_addr) = open();
    for addr in [second_addr, first_addr, third_addr] {
        assert_eq!(
            server.running.stderr_line(),
            format!("{addr}: closed, no read or write for 600ms")
        );
    }
}

/// What was kept for a client that did not read is not kept once it has read.
#[test]
#[cfg(target_os = "linux")]
fn clients_that_read_again_cost_no_buffer() {
    let server = Ours::new(&EVENT_LOOP).start().unwrap();
    let serve = |count: u64| -> Vec<Stream> {
        let one = |_| {
            let client = server.connect().unwrap();
            let sent = send_until_stuck(&client).unwrap() as u64;
            let read = io::copy(&mut (&client).take(sent), &mut io::sink());
            assert_eq!(read.unwrap(), sent);
            client
        };
        (0..count).map(one).collect()
    };
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let _first = serve(5);
    let before = memory();
    let _others = serve(20);
    let each = memory().saturating_sub(before) / 20;
    println!("{each} KiB for each client that has read");
    assert!(each < 10, "{each} KiB");
}

/// What `async` makes of a server that is written like one with threads.
#[test]
#[cfg(target_os = "linux")]
fn a_server_with_tokio_serves_all_by_few_threads_and_makes_the_calls_of_an_event_loop() {
    if !harness::can_trace() {
        return;
    }
    let folder = harness::folder();
    let trace = folder.path().join("trace");
    let calls = "trace=epoll_wait,epoll_ctl,accept4,recvfrom,sendto";
    let server = Ours::new(&TOKIO_SERVER);
    let server = server.start_traced(&trace, &["-e", calls]).unwrap();
    let clients: Vec<Stream> = server.connect_times(50).unwrap();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let threads = fs::read_dir(format!("/proc/{}/task", server.running.id())).unwrap();
    let processors = thread::available_parallelism().unwrap().get();
    assert!(threads.count() <= processors + 1);
    let trace = fs::read_to_string(trace).unwrap();
    for expected in ["EPOLLET", "epoll_wait(", "EAGAIN", "\"hello\""] {
        assert!(trace.contains(expected), "no {expected}");
    }
}
