//! The example `credentials` of `unix-echo`: whom the kernel names, and whom the server serves.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use harness::{LIMIT, Running, example_of, not_run, run};
use rustix::process::{getegid, geteuid};

use super::pass_descriptor::{pipe, send};

/// A user who never runs anything here.
pub const STRANGER: &str = "4000000001";

fn example() -> Command {
    example_of("unix-echo", "credentials")
}

/// Returns an abstract name that nobody else uses, without the `@` before it.
pub fn unused_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    format!("credentials {} {number}", process::id())
}

pub fn in_role(mut command: Command, role: &str, name: &str, options: &[&str]) -> Command {
    command.args([role, "--name", name]).args(options);
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

pub fn announced(command: &mut Command, name: &str) -> Running {
    let mut server = Running::start(command);
    assert_eq!(server.announced(), format!("@{name}"));
    server
}

/// How the kernel names a process of the same user as the tests.
fn own(pid: u32) -> String {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    format!("uid {uid}, gid {gid}, pid {pid}")
}

pub fn connect(name: &str) -> UnixStream {
    let addr = SocketAddr::from_abstract_name(name).unwrap();
    let stream = UnixStream::connect_addr(&addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
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

/// Asks as a client that is refused.
fn is_refused(mut client: Command, name: &str) {
    run(&mut client, b"").assert_failed(&format!(
        "Error: cannot get an answer from @{name}\n\nCaused by:\n    it may not serve your user\n"
    ));
}

#[test]
fn who_is_not_allowed_is_told_nothing() {
    let name = unused_name();
    let mut server = start(&name, &["--allow", STRANGER]);
    let mut answer = Vec::new();
    connect(&name).read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    let line = server.stderr_line();
    assert_eq!(line, format!("{}: refused", own(process::id())));
    is_refused(client(&name, &[]), &name);
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
    let (_folder, copy) = harness::copy_of(&example());
    let name = unused_name();
    let mut server = start(&name, &[]);
    ask_as_nobody(&copy, &name).assert_failed("Error: cannot get an answer");
    let line = server.stderr_line();
    assert!(line.starts_with("uid 65534, gid 65534, pid "), "{line}");
    assert!(line.ends_with(": refused"), "{line}");

    // Two of them: with --allow, root is not served any more.
    let name = unused_name();
    let _server = start(&name, &["--allow", STRANGER, "--allow", "65534"]);
    let finished = ask_as_nobody(&copy, &name);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    is_refused(client(&name, &[]), &name);
}

#[test]
fn a_client_does_not_read_from_a_server_that_it_does_not_trust() {
    let name = unused_name();
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&addr).unwrap();
    let client = Running::start(&mut client(&name, &["--allow", STRANGER]));
    let uid = geteuid().as_raw();
    // It does not even wait for an answer.
    client.finish().assert_failed(&format!(
        "Error: cannot get an answer from @{name}\n\nCaused by:\n    \
         its server is {}; if you trust it, add --allow {uid}\n",
        own(process::id())
    ));
    drop(listener);
}

#[test]
fn what_a_client_passes_is_closed() {
    let name = unused_name();
    for options in [&[][..], &["--allow", STRANGER]] {
        let mut server = start(&name, options);
        let (mut reader, writer) = pipe();
        for _ in 0..10 {
            // An error means that the server was faster.
            let _ = send(&connect(&name), &[&[writer.as_raw_fd(); 10]]);
            server.stderr_line();
        }
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}

/// Returns a stream with bytes that its peer never reads.
pub fn stream_that_cannot_deliver(peer: &TcpListener) -> TcpStream {
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
/// survives.
pub fn make_close_wait(stream: &TcpStream) {
    let wait = Some(Duration::from_secs(20));
    socket2::SockRef::from(stream).set_linger(wait).unwrap();
}

/// The server has the last descriptor of the socket, because its client comes while it is
/// suspended.
#[test]
fn nobody_can_hold_it_up_with_a_socket_whose_close_waits() {
    for options in [&[][..], &["--allow", STRANGER]] {
        let name = unused_name();
        let mut server = start(&name, options);
        let peer = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = stream_that_cannot_deliver(&peer);
        server.suspend();
        let first = connect(&name);
        send(&first, &[&[socket.as_raw_fd()]]).unwrap();
        make_close_wait(&socket);
        drop(socket);
        server.resume();
        server.stderr_line();
        let mut next = connect(&name);
        next.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        next.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn a_client_that_neither_sends_nor_reads_does_not_hold_it_up() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    let _silent = connect(&name);
    let next = run(&mut client(&name, &[]), b"");
    assert_eq!(next.code, Some(0), "{next:?}");
    assert_eq!(
        server.stderr_line(),
        format!("{}: served", own(process::id()))
    );
}

#[test]
fn a_client_that_leaves_at_once_does_not_end_it() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    for _ in 0..10 {
        server.suspend();
        drop(connect(&name));
        server.resume();
        assert_eq!(
            server.stderr_line(),
            format!(
                "{}: cannot send the answer: Broken pipe (os error 32)",
                own(process::id())
            )
        );
    }
    let next = run(&mut client(&name, &[]), b"");
    assert_eq!(next.code, Some(0), "{next:?}");
}

#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    let name = unused_name();
    let _server = start(&name, &[]);
    let full = File::create("/dev/full").unwrap().into();
    let client = Running::start_with(&mut client(&name, &[]), full, Stdio::piped());
    client
        .finish()
        .assert_failed("Error: cannot write to stdout\n");
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
fn what_it_cannot_do_is_told() {
    let name = unused_name();
    let finished = run(&mut client(&name, &[]), b"");
    finished.assert_failed(&format!("Error: cannot reach @{name}\n"));
    let long = "x".repeat(108);
    let finished = run(&mut client(&long, &[]), b"");
    finished.assert_failed(&format!("Error: cannot use the name {long:?}\n"));
    let _server = start(&name, &[]);
    let second = run(&mut server(&name, &[]), b"");
    second.assert_failed(&format!("Error: cannot listen on @{name}\n"));
    harness::assert_refuses(
        || client(&name, &[]),
        &[
            (["--allow", "-1"], "unexpected argument"),
            (["--allow", "root"], "invalid"),
        ],
    );
}

/// The kernel remembers who connected, not who uses the connection when the server asks.
#[test]
fn a_connection_that_is_passed_on_keeps_the_credentials_of_who_connected() {
    let name = unused_name();
    let mut server = start(&name, &[]);
    server.suspend();
    let stream = OwnedFd::from(connect(&name));
    let child = Command::new("cat")
        .stdin(stream)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    server.resume();
    let answer = child.wait_with_output().unwrap().stdout;
    let own = own(process::id());
    assert_eq!(answer, format!("you are {own}\n").as_bytes());
    assert_eq!(server.stderr_line(), format!("{own}: served"));
}
