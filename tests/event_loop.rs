//! The example `event_loop` of `tcp-server`: it keeps every promise of `tcp-server`, in one thread.

use std::process::Command;
use std::thread;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use harness::{echo, example_of};
#[cfg(target_os = "linux")]
use promises::{assert_serves, reset, send_until_stuck, start_traced};
use promises::{connect, start};

#[path = "promises/tcp_bytes.rs"]
mod bytes;
#[path = "promises/tcp_server.rs"]
mod promises;

fn server() -> Command {
    example_of("tcp-server", "event_loop")
}

/// How many of its threads take connections.
#[cfg(target_os = "linux")]
const ACCEPTING: usize = 1;

#[test]
#[cfg(target_os = "linux")]
fn it_serves_all_by_one_thread() {
    let server = start(&[]);
    let clients: Vec<TcpStream> = (0..50).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let threads = fs::read_dir(format!("/proc/{}/task", server.running.id()))
        .unwrap()
        .count();
    assert_eq!(threads, 1);
}

/// std would have let 129 of them in: its queue of 128 holds one more, as Linux counts.
#[test]
#[cfg(target_os = "linux")] // macOS allows a backlog of 128.
fn a_thousand_clients_fit_the_queue_while_nobody_accepts() {
    const CLIENTS: usize = 1000;
    if harness::allow_descriptors(CLIENTS as u64 + 100).is_none() {
        return harness::not_run("no right to so many descriptors");
    }
    let server = start(&["--max-connections", &CLIENTS.to_string()]);
    server.running.suspend();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    server.running.resume();
    clients.iter().for_each(|client| echo(client, b"hello"));
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_connection_costs_less_than_2_kib() {
    const CLIENTS: usize = 1000;
    if harness::allow_descriptors(CLIENTS as u64 + 100).is_none() {
        return harness::not_run("no right to so many descriptors");
    }
    let server = start(&["--max-connections", &CLIENTS.to_string()]);
    assert_serves(&server);
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let before = memory();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let each = (memory() - before) as f64 / CLIENTS as f64;
    println!("{each:.2} KiB for each idle connection");
    assert!(each < 2.0, "{each} KiB");
}

/// What is kept for a client that does not read is at most what one read has brought, and only until then.
#[test]
#[cfg(target_os = "linux")]
fn clients_that_do_not_read_cost_one_buffer_each() {
    const CLIENTS: u64 = 20;
    let server = start(&[]);
    assert_serves(&server);
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let before = memory();
    let deaf: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    for client in &deaf {
        assert!(send_until_stuck(client) > 1_000_000);
    }
    let each = (memory() - before) / CLIENTS;
    println!("{each} KiB for each client that does not read");
    assert!(each < 100, "{each} KiB");
    assert_serves(&server);
}

/// strace makes each call of the server so slow that the greedy client's next bytes are always there before
/// it asks for them: it could go on with this one client for ever.
#[test]
#[cfg(target_os = "linux")]
fn who_sends_faster_than_it_reads_does_not_keep_the_others_from_their_turn() {
    let Some(server) = start_traced(Path::new("/dev/null"), &[]) else {
        return;
    };
    let (greedy, modest) = (connect(&server), connect(&server));
    echo(&modest, b"hello");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !enough.load(Relaxed) {
                (&greedy).write_all(&[b'x'; 64 * 1024]).unwrap();
                sent += 64 * 1024;
            }
            greedy.shutdown(Shutdown::Write).unwrap();
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

/// Each leaves without a word (by a reset, which spares the ports of this machine).
#[test]
#[cfg(target_os = "linux")]
fn connections_that_have_ended_cost_nothing() {
    let server = start(&["-q"]);
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

/// When the first is looked at, its last byte has just moved: it is due between the two others.
#[test]
fn each_is_closed_when_its_own_time_is_over() {
    let mut server = start(&["--idle-timeout", "0.6"]);
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
