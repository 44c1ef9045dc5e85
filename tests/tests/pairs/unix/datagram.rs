//! What `unix-echo --datagram` promises: message boundaries as in UDP, but a slow receiver
//! makes the sender wait.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::{LIMIT, Running, program, run};

/// A server with its own folder, in which the clients of the test have their names.
struct Server {
    running: Running,
    path: PathBuf,
    folder: tempfile::TempDir,
}

fn start(args: &[&str]) -> Server {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let mut server = program("unix-echo");
    let mut running = Running::start(
        server
            .args(["server", "--datagram", "--path"])
            .arg(&path)
            .args(args),
    );
    running.announced();
    Server {
        running,
        path,
        folder,
    }
}

impl Server {
    fn client(&self) -> Command {
        let mut client = program("unix-echo");
        client
            .args(["client", "--datagram", "--path"])
            .arg(&self.path);
        client
    }

    /// Binds a socket for the test itself to a name.
    fn socket(&self, name: &str) -> UnixDatagram {
        let socket = UnixDatagram::bind(self.folder.path().join(name)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        socket
    }

    fn assert_serves(&self) {
        let client = run(self.client().arg("still there?"), b"");
        client.assert_printed(b"still there?\n");
    }
}

#[cfg(target_os = "linux")]
fn echo(socket: &UnixDatagram, path: &Path, datagram: &[u8]) {
    socket.send_to(datagram, path).unwrap();
    let mut buffer = vec![0; 300_000];
    let len = socket.recv(&mut buffer).expect("an echo");
    assert!(
        buffer[..len] == *datagram,
        "{} bytes went out, {len} came back",
        datagram.len()
    );
}

#[test]
fn each_message_is_a_datagram_and_boundaries_are_kept() {
    let mut server = start(&[]);
    let client = run(server.client().args(["hello", "", "two words"]), b"");
    assert_eq!((client.code, &client.stderr[..]), (Some(0), ""));
    assert_eq!(client.stdout, b"hello\n\ntwo words\n");
    let client = run(&mut server.client(), b"\xff\x00\x1b[2J\n\nlast");
    client.assert_printed(b"\xff\x00\x1b[2J\n\nlast\n");
    for logged in [
        "length 5 \"hello\"",
        "length 0 \"\"",
        "length 9 \"two words\"",
        "length 6 \"\\xff\\x00\\x1b[2J\"",
        "length 0 \"\"",
    ] {
        let line = server.running.stderr_line();
        assert!(line.ends_with(logged), "{line}");
    }
}

#[test]
fn a_long_datagram_comes_back_whole_and_a_longer_one_is_explained() {
    let server = start(&["-q"]);
    // macOS sends at most net.local.dgram.maxdgram, 2048 bytes.
    let longest = if cfg!(target_os = "macos") {
        2048
    } else {
        100_000
    };
    let long = vec![b'x'; longest];
    let client = run(&mut server.client(), &long);
    assert_eq!(
        (client.code, client.stdout.len()),
        (Some(0), long.len() + 1),
        "{}",
        client.stderr
    );
    let client = run(&mut server.client(), &vec![b'x'; 900_000]);
    assert_eq!((client.code, client.stdout.len()), (Some(1), 0));
    assert!(
        client.stderr.starts_with(
            "Error: cannot send 900000 bytes: more than the send buffer (SO_SNDBUF) takes\n"
        ),
        "{client:?}"
    );
}

#[test]
fn the_client_leaves_no_file_behind() {
    let server = start(&["-q"]);
    let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
    let temporary = harness::folder();
    let client = run(
        server
            .client()
            .arg("hello")
            .env("TMPDIR", temporary.path())
            .current_dir(temporary.path()),
        b"",
    );
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(
        (count(temporary.path()), count(server.folder.path())),
        (0, 1)
    );
}

#[test]
fn a_client_without_a_name_or_whose_name_has_gone_is_passed_over() {
    let mut server = start(&[]);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"from nobody", &server.path)
        .unwrap();
    let line = server.running.stderr_line();
    assert_eq!(line, "unnamed: not answered, it has no address");

    server.running.suspend();
    server
        .socket("gone")
        .send_to(b"and away", &server.path)
        .unwrap();
    let removed = server.socket("removed");
    removed.send_to(b"and away", &server.path).unwrap();
    fs::remove_file(server.folder.path().join("removed")).unwrap();
    // A program that another test is starting may have the socket open for a moment longer.
    while UnixDatagram::unbound()
        .unwrap()
        .connect(server.folder.path().join("gone"))
        .is_ok()
    {
        thread::sleep(Duration::from_millis(1));
    }
    server.running.resume();
    for (name, why) in [("gone", "Connection refused"), ("removed", "No such file")] {
        let line = server.running.stderr_line();
        let expected = format!(
            "{}/{name}: cannot send the echo: {why}",
            server.folder.path().display()
        );
        assert!(line.starts_with(&expected), "{line}");
    }
    server.assert_serves();
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere a full queue refuses a datagram, and nobody waits.
fn a_client_that_never_reads_does_not_hold_up_the_others() {
    let mut server = start(&[]);
    // A few long ones fill the server's send buffer, many short ones the client's receive
    // queue.
    for (name, datagram, count) in [
        ("long", vec![b'x'; 90_000], 4),
        ("short", vec![b'x'; 10], 100),
    ] {
        let deaf = server.socket(name);
        for _ in 0..count {
            deaf.send_to(&datagram, &server.path).unwrap();
        }
        let good = server.socket(&format!("good beside {name}"));
        for _ in 0..20 {
            echo(&good, &server.path, b"undisturbed");
        }
        server.assert_serves();
        drop(deaf);
    }
    while !server
        .running
        .stderr_line()
        .ends_with("/short: not answered, it does not read")
    {}
}

// ANCHOR: wait
/// The difference to UDP: a UDP sender can send thousands of datagrams to a receiver that does not
/// read, and most of them are lost (`udp/loss.rs`). A Unix sender waits while the queue is full.
#[test]
#[cfg(target_os = "linux")]
fn a_receiver_that_is_slow_makes_the_sender_wait_and_loses_nothing() {
    const SENT: u32 = 5000;
    let folder = harness::folder();
    let path = folder.path().join("slow");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let send = |number: u32| sender.send_to(&number.to_be_bytes(), &path);
    let kept = (0..SENT).take_while(|number| send(*number).is_ok()).count() as u32;
    assert!(kept > 0 && kept < SENT, "the queue took {kept}");
    let full = send(kept).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);

    sender.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| (kept..SENT).for_each(|number| assert_eq!(send(number).unwrap(), 4)));
        let mut buffer = [0; 8];
        for number in 0..SENT {
            assert_eq!(receiver.recv(&mut buffer).expect("every one"), 4);
            assert_eq!(buffer[..4], number.to_be_bytes(), "in order");
        }
    });
}
// ANCHOR_END: wait

#[test]
#[cfg(target_os = "linux")]
fn a_client_tells_when_the_queue_stays_full_or_no_answer_comes() {
    let server = start(&["-q"]);
    server.running.suspend();
    let client = run(server.client().args(["--timeout", "0.3", "hello"]), b"");
    assert_eq!(client.code, Some(1));
    let path = server.path.display();
    assert_eq!(
        client.stderr,
        format!("Error: cannot get an answer from {path} within 300ms\n")
    );

    let socket = server.socket("many");
    socket.set_nonblocking(true).unwrap();
    while socket.send_to(b"fill the queue", &server.path).is_ok() {}
    let client = run(server.client().args(["--timeout", "0.3", "hello"]), b"");
    let error =
        format!("Error: cannot reach {path}: its queue is full, and the server does not read\n");
    client.assert_failed(&error);
}

#[test]
fn what_is_not_the_message_is_not_its_echo() {
    let server = start(&[]);
    let impostor = server.socket("impostor");
    let path = server.folder.path().join("impostor");
    let mut client = program("unix-echo");
    let client = Running::start(
        client
            .args([
                "client",
                "--datagram",
                "--timeout",
                "0.5",
                "hello",
                "--path",
            ])
            .arg(&path),
    );
    let mut buffer = [0; 64];
    let (_, addr) = impostor.recv_from(&mut buffer).unwrap();
    for wrong in [&b"hellO"[..], b"hell", b"hello!", b""] {
        impostor.send_to_addr(wrong, &addr).unwrap();
    }
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b""[..]),
        "{client:?}"
    );
}

#[test]
fn being_suspended_while_it_waits_costs_the_client_nothing() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = program("unix-echo");
    let client = Running::start(
        command
            .args(["client", "--datagram", "hello", "--path"])
            .arg(&path),
    );
    let mut buffer = [0; 64];
    let (len, addr) = server.recv_from(&mut buffer).unwrap();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        client.suspend();
        client.resume();
    }
    server.send_to_addr(b"not the answer", &addr).unwrap();
    client.suspend();
    server.send_to_addr(&buffer[..len], &addr).unwrap();
    client.resume();
    let client = client.finish();
    client.assert_printed(b"hello\n");
}

#[test]
fn it_serves_on_when_nobody_reads_its_output_any_more() {
    let mut server = start(&[]);
    server.running.close_output();
    for _ in 0..20 {
        server.assert_serves();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn in_the_log_an_abstract_name_is_escaped_and_a_long_datagram_is_cut_short() {
    use std::os::linux::net::SocketAddrExt;
    let mut server = start(&[]);
    let id = std::process::id();
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("{id}\n\x1b[2J"));
    let socket = UnixDatagram::bind_addr(&name.unwrap()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    echo(&socket, &server.path, &[b'x'; 5000]);
    let line = server.running.stderr_line();
    let shown = "x".repeat(64);
    let expected = format!("@{id}\\n\\u{{1b}}[2J: length 5000 \"{shown}\"...");
    assert_eq!(line, expected);
}

#[test]
#[cfg(target_os = "linux")]
fn being_suspended_while_the_queue_is_full_costs_the_client_nothing() {
    let server = start(&["-q"]);
    server.running.suspend();
    let socket = server.socket("many");
    socket.set_nonblocking(true).unwrap();
    while socket.send_to(b"fill the queue", &server.path).is_ok() {}
    let client = Running::start(server.client().args(["--timeout", "20", "hello"]));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        client.suspend();
        client.resume();
    }
    server.running.resume();
    client.finish().assert_printed(b"hello\n");
}

/// Only who has the right to it can make a send buffer so large.
#[test]
#[cfg(target_os = "linux")]
fn a_datagram_that_may_have_been_cut_is_not_answered() {
    use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
    let mut server = start(&[]);
    let socket = server.socket("long");
    if let Err(error) = setsockopt(&socket, SndBufForce, &(4 << 20)) {
        return harness::not_run(&format!("no right to a larger send buffer: {error}"));
    }
    for len in [1 << 20, (1 << 20) + 1] {
        socket.send_to(&vec![b'x'; len], &server.path).unwrap();
        let line = server.running.stderr_line();
        assert!(
            line.ends_with("/long: not answered, longer than 1048576 bytes"),
            "{line}"
        );
    }
}

#[test]
fn an_answer_that_comes_while_it_is_suspended_is_not_lost() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = program("unix-echo");
    command.args(["client", "--datagram", "--timeout", "1", "hello", "--path"]);
    let client = Running::start(command.arg(&path));
    let mut buffer = [0; 64];
    let (len, addr) = server.recv_from(&mut buffer).unwrap();
    thread::sleep(Duration::from_millis(100)); // Most likely it waits in its system call by then.
    client.suspend();
    server.send_to_addr(&buffer[..len], &addr).unwrap();
    thread::sleep(Duration::from_millis(1200)); // The deadline passes.
    client.resume();
    client.finish().assert_printed(b"hello\n");
}
