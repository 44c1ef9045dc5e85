//! What every client must do, and ways to run a client.

use std::io::Write;
use std::process::Command;
use std::thread;

#[cfg(target_os = "linux")]
use crate::unshared;
use crate::{Running, run};

/// Starts a client, writes these bytes to its stdin, and waits until it has printed the same.
/// Its stdin stays open, because many tools end with it, even if bytes are still on the way.
pub fn start_and_expect_echo(command: &mut Command, bytes: &[u8]) -> Running {
    let mut client = Running::start(command);
    let (mut stdin, input) = (client.stdin.take().unwrap(), bytes.to_vec());
    // A thread writes, because a client that hangs would block the write forever. The thread
    // ends with the client.
    let writing = thread::spawn(move || stdin.write_all(&input).map(|()| stdin));
    let printed = client.stdout_bytes(bytes.len());
    assert!(
        printed == bytes,
        "{} bytes came back, but not those that were sent",
        bytes.len()
    );
    client.stdin = Some(writing.join().unwrap().unwrap());
    client
}

/// Runs a program with each of these wrong arguments. It must refuse and say what is right.
pub fn assert_refuses(program: impl Fn() -> Command, wrong: &[([&str; 2], &str)]) {
    for (args, right) in wrong {
        let finished = run(program().args(args), b"");
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(
            finished.stderr.contains(right),
            "{args:?}: {}",
            finished.stderr
        );
    }
}

/// Runs a program with texts that are not addresses. It must say what failed and what is
/// right.
pub fn assert_refuses_addresses(with_address: impl Fn(&str) -> Command, failed: &str) {
    let port = [
        "127.0.0.1:65536",
        "127.0.0.1:",
        "127.0.0.1:http",
        "[::1]",
        "127.0.0.1:-1",
    ];
    for (addr, reason) in port
        .map(|addr| (addr, "invalid port value"))
        .into_iter()
        .chain(["127.0.0.1", "localhost", ""].map(|addr| (addr, "invalid socket address")))
    {
        let finished = run(&mut with_address(addr), b"");
        assert_eq!(finished.code, Some(1), "{addr:?}: {finished:?}");
        let advice = "write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007";
        let error = format!("Error: {failed}{addr}: {advice}\n\nCaused by:\n    {reason}\n");
        assert_eq!(finished.stderr, error);
    }
    // The resolver takes these for names. In a network namespace without a network it can ask
    // nobody.
    #[cfg(target_os = "linux")]
    for addr in [":7007", "::1"] {
        let Some(mut command) = unshared("-rn", "true", &with_address(addr)) else {
            return;
        };
        let finished = run(&mut command, b"");
        assert_eq!(finished.code, Some(1), "{addr:?}: {finished:?}");
        let error = format!("Error: {failed}{addr}\n\nCaused by:\n    failed to lookup address");
        assert!(finished.stderr.starts_with(&error), "{finished:?}");
    }
}
