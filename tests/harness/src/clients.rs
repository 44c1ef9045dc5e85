//! What every client must do, and ways to run a client.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

#[cfg(target_os = "linux")]
use crate::unshared;
use crate::{LIMIT, Running, run};

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

/// Writes to a program and reads from it in one thread, as Python's
/// `subprocess.run(input=...)` does: it writes what one pipe takes, and reads what the other
/// has. If the program neglects a pipe while it waits for the network, both sides hang. Then
/// it is killed, and the test fails.
#[cfg(unix)]
pub fn exchange_in_one_thread(command: &mut Command, input: &[u8]) -> Vec<u8> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{OFlags, fcntl_setfl};
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take(), client.stdout.take().unwrap());
    fcntl_setfl(stdin.as_ref().unwrap(), OFlags::NONBLOCK).unwrap();
    let (done, in_time) = mpsc::channel();
    let guard = thread::spawn(move || {
        let too_late = in_time.recv_timeout(LIMIT).is_err();
        if too_late {
            client.kill().unwrap();
        }
        assert!(
            client.wait().unwrap().success() && !too_late,
            "the program failed, or stood still"
        );
    });
    let (mut written, mut output, mut buffer) = (0, Vec::new(), vec![0; 32 * 1024]);
    loop {
        let mut events = vec![PollFd::new(&stdout, PollFlags::IN)];
        events.extend(
            stdin
                .as_ref()
                .map(|stdin| PollFd::new(stdin, PollFlags::OUT)),
        );
        poll(&mut events, None).unwrap();
        let ready: Vec<bool> = events
            .iter()
            .map(|event| !event.revents().is_empty())
            .collect();
        if let (Some(true), Some(pipe)) = (ready.get(1), &mut stdin) {
            let end = input.len().min(written + 64 * 1024);
            written += pipe.write(&input[written..end]).unwrap();
            if written == input.len() {
                stdin = None;
            }
        }
        if ready[0] {
            match stdout.read(&mut buffer).unwrap() {
                0 => break,
                len => output.extend_from_slice(&buffer[..len]),
            }
        }
    }
    // This fails if the guard has already killed the program.
    let _ = done.send(());
    guard.join().unwrap();
    output
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
