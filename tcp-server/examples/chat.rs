//! A chat. What a member says reaches all others, and nobody waits for one who does not read.
//!
//! ```console
//! $ cargo run -p tcp-server --example chat                           # terminal 1
//! listening on 127.0.0.1:7007
//! 127.0.0.1:41234: anna joined
//! 127.0.0.1:41234: anna left
//! ```
//!
//! ```console
//! $ echo hello | cargo run -p tcp-client --example chat -- anna      # terminal 2
//! * here: nobody
//! * anna left
//! ```
//!
//! A message is a line. The first that a client sends is its name. Lines that begin with `*` or
//! `!` are the server's: no name begins so, and the server puts the name before each line that it
//! passes on. What a terminal would obey rather than show, such as an escape sequence, is passed
//! on as `\u{1b}`.
//!
//! Whoever passes something on must decide what to do about a reader who is too slow. There are
//! four answers: wait for it, and then one member can stop all others; drop its lines; keep them,
//! and then one member can use up the memory; or end it. This server ends it. Each member has a
//! queue of 64 lines (and the kernel has its buffers), from which a thread writes. A line that
//! finds the queue full ends the membership. So nobody waits, and the memory has a bound.
//!
//! Try next:
//!
//! - Join from three terminals, without `echo`, and talk.
//! - Suspend the client of anna with Ctrl-Z, and let another say long lines:
//!   `yes "$(seq -s ' ' 260)" | cargo run -p tcp-client --example chat -- carl`. After a minute,
//!   which is some megabytes, the members that read see `* anna left: too slow`.
//! - `nc 127.0.0.1 7007` is a client as well. Type a name first.
//!
//! Read `tcp-server` and `lingering_close` first: what they explain is not explained again.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// How many bytes a line may have, without its end.
pub const MAX_LINE: usize = 1000;

/// How many lines may wait for a member.
const QUEUE: usize = 64;

/// How long a client may take for each piece of its name, and a write may move nothing.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the close waits for a client that still sends.
const LINGER: Duration = Duration::from_secs(2);

/// The pause after each line of a member. Who sends a whole text at once must not fill the queues
/// faster than the threads of the others can write: 64 lines take a third of a second.
const PAUSE: Duration = Duration::from_millis(5);

/// The pause after an error of accept: one that comes again and again must not make us spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A chat: what one member says reaches all others
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 lets the kernel choose a port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// How many members there may be; further clients are sent away
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_members: u32,

    /// Do not log who joins and leaves
    #[arg(short, long)]
    quiet: bool,
}

/// The members. Each line is put into all queues under one lock, so all see the same order.
type Room = Mutex<Vec<Member>>;

struct Member {
    name: String,
    peer: SocketAddr,
    stream: Arc<TcpStream>,
    queue: SyncSender<Arc<str>>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let listener =
        TcpListener::bind(&args.addr).with_context(|| format!("cannot listen on {}", args.addr))?;
    let local = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    // println! would panic if nobody reads stdout any more. This does not.
    let _ = writeln!(io::stdout(), "listening on {local}");
    let room = Arc::new(Room::default());
    loop {
        let (stream, peer) = accept(&listener, args.quiet);
        // The thread of each client that has a place keeps a clone of the room, and we have one.
        let has_place = Arc::strong_count(&room) <= args.max_members as usize;
        let room = has_place.then(|| Arc::clone(&room));
        let work = move || match room {
            Some(room) => serve(&room, stream, peer, args.quiet),
            None => close(&stream, "! full"),
        };
        // thread::spawn would panic if the system has no thread left.
        if let Err(error) = thread::Builder::new().spawn(work) {
            log(args.quiet, format_args!("{peer}: no thread: {error}"));
        }
    }
}

/// Takes the next connection from the backlog.
fn accept(listener: &TcpListener, quiet: bool) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept() {
            Ok(connection) => return connection,
            Err(error) => {
                log(quiet, format_args!("cannot accept: {error}"));
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Serves a client from its name to the last word that it is told.
fn serve(room: &Room, stream: TcpStream, peer: SocketAddr, quiet: bool) {
    let stream = Arc::new(stream);
    let last_word = match member(room, &stream, peer, quiet) {
        Ok(name) => format!("* {name} left"),
        Err(why) => format!("! {why:#}"),
    };
    log(quiet, format_args!("{peer}: {}", &last_word[2..]));
    close(&stream, &last_word);
}

/// Lets a client be a member until it has no more to say. Returns its name.
fn member(room: &Room, stream: &Arc<TcpStream>, peer: SocketAddr, quiet: bool) -> Result<String> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut input = BufReader::new(&**stream);
    let name = read_name(&mut input)?;
    stream.set_read_timeout(None)?; // A member may be silent.
    let queue = join(room, &name, peer, stream)?;
    log(quiet, format_args!("{peer}: {name} joined"));
    thread::scope(|scope| {
        let write = || write_lines(stream, queue);
        let writer = thread::Builder::new().spawn_scoped(scope, write);
        let heard = match writer {
            Ok(_) => pass_on(room, &mut input, peer),
            Err(error) => Err(error.into()),
        };
        // This closes the queue. The writer still writes what is in it, and the scope waits.
        let was_member = leave(room, peer);
        heard?;
        ensure!(was_member, "too slow");
        Ok(name)
    })
}

fn read_name(input: &mut impl BufRead) -> Result<String> {
    let line = read_line(input)
        .context("no name came")?
        .unwrap_or_default();
    let name = String::from_utf8(line).unwrap_or_default();
    let is_allowed = |char: char| char.is_alphanumeric() || "-_".contains(char);
    ensure!(
        (1..=20).contains(&name.chars().count()) && name.chars().all(is_allowed),
        "a name has 1 to 20 letters, digits, - or _"
    );
    Ok(name)
}

/// Passes on each line of a member, as long as it is one.
fn pass_on(room: &Room, input: &mut impl BufRead, peer: SocketAddr) -> Result<()> {
    while let Some(line) = read_line(input)? {
        if !say(room, peer, &printable(&line)) {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Reads a line without its end (a newline, or CR and newline). Returns `None` at the end of the
/// stream. What stands before it without a newline is a line too.
pub fn read_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Without a limit, one line could fill the memory.
    let most = MAX_LINE as u64 + 2;
    input.take(most).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    ensure!(
        line.len() <= MAX_LINE,
        "a line has at most {MAX_LINE} bytes"
    );
    Ok(Some(line))
}

/// Escapes what is not text, and what a terminal obeys: control characters, and those that
/// reverse the direction of writing.
pub fn printable(line: &[u8]) -> String {
    let mut text = String::new();
    for chunk in line.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    text.extend(char.escape_unicode());
                }
                _ if char.is_control() => text.extend(char.escape_default()),
                _ => text.push(char),
            }
        }
        text += &chunk.invalid().escape_ascii().to_string();
    }
    text
}

fn join(
    room: &Room,
    name: &str,
    peer: SocketAddr,
    stream: &Arc<TcpStream>,
) -> Result<Receiver<Arc<str>>> {
    let mut members = lock(room);
    let is_taken = members.iter().any(|member| member.name == name);
    ensure!(!is_taken, "the name {name} is taken");
    tell(&mut members, None, &format!("* {name} joined"));
    let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
    let here = match &names[..] {
        [] => "nobody".to_owned(),
        names => names.join(", "),
    };
    let (queue, lines) = mpsc::sync_channel(QUEUE);
    let _ = queue.try_send(format!("* here: {here}\n").into()); // It is empty.
    members.push(Member {
        name: name.to_owned(),
        peer,
        stream: Arc::clone(stream),
        queue,
    });
    Ok(lines)
}

/// Tells all others what a member says. Returns whether it still is one.
fn say(room: &Room, peer: SocketAddr, text: &str) -> bool {
    let mut members = lock(room);
    let Some(speaker) = members.iter().find(|member| member.peer == peer) else {
        return false;
    };
    let line = format!("{}: {text}", speaker.name);
    tell(&mut members, Some(peer), &line);
    true
}

/// Returns whether it was a member until now.
fn leave(room: &Room, peer: SocketAddr) -> bool {
    let mut members = lock(room);
    let Some(number) = members.iter().position(|member| member.peer == peer) else {
        return false;
    };
    let name = members.remove(number).name;
    tell(&mut members, None, &format!("* {name} left"));
    true
}

/// Puts a line into the queues of all members but one, and cuts off whoever has no room for it.
fn tell(members: &mut Vec<Member>, but: Option<SocketAddr>, line: &str) {
    let line: Arc<str> = format!("{line}\n").into();
    let (slow, others) = members.drain(..).partition(|member| {
        Some(member.peer) != but
            && matches!(
                member.queue.try_send(Arc::clone(&line)),
                Err(TrySendError::Full(_))
            )
    });
    *members = others;
    let slow: Vec<Member> = slow;
    for member in slow {
        let _ = member.stream.shutdown(Shutdown::Read); // Its `read_line` returns the end.
        tell(members, None, &format!("* {} left: too slow", member.name));
    }
}

/// Writes the lines of a queue until it is closed.
fn write_lines(mut stream: &TcpStream, queue: Receiver<Arc<str>>) {
    for line in queue {
        if stream.write_all(line.as_bytes()).is_err() {
            // A line may have been written in part, so nothing may follow it.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Says a last word, and closes the connection so that it is not lost.
fn close(mut stream: &TcpStream, last_word: &str) {
    let said = stream.write_all(format!("{last_word}\n").as_bytes());
    let _ = said.and_then(|()| stream.shutdown(Shutdown::Write));
    let _ = stream.set_read_timeout(Some(LINGER));
    let deadline = Instant::now() + LINGER;
    let mut buffer = [0; 4096];
    while Instant::now() < deadline && matches!(stream.read(&mut buffer), Ok(1..)) {}
}

/// Waits until no other thread uses the room.
fn lock(room: &Room) -> MutexGuard<'_, Vec<Member>> {
    // lock() fails only if another thread has panicked while it had the lock. None does.
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to stderr with one system call, so that lines of different threads do not mix.
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}
