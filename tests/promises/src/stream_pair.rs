//! A server of streams and its client together: every byte comes back, however many there are, and
//! as soon as possible.

#[cfg(unix)]
use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

#[cfg(unix)]
use harness::LIMIT;
use harness::{Running, noise, try_run};

use crate::{Kept, Said, Subject};

promises! {
    anybody: [
        each_message_is_sent_as_a_line,
        stdin_comes_back_byte_for_byte,
        #[cfg(unix)] a_program_that_writes_and_reads_in_one_thread_gets_64_mib_back,
        #[cfg(target_os = "linux")] a_gibibyte_passes_in_bounded_memory,
        a_line_comes_back_while_both_ends_stay_open,
        #[cfg(unix)] being_suspended_in_mid_dialogue_costs_nothing,
    ],
    ours: [
    ],
}

pub fn each_message_is_sent_as_a_line(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let mut client = server.client();
    let client = try_run(client.args(["hello", "", "two words", "你好"]), b"")?;
    client.printed("hello\n\ntwo words\n你好\n".as_bytes())?;
    ensure_eq!(client.stderr, "");
    Ok(())
}

pub fn stdin_comes_back_byte_for_byte(subject: &Subject) -> Kept {
    let server = subject.start()?;
    for len in [0, 1, 65_535, 65_536, 1_000_003] {
        let input = noise(len);
        let client = try_run(&mut server.client(), &input)?;
        ensure_eq!(
            (client.code, &client.stderr[..]),
            (Some(0), ""),
            "{len} bytes"
        );
        let back = client.stdout.len();
        ensure!(client.stdout == input, "{back} of {len} bytes came back");
    }
    Ok(())
}

/// Writes to a program and reads from it in one thread, as Python's
/// `subprocess.run(input=...)` does: it writes what one pipe takes, and reads what the other
/// has. If the program neglects a pipe while it waits for the network, both sides hang. Then
/// it is killed, and the test fails.
#[cfg(unix)]
fn exchange_in_one_thread(command: &mut Command, input: &[u8]) -> Vec<u8> {
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

#[cfg(unix)]
pub fn a_program_that_writes_and_reads_in_one_thread_gets_64_mib_back(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let input = noise(64 << 20);
    let output = exchange_in_one_thread(&mut server.client(), &input);
    let (back, len) = (output.len(), input.len());
    ensure!(output == input, "{back} of {len} bytes came back");
    Ok(())
}

#[cfg(target_os = "linux")]
pub fn a_gibibyte_passes_in_bounded_memory(subject: &Subject) -> Kept {
    const TOTAL: usize = 1 << 30;
    const MEMORY_KIB: u64 = 16 * 1024;
    let server = subject.start()?;
    let mut command = server.client();
    let piped = Stdio::piped;
    let mut client = command.stdin(piped()).stdout(piped()).spawn()?;
    let (Some(mut stdin), Some(mut stdout)) = (client.stdin.take(), client.stdout.take()) else {
        unreachable!("both are pipes");
    };
    // The block is sent again and again, and begins at a different place in each buffer.
    let block = noise(1_000_003);
    let expected = block.clone();
    let writer = thread::spawn(move || {
        let mut left = TOTAL;
        // An error means that the client has ended, which its output shows.
        while left > 0 && stdin.write_all(&block[..left.min(block.len())]).is_ok() {
            left -= left.min(block.len());
        }
    });
    let (mut received, mut buffer, mut most) = (0, vec![0; 64 * 1024], 0);
    loop {
        let len = stdout.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        let mut got = &buffer[..len];
        while !got.is_empty() {
            let rest = &expected[received % expected.len()..];
            let (part, others) = got.split_at(got.len().min(rest.len()));
            ensure!(part == &rest[..part.len()], "other bytes at {received}");
            received += part.len();
            got = others;
        }
        most = most.max(harness::memory_kib(client.id(), "VmHWM").unwrap_or(0));
    }
    let _ = writer.join();
    ensure!(client.wait()?.success(), "the client failed");
    ensure_eq!(received, TOTAL);
    let server_most = harness::memory_kib(server.running.id(), "VmHWM").unwrap_or(u64::MAX);
    ensure!(most > 0 && most < MEMORY_KIB, "the client took {most} KiB");
    ensure!(
        server_most < MEMORY_KIB,
        "the server took {server_most} KiB"
    );
    Ok(())
}

pub fn a_line_comes_back_while_both_ends_stay_open(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let mut client = Running::start(&mut server.client());
    for line in ["first", "second", "third"] {
        client.write(format!("{line}\n").as_bytes());
        ensure_eq!(client.try_stdout_line()?, line);
    }
    ensure_eq!(client.try_finish()?.code, Some(0));
    Ok(())
}

#[cfg(unix)]
pub fn being_suspended_in_mid_dialogue_costs_nothing(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let mut client = Running::start(&mut server.client());
    for round in 0..20 {
        for side in [&server.running, &client] {
            side.suspend();
            side.resume();
        }
        client.write(format!("round {round}\n").as_bytes());
        ensure_eq!(client.try_stdout_line()?, format!("round {round}"));
        server.running.suspend();
        client.write(b"to a server that is suspended\n");
        server.running.resume();
        ensure_eq!(client.try_stdout_line()?, "to a server that is suspended");
    }
    ensure_eq!(client.try_finish()?.code, Some(0));
    Ok(())
}
