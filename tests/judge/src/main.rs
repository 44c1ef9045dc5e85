//! Tells of anybody's echo server or client which promises it keeps, in the order in which the book
//! teaches them; and of each that it breaks what was seen, why that happens, and where to read.
//!
//! ```text
//! cargo run -p judge -- udp-server -- python3 mine.py {port}
//! ```
//!
//! The promises are those of the package `promises`, which `cargo test` asks of our own programs.

mod known;
mod lessons;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use lessons::{LESSONS, Lesson, STAGES};
use promises::{Ask, Broken, Kept, Promise, Reach, Ready, Subject, caught};

/// How long a promise waits for a server to do something.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long for a client, which may send a datagram again only after a while.
const PATIENCE_WITH_CLIENTS: Duration = Duration::from_secs(15);

/// How many lines of evidence are shown, with the reason.
const EVIDENCE: usize = 4;

/// Judge an echo server or client: which promises does it keep?
///
/// COMMAND starts the program. In it, {addr} stands for an address such as 127.0.0.1:7007, {host} and
/// {port} for its parts, and {path} for the path of a Unix socket. Without any of them, the address
/// comes at the end. A server is ready when it accepts or answers. A client reads lines from stdin, sends
/// each as a message (over UDP without its newline), prints each echo as a line, and ends with 0 if all
/// came back.
///
/// Ends with 0 if all promises are kept, with 1 if some are broken, and with 2 if the program cannot
/// be judged. Everything happens on the loopback addresses of this machine.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What the program is
    #[arg(required_unless_present = "known")]
    kind: Option<Kind>,

    /// The Unix server is one of datagrams
    #[arg(long)]
    datagram: bool,

    /// Seconds until a server must be ready
    #[arg(long, value_name = "SECS", default_value = "10")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    start: u64,

    /// The option that limits the connections of a server, such as '--max-connections N'
    #[arg(long, value_name = "OPTION N", allow_hyphen_values = true)]
    limit: Option<String>,

    /// Stop after this stage
    #[arg(long, value_name = "N", default_value = "7")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=7))]
    stage: u8,

    /// Ask only promises with this word
    #[arg(long, value_name = "WORD", default_value = "")]
    only: String,

    /// Only list the promises
    #[arg(long)]
    list: bool,

    /// Judge well-known echo servers instead, and print tables
    #[arg(long, conflicts_with_all = ["kind", "command", "list"])]
    known: bool,

    /// Compare these tables with tests/judge/known.md
    #[arg(long, requires = "known")]
    check: bool,

    /// What starts the program
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    UdpServer,
    UdpClient,
    TcpServer,
    TcpClient,
    UnixServer,
}

impl Kind {
    fn is_client(self) -> bool {
        matches!(self, Kind::UdpClient | Kind::TcpClient)
    }

    fn reach(self, datagram: bool) -> Reach {
        match self {
            Kind::UdpServer | Kind::UdpClient => Reach::Udp,
            Kind::TcpServer | Kind::TcpClient => Reach::Tcp,
            Kind::UnixServer if datagram => Reach::UnixDatagram,
            Kind::UnixServer => Reach::UnixStream,
        }
    }

    /// Says what a server must do to be judged.
    fn what_a_server_must_do(self, datagram: bool) -> String {
        let how = match self.reach(datagram) {
            Reach::Udp => "answer over UDP",
            Reach::Tcp => "accept over TCP",
            Reach::UnixStream => "accept on a Unix stream socket",
            Reach::UnixDatagram => "answer on a Unix datagram socket",
        };
        format!(
            "It must {how}, at the address that is among its arguments. Is it the newest build?"
        )
    }

    /// The kinds of promises that such a program should keep.
    fn promises(self, datagram: bool) -> &'static [&'static str] {
        match self.reach(datagram) {
            Reach::Udp if self.is_client() => &["line_client", "udp_line_client"],
            Reach::Tcp if self.is_client() => &["line_client", "tcp_line_client"],
            Reach::Udp => &["every_server", "datagram_server", "udp_server"],
            Reach::Tcp => &["every_server", "stream_server", "tcp_server"],
            Reach::UnixStream => &["every_server", "stream_server"],
            Reach::UnixDatagram => &["every_server", "datagram_server"],
        }
    }
}

fn main() -> ExitCode {
    match judge(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot judge the program: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns the promises of a kind of programs that are asked.
fn asked(args: &Args, kind: Kind) -> Vec<&'static Lesson> {
    let kinds = kind.promises(args.datagram);
    let asked = LESSONS.iter().filter(|lesson| {
        let kind = lesson.promise.split("::").next().unwrap_or_default();
        kinds.contains(&kind) && lesson.stage <= args.stage && sentence(lesson).contains(&args.only)
    });
    asked.collect()
}

/// Asks for the promises, and returns whether all that were asked are kept.
fn judge(args: &Args) -> Result<bool> {
    let Some(kind) = args.kind else {
        return known::judge(args.check, &args.only);
    };
    let lessons = asked(args, kind);
    if args.list {
        lessons.iter().for_each(|lesson| {
            print(&format!("stage {}: {}", lesson.stage, sentence(lesson)));
        });
        return Ok(true);
    }
    if lessons.is_empty() {
        bail!("no promise has the word {:?}; --list shows them", args.only);
    }
    let subject = subject(args, kind)?;
    // A promise that panics has a fault of its own, which is told below.
    std::panic::set_hook(Box::new(|_| {}));
    let started = caught(|| {
        if kind.is_client() {
            subject.run(&mut subject.at("127.0.0.1:9")); // It is only started.
            return Ok(());
        }
        subject.start().map(drop)
    });
    match started {
        Ok(()) => ask(&lessons, &subject),
        Err(Broken::Promise(why)) if !kind.is_client() => {
            bail!(
                "{}\n{}",
                why.trim_end(),
                kind.what_a_server_must_do(args.datagram)
            )
        }
        Err(Broken::Promise(why) | Broken::Means(why) | Broken::NotAsked(why)) => bail!(why),
    }
}

/// Returns the program as one that can be asked.
fn subject(args: &Args, kind: Kind) -> Result<Subject> {
    let [program, ..] = &args.command[..] else {
        bail!(
            "write -- and the command that starts it, as in: judge udp-server -- ./mine {{port}}"
        );
    };
    let words = args.command.clone();
    let has = |part: &str| args.command.iter().any(|word| word.contains(part));
    let at_the_end = !["{addr}", "{host}", "{port}", "{path}"]
        .iter()
        .any(|part| has(part));
    let limit = args.limit.clone().map(|limit| {
        let words = move |count: usize| {
            let words = limit.split(' ').map(|word| {
                if word == "N" {
                    count.to_string()
                } else {
                    word.to_owned()
                }
            });
            words.collect()
        };
        Box::new(words) as Box<_>
    });
    harness::set_patience(if kind.is_client() {
        PATIENCE_WITH_CLIENTS
    } else {
        PATIENCE
    });
    Ok(Subject {
        name: program.clone(),
        reach: kind.reach(args.datagram),
        ready: Ready::Answers,
        command: Box::new(move |addr| {
            let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let parts = [
                ("{addr}", addr),
                ("{host}", host),
                ("{port}", port),
                ("{path}", addr),
            ];
            let mut words = words.iter().map(|word| {
                parts.iter().fold(word.clone(), |word, (part, value)| {
                    word.replace(part, value)
                })
            });
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words).args(at_the_end.then_some(addr));
            command.env_remove("RUST_BACKTRACE");
            command
        }),
        takes_host: at_the_end || has("{addr}") || has("{host}"),
        at_most: limit,
        has_children: true,
        starts_within: Duration::from_secs(args.start),
    })
}

/// Asks one promise after the other, and prints what becomes of each.
fn ask(lessons: &[&Lesson], subject: &Subject) -> Result<bool> {
    let (mut kept, mut broken, mut failed, mut stage) = (0, 0, 0, 0);
    for lesson in lessons {
        if lesson.stage != stage {
            stage = lesson.stage;
            print(&format!(
                "stage {stage}: {}",
                STAGES[usize::from(stage) - 1]
            ));
        }
        let sentence = sentence(lesson);
        progress(&format!("            {sentence} ..."));
        let answer = answer(lesson, subject);
        progress("");
        match &answer {
            Ok(()) => kept += 1,
            Err(Broken::Promise(_)) => broken += 1,
            Err(Broken::Means(_)) => failed += 1,
            Err(Broken::NotAsked(_)) => {}
        }
        report(lesson, &sentence, answer);
        if stage == 1 && broken > 0 {
            print("Nothing else is asked, because everything needs this.");
            break;
        }
    }
    print(&format!("{kept} of {} promises kept", kept + broken));
    if failed > 0 && broken == 0 {
        bail!("{failed} promises could not be asked");
    }
    Ok(broken == 0)
}

/// Asks one promise.
fn answer(lesson: &Lesson, subject: &Subject) -> Kept {
    match find(lesson) {
        Some(Promise {
            ask: Ask::Anybody(ask),
            ..
        }) => caught(|| ask(subject)),
        _ => Err(Broken::not_asked("not on this system")),
    }
}

fn report(lesson: &Lesson, sentence: &str, answer: Kept) {
    match answer {
        Ok(()) => print(&format!("  kept      {sentence}")),
        Err(Broken::Promise(why)) => {
            print(&format!("  BROKEN    {sentence}"));
            let seen: Vec<&str> = why.lines().filter(|line| !line.trim().is_empty()).collect();
            // The last line of a long report has the cause.
            let (first, rest) = seen.split_at(seen.len().min(EVIDENCE - 2));
            for line in first.iter().chain(rest.last()) {
                print(&format!(
                    "            {}",
                    line.trim().chars().take(160).collect::<String>()
                ));
            }
            print(&format!("            {}", lesson.why));
            let mistake = lesson.mistake.map(|number| format!(", mistake {number}"));
            print(&format!(
                "            Read book/en/{}{}.",
                lesson.chapter,
                mistake.unwrap_or_default()
            ));
        }
        Err(Broken::NotAsked(why)) => print(&format!("  not asked {sentence}: {why}")),
        Err(Broken::Means(why)) => {
            print(&format!("  not asked {sentence}: the judge failed: {why}"))
        }
    }
}

/// Returns a promise as a sentence.
fn sentence(lesson: &Lesson) -> String {
    let name = lesson.promise.rsplit("::").next().unwrap_or_default();
    name.replace('_', " ")
}

fn find(lesson: &Lesson) -> Option<Promise> {
    let (kind, name) = lesson.promise.split_once("::")?;
    let (_, promises) = promises::KINDS.iter().find(|(other, _)| *other == kind)?;
    promises
        .iter()
        .find(|promise| promise.name == name)
        .copied()
}

/// Prints a line. Nobody may read it any more, which is no reason to stop: the exit code still tells.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Shows on a terminal what takes a while, in place of what it showed before.
fn progress(line: &str) {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        let _ = write!(stdout, "\r\x1b[K{line}");
        let _ = stdout.flush();
    }
}
