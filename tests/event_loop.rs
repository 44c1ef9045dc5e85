//! The example `event_loop` of `tcp-server`: it keeps every promise of `tcp-server`, in one thread.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::{echo, example_of};
use promises::{assert_serves, connect, send_until_stuck, start};

#[path = "promises/tcp_bytes.rs"]
mod bytes;
#[path = "promises/tcp_server.rs"]
mod promises;

fn server() -> Command {
    example_of("tcp-server", "event_loop")
}

#[test]
#[cfg(target_os = "linux")]
fn it_serves_all_by_one_thread() {
    let server = start(&[]);
    let clients: Vec<TcpStream> = (0..50).map(|_| connect(&server)).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    let threads = fs::read_dir(format!("/proc/{}/task", server.running.id())).unwrap().count();
    assert_eq!(threads, 1);
}

/// std would have let 129 of them in: its queue of 128 holds one more, as Linux counts.
#[test]
#[cfg(unix)]
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

/// Both have sent everything before the server sees either. The first must not hold it until it is done.
#[test]
#[cfg(unix)]
fn who_sends_a_lot_does_not_keep_the_others_from_their_turn() {
    let mut server = start(&[]);
    let (greedy, modest) = (connect(&server), connect(&server));
    echo(&greedy, b"hello");
    echo(&modest, b"hello");
    server.running.stderr_line();
    server.running.stderr_line();
    server.running.suspend();
    (&greedy).write_all(&vec![b'x'; 2 << 20]).unwrap();
    (&modest).write_all(b"ping").unwrap();
    greedy.shutdown(Shutdown::Write).unwrap();
    modest.shutdown(Shutdown::Write).unwrap();
    server.running.resume();
    let modest = modest.local_addr().unwrap();
    assert_eq!(server.running.stderr_line(), format!("{modest}: closed, bytes echoed: 9"));
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
        assert_eq!(server.running.stderr_line(), format!("{addr}: closed, nothing moved for 600ms"));
    }
}
