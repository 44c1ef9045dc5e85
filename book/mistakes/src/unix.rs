//! Unix sockets and their files: mistakes 27, 28 and 29.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use harness::LIMIT;

// 27. The file of a Unix socket stays, and removing it first is no cure.

/// Listens at a path, and first removes whatever is there.
fn listen_by_force(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    UnixListener::bind(path)
}

#[test]
fn the_file_outlives_its_listener_and_removing_it_by_force_robs_a_live_one() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let error = UnixListener::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let deadline = Instant::now() + LIMIT;
    let error = loop {
        // A program that another test is starting may have the socket open for a moment longer.
        match UnixStream::connect(&path) {
            Ok(_) => assert!(Instant::now() < deadline, "it does not close"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let first = listen_by_force(&path).unwrap();
    let second = listen_by_force(&path).expect("no error, although the first still lives");
    let _client = UnixStream::connect(&path).unwrap();
    second.accept().unwrap();
    first.set_nonblocking(true).unwrap();
    let error = first.accept().expect_err("nobody finds the first any more");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let error = UnixListener::bind(&precious).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    listen_by_force(&precious).expect("no error, although this was no socket");
    assert!(fs::read(&precious).is_err(), "the file is gone");
}

// 28. The path of a Unix socket has at most 107 bytes.

/// Makes a link with a short path to a folder with a long one. The kernel counts only the
/// bytes of the path that it is given.
fn listen_through_link(folder: &Path, link: &Path, name: &str) -> io::Result<UnixListener> {
    std::os::unix::fs::symlink(folder, link)?;
    UnixListener::bind(link.join(name))
}

#[test]
fn std_refuses_a_long_path_and_a_link_makes_it_short() {
    let folder = harness::folder();
    let long = folder.path().join("long".repeat(25));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("file"), "a file may have a long path").unwrap();
    let error = UnixListener::bind(long.join("socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "path must be shorter than SUN_LEN");
    assert_eq!(error.raw_os_error(), None, "the kernel was not asked");

    let link = folder.path().join("l");
    let _listener = listen_through_link(&long, &link, "socket").unwrap();
    UnixStream::connect(link.join("socket")).unwrap();
    assert!(fs::symlink_metadata(long.join("socket")).is_ok());
}

// 29. A Unix datagram client without an address gets no answer.

/// Opens a socket that can send to a server, but that the server cannot send to.
fn open_without_address(server: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(server)?;
    Ok(socket)
}

#[test]
#[cfg(target_os = "linux")]
fn an_unbound_unix_datagram_cannot_be_answered_and_a_bound_one_can() {
    let folder = harness::folder();
    let path = folder.path().join("server");
    let server = UnixDatagram::bind(&path).unwrap();
    let mut buffer = [0; 16];

    let unbound = open_without_address(&path).unwrap();
    unbound.send(b"hello").unwrap();
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    assert!(peer.is_unnamed());
    let error = server.send_to_addr(b"hello", &peer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let bound = UnixDatagram::bind("").unwrap();
    bound.connect(&path).unwrap();
    bound.send(b"hello").unwrap();
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to_addr(b"hello", &peer).unwrap();
    assert_eq!(bound.recv(&mut buffer).unwrap(), 5);
    let names = fs::read_dir(folder.path()).unwrap();
    assert_eq!(names.count(), 1, "the server's file alone");
}
