//! What only the streams of `unix-echo` promise. What all streams promise is in `promises`.

use std::io::Read;
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use harness::LIMIT;
#[cfg(target_os = "linux")]
use harness::run;
use promises::Ours;
#[cfg(target_os = "linux")]
use promises::catalog::UNIX_CLIENT;
use promises::catalog::UNIX_ECHO;

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

#[test]
fn a_hundred_clients_are_served_at_the_same_time_and_the_next_waits() {
    let server = Ours::new(&UNIX_ECHO).start_with(&["-q"]).unwrap();
    let mut clients = server.connect_times(100).unwrap();
    for client in &clients {
        client.echo(b"served").unwrap();
    }
    let next = server.connect().unwrap();
    next.send(b"my turn?").unwrap();
    next.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!((&next).read(&mut [0; 8]).is_err(), "it is served as well");
    clients.pop();
    next.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(next.receive(8).unwrap(), b"my turn?");
}

/// strace tells which limit the server sets, and makes a call fail as it does when the limit has passed.
#[test]
#[cfg(target_os = "linux")]
fn who_neither_writes_nor_reads_for_a_minute_is_closed() {
    if !harness::can_trace() {
        return;
    }
    let folder = harness::folder();
    let trace = folder.path().join("trace");
    for call in ["recvfrom", "sendto"] {
        let late = format!("inject={call}:error=EAGAIN:when=1");
        let options = ["-e", "trace=setsockopt,recvfrom,sendto", "-e", &late];
        let mut server = Ours::new(&UNIX_ECHO)
            .start_traced(&trace, &options)
            .unwrap();
        let client = server.connect().unwrap();
        let _ = client.send(b"hello"); // The server may have closed already.
        assert_eq!(server.log_line().unwrap(), "unnamed: connected");
        let closed = "unnamed: closed, no read or write for 60s";
        assert_eq!(server.log_line().unwrap(), closed);
        let trace = std::fs::read_to_string(&trace).unwrap();
        for limit in ["SO_RCVTIMEO", "SO_SNDTIMEO"] {
            // The structure with the limit begins with the seconds, and `<` is 60.
            let is_set = |line: &str| line.contains(limit) && line.contains("\"<\\0\\0\\0");
            assert!(trace.lines().any(is_set), "{limit}: {trace}");
        }
    }
}
