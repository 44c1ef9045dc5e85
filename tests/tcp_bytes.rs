//! The TCP pair together: every byte comes back, however many there are, and as soon as it can.

use std::process::Command;

use harness::{Running, Server, program, run};

fn pair() -> (Server, Command) {
    let server = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0", "-q"]));
    let mut client = program("tcp-client");
    client.args(["--addr", &server.addr.to_string()]);
    (server, client)
}

/// Bytes without a pattern that a lost or moved block could hide in (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

#[test]
fn each_message_is_sent_as_a_line() {
    let (_server, mut client) = pair();
    let client = run(client.args(["hello", "", "two words", "你好"]), b"");
    assert_eq!((client.code, &client.stderr[..]), (Some(0), ""));
    assert_eq!(client.stdout, "hello\n\ntwo words\n你好\n".as_bytes());
}

#[test]
fn stdin_comes_back_byte_for_byte() {
    let (_server, mut client) = pair();
    for len in [0, 1, 65_535, 65_536, 1_000_003] {
        let input = noise(len);
        let client = run(&mut client, &input);
        assert_eq!((client.code, &client.stderr[..]), (Some(0), ""), "{len} bytes");
        assert!(client.stdout == input, "{} of {len} bytes came back", client.stdout.len());
    }
}

/// As Python's `subprocess.run(input=...)` does: one thread writes what the pipe takes, and reads what it
/// has. A client that holds on to either pipe while it waits for the network brings both to a halt.
#[test]
#[cfg(unix)]
fn a_program_that_writes_and_reads_in_one_thread_gets_64_mib_back() {
    use harness::LIMIT;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::io::{Read, Write};
    use std::process::Stdio;
    use std::sync::mpsc;
    use std::thread;
    let (_server, mut command) = pair();
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take(), client.stdout.take().unwrap());
    fcntl_setfl(stdin.as_ref().unwrap(), OFlags::NONBLOCK).unwrap();
    // If both stand still, the read below waits for ever: then the client is ended.
    let (done, in_time) = mpsc::channel();
    let guard = thread::spawn(move || {
        let too_late = in_time.recv_timeout(LIMIT).is_err();
        if too_late {
            client.kill().unwrap();
        }
        assert!(client.wait().unwrap().success() && !too_late);
    });

    let input = noise(64 << 20);
    let (mut written, mut output, mut buffer) = (0, Vec::<u8>::new(), vec![0; 32 * 1024]);
    loop {
        let mut events = vec![PollFd::new(&stdout, PollFlags::IN)];
        events.extend(stdin.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        poll(&mut events, None).unwrap();
        let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
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
                len => output.extend(&buffer[..len]),
            }
        }
    }
    done.send(()).unwrap();
    guard.join().unwrap();
    assert!(output == input, "{} of {} bytes came back", output.len(), input.len());
}

#[test]
#[cfg(target_os = "linux")]
fn a_gibibyte_passes_in_bounded_memory() {
    use std::io::{Read, Write};
    use std::process::Stdio;
    use std::thread;
    const TOTAL: usize = 1 << 30;
    const MEMORY_KIB: u64 = 16 * 1024;
    let (server, mut command) = pair();
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    // A block that begins anew at ever other places of what is read and written at once.
    let block = noise(1_000_003);
    let expected = block.clone();
    let writer = thread::spawn(move || {
        let mut left = TOTAL;
        while left > 0 {
            let len = left.min(block.len());
            stdin.write_all(&block[..len]).unwrap();
            left -= len;
        }
    });
    let (mut received, mut buffer, mut most) = (0, vec![0; 64 * 1024], 0);
    loop {
        let len = stdout.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        let mut got = &buffer[..len];
        while !got.is_empty() {
            let rest = &expected[received % expected.len()..];
            let (part, others) = got.split_at(got.len().min(rest.len()));
            assert!(part == &rest[..part.len()], "other bytes at {received}");
            received += part.len();
            got = others;
        }
        most = most.max(harness::memory_kib(client.id(), "VmHWM").unwrap_or(0));
    }
    writer.join().unwrap();
    assert!(client.wait().unwrap().success());
    assert_eq!(received, TOTAL);
    let server_most = harness::memory_kib(server.running.id(), "VmHWM").unwrap();
    println!("at most {most} KiB in the client, {server_most} KiB in the server");
    assert!(most > 0 && most < MEMORY_KIB, "the client took {most} KiB");
    assert!(server_most < MEMORY_KIB, "the server took {server_most} KiB");
}

#[test]
fn a_line_comes_back_while_both_ends_stay_open() {
    let (_server, mut client) = pair();
    let mut client = Running::start(&mut client);
    for line in ["first", "second", "third"] {
        client.write(format!("{line}\n").as_bytes());
        assert_eq!(client.stdout_line(), line);
    }
    assert_eq!(client.finish().code, Some(0));
}

#[test]
fn both_servers_run_side_by_side_on_one_port_number() {
    let (tcp, _) = pair();
    let udp = Server::start(program("udp-server").args(["--addr", &tcp.addr.to_string()]));
    assert_eq!(udp.addr, tcp.addr);
    for client in ["tcp-client", "udp-client"] {
        let client = run(program(client).args(["--addr", &tcp.addr.to_string(), "hello"]), b"");
        assert_eq!((client.code, &client.stdout[..]), (Some(0), &b"hello\n"[..]), "{client:?}");
    }
}

#[test]
#[cfg(unix)]
fn being_suspended_in_mid_dialogue_costs_nothing() {
    let (server, mut client) = pair();
    let mut client = Running::start(&mut client);
    for round in 0..20 {
        for side in [&server.running, &client] {
            side.suspend();
            side.resume();
        }
        client.write(format!("round {round}\n").as_bytes());
        assert_eq!(client.stdout_line(), format!("round {round}"));
        server.running.suspend();
        client.write(b"to a server that is suspended\n");
        server.running.resume();
        assert_eq!(client.stdout_line(), "to a server that is suspended");
    }
    assert_eq!(client.finish().code, Some(0));
}
