//! A server and its client together: every byte comes back, however many there are, and as
//! soon as possible.

use std::process::Command;

use harness::{Running, noise, run};
use rstest::rstest;
use rstest_reuse::apply;

use super::{Listening, Service, every_stream_server};

fn pair(service: Service) -> (Listening, Command) {
    let server = service.start(&["-q"]);
    let client = server.client();
    (server, client)
}

#[apply(every_stream_server)]
fn each_message_is_sent_as_a_line(#[case] service: Service) {
    let (_server, mut client) = pair(service);
    let client = run(client.args(["hello", "", "two words", "你好"]), b"");
    assert_eq!((client.code, &client.stderr[..]), (Some(0), ""));
    assert_eq!(client.stdout, "hello\n\ntwo words\n你好\n".as_bytes());
}

#[apply(every_stream_server)]
fn stdin_comes_back_byte_for_byte(#[case] service: Service) {
    let (_server, mut client) = pair(service);
    for len in [0, 1, 65_535, 65_536, 1_000_003] {
        let input = noise(len);
        let client = run(&mut client, &input);
        assert_eq!(
            (client.code, &client.stderr[..]),
            (Some(0), ""),
            "{len} bytes"
        );
        assert!(
            client.stdout == input,
            "{} of {len} bytes came back",
            client.stdout.len()
        );
    }
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn a_program_that_writes_and_reads_in_one_thread_gets_64_mib_back(#[case] service: Service) {
    let (_server, mut client) = pair(service);
    let input = noise(64 << 20);
    let output = harness::exchange_in_one_thread(&mut client, &input);
    assert!(
        output == input,
        "{} of {} bytes came back",
        output.len(),
        input.len()
    );
}

#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn a_gibibyte_passes_in_bounded_memory(#[case] service: Service) {
    use std::io::{Read, Write};
    use std::process::Stdio;
    use std::thread;
    const TOTAL: usize = 1 << 30;
    const MEMORY_KIB: u64 = 16 * 1024;
    let (server, mut command) = pair(service);
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    // The block is sent again and again, and begins at a different place in each buffer.
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
    assert!(
        server_most < MEMORY_KIB,
        "the server took {server_most} KiB"
    );
}

#[apply(every_stream_server)]
fn a_line_comes_back_while_both_ends_stay_open(#[case] service: Service) {
    let (_server, mut client) = pair(service);
    let mut client = Running::start(&mut client);
    for line in ["first", "second", "third"] {
        client.write(format!("{line}\n").as_bytes());
        assert_eq!(client.stdout_line(), line);
    }
    assert_eq!(client.finish().code, Some(0));
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn being_suspended_in_mid_dialogue_costs_nothing(#[case] service: Service) {
    let (server, mut client) = pair(service);
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
