//! What `unix-echo --datagram` promises: message boundaries as in UDP, but a slow receiver
//! makes the sender wait.

use std::fs;
#[cfg(target_os = "linux")]
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{os::unix::fs::PermissionsExt, time::Instant};

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

    /// Binds a socket for the test itself to a name that the server answers.
    fn socket(&self, name: &str) -> UnixDatagram {
        #[cfg(target_os = "linux")]
        let socket = UnixDatagram::bind_addr(&abstract_name(&self.name_of(name)[1..]));
        #[cfg(not(target_os = "linux"))]
        let socket = UnixDatagram::bind(self.name_of(name));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        socket
    }

    /// Returns the name of such a socket, as the server logs it.
    fn name_of(&self, name: &str) -> String {
        let sign = if cfg!(target_os = "linux") { "@" } else { "" };
        format!("{sign}{}/{name}", self.folder.path().display())
    }

    fn assert_serves(&self) {
        let client = run(self.client().arg("still there?"), b"");
        client.assert_printed(b"still there?\n");
    }
}

#[cfg(target_os = "linux")]
fn abstract_name(name: &str) -> SocketAddr {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap()
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
        client
            .stderr
            .starts_with("Error: cannot send 900000 bytes to /"),
        "{client:?}"
    );
    client.assert_stderr("Message too long");
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
    // A program that another test is starting may have the socket open for a moment longer.
    let gone = server.name_of("gone");
    #[cfg(target_os = "linux")]
    let is_there = || {
        let probe = UnixDatagram::unbound().unwrap();
        probe.connect_addr(&abstract_name(&gone[1..])).is_ok()
    };
    #[cfg(not(target_os = "linux"))]
    let is_there = || UnixDatagram::unbound().unwrap().connect(&gone).is_ok();
    while is_there() {
        thread::sleep(Duration::from_millis(1));
    }
    server.running.resume();
    let line = server.running.stderr_line();
    let expected = format!("{gone}: cannot send the echo: Connection refused");
    assert!(line.starts_with(&expected), "{line}");
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
        let good = server.socket(&format!("good {name}"));
        for _ in 0..20 {
            echo(&good, &server.path, b"undisturbed");
        }
        server.assert_serves();
        drop(deaf);
    }
    while !server
        .running
        .stderr_line()
        .ends_with("/short: not answered, earlier answers are not read yet")
    {}
}

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
    client.assert_failed(&format!("Error: cannot send 5 bytes to {path}\n"));
    client.assert_stderr("    its queue is full\n");
}

#[test]
fn what_is_not_the_message_is_not_its_echo() {
    let server = start(&[]);
    let path = server.folder.path().join("impostor");
    let impostor = UnixDatagram::bind(&path).unwrap();
    impostor.set_read_timeout(Some(LIMIT)).unwrap();
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
#[cfg(target_os = "linux")]
fn in_the_log_an_abstract_name_is_escaped_and_a_long_datagram_is_cut_short() {
    let mut server = start(&[]);
    let id = std::process::id();
    let name = abstract_name(&format!("{id}\n\x1b[2J"));
    let socket = UnixDatagram::bind_addr(&name).unwrap();
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
            line.ends_with("/long: not answered, it may have been longer than the buffer"),
            "{line}"
        );
    }
}

/// A client binds a path, sends from it, and puts a link there before it is answered. The server
/// is suspended for this moment, so that the client is quicker every time.
#[cfg(target_os = "linux")]
fn send_from_a_path_that_becomes(target: &Path, datagram: &[u8], server: &Running, to: &Path) {
    let path = to.with_file_name("turned");
    let attacker = UnixDatagram::bind(&path).unwrap();
    server.suspend();
    attacker.send_to(datagram, to).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(target, &path).unwrap();
    server.resume();
}

/// The server would answer itself, and answer its answer, forever.
#[test]
#[cfg(target_os = "linux")]
fn a_client_whose_path_becomes_a_link_to_the_server_starts_no_endless_echo() {
    let mut server = start(&[]);
    send_from_a_path_that_becomes(
        &server.path,
        b"again and again",
        &server.running,
        &server.path,
    );
    let line = server.running.stderr_line();
    assert!(
        line.ends_with("/turned: not answered, a path can lead anywhere"),
        "{line}"
    );
    server.assert_serves();
    let line = server.running.stderr_line();
    assert!(line.ends_with(": length 12 \"still there?\""), "{line}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_whose_path_becomes_a_link_to_another_server_joins_no_two_servers() {
    let (mut server, mut other) = (start(&[]), start(&[]));
    send_from_a_path_that_becomes(&other.path, b"to and fro", &server.running, &server.path);
    let line = server.running.stderr_line();
    assert!(
        line.ends_with("/turned: not answered, a path can lead anywhere"),
        "{line}"
    );
    other.assert_serves();
    let line = other.running.stderr_line();
    assert!(line.ends_with(": length 12 \"still there?\""), "{line}");
}

/// Returns a socket that nobody but its owner may write to, in a directory that nobody else may
/// enter, and its path.
#[cfg(target_os = "linux")]
fn private_socket(folder: &Path) -> (UnixDatagram, PathBuf) {
    let private = folder.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let path = private.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (socket, path)
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_whose_path_becomes_a_link_to_a_private_socket_sends_nothing_there() {
    let mut server = start(&[]);
    let (private, path) = private_socket(server.folder.path());
    send_from_a_path_that_becomes(&path, b"READY=1", &server.running, &server.path);
    let line = server.running.stderr_line();
    assert!(
        line.ends_with("/turned: not answered, a path can lead anywhere"),
        "{line}"
    );
    private.set_nonblocking(true).unwrap();
    let error = private.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// Such a server writes for its client where only the server may write.
#[test]
#[cfg(target_os = "linux")]
fn a_server_that_answers_at_any_path_writes_into_a_private_socket() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let mut plain = harness::peer("plain_unix_echo");
    let mut plain = Running::start(plain.arg(&path).arg("--datagram"));
    plain.announced();
    let (private, target) = private_socket(folder.path());
    send_from_a_path_that_becomes(&target, b"READY=1", &plain, &path);
    let mut buffer = [0; 8];
    let len = private.recv(&mut buffer).expect("what the client has sent");
    assert_eq!(&buffer[..len], b"READY=1");
}

/// A longer name is none: the address has 108 bytes for the zero and the name. (A path could have
/// 108 bytes, but paths are not answered.)
#[test]
#[cfg(target_os = "linux")]
fn a_client_with_the_longest_abstract_name_is_answered() {
    let server = start(&[]);
    let name = format!("{:x<107}", server.folder.path().display());
    let socket = UnixDatagram::bind_addr(&abstract_name(&name)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    echo(&socket, &server.path, b"hello");
    socket.connect(&server.path).unwrap();
    echo(&socket, &server.path, b"hello");
}

/// Everybody can read the name of the client's socket in /proc/net/unix, and send to it.
#[test]
#[cfg(target_os = "linux")]
fn what_another_process_sends_is_not_taken_for_the_echo() {
    let server = start(&["-q"]);
    let names = || -> Vec<String> {
        let table = fs::read_to_string("/proc/net/unix").unwrap();
        let names = table.lines().filter_map(|line| line.rsplit_once(" @"));
        names
            .map(|(_, name)| name.to_owned())
            .filter(|name| name.len() == 5)
            .collect()
    };
    let before = names();
    let mut client = Running::start(&mut server.client());
    client.write(b"first\n");
    assert_eq!(client.stdout_line(), "first"); // It has connected its socket.
    server.running.suspend();
    client.write(b"hello\n");
    let (named, unnamed) = (server.socket("named"), UnixDatagram::unbound().unwrap());
    // The names of other tests' clients may be among them, whose servers are the only ones that
    // they listen to as well.
    let new: Vec<String> = names()
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect();
    let refused = |stranger: &UnixDatagram, name: &String| {
        let error = stranger.send_to_addr(b"hello", &abstract_name(name));
        error.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    assert!(
        new.iter()
            .any(|name| refused(&named, name) && refused(&unnamed, name)),
        "{new:?}"
    );
    drop(client.stdin.take());
    server.running.resume();
    client.finish().assert_printed(b"hello\n");
}

/// What is there before the client has connected its socket is not the echo either.
#[test]
#[cfg(target_os = "linux")]
fn what_came_before_the_message_was_sent_is_not_its_echo() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let mut client = program("unix-echo");
    client.args(["client", "--datagram", "--timeout", "0.5", "--path"]);
    let mut client = Running::start(client.arg(&path));
    client.write(b"one\n");
    let mut buffer = [0; 64];
    let (len, addr) = server.recv_from(&mut buffer).unwrap();
    for answer in [&buffer[..len], b"two"] {
        server.send_to_addr(answer, &addr).unwrap();
    }
    assert_eq!(client.stdout_line(), "one");
    client.write(b"two\n");
    assert_eq!(server.recv(&mut buffer).unwrap(), 3);
    client
        .finish()
        .assert_failed("Error: cannot get an answer from ");
}

/// For each datagram that a deaf client does not take, the server once waited for a while.
#[test]
#[cfg(target_os = "linux")]
fn many_clients_that_do_not_read_hold_up_nobody() {
    const CLIENTS: usize = 50;
    const DATAGRAMS: usize = 20;
    let server = start(&["-q"]);
    let good = server.socket("good");
    let begin = Instant::now();
    (0..CLIENTS * DATAGRAMS).for_each(|_| echo(&good, &server.path, b"undisturbed"));
    let usual = begin.elapsed();
    let begin = Instant::now();
    let deaf: Vec<UnixDatagram> = (0..CLIENTS)
        .map(|number| server.socket(&format!("deaf {number}")))
        .collect();
    for deaf in &deaf {
        for _ in 0..DATAGRAMS {
            deaf.send_to(b"not read", &server.path).unwrap();
        }
    }
    echo(&good, &server.path, b"undisturbed");
    let with_deaf = begin.elapsed();
    assert!(
        with_deaf < 10 * usual,
        "{with_deaf:?}, and usually {usual:?}"
    );
}

/// Only the server's own socket can answer a client that has connected to it. What such a client
/// does not read fills the buffer of this socket, so others of its kind are not answered.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_has_connected_and_does_not_read_holds_up_others_of_its_kind_alone() {
    let mut server = start(&[]);
    let deaf = server.socket("deaf");
    deaf.connect(&server.path).unwrap();
    (0..4).for_each(|_| assert_eq!(deaf.send(&[b'x'; 90_000]).unwrap(), 90_000));
    let good = server.socket("good");
    (0..20).for_each(|_| echo(&good, &server.path, b"undisturbed"));
    let mut client = server.client();
    let unlucky = run(client.args(["--timeout", "0.3", "hello"]), b"");
    unlucky.assert_failed("Error: cannot get an answer from ");
    let unanswered = "/deaf: not answered, earlier answers are not read yet";
    while !server.running.stderr_line().ends_with(unanswered) {}
    drop(deaf);
    server.assert_serves();
}

/// Linux interrupts a call with a time limit when a program was suspended. strace makes every
/// second answer of the server's own socket fail so.
#[test]
#[cfg(target_os = "linux")]
fn an_answer_that_is_interrupted_is_sent_again() {
    if !harness::can_trace() {
        return;
    }
    let folder = harness::folder();
    let path = folder.path().join("s");
    // For each message: the second socket is refused, the own is interrupted, and sends again.
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-o", "/dev/null"]);
    strace.args(["-e", "inject=sendto:error=EINTR:when=2+3"]);
    let mut server = program("unix-echo");
    server.args(["server", "--datagram", "--path"]).arg(&path);
    let mut server = Running::start(strace.arg(server.get_program()).args(server.get_args()));
    server.announced();
    let mut client = program("unix-echo");
    client.args(["client", "--datagram", "--path"]).arg(&path);
    let client = run(&mut client, b"one\ntwo\nthree\n");
    client.assert_printed(b"one\ntwo\nthree\n");
}

/// It has names of its own, so there the server does not find the client's.
#[test]
#[cfg(target_os = "linux")]
fn in_another_network_namespace_the_client_gets_no_answer() {
    let mut server = start(&[]);
    let mut client = server.client();
    client.args(["--timeout", "0.3", "hello"]);
    let Some(mut client) = harness::unshared("-rn", "true", &client) else {
        return;
    };
    let path = server.path.display();
    let expected = format!("Error: cannot get an answer from {path} within 300ms\n");
    run(&mut client, b"").assert_failed(&expected);
    let line = server.running.stderr_line();
    assert!(
        line.contains(": cannot send the echo: Connection refused"),
        "{line}"
    );
}

/// Otherwise it would prolong its deadline as often as it is interrupted.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_is_suspended_again_and_again_keeps_its_deadline_while_the_queue_is_full() {
    let server = start(&["-q"]);
    server.running.suspend();
    let socket = server.socket("many");
    socket.set_nonblocking(true).unwrap();
    while socket.send_to(b"fill the queue", &server.path).is_ok() {}
    let mut client = Running::start(server.client().args(["--timeout", "1", "hello"]));
    let begin = Instant::now();
    while client.is_running() {
        assert!(begin.elapsed() < LIMIT, "the deadline does not come");
        thread::sleep(Duration::from_millis(300));
        client.suspend();
        client.resume();
    }
    client
        .finish()
        .assert_failed("Error: cannot send 5 bytes to ");
}
