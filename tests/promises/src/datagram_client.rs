//! What every client of datagrams promises, shown by servers that are late, silent or wrong.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Running, patience};
use tempfile::TempDir;

use crate::{Broken, Kept, Ours, Promised, Reach, Said, uninterrupted};

promises! {
    anybody: [],
    ours: [
        a_stream_of_wrong_answers_cannot_hold_it_beyond_its_deadline,
        an_answer_that_comes_while_it_is_suspended_is_not_lost,
        a_stdout_that_cannot_be_written_is_an_error_and_not_a_panic,
        being_suspended_again_and_again_neither_ends_nor_prolongs_the_wait,
    ],
}

/// Sends a client a datagram.
type Reply = Box<dyn Fn(&[u8])>;

/// A client that has asked a server, which the test plays.
struct Asked {
    client: Running,
    reply: Reply,
    /// The answer for which the client waits.
    right: Vec<u8>,
    _folder: TempDir,
}

/// Returns the right answer to what a client has asked.
pub fn right_answer(ours: &Ours, question: &[u8]) -> Vec<u8> {
    let mut right = question.to_vec();
    if ours.name == "dns" {
        // RFC 1035, 4.1: a response with one answer, which has the name, the type and the class of
        // the question, a time to live, and an address.
        right[2] |= 0x80;
        right[7] = 1;
        right.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 7]);
    }
    right
}

/// What a client prints then.
pub fn printed(ours: &Ours) -> &'static str {
    if ours.name == "dns" {
        "192.0.2.7\n"
    } else {
        "hello\n"
    }
}

/// Starts a client with a time limit, and waits until it has asked.
fn asked(ours: &Ours, seconds: &str) -> Result<Asked, Broken> {
    asked_with_stdout(Stdio::piped(), ours, seconds)
}

fn asked_with_stdout(stdout: Stdio, ours: &Ours, seconds: &str) -> Result<Asked, Broken> {
    let start = |addr: &str| {
        let mut client = ours.asking(addr);
        client.args(["--timeout", seconds]);
        if ours.name == "udp_client" {
            client.args(["--attempts", "1"]);
        }
        Running::start_with(&mut client, stdout, Stdio::piped())
    };
    let folder = harness::folder();
    let mut question = vec![0; 512];
    let (client, len, reply): (_, _, Reply) = if ours.reach == Reach::UnixDatagram {
        let path = folder.path().join("s");
        let server = UnixDatagram::bind(&path)?;
        server.set_read_timeout(Some(patience()))?;
        let client = start(&path.to_string_lossy());
        let (len, peer) =
            uninterrupted(|| server.recv_from(&mut question)).promised("a question")?;
        server.set_nonblocking(true)?; // A client that does not read is no reason to wait.
        let reply = move |answer: &[u8]| drop(server.send_to_addr(answer, &peer));
        (client, len, Box::new(reply))
    } else {
        let (listens, asks) = match &*ours.name {
            "one_to_many" => ("0.0.0.0:0", "127.255.255.255"),
            _ => ("127.0.0.1:0", "127.0.0.1"),
        };
        let server = UdpSocket::bind(listens)?;
        server.set_read_timeout(Some(patience()))?;
        let client = start(&format!("{asks}:{}", server.local_addr()?.port()));
        let (len, peer) =
            uninterrupted(|| server.recv_from(&mut question)).promised("a question")?;
        let reply = move |answer: &[u8]| drop(server.send_to(answer, peer));
        (client, len, Box::new(reply))
    };
    Ok(Asked {
        client,
        reply,
        right: right_answer(ours, &question[..len]),
        _folder: folder,
    })
}

/// Does something again and again until the client gives up, which it must do.
fn gives_up(mut asked: Asked, mut again: impl FnMut(&Asked)) -> Kept {
    let started = Instant::now();
    while asked.client.is_running() {
        ensure!(started.elapsed() < patience(), "it waits on and on");
        again(&asked);
    }
    let client = asked.client.try_finish()?;
    client.failed("")?;
    client.says("Error: cannot get an answer from ")
}

pub fn a_stream_of_wrong_answers_cannot_hold_it_beyond_its_deadline(ours: &Ours) -> Kept {
    let asked = asked(ours, "0.3")?;
    let mut wrong = asked.right.clone();
    wrong[0] ^= 1;
    gives_up(asked, |asked| {
        (asked.reply)(&wrong);
        thread::sleep(Duration::from_millis(1));
    })
}

/// The answer comes twice. Who asks one server needs it once.
pub fn an_answer_that_comes_while_it_is_suspended_is_not_lost(ours: &Ours) -> Kept {
    let asked = asked(ours, "2")?;
    // At least once it most likely waits in its system call.
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(20));
        asked.client.suspend();
        asked.client.resume();
    }
    asked.client.suspend();
    (asked.reply)(&asked.right);
    (asked.reply)(&asked.right);
    thread::sleep(Duration::from_millis(2200)); // The deadline passes.
    asked.client.resume();
    let times = if ours.name == "one_to_many" { 2 } else { 1 };
    let printed = printed(ours).repeat(times);
    asked.client.try_finish()?.printed(printed.as_bytes())
}

/// A shell that redirects with `<` opens stdout for reading. Every write then fails (EBADF).
pub fn a_stdout_that_cannot_be_written_is_an_error_and_not_a_panic(ours: &Ours) -> Kept {
    let without_reader = OwnedFd::from(UnixStream::pair()?.0);
    let for_reading = File::open("/dev/null")?.into();
    for stdout in [without_reader, for_reading] {
        let asked = asked_with_stdout(stdout.into(), ours, "10")?;
        (asked.reply)(&asked.right);
        let client = asked.client.try_finish()?;
        client.failed("Error: cannot write to stdout\n")?;
    }
    Ok(())
}

/// Linux interrupts a call with a time limit each time.
pub fn being_suspended_again_and_again_neither_ends_nor_prolongs_the_wait(ours: &Ours) -> Kept {
    gives_up(asked(ours, "0.5")?, |asked| {
        asked.client.suspend();
        asked.client.resume();
        // This is much less than the time limit, but even a slow machine can run the client in
        // between.
        thread::sleep(Duration::from_millis(50));
    })
}
