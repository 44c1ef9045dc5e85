//! What only the streams of `unix-echo` promise. What all streams promise is in `promises`.

#[cfg(target_os = "linux")]
use std::os::unix::net::UnixStream;
use std::path::Path;

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
