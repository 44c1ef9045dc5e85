//! The command itself: its options, what it says of programs that cannot be judged, and what it leaves behind.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, LIMIT};
use rustix::process::Signal;

use crate::{judge, python, start_judge};

fn words(command: &[&str]) -> Command {
    let mut words = Command::new(command[0]);
    words.args(&command[1..]);
    words
}

/// The judge ends with 2, and says why.
fn assert_cannot_judge(finished: &Finished, why: &str) {
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let stderr = finished.stderr.strip_prefix("cannot judge the program: ");
    assert_eq!(stderr, Some(why), "{finished:?}");
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "");
}

#[test]
fn it_lists_the_promises() {
    let finished = judge(&["udp-client", "--list"], &Command::new("unused"));
    let stdout = String::from_utf8_lossy(&finished.stdout);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let first = Some("stage 1: each line comes back as a line");
    assert_eq!(stdout.lines().next(), first, "{stdout}");
    assert!(stdout.contains("\nstage 4: a datagram that is lost is sent again\n"));
    assert!(!stdout.contains("resets"), "that is for TCP: {stdout}");
}

#[path = "../../src/lessons.rs"]
#[allow(dead_code)]
mod lessons;

/// Whoever breaks a promise is sent to a page, and to one of its mistakes if one is named.
#[test]
fn each_lesson_names_a_page_that_exists_and_a_mistake_that_this_page_links() {
    for language in ["en", "zh-CN"] {
        for lesson in lessons::LESSONS {
            let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../book");
            let page = format!("{book}/{language}/{}", lesson.chapter);
            let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{page}: {error}"));
            let Some(mistake) = lesson.mistake else {
                continue;
            };
            let link = format!("#mistake-{mistake})");
            assert!(
                text.contains(&link),
                "{}: {page} has no {link}",
                lesson.promise
            );
        }
    }
}

#[test]
fn it_stops_after_a_stage() {
    if let Some((mut args, program)) = python("right", "udp_server") {
        args.push("--stage=1");
        let finished = judge(&args, &program);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let stdout =
            "stage 1: the first echo\n  kept      what is sent comes back\n1 of 1 promises kept\n";
        assert_eq!(String::from_utf8_lossy(&finished.stdout), stdout);
    }
}

#[test]
fn a_word_of_no_promise_is_told() {
    let finished = judge(&["udp-server", "--only=zebra"], &words(&["true"]));
    assert_cannot_judge(
        &finished,
        "no promise has the word \"zebra\"; --list shows them\n",
    );
}

#[test]
fn without_a_command_it_shows_how_to_write_one() {
    let mut judge = Command::new(env!("CARGO_BIN_EXE_judge"));
    let finished = harness::run(judge.arg("udp-server"), b"");
    let advice =
        "write -- and the command that starts it, as in: judge udp-server -- ./mine {port}\n";
    assert_cannot_judge(&finished, advice);
}

#[test]
fn a_command_that_does_not_exist_is_told() {
    for kind in ["udp-server", "tcp-client", "unix-server"] {
        let finished = judge(&[kind], &words(&["no-such-program"]));
        let why = "cannot start no-such-program: No such file or directory (os error 2)\n";
        assert_cannot_judge(&finished, why);
    }
}

#[test]
fn a_server_that_ends_at_once_is_told_with_what_it_printed() {
    let script = "echo begin; echo no such module >&2; exit 3";
    for kind in ["udp-server", "tcp-server", "unix-server"] {
        let finished = judge(&[kind], &words(&["sh", "-c", script]));
        let why = "it ended by itself, with exit code 3, and printed:\nbegin\nno such module\n";
        assert_cannot_judge(&finished, why);
    }
    let finished = judge(&["tcp-server"], &words(&["false"]));
    let why = "it ended by itself, with exit code 1, and printed nothing\n";
    assert_cannot_judge(&finished, why);
}

#[test]
fn of_many_lines_only_the_last_ten_are_shown() {
    let finished = judge(&["tcp-server"], &words(&["sh", "-c", "seq 1000; exit 1"]));
    assert!(finished.stderr.contains("printed:\n991\n"), "{finished:?}");
    assert!(finished.stderr.ends_with("\n1000\n"), "{finished:?}");
}

#[test]
fn a_server_that_never_answers_is_told_with_what_it_printed() {
    for kind in ["udp-server", "tcp-server", "unix-server"] {
        let script = words(&["sh", "-c", "echo any moment; exec sleep 60"]);
        let finished = judge(&[kind, "--start=1"], &script);
        let why = "it runs, but neither accepts nor answers within 1s, and printed:\nany moment\n";
        assert_cannot_judge(&finished, why);
    }
}

/// A server with a process for each client, and with others that never end.
const FORKING: &str = r#"
import os, signal, socket, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for number in range(3):
    if os.fork() == 0:
        if number == 0:
            os.setsid()  # It leaves the group of the server.
        time.sleep(600)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        connection = listener.accept()[0]
        if os.fork() == 0:
            while data := connection.recv(65536):
                connection.sendall(data)
            os._exit(0)
        connection.close()
"#;

/// Returns the processes that have this argument.
fn processes_with(marker: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    commands
        .filter(|command| command.contains(marker))
        .collect()
}

/// Nothing of the program is left, once the kernel has ended what was killed.
fn assert_nothing_is_left(marker: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = processes_with(marker);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn forking_server(marker: &str) -> Option<Command> {
    harness::foreign("python3")?;
    Some(words(&["python3", "-c", FORKING, "{port}", marker]))
}

#[test]
fn children_of_a_server_are_gone_after_the_judge() {
    let marker = format!("children-of-{}", std::process::id());
    if let Some(program) = forking_server(&marker) {
        let finished = judge(&["tcp-server", "--stage=1"], &program);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_nothing_is_left(&marker);
    }
}

#[test]
fn children_of_a_server_are_gone_if_the_judge_is_interrupted() {
    let marker = format!("orphans-of-{}", std::process::id());
    if let Some(program) = forking_server(&marker) {
        let mut judge = start_judge(&["tcp-server"], &program);
        while !judge.stdout_line().contains("kept") {}
        let deadline = Instant::now() + LIMIT;
        // The judge itself has the argument as well.
        while processes_with(&marker).len() < 5 {
            assert!(Instant::now() < deadline, "no server runs");
            thread::sleep(Duration::from_millis(1));
        }
        judge.signal(Signal::INT);
        assert_eq!(judge.finish().code, None);
        assert_nothing_is_left(&marker);
    }
}
