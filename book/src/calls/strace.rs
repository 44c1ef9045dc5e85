//! Runs a pair under strace(1) and reads what it saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::trace::{Event, Side, Trace, microseconds};
use harness::{LIMIT, Running, can_trace, inside, run, unshared};

/// The calls that say something to a reader. The others set time limits or ask for addresses.
const CALLS: &str =
    "trace=socket,socketpair,bind,connect,listen,accept4,sendto,write,recvfrom,shutdown,close";

/// What the server does while the client runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Condition {
    /// It serves.
    Serving,
    /// It is suspended before the client starts, and resumed after the client has given up.
    Suspended,
    /// There is none.
    Absent,
}

/// Runs a server and its client, each under strace, in a network namespace of their own. Prints
/// `NOT RUN` and returns `None` if this is not possible here.
pub fn record(server: &Command, client: &Command, condition: Condition) -> Option<Trace> {
    if !can_trace() {
        return None;
    }
    let folder = harness::folder();
    let [server_log, client_log] = ["server", "client"].map(|name| folder.path().join(name));
    let client = traced(client, &client_log);
    if condition == Condition::Absent {
        run(&mut alone(&client)?, b"");
        return Some(joined(vec![events(Side::Client, &client_log)]));
    }
    let mut running = Running::start(&mut alone(&traced(server, &server_log))?);
    running.announced();
    wait_until_idle(&server_log);
    if condition == Condition::Suspended {
        signal(&server_log, Signal::STOP);
        wait_for(&server_log, |log| log.contains("--- stopped by SIGSTOP"));
    }
    run(&mut inside(&running, &client), b"");
    if condition == Condition::Suspended {
        signal(&server_log, Signal::CONT);
        // A line for each of the two attempts.
        running.stderr_line();
        running.stderr_line();
    }
    wait_until_idle(&server_log);
    signal(&server_log, Signal::KILL);
    running.finish();
    let logs = [(Side::Client, client_log), (Side::Server, server_log)];
    let events = logs.iter().map(|(side, log)| events(*side, log));
    Some(joined(events.collect()))
}

/// Returns the command under strace, which writes the calls into a log: `-f` also those of all
/// threads, `-ttt` with the time, `-T` with how long each took, `-y` with what a descriptor is.
fn traced(command: &Command, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-ttt", "-T", "-y", "-qq", "-e", CALLS, "-o"]);
    strace.arg(log);
    strace.arg(command.get_program()).args(command.get_args());
    strace
}

/// Returns the command in its own network, where the port 7007 is free.
fn alone(command: &Command) -> Option<Command> {
    unshared("-rnm", "ip link set lo up", command)
}

/// Waits until a server waits for its next client: a receive of one thread has not returned, and the
/// other threads have closed the sockets of their clients. The main thread may do something else.
fn wait_until_idle(log: &Path) {
    let receives = |line: &str| line.contains(" recvfrom") || line.contains(" accept4");
    let waits = |line: &str| receives(line) && !line.contains(" = ");
    wait_for(log, |log| {
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        let main = lines.clone().next().map(|(thread, _)| thread);
        let last: BTreeMap<&str, &str> = lines.collect(); // Of each thread, the last line.
        let others = last.iter().filter(|(thread, _)| Some(**thread) != main);
        let are_idle = others
            .map(|(_, line)| *line)
            .all(|line| waits(line) || line.contains(" close"));
        are_idle && last.values().any(|line| waits(line))
    });
}

fn wait_for(log: &Path, is_reached: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let log = fs::read_to_string(log).unwrap();
        if is_reached(&log) {
            return;
        }
        assert!(Instant::now() < deadline, "still {log}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to the process whose id begins the log.
fn signal(log: &Path, signal: Signal) {
    let log = fs::read_to_string(log).unwrap();
    let id = log.split(' ').next().and_then(|id| id.parse().ok());
    kill_process(id.and_then(Pid::from_raw).unwrap(), signal).unwrap();
}

/// Joins the events of both sides. The first begins at 0. A call that does not return is the last: while
/// one thread serves a client, another can wait for the next.
fn joined(sides: Vec<Vec<Event>>) -> Trace {
    let mut events = sides.concat();
    events.sort_by_key(|event| (event.end.is_none(), event.start));
    let begin = events.first().map_or(0, |event| event.start);
    for event in &mut events {
        event.start -= begin;
        event.end = event.end.map(|end| end - begin);
    }
    Trace(events)
}

/// Reads a log, and leaves out what says nothing new.
fn events(side: Side, log: &Path) -> Vec<Event> {
    let mut seen = calls(side, &fs::read_to_string(log).unwrap());
    seen.sort_by_key(|(event, _)| event.start);
    // A program tells itself of signals through a pair of sockets.
    let is_pair = |(event, _): &&(Event, String)| event.call == "socketpair";
    let pairs: String = seen
        .iter()
        .filter(is_pair)
        .map(|(event, _)| event.argument.clone())
        .collect();
    seen.retain(|(_, socket)| socket.is_empty() || !pairs.contains(socket));
    // A socket that threads share is closed when the last of them closes it.
    let closes = seen.iter().filter(|(event, _)| event.call == "close");
    let last: BTreeMap<String, u64> = closes
        .map(|(event, socket)| (socket.clone(), event.start))
        .collect();
    seen.retain(|(event, socket)| event.call != "close" || last[socket] == event.start);
    let mut events: Vec<Event> = seen.into_iter().map(|(event, _)| event).collect();
    // After its time limit our client looks into the queue a last time.
    events.dedup_by(|event, before| event.outcome == "EAGAIN" && before.outcome == "EAGAIN");
    events
}

/// Returns the calls and signals of a log, each with its socket. A call that another thread or
/// a signal interrupts has several lines.
fn calls(side: Side, log: &str) -> Vec<(Event, String)> {
    let mut seen = Vec::new();
    let mut unfinished: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for line in log.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let (time, text) = rest.trim_start().split_once(' ').unwrap();
        let now = microseconds(time).unwrap();
        if text.starts_with("--- ") || text.starts_with("+++ ") {
            seen.extend(suspension(side, now, text));
            continue;
        }
        let (start, begun) = unfinished.remove(thread).unwrap_or((now, String::new()));
        let (entered, text) = match text.split_once(" resumed>") {
            Some((_, rest)) => (start, begun + rest.trim_start()),
            None => (now, text.to_owned()),
        };
        if let Some((begun, _)) = text.split_once("<unfinished ...>") {
            unfinished.insert(thread, (start, format!("{} ", begun.trim_end())));
        } else if text.contains(" = ? ERESTART") {
            // After the signal the kernel starts the call again by itself.
            unfinished.insert(thread, (start, String::new()));
        } else {
            seen.extend(event(side, start, entered, &text));
        }
    }
    for (start, text) in unfinished.into_values() {
        seen.extend(event(side, start, start, &text));
    }
    seen
}

/// Returns the event of a signal, if it suspends or resumes the program.
fn suspension(side: Side, now: u64, text: &str) -> Option<(Event, String)> {
    let known = ["SIGSTOP", "SIGCONT"].into_iter();
    let mut sent = known.filter(|name| text.starts_with(&format!("--- {name} ")));
    let event = Event {
        start: now,
        end: Some(now),
        side,
        call: sent.next()?.to_owned(),
        argument: String::new(),
        outcome: String::new(),
    };
    Some((event, String::new()))
}

/// Reads a call such as `close(3<socket:[18107097]>) = 0 <0.000030>`, if it is about a socket.
fn event(side: Side, start: u64, entered: u64, text: &str) -> Option<(Event, String)> {
    let socket = between(text, "<socket:[", "]")?.to_owned();
    let (call, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
    let took = result
        .rsplit_once('<')
        .map(|(_, time)| time.trim_end_matches('>'));
    let event = Event {
        start,
        end: took.and_then(microseconds).map(|took| entered + took),
        side,
        call: call.to_owned(),
        argument: argument(call, arguments.trim_end_matches([' ', ')'])),
        outcome: outcome(call, result),
    };
    Some((event, socket))
}

/// Returns the argument that a reader wants to know.
fn argument(call: &str, arguments: &str) -> String {
    let words: Vec<&str> = arguments.split(", ").collect();
    match call {
        "socket" => words[..2].join(" ").replace("|SOCK_CLOEXEC", ""),
        "bind" | "connect" => address(arguments),
        "listen" | "shutdown" => words[1].to_owned(),
        "socketpair" => arguments.to_owned(),
        _ => match between(arguments, ", \"", "\", ") {
            Some(bytes) => format!("\"{bytes}\""),
            None => String::new(),
        },
    }
}

/// Returns an address as our programs write it. The path of a Unix socket loses its folders.
fn address(arguments: &str) -> String {
    let port = between(arguments, "htons(", ")");
    let host = between(arguments, "inet_addr(\"", "\"");
    let path = between(arguments, "sun_path=\"", "\"");
    match (host, port, path) {
        (Some(host), Some(port), _) => format!("{host}:{port}"),
        (_, _, Some(path)) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        _ => String::new(),
    }
}

/// Returns the name of an error, or how many bytes a call moved.
fn outcome(call: &str, result: &str) -> String {
    let mut words = result.split(' ');
    match (words.next(), words.next()) {
        (Some("-1"), Some(error)) => error.to_owned(),
        (Some(count), _) if ["sendto", "write", "recvfrom"].contains(&call) => count.to_owned(),
        _ => String::new(),
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}
