//! The example `credentials` of `unix-echo`: whom the kernel names, whom the server serves,
//! and what becomes of the descriptors that it gets.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, example_of, not_run, run};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::process::{getegid, geteuid};

/// A user who never runs anything here.
const STRANGER: &str = "4000000001";

fn example() -> Command {
    example_of("unix-echo", "credentials")
}

/// Returns an abstract name that nobody else uses.
fn unused_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    format!("@credentials {} {number}", process::id())
}

fn in_role(mut command: Command, role: &str, name: &str, options: &[&str]) -> Command {
    command.args([role, "--path", name]).args(options);
    command
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

fn announced(command: &mut Command, name: &str) -> Running {
    let mut server = Running::start(command);
    assert_eq!(server.announced(), name);
    server
}

/// How the kernel names a process of the same user as the tests.
fn own(pid: u32) -> String {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    format!("uid {uid}, gid {gid}, pid {pid}")
}

fn connect(name: &str) -> UnixStream {
    let addr = SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let stream = UnixStream::connect_addr(&addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
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

/// Passes descriptors to a server, and returns what it logs.
fn passed(server: &mut Running, name: &str, lists: &[&[RawFd]]) -> String {
    let mut stream = connect(name);
    send(&stream, lists).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let own = own(process::id());
    assert_eq!(answer, format!("you are {own}\n"));
    let line = server.stderr_line();
    let outcome = line.strip_prefix(&format!("{own}: served"));
    outcome.unwrap_or_else(|| panic!("{line}")).to_owned()
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
fn the_kernel_says_who_connects() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let client = Running::start(&mut client(&name, &[]));
    let own = own(client.id());
    client
        .finish()
        .assert_printed(format!("you are {own}\n").as_bytes());
    assert_eq!(server.stderr_line(), format!("{own}: served"));
}

#[test]
fn who_is_not_allowed_is_told_nothing() {
    let name = unused_name();
    let mut server = start(&name, &["--allow", STRANGER]);
    let client = Running::start(&mut client(&name, &[]));
    let own = own(client.id());
    client.finish().assert_failed(&format!(
        "Error: cannot get an answer from {name}\n\nCaused by:\n    it may not serve your user\n"
    ));
    assert_eq!(server.stderr_line(), format!("{own}: refused"));
}

/// Starts the client as nobody, and returns how it ends.
fn ask_as_nobody(copy: &Path, name: &str) -> harness::Finished {
    let mut command = in_role(Command::new(copy), "client", name, &[]);
    run(harness::as_nobody(&mut command), b"")
}

#[test]
fn another_user_is_served_only_if_allowed() {
    if !geteuid().is_root() {
        return not_run("only root can ask as another user");
    }
    let (folder, copy) = harness::copy_of(&example());
    let path = folder.path().join("s");
    for name in [unused_name(), path.to_str().unwrap().to_owned()] {
        let mut server = start(&name, &[]);
        ask_as_nobody(&copy, &name).assert_failed("Error: cannot get an answer");
        let line = server.stderr_line();
        assert!(line.starts_with("uid 65534, gid 65534, pid "), "{line}");
        assert!(line.ends_with(": refused"), "{line}");
    }
    // Two of them: with --allow, root is not served any more.
    let name = unused_name();
    let _server = start(&name, &["--allow", STRANGER, "--allow", "65534"]);
    let finished = ask_as_nobody(&copy, &name);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = run(&mut client(&name, &[]), b"");
    finished.assert_failed("Error: cannot get an answer");
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
    let mut command = in_role(Command::new(&copy), "server", &name, &[]);
    let mut server = announced(harness::as_nobody(&mut command), &name);
    let path = path.to_str().unwrap();
    let finished = run(&mut client(&name, &["--allow", "65534", path]), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let line = server.stderr_line();
    assert!(line.ends_with(": served, first line \"first\""), "{line}");

    // The client looks at the server, too, and sends nothing to one that it does not trust.
    let finished = run(&mut client(&name, &[path]), b"");
    finished.assert_failed(&format!(
        "Error: cannot trust {name}: its server is uid 65534"
    ));
    let line = server.stderr_line();
    assert!(line.ends_with(": it sent nothing"), "{line}");
}

#[test]
fn a_first_line_is_escaped_and_cut() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let x64 = "x".repeat(64);
    for (content, shown) in [
        (
            "\x1b[2J\r\"\u{e9}\nnext",
            r#""\x1b[2J\r\"\xc3\xa9""#.to_owned(),
        ),
        (&format!("{x64}\nnext"), format!("\"{x64}\"")),
        (&format!("{x64}x\nnext"), format!("\"{x64}\"...")),
        ("no newline", "\"no newline\"".to_owned()),
        ("", "\"\"".to_owned()),
    ] {
        let mut file = file_of(content.as_bytes());
        let mut byte = [0];
        let _ = file.read(&mut byte).unwrap();
        let outcome = passed(&mut server, &name, &[&[file.as_raw_fd()]]);
        assert_eq!(outcome, format!(", first line {shown}"));
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
        let outcome = passed(&mut server, &name, &[&[descriptor]]);
        assert_eq!(outcome, ", cannot read what it passed: not a regular file");
    }
    let path = folder.path().join("file");
    let write_only = File::create(&path).unwrap();
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(0o10_000_000)
        .open(path);
    for file in [write_only, open.unwrap()] {
        let outcome = passed(&mut server, &name, &[&[file.as_raw_fd()]]);
        let expected = ", cannot read what it passed: Bad file descriptor (os error 9)";
        assert_eq!(outcome, expected);
    }
    assert_eq!(passed(&mut server, &name, &[]), "");
}

/// Passes a file, and the writing end of a pipe as often as it is told. Returns what the server
/// logs, after it has closed all of them: only then does the pipe end.
fn passed_with_more(server: &mut Running, name: &str, lists: &[usize]) -> String {
    let file = file_of(b"line\n");
    let (mut reader, writer) = pipe();
    let mut lists: Vec<Vec<RawFd>> = lists
        .iter()
        .map(|count| vec![writer.as_raw_fd(); *count])
        .collect();
    lists[0][0] = file.as_raw_fd();
    let lists: Vec<&[RawFd]> = lists.iter().map(Vec::as_slice).collect();
    let outcome = passed(server, name, &lists);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    outcome
}

#[test]
fn what_is_beyond_one_descriptor_is_closed() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    // The limit of Linux is 253.
    let too_many: [&[usize]; 5] = [&[2], &[3], &[253], &[1, 1], &[1, 1, 1, 250]];
    for lists in too_many {
        let outcome = passed_with_more(&mut server, &name, lists);
        let expected = ", first line \"line\", closed what was beyond one descriptor";
        assert_eq!(outcome, expected, "{lists:?}");
    }
    let outcome = passed_with_more(&mut server, &name, &[1]);
    assert_eq!(outcome, ", first line \"line\"");
}

#[test]
fn the_descriptors_of_who_is_refused_are_closed() {
    let name = unused_name();
    let mut server = start(&name, &["--allow", STRANGER]);
    let (mut reader, writer) = pipe();
    for _ in 0..10 {
        // An error means that the server was faster.
        let _ = send(&connect(&name), &[&[writer.as_raw_fd(); 10]]);
        assert!(server.stderr_line().ends_with(": refused"));
    }
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// Returns a stream with bytes that its peer never reads.
fn stream_that_cannot_deliver(peer: &TcpListener) -> TcpStream {
    let mut stream = TcpStream::connect(peer.local_addr().unwrap()).unwrap();
    let limit = Some(Duration::from_millis(200));
    stream.set_write_timeout(limit).unwrap();
    while stream.write(&[0; 64 * 1024]).is_ok() {}
    stream
}

/// Makes the last close of this stream wait until its peer has acknowledged everything.
///
/// The process that another test is about to start has a copy of our descriptor for a moment, and
/// would wait as well. So this happens at the last moment, and the wait is one that a test
/// survives, although longer than a client of `credentials` has patience.
fn make_close_wait(stream: &TcpStream) {
    let wait = Some(Duration::from_secs(20));
    socket2::SockRef::from(stream).set_linger(wait).unwrap();
}

/// The server has the last descriptor of the socket, because its stranger comes while it is suspended.
#[test]
fn a_stranger_cannot_hold_it_up_with_a_socket_whose_close_waits() {
    let name = unused_name();
    let mut server = start(&name, &["--allow", STRANGER]);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = stream_that_cannot_deliver(&peer);
    server.suspend();
    let stranger = connect(&name);
    send(&stranger, &[&[socket.as_raw_fd()]]).unwrap();
    make_close_wait(&socket);
    drop(socket);
    server.resume();
    assert!(server.stderr_line().ends_with(": refused"));
    let next = run(&mut client(&name, &[]), b"");
    next.assert_failed(&format!(
        "Error: cannot get an answer from {name}\n\nCaused by:\n    it may not serve your user\n"
    ));
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
    assert_eq!(passed(&mut server, &name, &[]), "");
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
    // The last stream is closed after its client has seen the end.
    assert!(count() <= before + 1, "{before}, and now {}", count());
}

/// An empty table of descriptors has the same effect as too small a control buffer.
#[test]
fn a_server_without_a_free_descriptor_goes_on() {
    let name = unused_name();
    // 0, 1, 2, the listener and a connection, and none for a file.
    let mut server = announced(
        &mut harness::limited("--nofile=5", &server(&name, &[])),
        &name,
    );
    let file = file_of(b"line\n");
    for _ in 0..10 {
        let outcome = passed(&mut server, &name, &[&[file.as_raw_fd()]]);
        assert_eq!(outcome, ", could not take what it passed");
        assert_eq!(passed(&mut server, &name, &[]), "");
    }
}

#[test]
fn a_client_that_sends_nothing_is_left_after_some_time() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let silent = connect(&name);
    let next = run(&mut client(&name, &[]), b"");
    assert_eq!(next.code, Some(0), "{next:?}");
    let line = server.stderr_line();
    assert_eq!(line, format!("{}: it sent nothing", own(process::id())));
    drop(silent);
    assert!(server.stderr_line().ends_with(": served"));
}

/// Linux interrupts a call with a time limit when a program is suspended.
#[test]
fn a_suspended_server_still_waits_for_the_byte() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let process = format!("/proc/{}", server.id());
    let count = || fs::read_dir(format!("{process}/fd")).unwrap().count();
    let before = count();
    let mut stream = connect(&name);
    for _ in 0..3 {
        // It has accepted the connection, and sleeps.
        let sleeps = || {
            let status = fs::read_to_string(format!("{process}/status"));
            count() > before && status.unwrap().contains("State:\tS")
        };
        assert!(server.becomes_ready(sleeps), "it has ended");
        server.suspend();
        server.resume();
    }
    send(&stream, &[]).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(server.stderr_line().ends_with(": served"));
}

/// Then the next call has the whole time limit again.
#[test]
fn a_server_that_is_suspended_again_and_again_still_leaves_who_sends_nothing() {
    let name = unused_name();
    let server = start(&name, &[]);
    let mut silent = connect(&name);
    silent.set_nonblocking(true).unwrap();
    let begin = Instant::now();
    while silent.read(&mut [0]).is_err() {
        assert!(begin.elapsed() < LIMIT, "its patience does not end");
        thread::sleep(Duration::from_millis(300));
        server.suspend();
        server.resume();
    }
}

/// Returns a listener of the test itself, and the command of a client that asks there.
fn impostor() -> (UnixListener, Command) {
    let name = unused_name();
    let addr = SocketAddr::from_abstract_name(&name[1..]).unwrap();
    (UnixListener::bind_addr(&addr).unwrap(), client(&name, &[]))
}

#[test]
fn an_answer_without_end_is_not_taken_into_memory() {
    let (listener, mut client) = impostor();
    let client = Running::start(&mut client);
    let (mut stream, _) = listener.accept().unwrap();
    let sent = (0..1 << 20).take_while(|_| stream.write_all(&[b'x'; 1024]).is_ok());
    assert!(sent.count() < 1 << 20, "it reads a gigabyte");
    client
        .finish()
        .assert_failed("Error: cannot get an answer from ");
}

/// One stdout is full, and one is open for reading alone. The answer has no newline, for which
/// std's own stdout would wait.
#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    for stdout in [File::create("/dev/full"), File::open("/dev/null")] {
        let (listener, mut client) = impostor();
        let client = Running::start_with(&mut client, stdout.unwrap().into(), Stdio::piped());
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"no newline").unwrap();
        drop(stream);
        client
            .finish()
            .assert_failed("Error: cannot write to stdout\n");
    }
}

#[test]
fn a_message_that_cannot_be_sent_is_an_error() {
    if !harness::can_trace() {
        return;
    }
    let (_listener, client) = impostor();
    let mut strace = Command::new("strace");
    strace.args([
        "-D",
        "-o",
        "/dev/null",
        "-e",
        "inject=sendmsg:error=ENOBUFS",
    ]);
    strace.arg(client.get_program()).args(client.get_args());
    let client = run(strace.env_remove("RUST_BACKTRACE"), b"");
    client.assert_failed("Error: cannot get an answer from ");
    client.assert_stderr("0: cannot send\n    1: No buffer space available");
}

#[test]
fn names_that_are_not_utf_8_stay_different() {
    let name = unused_name();
    let name = |last| OsString::from_vec([name.as_bytes(), &[last]].concat());
    let (listens, other) = (name(0xff), name(0xfd));
    let mut server = example();
    let mut server = Running::start(server.args(["server", "--path"]).arg(&listens));
    server.announced();
    let ask = |name| run(example().args(["client", "--path"]).arg(name), b"");
    assert_eq!(ask(&listens).code, Some(0));
    ask(&other).assert_failed("Error: cannot reach ");
}

#[test]
fn a_client_that_leaves_at_once_does_not_end_it() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    for _ in 0..10 {
        let stream = connect(&name);
        send(&stream, &[]).unwrap();
        drop(stream);
        assert!(server.stderr_line().starts_with(&own(process::id())));
    }
    assert_eq!(passed(&mut server, &name, &[]), "");
}

/// The server is in a namespace that has no number for the client's process.
#[test]
fn a_process_that_the_server_cannot_see_is_number_0() {
    let name = unused_name();
    let flags = "-rp --fork --kill-child";
    let Some(mut command) = harness::unshared(flags, "true", &server(&name, &[])) else {
        return;
    };
    let mut server = announced(&mut command, &name);
    let finished = run(&mut client(&name, &[]), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(server.stderr_line(), "uid 0, gid 0, pid 0: served");
}

#[test]
fn everybody_may_write_to_its_file_because_the_kernel_says_who_it_is() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let name = path.to_str().unwrap();
    let _server = start(name, &[]);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o666
    );
    let second = run(&mut server(name, &[]), b"");
    second.assert_failed(&format!("Error: cannot listen on {name}\n"));
}

#[test]
fn the_client_says_what_it_cannot_do() {
    let name = unused_name();
    let finished = run(&mut client(&name, &[]), b"");
    finished.assert_failed(&format!("Error: cannot reach {name}\n"));
    let nowhere = run(&mut server("/no/such/directory/s", &[]), b"");
    nowhere.assert_failed("Error: cannot listen on /no/such/directory/s\n");
    let _server = start(&name, &[]);
    let finished = run(&mut client(&name, &["/no/such/file"]), b"");
    finished.assert_failed("Error: cannot open /no/such/file\n");
    let second = run(&mut server(&name, &[]), b"");
    second.assert_failed(&format!("Error: cannot listen on {name}\n"));
    harness::assert_refuses(
        || client(&name, &[]),
        &[
            (["--allow", "-1"], "unexpected argument"),
            (["--allow", "root"], "invalid"),
        ],
    );
}

/// The kernel remembers who connected, not who uses the connection now.
#[test]
fn a_connection_that_is_passed_on_keeps_the_credentials_of_who_connected() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let stream = connect(&name);
    let mut script = Command::new("sh");
    let child = script.args(["-c", "printf '?'; cat"]);
    let ends = stream.try_clone().unwrap();
    let child = child
        .stdout(OwnedFd::from(stream))
        .stdin(process::Stdio::null());
    assert!(child.status().unwrap().success());
    let mut answer = String::new();
    (&ends).read_to_string(&mut answer).unwrap();
    let own = own(process::id());
    assert_eq!(answer, format!("you are {own}\n"));
    assert_eq!(server.stderr_line(), format!("{own}: served"));
    let _ = (&ends).write_all(b"too late");
}
