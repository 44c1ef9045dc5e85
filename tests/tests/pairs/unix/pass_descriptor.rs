//! The example `pass_descriptor` of `unix-echo`: what becomes of the descriptors that a server gets.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Running, example_of, not_run, run};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::process::geteuid;

use super::credentials::{
    STRANGER, announced, connect, in_role, make_close_wait, stream_that_cannot_deliver, unused_name,
};

fn example() -> Command {
    example_of("unix-echo", "pass_descriptor")
}

fn server(name: &str, options: &[&str]) -> Command {
    in_role(example(), "server", name, options)
}

fn client(name: &str, options: &[&str]) -> Command {
    in_role(example(), "client", name, options)
}

fn start(name: &str, options: &[&str]) -> Running {
    announced(&mut server(name, options), name)
}

/// Sends one byte with descriptors, in one control message for each list.
pub fn send(stream: &UnixStream, lists: &[&[RawFd]]) -> nix::Result<usize> {
    let messages: Vec<_> = lists
        .iter()
        .map(|list| ControlMessage::ScmRights(list))
        .collect();
    let byte = [IoSlice::new(b"?")];
    sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &byte,
        &messages,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
}

/// Passes descriptors to a server, and returns what it logs, and the answer.
fn passed(server: &mut Running, name: &str, lists: &[&[RawFd]]) -> (String, String) {
    let mut stream = connect(name);
    send(&stream, lists).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let line = server.stderr_line();
    let outcome = line.strip_prefix(&format!("uid {}: ", geteuid().as_raw()));
    (
        outcome.unwrap_or_else(|| panic!("{line}")).to_owned(),
        answer,
    )
}

/// Asserts that a server reads and sends back this line.
fn assert_read(server: &mut Running, name: &str, lists: &[&[RawFd]], line: &str) {
    let (logged, answer) = passed(server, name, lists);
    assert_eq!(logged, format!("first line \"{line}\""));
    assert_eq!(answer, format!("{logged}\n"));
}

/// Asserts that a server takes nothing of what is passed, for this reason, and does not answer.
fn assert_not_taken(server: &mut Running, name: &str, lists: &[&[RawFd]], why: &str) {
    let (logged, answer) = passed(server, name, lists);
    assert_eq!(logged, format!("cannot read what it passed: {why}"));
    assert_eq!(answer, "");
}

/// Returns the reading and the writing end of a pipe.
pub fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Writes a file and opens it.
fn file_of(bytes: &[u8]) -> File {
    let folder = harness::folder();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

#[test]
fn a_client_passes_a_file_and_prints_what_the_server_reads() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let folder = harness::folder();
    let path = folder.path().join("file");
    fs::write(&path, "first\nsecond\n").unwrap();
    let finished = run(&mut client(&name, &[path.to_str().unwrap()]), b"");
    finished.assert_printed(b"first line \"first\"\n");
    let uid = geteuid().as_raw();
    assert_eq!(
        server.stderr_line(),
        format!("uid {uid}: first line \"first\"")
    );
}

#[test]
fn the_server_reads_a_file_that_it_may_not_open() {
    if !geteuid().is_root() {
        return not_run("only root can start the server as another user");
    }
    let (folder, copy) = harness::copy_of(&example());
    let path = folder.path().join("secret");
    fs::write(&path, "first\nsecond\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut cat = Command::new("cat");
    let cat = run(harness::as_nobody(cat.arg(&path)), b"");
    cat.assert_failed("cat: ");

    let name = unused_name();
    let mut command = in_role(Command::new(&copy), "server", &name, &["--peer", "0"]);
    let mut server = announced(harness::as_nobody(&mut command), &name);
    let path = path.to_str().unwrap();
    let finished = run(&mut client(&name, &["--peer", "65534", path]), b"");
    finished.assert_printed(b"first line \"first\"\n");
    assert_eq!(server.stderr_line(), "uid 0: first line \"first\"");
}

#[test]
fn who_is_not_trusted_is_refused() {
    let name = unused_name();
    let mut server = start(&name, &["--peer", STRANGER]);
    let mut answer = String::new();
    connect(&name).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
    let uid = geteuid().as_raw();
    assert_eq!(server.stderr_line(), format!("uid {uid}: refused"));
    let finished = run(&mut client(&name, &["/dev/null"]), b"");
    finished.assert_failed(&format!("Error: cannot get an answer from @{name}\n"));
}

/// Whoever has taken the name of a server must not get a file.
#[test]
fn a_client_passes_nothing_to_a_server_that_it_does_not_trust() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let finished = run(&mut client(&name, &["--peer", STRANGER, "/dev/null"]), b"");
    let uid = geteuid().as_raw();
    finished.assert_failed(&format!(
        "Error: cannot get an answer from @{name}\n\nCaused by:\n    \
         its user is {uid}; if you trust this user, add --peer {uid}\n"
    ));
    let expected = format!("uid {uid}: cannot read what it passed: it sent nothing");
    assert_eq!(server.stderr_line(), expected);
}

#[test]
fn a_first_line_is_escaped_and_cut() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let x64 = "x".repeat(64);
    for (content, shown) in [
        ("\x1b[2J\r\"\u{e9}\nnext", r#"\x1b[2J\r\"\xc3\xa9"#),
        (&format!("{x64}\nnext"), &x64),
        (&format!("{x64}x\nnext"), &x64),
        ("no newline", "no newline"),
        ("", ""),
    ] {
        let mut file = file_of(content.as_bytes());
        let mut byte = [0];
        let _ = file.read(&mut byte).unwrap();
        assert_read(&mut server, &name, &[&[file.as_raw_fd()]], shown);
        // The position is shared, and the server has not moved it.
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(
            rest.as_bytes(),
            content.as_bytes().get(1..).unwrap_or_default()
        );
    }
}

/// Reading one of the first three would wait forever.
#[test]
fn a_descriptor_that_never_gives_a_line_does_not_hold_it_up() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let (pipe, _writer) = pipe();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let folder = harness::folder();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    // For writing as well, because open(2) would wait for a writer.
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .open(fifo)
        .unwrap();
    let directory = File::open(folder.path()).unwrap();
    let never = [
        pipe.as_fd(),
        socket.as_fd(),
        fifo.as_fd(),
        directory.as_fd(),
    ];
    for descriptor in never.map(|descriptor| descriptor.as_raw_fd()) {
        assert_not_taken(&mut server, &name, &[&[descriptor]], "not a regular file");
    }
    let path = folder.path().join("file");
    let write_only = File::create(&path).unwrap();
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(0o10_000_000)
        .open(path);
    for file in [write_only, open.unwrap()] {
        let why = "Bad file descriptor (os error 9)";
        assert_not_taken(&mut server, &name, &[&[file.as_raw_fd()]], why);
    }
}

/// Passes a file, and the writing end of a pipe as often as it is told, and asserts that the server
/// takes nothing and closes all: only then does the pipe end.
fn assert_closes_all(server: &mut Running, name: &str, lists: &[usize], why: &str) {
    let file = file_of(b"line\n");
    let (mut reader, writer) = pipe();
    let mut lists: Vec<Vec<RawFd>> = lists
        .iter()
        .map(|count| vec![writer.as_raw_fd(); *count])
        .collect();
    lists[0][0] = file.as_raw_fd();
    let lists: Vec<&[RawFd]> = lists.iter().map(Vec::as_slice).collect();
    assert_not_taken(server, name, &lists, why);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn of_more_than_one_descriptor_none_is_kept() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    // The control buffer has room for two.
    for lists in [&[2][..], &[1, 1]] {
        assert_closes_all(&mut server, &name, lists, "2 descriptors instead of one");
    }
    // The limit of Linux is 253.
    for lists in [&[253][..], &[1, 1, 1, 250]] {
        let why = "there is no room for a descriptor";
        assert_closes_all(&mut server, &name, lists, why);
    }
    assert_not_taken(&mut server, &name, &[], "0 descriptors instead of one");
    let file = file_of(b"line\n");
    assert_read(&mut server, &name, &[&[file.as_raw_fd()]], "line");
}

#[test]
fn a_client_that_makes_its_thread_wait_holds_up_no_other() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let _silent = connect(&name);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = stream_that_cannot_deliver(&peer);
    server.suspend();
    let stream = connect(&name);
    send(&stream, &[&[socket.as_raw_fd()]]).unwrap();
    make_close_wait(&socket);
    drop(socket);
    server.resume();
    let file = file_of(b"line\n");
    assert_read_beside(&mut server, &name, &file);
}

/// Asserts that a server reads a file, while it may log something about other clients as well.
fn assert_read_beside(server: &mut Running, name: &str, file: &File) {
    let mut stream = connect(name);
    send(&stream, &[&[file.as_raw_fd()]]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "first line \"line\"\n");
    assert!(server.is_running());
}

#[test]
fn ten_thousand_connections_leave_no_descriptor_behind() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let folder = format!("/proc/{}/fd", server.id());
    let count = || fs::read_dir(&folder).unwrap().count();
    let file = file_of(b"line\n");
    let (pipe, _writer) = pipe();
    let (file, pipe) = (file.as_raw_fd(), pipe.as_raw_fd());
    passed(&mut server, &name, &[]);
    let before = count();
    for number in 0..10_000 {
        let lists: &[&[RawFd]] = match number % 6 {
            0 => &[],
            1 => &[&[file]],
            2 => &[&[pipe]],
            3 => &[&[file, pipe]],
            4 => &[&[file; 20]],
            _ => &[&[file], &[pipe], &[file]],
        };
        passed(&mut server, &name, lists);
    }
    // The thread of the last client closes its stream after the client has seen the end.
    assert!(
        server.becomes_ready(|| count() <= before),
        "{before}, and now {}",
        count()
    );
}

/// A full table of descriptors has the same effect as too small a control buffer.
#[test]
fn a_server_without_a_free_descriptor_goes_on() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let folder = format!("/proc/{}/fd", server.id());
    // It has the listener, and perhaps more than it knows of, inherited from whoever runs this test.
    let is_free = |number: &u32| !Path::new(&folder).join(number.to_string()).exists();
    let free: Vec<u32> = (0..100).filter(is_free).take(3).collect();
    let id = server.id();
    let allow_up_to = |number: u32| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args([
            format!("--pid={id}"),
            format!("--nofile={}:200", number + 1),
        ]);
        assert_eq!(run(&mut prlimit, b"").code, Some(0));
    };
    // Two connections. One of them stays, so the other leaves no room, neither for a file nor for the
    // next accept.
    allow_up_to(free[1]);
    let silent = connect(&name);
    let file = file_of(b"line\n");
    for _ in 0..10 {
        let mut stream = connect(&name);
        send(&stream, &[&[file.as_raw_fd()]]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "");
        let line = loop {
            let line = server.stderr_line();
            if !line.starts_with("cannot serve a client: Too many open files") {
                break line;
            }
        };
        assert!(
            line.ends_with("there is no room for a descriptor"),
            "{line}"
        );
    }
    drop(silent);
    // One more: the accept that waits for the next client also takes one.
    allow_up_to(free[2]);
    let served = || {
        let mut stream = connect(&name);
        let mut answer = String::new();
        let sent = send(&stream, &[&[file.as_raw_fd()]]);
        sent.is_ok() && stream.read_to_string(&mut answer).is_ok() && !answer.is_empty()
    };
    assert!(server.becomes_ready(served));
}

#[test]
fn a_message_that_cannot_be_sent_is_an_error() {
    if !harness::can_trace() {
        return;
    }
    let name = unused_name();
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&addr).unwrap();
    let client = client(&name, &["/dev/null"]);
    let inject = "inject=sendmsg:error=ENOBUFS";
    let mut strace = Command::new("strace");
    strace.args(["-D", "-o", "/dev/null", "-e", inject]);
    strace.arg(client.get_program()).args(client.get_args());
    let client = run(strace.env_remove("RUST_BACKTRACE"), b"");
    client.assert_failed("Error: cannot get an answer from ");
    client.assert_stderr("0: cannot send\n    1: No buffer space available");
}

#[test]
fn a_client_that_leaves_at_once_does_not_end_it() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let file = file_of(b"line\n");
    for _ in 0..10 {
        let stream = connect(&name);
        send(&stream, &[&[file.as_raw_fd()]]).unwrap();
        drop(stream);
        server.stderr_line();
    }
    assert_read(&mut server, &name, &[&[file.as_raw_fd()]], "line");
}

#[test]
fn what_it_cannot_do_is_told() {
    let name = unused_name();
    let finished = run(&mut client(&name, &["/dev/null"]), b"");
    finished.assert_failed(&format!("Error: cannot reach @{name}\n"));
    let finished = run(&mut client(&name, &["/no/such/file"]), b"");
    finished.assert_failed("Error: cannot open /no/such/file\n");
    let _server = start(&name, &[]);
    let second = run(&mut server(&name, &[]), b"");
    second.assert_failed(&format!("Error: cannot listen on @{name}\n"));
    let folder = harness::folder();
    let path = folder.path().join("file");
    fs::write(&path, "line\n").unwrap();
    let full = File::create("/dev/full").unwrap().into();
    let mut client = client(&name, &[path.to_str().unwrap()]);
    let client = Running::start_with(&mut client, full, Stdio::piped());
    client
        .finish()
        .assert_failed("Error: cannot write to stdout\n");
}
