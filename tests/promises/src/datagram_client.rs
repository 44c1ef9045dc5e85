//! What every client of datagrams promises, shown by servers that are late, silent or wrong.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running};
use tempfile::TempDir;

use crate::{Broken, Kept, Ours, Promised, Reach, Said};

promises! {
    anybody: [],
    ours: [
        a_stream_of_wrong_answers_cannot_hold_it_beyond_its_deadline,
        an_answer_that_comes_while_it_is_suspended_is_not_lost,
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
    /// What it prints then.
    printed: &'static [u8],
    _folder: TempDir,
}

/// Starts a client with a time limit, and waits until it has asked.
fn asked(ours: &Ours, seconds: &str) -> Result<Asked, Broken> {
    let (args, printed): (&[&str], &[u8]) = match &*ours.name {
        "dns" => (&["name.test"], b"192.0.2.7\n"),
        "udp_client" => (&["--attempts", "1", "hello"], b"hello\n"),
        _ => (&["hello"], b"hello\n"),
    };
    let start = |addr: &str| {
        let mut client = ours.at(addr);
        Running::start(client.args(["--timeout", seconds]).args(args))
    };
    let folder = harness::folder();
    let mut question = vec![0; 512];
    let (client, len, reply): (_, _, Reply) = if ours.reach == Reach::UnixDatagram {
        let path = folder.path().join("s");
        let server = UnixDatagram::bind(&path)?;
        server.set_read_timeout(Some(LIMIT))?;
        let client = start(&path.to_string_lossy());
        let (len, peer) = server.recv_from(&mut question).promised("a question")?;
        server.set_nonblocking(true)?; // A client that does not read is no reason to wait.
        let reply = move |answer: &[u8]| drop(server.send_to_addr(answer, &peer));
        (client, len, Box::new(reply))
    } else {
        let (listens, asks) = match &*ours.name {
            "one_to_many" => ("0.0.0.0:0", "127.255.255.255"),
            _ => ("127.0.0.1:0", "127.0.0.1"),
        };
        let server = UdpSocket::bind(listens)?;
        server.set_read_timeout(Some(LIMIT))?;
        let client = start(&format!("{asks}:{}", server.local_addr()?.port()));
        let (len, peer) = server.recv_from(&mut question).promised("a question")?;
        let reply = move |answer: &[u8]| drop(server.send_to(answer, peer));
        (client, len, Box::new(reply))
    };
    let mut right = question[..len].to_vec();
    if ours.name == "dns" {
        // RFC 1035, 4.1: a response with one answer, which has the name, the type and the class of
        // the question, a time to live, and an address.
        right[2] |= 0x80;
        right[7] = 1;
        right.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 7]);
    }
    Ok(Asked {
        client,
        reply,
        right,
        printed,
        _folder: folder,
    })
}

/// Does something again and again until the client gives up, which it must do.
fn gives_up(mut asked: Asked, mut again: impl FnMut(&Asked)) -> Kept {
    let started = Instant::now();
    while asked.client.is_running() {
        ensure!(started.elapsed() < LIMIT, "it waits on and on");
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

pub fn an_answer_that_comes_while_it_is_suspended_is_not_lost(ours: &Ours) -> Kept {
    let asked = asked(ours, "1")?;
    thread::sleep(Duration::from_millis(100)); // By then it most likely waits in its system call.
    asked.client.suspend();
    (asked.reply)(&asked.right);
    thread::sleep(Duration::from_millis(1200)); // The deadline passes.
    asked.client.resume();
    asked.client.try_finish()?.printed(asked.printed)
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
