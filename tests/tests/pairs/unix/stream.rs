//! What only the streams of `unix-echo` promise. What all streams promise is in `promises`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, run};

use promises::catalog::{UNIX_CLIENT, UNIX_ECHO};
use promises::{Ours, Stream, send_until_stuck};

/// Suspends and resumes a program until something has happened. Linux interrupts a call with a
/// time limit then, and the next call has the whole limit again.
fn suspend_until(running: &mut Running, mut has_happened: impl FnMut(&mut Running) -> bool) {
    let begin = Instant::now();
    while !has_happened(running) {
        assert!(begin.elapsed() < LIMIT, "its deadline does not come");
        thread::sleep(Duration::from_millis(300));
        running.suspend();
        running.resume();
    }
}

#[test]
fn a_server_that_is_suspended_again_and_again_still_closes_who_never_writes_or_reads() {
    let mut server = Ours::new(&UNIX_ECHO)
        .start_with(&["--idle-timeout", "1"])
        .unwrap();
    let silent = server.connect().unwrap();
    silent.set_nonblocking(true).unwrap();
    let has_ended = |mut stream: &Stream| stream.read(&mut [0]).is_ok_and(|len| len == 0);
    suspend_until(&mut server.running, |_| has_ended(&silent));

    let deaf = server.connect().unwrap();
    send_until_stuck(&deaf).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let is_refused = |mut stream: &Stream| {
        let error = stream.write(b"more").err();
        error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    suspend_until(&mut server.running, |_| is_refused(&deaf));
}

#[test]
fn a_client_that_is_suspended_again_and_again_keeps_its_deadline() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let silent = UnixListener::bind(&path).unwrap();
    let mut client = UNIX_CLIENT.at(path.to_str().unwrap());
    let mut client = Running::start(client.args(["--timeout", "1", "hello"]));
    let _accepted = silent.accept().unwrap();
    suspend_until(&mut client, |client| !client.is_running());
    let client = client.finish();
    client.assert_failed("Error: cannot get everything back from ");
    client.assert_stderr("0 of 6 bytes came back\n");
    client.assert_stderr("nothing came for 1s\n");
}

#[test]
fn a_client_that_has_a_name_is_logged_by_it_and_escaped() {
    let mut server = Ours::new(&UNIX_ECHO).start().unwrap();
    let name = Path::new(&server.addr).with_file_name("me\n\x1b[2J");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&name).unwrap())
        .unwrap();
    socket
        .connect(&socket2::SockAddr::unix(&server.addr).unwrap())
        .unwrap();
    let line = server.running.stderr_line();
    assert!(line.ends_with("/me\\n\\u{1b}[2J: connected"), "{line}");
}

/// Over TCP the kernel would drop the request for a connection. Here it makes the client wait,
/// forever.
#[test]
#[cfg(target_os = "linux")]
fn a_server_whose_queue_is_full_is_given_up_in_time() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _in_the_queue = UnixStream::connect(&path).unwrap();
    let client = run(
        UNIX_CLIENT
            .at(path.to_str().unwrap())
            .args(["--timeout", "0.3", "hello"]),
        b"",
    );
    assert_eq!(client.code, Some(1));
    client.assert_stderr(" within 300ms: the server's backlog is full\n");
}
