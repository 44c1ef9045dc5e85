//! What every client of streams promises, shown by servers that are good, slow, silent, or
//! close too early.

use std::io::Write;
use std::net::TcpListener;
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Running, patience, try_run};
use tempfile::TempDir;

use crate::{Broken, Kept, Ours, Reach, Said, Stream, Subject};

promises! {
    anybody: [
        it_half_closes_and_still_prints_what_comes_after,
        what_comes_is_printed_at_once_also_without_a_newline,
    ],
    ours: [
        a_server_that_closes_early_is_told_with_what_came_back,
        a_server_that_closes_while_we_still_type_ends_the_client,
        a_server_that_leaves_in_the_middle_of_much_is_told,
        once_all_is_sent_a_silent_server_is_given_up,
        a_server_that_gives_all_back_but_never_closes_is_given_up_too,
        the_time_limit_begins_when_all_is_sent,
        a_server_that_drips_within_the_time_limit_is_waited_for,
        #[cfg(unix)] a_reader_that_has_gone_is_an_error_and_not_a_panic,
        #[cfg(unix)] a_stdin_that_cannot_be_read_is_told,
        #[cfg(unix)] a_stdout_that_cannot_be_written_is_an_error,
        each_answer_begins_the_time_limit_anew,
        a_silent_server_is_given_up_as_soon_as_the_limit_has_passed,
        #[cfg(unix)] to_be_suspended_does_not_prolong_the_time_limit,
        #[cfg(unix)] what_came_while_it_was_suspended_is_in_time,
    ],
}

/// A server that the test plays.
enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, TempDir),
}

impl Listener {
    fn new(reach: Reach) -> Result<Listener, Broken> {
        match reach {
            #[cfg(unix)]
            Reach::UnixStream => {
                let folder = harness::folder();
                let listener = UnixListener::bind(folder.path().join("s"))?;
                Ok(Listener::Unix(listener, folder))
            }
            _ => Ok(Listener::Tcp(TcpListener::bind("127.0.0.1:0")?)),
        }
    }

    fn addr(&self) -> Result<String, Broken> {
        match self {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            #[cfg(unix)]
            Listener::Unix(_, folder) => Ok(folder.path().join("s").to_string_lossy().into_owned()),
        }
    }

    fn accept(&self) -> Result<Stream, Broken> {
        let stream = match self {
            Listener::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            #[cfg(unix)]
            Listener::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
        };
        stream.set_read_timeout(Some(patience()))?;
        Ok(stream)
    }
}

/// Starts the client and accepts its connection. Returns the address as well.
fn accept_at(subject: &Subject, args: &[&str]) -> Result<(Running, Stream, String), Broken> {
    let listener = Listener::new(subject.reach)?;
    let addr = listener.addr()?;
    let client = Running::start(subject.at(&addr).args(args));
    Ok((client, listener.accept()?, addr))
}

fn accept_from(subject: &Subject, args: &[&str]) -> Result<(Running, Stream), Broken> {
    let (client, stream, _) = accept_at(subject, args)?;
    Ok((client, stream))
}

pub fn it_half_closes_and_still_prints_what_comes_after(subject: &Subject) -> Kept {
    let (mut client, stream) = accept_from(subject, &[])?;
    client.write(b"hello\n");
    client.stdin = None;
    ensure_eq!(stream.receive_all()?, b"hello\n");
    for part in [b"good", b"bye!"] {
        thread::sleep(Duration::from_millis(100));
        stream.send(part)?;
    }
    drop(stream);
    let client = client.try_finish()?;
    client.printed(b"goodbye!")
}

pub fn what_comes_is_printed_at_once_also_without_a_newline(subject: &Subject) -> Kept {
    let (mut client, stream) = accept_from(subject, &[])?;
    for bytes in [&b"no newline"[..], b"\xff\x00\x1b"] {
        stream.send(bytes)?;
        ensure_eq!(client.try_stdout_bytes(bytes.len())?, bytes);
    }
    Ok(())
}

pub fn a_server_that_closes_early_is_told_with_what_came_back(ours: &Ours) -> Kept {
    let (client, stream, addr) = accept_at(ours, &["hello", "world"])?;
    ensure_eq!(stream.receive_all()?, b"hello\nworld\n");
    stream.send(b"hel")?;
    drop(stream);
    let client = client.try_finish()?;
    ensure_eq!((client.code, &client.stdout[..]), (Some(1), &b"hel"[..]));
    let error = format!(
        "Error: cannot get everything back from {addr}: 3 of 12 bytes came back\n\nCaused by:\n    the server closed the connection\n"
    );
    ensure!(client.stderr.starts_with(&error), "{}", client.stderr);
    Ok(())
}

pub fn a_server_that_closes_while_we_still_type_ends_the_client(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &[])?;
    client.write(b"hello\n");
    stream.send(&stream.receive(6)?)?;
    drop(stream);
    ensure_eq!(client.try_stdout_line()?, "hello");
    let stdin = client.stdin.take(); // It stays open, and the client must still end.
    let client = client.try_finish()?;
    ensure_eq!(client.code, Some(1));
    client.says("6 of 6 bytes came back\n\nCaused by:\n    the server closed the connection before everything was sent")?;
    drop(stdin);
    Ok(())
}

pub fn a_server_that_leaves_in_the_middle_of_much_is_told(ours: &Ours) -> Kept {
    let listener = Listener::new(ours.reach)?;
    let mut command = ours.at(&listener.addr()?);
    let server = thread::spawn(move || {
        let stream = listener.accept()?;
        stream.receive(100_000)?;
        stream.send(&[b'x'; 50_000])
        // Bytes are still unread when the connection is closed, so it is reset.
    });
    let client = try_run(&mut command, &vec![b'x'; 16 << 20])?;
    let served = server.join();
    served.unwrap_or_else(|_| Err(Broken::Means("the server of the test".to_owned())))?;
    ensure_eq!(client.code, Some(1));
    client.says(" bytes came back")?;
    ensure!(!client.stderr.contains("panicked"), "{}", client.stderr);
    Ok(())
}

pub fn once_all_is_sent_a_silent_server_is_given_up(ours: &Ours) -> Kept {
    let (client, stream) = accept_from(ours, &["--timeout", "0.3", "hello"])?;
    ensure_eq!(stream.receive_all()?, b"hello\n");
    let client = client.try_finish()?;
    ensure_eq!(client.code, Some(1));
    client.says("0 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms")
}

pub fn a_server_that_gives_all_back_but_never_closes_is_given_up_too(ours: &Ours) -> Kept {
    let (client, stream) = accept_from(ours, &["--timeout", "0.3", "hello"])?;
    stream.send(&stream.receive_all()?)?;
    let client = client.try_finish()?;
    ensure_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b"hello\n"[..])
    );
    client.says("6 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms")
}

pub fn the_time_limit_begins_when_all_is_sent(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &["--timeout", "2"])?;
    thread::sleep(Duration::from_millis(3500)); // Longer than the limit, but stdin is open.
    client.write(b"patience\n");
    client.stdin = None;
    let line = stream.receive_all()?;
    thread::sleep(Duration::from_millis(1000)); // Shorter than the limit.
    stream.send(&line)?;
    drop(stream);
    client.try_finish()?.printed(b"patience\n")
}

pub fn a_server_that_drips_within_the_time_limit_is_waited_for(ours: &Ours) -> Kept {
    let (client, stream) = accept_from(ours, &["--timeout", "2", "drip"])?;
    for byte in stream.receive_all()? {
        thread::sleep(Duration::from_millis(600));
        stream.send(&[byte])?;
    }
    drop(stream);
    client.try_finish()?.printed(b"drip\n")
}

/// Its stdin goes on meanwhile.
#[cfg(unix)]
pub fn a_reader_that_has_gone_is_an_error_and_not_a_panic(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &[])?;
    client.write(b"first\n");
    stream.send(&stream.receive(6)?)?;
    ensure_eq!(client.try_stdout_line()?, "first");
    client.close_stdout();
    let stdin = client.stdin.take();
    let writer = thread::spawn(move || {
        let Some(mut stdin) = stdin else { return };
        while stdin.write_all(b"more\n").is_ok() {}
    });
    let echo = thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    let client = client.try_finish()?;
    let _ = (writer.join(), echo.join());
    client.failed("Error: cannot get everything back from ")?;
    client.says("0: cannot write to stdout\n    1: Broken pipe")
}

#[cfg(unix)]
pub fn a_stdin_that_cannot_be_read_is_told(ours: &Ours) -> Kept {
    let listener = Listener::new(ours.reach)?;
    let folder = std::fs::File::open("/")?;
    let client = Running::start_with_stdin(&mut ours.at(&listener.addr()?), folder);
    listener.accept()?.receive_all()?;
    let client = client.try_finish()?;
    ensure_eq!(client.code, Some(1));
    client.says("0 of 0 bytes came back\n\nCaused by:\n")?;
    client.says("cannot read stdin")?;
    client.says("Is a directory")
}

/// A shell that redirects with `<` opens stdout for reading. Every write then fails (EBADF).
#[cfg(unix)]
pub fn a_stdout_that_cannot_be_written_is_an_error(ours: &Ours) -> Kept {
    let listener = Listener::new(ours.reach)?;
    let stdout = std::fs::File::open("/dev/null")?.into();
    let mut command = ours.at(&listener.addr()?);
    let client = Running::start_with(command.arg("hello"), stdout, std::process::Stdio::piped());
    let stream = listener.accept()?;
    stream.send(&stream.receive_all()?)?;
    let client = client.try_finish()?;
    client.failed("Error: cannot get everything back from ")?;
    client.says("0: cannot write to stdout\n    1: Bad file descriptor")
}

/// The client learns that a limit has passed only when a read ends. So after a pause in which there was
/// more to send, the last reads have a shorter limit, and each answer begins a new one.
pub fn each_answer_begins_the_time_limit_anew(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &["--timeout", "2"])?;
    // The first read ends after two seconds, when there is more to send; the second after four.
    thread::sleep(Duration::from_millis(3000));
    client.write(b"ab");
    client.stdin = None;
    // The limit passes after five seconds.
    for byte in stream.receive_all()? {
        thread::sleep(Duration::from_millis(1600));
        stream.send(&[byte])?;
    }
    drop(stream);
    client.try_finish()?.printed(b"ab")
}

pub fn a_silent_server_is_given_up_as_soon_as_the_limit_has_passed(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &["--timeout", "3"])?;
    thread::sleep(Duration::from_millis(500));
    client.write(b"hello");
    client.stdin = None;
    stream.receive_all()?;
    let started = Instant::now();
    ensure_eq!(client.try_finish()?.code, Some(1));
    let time = started.elapsed();
    ensure!(time < Duration::from_millis(5900), "after {time:?}");
    Ok(())
}

/// Linux interrupts a call with a time limit each time. If the call then began anew, the limit would
/// never pass here.
#[cfg(unix)]
pub fn to_be_suspended_does_not_prolong_the_time_limit(ours: &Ours) -> Kept {
    let (mut client, stream) = accept_from(ours, &["--timeout", "0.5", "hello"])?;
    ensure_eq!(stream.receive_all()?, b"hello\n");
    let deadline = Instant::now() + patience();
    while client.is_running() {
        ensure!(Instant::now() < deadline, "it has not ended");
        client.suspend();
        client.resume();
        thread::sleep(Duration::from_millis(20));
    }
    let client = client.try_finish()?;
    ensure_eq!(client.code, Some(1));
    client.says("0 of 6 bytes came back\n\nCaused by:\n    nothing came for 500ms")
}

/// The client is suspended for longer than its time limit.
#[cfg(unix)]
pub fn what_came_while_it_was_suspended_is_in_time(ours: &Ours) -> Kept {
    let (client, stream) = accept_from(ours, &["--timeout", "1", "hello"])?;
    let line = stream.receive_all()?;
    thread::sleep(Duration::from_millis(300)); // It must have noticed that all is sent.
    client.suspend();
    stream.send(&line)?;
    drop(stream);
    thread::sleep(Duration::from_millis(1500));
    client.resume();
    client.try_finish()?.printed(b"hello\n")
}
