//! `tcp-server`: what any such server promises, and what its threads ask for.

use std::process::Command;

use harness::{Server, as_nobody, copy_for_everybody, limited, program, run};
use promises::assert_serves;

#[path = "promises/tcp_bytes.rs"]
mod bytes;
#[path = "promises/tcp_server.rs"]
mod promises;

fn server() -> Command {
    program("tcp-server")
}

#[test]
#[cfg(target_os = "linux")]
fn idle_workers_do_not_use_up_the_descriptors() {
    let mut command = server();
    let command = limited("--nofile=24", command.args(["--addr", "127.0.0.1:0", "--max-connections", "100"]));
    let server = Server::start(&mut { command });
    assert_serves(&server);
    let log = server.running.kill().stderr;
    assert!(!log.contains("cannot accept"), "{log}");
}

#[test]
#[cfg(target_os = "linux")]
fn out_of_threads_it_refuses_to_start() {
    let (_folder, copy) = copy_for_everybody("tcp-server");
    let mut command = Command::new(copy);
    let mut command = limited("--nproc=5", command.args(["--addr", "127.0.0.1:0"]));
    let server = run(as_nobody(&mut command), b"");
    assert_eq!((server.code, &server.stdout[..]), (Some(1), &b""[..]), "{server:?}");
    assert!(server.stderr.starts_with("Error: cannot start thread "), "{}", server.stderr);
    assert!(server.stderr.contains(" of 100: choose a lower --max-connections\n"), "{}", server.stderr);
}
