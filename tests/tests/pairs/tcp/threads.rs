//! What the threads of `tcp-server` cost, what happens if there are not enough, its advice, and what
//! a kernel does not usually do. What every TCP server promises is in `promises`.

#[cfg(target_os = "linux")]
use std::net::TcpStream;
use std::process::Command;

#[cfg(target_os = "linux")]
use crate::tcp::connect;
#[cfg(target_os = "linux")]
use harness::{Server, as_nobody, copy_for_everybody, echo, limited, run};
#[cfg(target_os = "linux")]
use promises::catalog::TCP_SERVER;

/// These are its stack, the stack that std gives it for signals, and a guard page before each.
/// A process can have 65,530 mappings, unless somebody has changed `vm.max_map_count`.
#[test]
#[cfg(target_os = "linux")]
fn a_worker_takes_four_mappings_of_memory() {
    let mappings = |workers: usize| {
        let mut command = TCP_SERVER.command();
        command.args([
            "-q",
            "--addr",
            "127.0.0.1:0",
            "--max-connections",
            &workers.to_string(),
        ]);
        // glibc must have one heap here. Otherwise it has more on a machine with many
        // processors.
        let server = Server::start(command.env("MALLOC_ARENA_MAX", "1"));
        let clients: Vec<TcpStream> = (0..workers).map(|_| connect(&server)).collect();
        clients.iter().for_each(|client| echo(client, b"hello"));
        let maps = format!("/proc/{}/maps", server.running.id());
        std::fs::read_to_string(maps).unwrap().lines().count()
    };
    let each = (mappings(400) - mappings(200)) as f64 / 200.0;
    assert!((3.9..4.2).contains(&each), "{each} mappings");
}

#[test]
#[cfg(target_os = "linux")]
fn out_of_threads_it_refuses_to_start() {
    let (_folder, copy) = copy_for_everybody("tcp-server");
    let mut command = Command::new(copy);
    let mut command = limited("--nproc=5", command.args(["--addr", "127.0.0.1:0"]));
    let server = run(as_nobody(&mut command), b"");
    server.assert_failed("Error: cannot start thread ");
    server.assert_stderr(" of 100; choose a lower --max-connections\n");
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_connection_costs_less_than_24_kib() {
    const CLIENTS: usize = 1000;
    let Some(_descriptors) = harness::descriptors(CLIENTS as u64 + 100) else {
        return;
    };
    // The kernel gives a page only when it is used, so a worker that waits uses little of its
    // buffer. But if glibc takes the buffer from the reserve of its main heap, it writes zeros
    // into all of it. How many workers use that heap is chance, so here it has no reserve.
    let start = |workers: usize| {
        let mut command = TCP_SERVER.command();
        command.args(["-q", "--addr", "127.0.0.1:0", "--max-connections"]);
        command.arg(workers.to_string());
        Server::start(command.env("MALLOC_TOP_PAD_", "0"))
    };
    let (server, small) = (start(CLIENTS), start(1));
    let memory = |server: &Server| harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    streams.iter().for_each(|stream| echo(stream, b"hello"));
    let each = (memory(&server) - memory(&small)) as f64 / CLIENTS as f64;
    println!("an idle connection, its thread included, costs the server {each:.1} KiB");
    assert!(each < 24.0, "{each} KiB");
}

#[test]
fn an_address_that_is_none_is_refused_and_the_message_says_what_is_right() {
    let server = |addr: &str| harness::at(harness::program("tcp-server"), addr);
    harness::assert_refuses_addresses(server, "cannot listen on ");
}

/// strace makes bind(2) fail with these errors.
#[test]
#[cfg(target_os = "linux")]
fn it_gives_advice_only_where_it_is_true() {
    let advice = [
        (
            "EADDRINUSE",
            "127.0.0.1:7007",
            ": another socket uses it; choose another port",
        ),
        ("EADDRINUSE", "127.0.0.1:0", ""),
        (
            "EADDRNOTAVAIL",
            "192.0.2.1:7007",
            ": not an address of this machine",
        ),
        (
            "EACCES",
            "127.0.0.1:7",
            ": ports below 1024 often need a privilege",
        ),
        ("EACCES", "127.0.0.1:7150", ""),
        ("EACCES", "127.0.0.1:0", ""),
        ("EINVAL", "127.0.0.1:7007", ""),
    ];
    for (error, addr, advice) in advice {
        let Some(mut strace) = harness::foreign("strace") else {
            return;
        };
        let inject = format!("inject=bind:error={error}");
        strace.args(["-o", "/dev/null", "-e", &inject]);
        strace
            .arg(TCP_SERVER.command().get_program())
            .args(["--addr", addr]);
        let server = run(&mut strace, b"");
        server.assert_failed(&format!(
            "Error: cannot listen on {addr}{advice}\n\nCaused by"
        ));
    }
}
