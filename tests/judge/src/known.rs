//! Judges the echo servers of other people's documentation, and ours beside them. The tables are in `known.md`,
//! which the book includes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::{fs, io, iter, thread};

use anyhow::{Context, Result};
use clap::Parser;
use harness::{compiled, example_of, installed, peer, program, root};
use promises::{Broken, Subject};

use crate::{Args, Lesson, answer, asked, print, sentence, subject};

/// Kind, head of the column, and command. The first word of a command is a program or an example of ours, or one
/// of the package `peers`, or a file in `tests/peers`, or a program that is installed. The files in `known` name
/// the documentation that they quote. That of the others is:
///
/// - socat: `socat OPENSSL-LISTEN:4433,reuseaddr,... PIPE` and `socat SOCKET-RECVFROM:... PIPE` are echo servers in
///   <http://www.dest-unreach.org/socat/doc/>, and socat(1) has `fork` for many clients.
/// - ncat: <https://nmap.org/ncat/guide/ncat-simple-services.html>, `ncat -l 7 --keep-open --exec "/bin/cat"`, for
///   UDP with `--udp`. ncat(1) has `-U` for Unix sockets.
const SERVERS: &str = "
tcp-server | tcp-server | our:tcp-server --addr
tcp-server | event_loop | our:tcp-server/event_loop --addr
tcp-server | tokio | peer:known_tokio_tcp
tcp-server | smol | peer:known_smol_tcp
tcp-server | Go net | known/listener.go
tcp-server | C threads | c/thread_echo.c {port}
tcp-server | asyncio | known/asyncio_streams.py {host} {port}
tcp-server | TCPServer | known/socketserver_tcp.py TCPServer {host} {port}
tcp-server | ThreadingTCPServer | known/socketserver_tcp.py ThreadingTCPServer {host} {port}
tcp-server | socat | socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork PIPE
tcp-server | ncat | ncat -l {host} {port} --keep-open --exec /bin/cat
tcp-server | inetd | known/inetd.sh {host} {port}
udp-server | udp-server | our:udp-server --addr
udp-server | tokio | peer:known_tokio_udp
udp-server | C loop | c/udp_loop.c {port}
udp-server | asyncio | known/asyncio_datagram.py {host} {port}
udp-server | UDPServer | known/socketserver_udp.py {host} {port}
udp-server | socat | socat UDP-RECVFROM:{port},bind=127.0.0.1,fork PIPE
udp-server | ncat | ncat -l {host} {port} --keep-open --udp --exec /bin/cat
unix-server | unix-echo | our:unix-echo server --path
unix-server | socat | socat UNIX-LISTEN:{path},fork PIPE
unix-server | ncat | ncat -l -U {path} --keep-open --exec /bin/cat";

/// What tells the versions; a crate's is in Cargo.lock.
const VERSIONS: &str = r#"
grep -A1 'name = "tokio"' Cargo.lock | tr -d '\n' | sed 's/version =//; s/name = //; s/"//g'
grep -A1 'name = "smol"' Cargo.lock | tr -d '\n' | sed 's/version =//; s/name = //; s/"//g'
go version | cut -d ' ' -f 1,3
python3 --version
socat -V | grep -o 'socat version [^ ]*'
ncat --version 2>&1 | cut -d ' ' -f 1-3
dpkg-query -W openbsd-inetd
cc --version
uname -sr"#;

/// How many servers are judged at the same time. Most of the time each of them waits.
const AT_ONCE: usize = 4;

/// A promise that looks broken is asked again, alone if it measures something: the machine may be too busy. If
/// `known.md` says that it is broken, once is enough.
const TIMES: usize = 3;

const KEPT: &str = "kept";
const BROKEN: &str = "**broken**";
const SOMETIMES: &str = "sometimes";
const NOT_ASKED: &str = "–";

/// By kind, promise and server.
type Cells = BTreeMap<[String; 3], String>;

/// Judges all that are installed. Prints the tables, or what differs from `known.md`.
pub fn judge(check: bool, only: &str) -> Result<bool> {
    let file = fs::read_to_string(root().join("tests/judge/known.md"));
    let known = parsed(file.as_deref().unwrap_or_default());
    if check {
        file.context("cannot read tests/judge/known.md")?;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let servers = SERVERS.lines().filter(|line| !line.is_empty());
    let servers: Vec<_> = servers.map(|line| (line, command(line))).collect();
    let (now, next, alone) = (Mutex::default(), AtomicUsize::new(0), RwLock::new(()));
    let judge_all = || {
        while let Some((line, command)) = servers.get(next.fetch_add(1, Relaxed)) {
            match command {
                Ok(command) => judge_one(line, command, only, &alone, &known, &now),
                Err(why) => tell(&format!("{line}: not judged: {why}")),
            }
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(judge_all))));
    let now: Cells = now.into_inner().unwrap_or_default();
    if !check {
        print(&tables(&now));
        return Ok(true);
    }
    // What cannot be asked here, or depends on the moment, is no difference.
    let differs = |before: &str, now: &str| {
        before != now && now != NOT_ASKED && before != SOMETIMES && now != SOMETIMES
    };
    let mut agree = true;
    for (cell, now) in now {
        let before = known.get(&cell).map_or("nothing", |before| before);
        if differs(before, &now) {
            print(&format!(
                "{}: {now}, and {before} in known.md",
                cell.join(", ")
            ));
            agree = false;
        }
    }
    Ok(agree)
}

/// Asks one server for all promises of its kind.
fn judge_one(
    line: &str,
    command: &[String],
    only: &str,
    alone: &RwLock<()>,
    known: &Cells,
    now: &Mutex<Cells>,
) {
    let [kind, name] = [0, 1].map(|part| line.split(" | ").nth(part).unwrap_or_default());
    let words = ["judge", kind, "--start", "20", "--only", only];
    let limit = ["--limit", "--max-connections N"];
    let limit = limit
        .iter()
        .filter(|_| line.contains("our:") && kind == "tcp-server");
    let words = words.iter().chain(limit).chain(&["--"]).copied();
    let args = Args::parse_from(words.chain(command.iter().map(String::as_str)));
    let Some((of_kind, Ok(subject))) = args.kind.map(|kind| (kind, subject(&args, kind))) else {
        return;
    };
    for lesson in asked(&args, of_kind) {
        let cell = [kind, &sentence(lesson), name].map(str::to_owned);
        let before = known.get(&cell).map_or("", |before| before);
        let tell = |what: &str| tell(&format!("{}: {what}", cell.join(", ")));
        let became = settled(lesson, &subject, alone, before, &tell);
        if let Ok(mut now) = now.lock() {
            now.insert(cell, became.to_owned());
        }
    }
}

/// Asks for a promise until it is kept, or has been broken a few times.
fn settled(
    lesson: &Lesson,
    subject: &Subject,
    alone: &RwLock<()>,
    before: &str,
    tell: &dyn Fn(&str),
) -> &'static str {
    let measures = ["processor", "small_writes"];
    let measures = measures.iter().any(|word| lesson.promise.contains(word));
    let mut became = NOT_ASKED;
    for time in 0..TIMES {
        let (_beside, _alone);
        match measures && time > 0 {
            true => _alone = alone.write(),
            false => _beside = alone.read(),
        }
        match answer(lesson, subject) {
            Ok(()) if before == SOMETIMES || became == BROKEN && !measures => return SOMETIMES,
            // Where everything is slow, nobody sees what waits for 40 ms.
            Ok(()) if before == BROKEN && measures && time + 1 < TIMES => {}
            Ok(()) => return KEPT,
            Err(Broken::NotAsked(_)) => return NOT_ASKED,
            Err(Broken::Means(why)) => tell(&format!("the judge failed: {why}")),
            Err(Broken::Promise(why)) => {
                tell(&why.replace('\n', " ").chars().take(200).collect::<String>());
                match before {
                    SOMETIMES => return SOMETIMES,
                    BROKEN => return BROKEN,
                    _ => became = BROKEN,
                }
            }
        }
    }
    became
}

/// Returns the command of a server, or why there is none.
fn command(line: &'static str) -> Result<Vec<String>, String> {
    let mut words = line.rsplit(" | ").next().unwrap_or_default().split(' ');
    let first = words.next().unwrap_or_default();
    let interpreted = |mut command: Command| {
        command.arg(root().join("tests/peers").join(first));
        command
    };
    let command = match (first.split_once(':'), Path::new(first).extension()) {
        (Some(("peer", name)), _) => peer(name),
        (Some((_, name)), _) => match name.split_once('/') {
            Some((package, example)) => example_of(package, example),
            None => program(name),
        },
        (_, None) => installed(first)?,
        (_, Some(py)) if py == "py" => {
            let mut python = installed("python3")?;
            python.arg("-E"); // Whether it buffers its output does not depend on the environment.
            interpreted(python)
        }
        (_, Some(sh)) if sh == "sh" => interpreted(installed("inetd").map(|_| Command::new("sh"))?),
        _ => compiled(first)?,
    };
    let start = iter::once(command.get_program()).chain(command.get_args());
    let start = start.map(|word| word.to_string_lossy().into_owned());
    Ok(start.chain(words.map(str::to_owned)).collect())
}

/// Returns the tables, and the versions.
fn tables(cells: &Cells) -> String {
    let mut lines = Vec::new();
    for kind in ["tcp-server", "udp-server", "unix-server"] {
        let args = Args::parse_from(["judge", kind]);
        let promises = args.kind.map(|kind| asked(&args, kind)).unwrap_or_default();
        let promises: Vec<String> = promises.into_iter().map(sentence).collect();
        let of = |promise: &str, name: &str| cells.get(&[kind, promise, name].map(str::to_owned));
        let names = SERVERS.lines().filter(|line| line.starts_with(kind));
        let names = names.filter_map(|line| line.split(" | ").nth(1));
        let names: Vec<&str> = names
            .filter(|name| promises.iter().any(|promise| of(promise, name).is_some()))
            .collect();
        let row = |first: &str, cell: &dyn Fn(&str) -> String| {
            let cells = names.iter().map(|name| format!(" {} |", cell(name)));
            format!("| {first} |{}", cells.collect::<String>())
        };
        lines.push(format!("<!-- ANCHOR: {kind} -->"));
        lines.push(row(&format!("judge {kind}"), &str::to_owned));
        lines.push(row("---", &|_| "---".to_owned()));
        for promise in &promises {
            lines.push(row(promise, &|name| {
                of(promise, name).cloned().unwrap_or_default()
            }));
        }
        lines.push(row("**kept, of those asked**", &|name| {
            let cells: Vec<_> = promises
                .iter()
                .filter_map(|promise| of(promise, name))
                .collect();
            let count = |is: &dyn Fn(&str) -> bool| cells.iter().filter(|cell| is(cell)).count();
            format!(
                "{} of {}",
                count(&|cell| cell == KEPT),
                count(&|cell| cell != NOT_ASKED)
            )
        }));
        lines.push(format!("<!-- ANCHOR_END: {kind} -->\n"));
    }
    lines.push("<!-- ANCHOR: versions -->\n```text".to_owned());
    for command in VERSIONS.lines().filter(|line| !line.is_empty()) {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(root())
            .output();
        let output = output.map(|output| output.stdout).unwrap_or_default();
        lines.extend(
            String::from_utf8_lossy(&output)
                .lines()
                .next()
                .map(|line| line.trim().to_owned()),
        );
    }
    lines.push("```\n<!-- ANCHOR_END: versions -->".to_owned());
    lines.join("\n")
}

/// Returns the cells of tables.
fn parsed(tables: &str) -> Cells {
    let (mut cells, mut kind, mut heads) = (Cells::new(), "", Vec::new());
    for line in tables.lines().filter_map(|line| line.strip_prefix("| ")) {
        let words: Vec<&str> = line.trim_end_matches(" |").split(" | ").collect();
        if let Some(of) = words[0].strip_prefix("judge ") {
            (kind, heads) = (of, words);
            continue;
        }
        for (head, cell) in heads.iter().zip(&words).skip(1) {
            let key = [kind, words[0], head].map(str::to_owned);
            cells.insert(key, (*cell).to_owned());
        }
    }
    cells
}

/// Tells on stderr what was seen.
fn tell(line: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("{line}\n").as_bytes());
}
