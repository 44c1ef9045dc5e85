//! Transcripts of terminals, as the book shows them. A transcript is also the script of the
//! session: what somebody types is done again, and what the programs print is compared.
//!
//! ```text
//! 1│ $ cargo run -p udp-server
//! 1│ listening on 127.0.0.1:7007
//! 2│ $ cargo run -p udp-client -- hello
//! 2│ hello
//! ```
//!
//! Each line begins with the number of its terminal. A terminal can be given a command
//! (`$ `), `^C`, `^Z` and `$ fg`, `^D`, or a line of input, which ends with ` ⏎`. All other
//! lines are output.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use harness::{
    LIMIT, can_trace, example_of, folder, foreign, has_ipv6, has_nginx, program, unshared,
};

/// What stands between the number of a terminal and the rest of the line.
const BAR: &str = "│ ";

/// What ends a line that somebody typed.
const RETURN: &str = " ⏎";

/// Programs that not every system with bash and coreutils has.
const FOREIGN: [&str; 11] = [
    "dnsmasq", "haproxy", "ip", "nc", "nginx", "pgrep", "ps", "python3", "socat", "ss", "strace",
];

/// A line of a transcript.
struct Line<'a> {
    terminal: &'a str,
    text: &'a str,
}

impl Line<'_> {
    fn parse(line: &str) -> Line<'_> {
        // An empty line of output has no space behind the bar.
        let (terminal, text) = line
            .split_once(BAR)
            .or_else(|| Some((line.strip_suffix(BAR.trim_end())?, "")))
            .unwrap_or_else(|| panic!("no terminal in {line:?}"));
        Line { terminal, text }
    }

    fn is_key(&self) -> bool {
        ["^C", "^Z", "^D"].contains(&self.text)
    }

    fn is_action(&self) -> bool {
        self.is_key() || self.text.starts_with("$ ") || self.text.ends_with(RETURN)
    }
}

/// Plays a transcript and asserts that the programs print what it shows, except for the
/// numbers that differ from run to run. Does nothing if there are no namespaces here.
pub fn assert_played(transcript: &str) {
    let Some(mut session) = Session::start(transcript) else {
        return;
    };
    for line in transcript.lines().map(Line::parse) {
        if line.is_action() {
            session.act(&line);
        } else {
            let printed = session.terminal(line.terminal).next_line(LIMIT);
            let printed = printed.unwrap_or_else(|why| format!("({why})"));
            assert_eq!(
                masked(&printed),
                masked(line.text),
                "terminal {} printed {printed:?}",
                line.terminal
            );
        }
    }
    let mut rest = String::new();
    for (number, terminal) in &mut session.terminals {
        terminal.kill();
        terminal.write_rest(number, &mut rest);
    }
    assert_eq!(rest, "", "not in the transcript");
}

/// Plays the actions of a transcript, and returns it with what the programs print now. Returns
/// `None` if only the numbers differ that differ from run to run.
pub fn play(transcript: &str) -> Option<String> {
    let mut session = Session::start(transcript)?;
    let mut played = String::new();
    let lines = transcript.lines().map(Line::parse);
    for line in lines.filter(Line::is_action) {
        session.act(&line);
        let _ = writeln!(played, "{}{BAR}{}", line.terminal, line.text);
        session.wait_until_quiet(&line);
        session
            .terminal(line.terminal)
            .write_rest(line.terminal, &mut played);
        for (number, terminal) in &mut session.terminals {
            terminal.write_rest(number, &mut played);
        }
    }
    (masked(&played) != masked(transcript)).then_some(played)
}

/// Replaces what differs from run to run: ports that the kernel chose, measured times, process
/// ids and the names of Unix sockets that the kernel chose.
fn masked(text: &str) -> String {
    static MASKS: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            (r":(3[2-9]|[45]\d|60)\d{3}\b", ":PORT"),
            (r"\b\d+\.\d+(ns|µs|ms|s)\b", "TIME"),
            (r"\bpid \d+", "pid ID"),
            (r"@[0-9a-f]{5}\b", "@NAME"),
        ]
        .map(|(pattern, mask)| (Regex::new(pattern).unwrap(), mask))
    });
    MASKS.iter().fold(text.to_owned(), |text, (pattern, mask)| {
        pattern.replace_all(&text, *mask).into_owned()
    })
}

/// A few terminals on a machine of their own: with its own network, processes and /run.
struct Session {
    /// Keeps the namespaces alive. It is killed at the end, and all other processes with it.
    machine: Child,
    /// Has a link to each program, and is removed at the end.
    programs: TempDir,
    terminals: BTreeMap<String, Terminal>,
}

impl Session {
    fn start(transcript: &str) -> Option<Session> {
        if !can_play(transcript) {
            return None;
        }
        let programs = folder();
        link_programs(transcript, programs.path());
        let set_up = "ip link set lo up && mount -t tmpfs none /run && mkdir -p /run/user/1000";
        let flags = "-rnpm --fork --kill-child --mount-proc";
        // The first process of a process namespace must stay, and print when it is ready.
        let mut wait = Command::new("sh");
        wait.args(["-c", "echo ready; exec sleep 600"]);
        let mut command = unshared(flags, set_up, &wait)?;
        // If the test is killed, this process is as well, and with it all in the namespaces.
        let command = harness::watch(command.stdout(Stdio::piped()));
        let mut machine = command.spawn().unwrap();
        let mut ready = String::new();
        let stdout = machine.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Some(Session {
            machine,
            programs,
            terminals: BTreeMap::new(),
        })
    }

    fn terminal(&mut self, number: &str) -> &mut Terminal {
        self.terminals.entry(number.to_owned()).or_default()
    }

    /// Does what somebody does at a terminal.
    fn act(&mut self, line: &Line) {
        // Who types the next command sees first that the one before has ended.
        for terminal in self.terminals.values_mut() {
            terminal.wait_if_interrupted();
        }
        if line.is_key() {
            self.wait_for_clients_beside(line.terminal);
        }
        let terminal = self.terminals.entry(line.terminal.to_owned()).or_default();
        match line.text {
            "^C" => terminal.interrupt(),
            "^Z" => terminal.suspend(),
            "$ fg" => terminal.resume(),
            "^D" => terminal.stdin = None,
            text => match text.strip_prefix("$ ") {
                Some(command) => {
                    terminal.wait();
                    terminal.start(&mut on_machine(
                        &self.machine,
                        self.programs.path(),
                        command,
                    ));
                }
                None => {
                    let typed = text.trim_end_matches(RETURN);
                    let stdin = terminal.stdin.as_mut().expect("a command that runs");
                    stdin.write_all(format!("{typed}\n").as_bytes()).unwrap();
                }
            },
        }
    }

    /// Gives clients at other terminals, which may have their answers, the time to end, as
    /// somebody does who reads the answers before pressing a key.
    fn wait_for_clients_beside(&mut self, terminal: &str) {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut clients_run = || {
            let mut others = self
                .terminals
                .iter_mut()
                .filter(|(number, _)| *number != terminal);
            others.any(|(_, other)| other.runs_client())
        };
        while Instant::now() < deadline && clients_run() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nothing is printed for some time: a little more than the time limits of a
    /// client that waits, or of others that notice that a server is suspended.
    fn wait_until_quiet(&mut self, line: &Line) {
        let begin = Instant::now();
        let mut quiet_since = begin;
        while begin.elapsed() < LIMIT {
            for terminal in self.terminals.values_mut() {
                if terminal.take_lines() {
                    quiet_since = Instant::now();
                }
            }
            let terminal = self.terminal(line.terminal);
            let quiet = match line.text {
                "^Z" | "$ fg" => Duration::from_millis(3500),
                _ if terminal.runs_client() => Duration::from_millis(6500),
                _ => Duration::from_millis(1500),
            };
            if quiet_since.elapsed() > quiet {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.terminals.values_mut().for_each(Terminal::kill);
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

/// Returns whether all that a transcript needs is here. If it is not, prints `NOT RUN`.
fn can_play(transcript: &str) -> bool {
    let is_word_of = |line: &str, name: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| word == name)
    };
    let mut commands = transcript.lines().filter(|line| line.contains("│ $ "));
    commands.all(|command| {
        let mut needed = FOREIGN.iter().filter(|name| is_word_of(command, name));
        needed.all(|name| match *name {
            "nginx" => has_nginx(),
            "strace" => can_trace(),
            name => foreign(name).is_some(),
        })
    }) && (!transcript.contains("::") || has_ipv6())
}

/// Builds the programs that a transcript names, and links to them from a folder.
fn link_programs(transcript: &str, folder: &Path) {
    for line in transcript.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let after = |option| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        let Some(package) = after("-p") else {
            continue;
        };
        let (name, command) = match after("--example") {
            Some(example) => (example, example_of(package, example)),
            None => (package, program(package)),
        };
        // An error means that the link is there already.
        let _ = std::os::unix::fs::symlink(command.get_program(), folder.join(name));
    }
}

/// Returns a bash command on the machine of a session. There `cargo run` starts the program
/// that is built already.
fn on_machine(machine: &Child, programs: &Path, command: &str) -> Command {
    const CARGO: &str = r#"
        exec 2>&1
        cargo() {
            while [ $# -gt 0 ]; do
                case $1 in
                    -p | --example) name=$2; shift 2 ;;
                    --) shift; break ;;
                    *) shift ;;
                esac
            done
            # In the background it is the program itself that bash ends with `kill %1`.
            [ $BASHPID = $$ ] || exec "$PROGRAMS/$name" "$@"
            "$PROGRAMS/$name" "$@"
        }
        export -f cargo # For another bash that this one starts.
    "#;
    // unshare(1) waits for its child, which is the first process in the namespaces.
    let children = format!("/proc/{0}/task/{0}/children", machine.id());
    let first = std::fs::read_to_string(children).unwrap();
    let mut bash = Command::new("nsenter");
    bash.args(["-t", first.trim(), "-U", "-n", "-p", "-m"])
        // Entering a mount namespace changes the directory, so nsenter(1) must set it.
        .arg(format!("--wd={}", harness::root().display()))
        // If our parent has made us ignore Ctrl-C, as a shell does in the background, so do all
        // programs that we start.
        .args(["--preserve-credentials", "env", "--default-signal=INT"])
        .args(["bash", "-c"])
        .arg(format!("{CARGO}\n{command}"))
        .env(
            "PATH",
            format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()),
        )
        .env("PROGRAMS", programs)
        .env("XDG_RUNTIME_DIR", "/run/user/1000")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    bash
}

/// A terminal, and the command that runs in it.
#[derive(Default)]
struct Terminal {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    lines: Option<Receiver<String>>,
    unwritten: Vec<String>,
    is_server: bool,
    is_interrupted: bool,
}

impl Terminal {
    fn start(&mut self, command: &mut Command) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own gets the signals, as the foreground job of a terminal does.
        let mut child = command.process_group(0).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        self.stdin = child.stdin.take();
        self.lines = Some(lines);
        self.child = Some(child);
        self.is_server = false;
        self.is_interrupted = false;
    }

    /// Waits until the command has ended, if there is one, and keeps what it printed.
    fn wait(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.is_running() {
            assert!(Instant::now() < deadline, "a command still runs");
            thread::sleep(Duration::from_millis(2));
        }
        self.take_all_lines();
    }

    fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn runs_client(&mut self) -> bool {
        self.is_running() && !self.is_server
    }

    fn receive(&self, limit: Duration) -> Result<String, RecvTimeoutError> {
        let lines = self.lines.as_ref().ok_or(RecvTimeoutError::Disconnected)?;
        lines.recv_timeout(limit)
    }

    fn next_line(&mut self, limit: Duration) -> Result<String, RecvTimeoutError> {
        if self.unwritten.is_empty() {
            let line = self.receive(limit)?;
            self.keep(line);
        }
        Ok(self.unwritten.remove(0))
    }

    fn keep(&mut self, line: String) {
        self.is_server |= line.starts_with("listening on");
        self.is_interrupted = false;
        self.unwritten.push(line);
    }

    /// Takes the lines that have come. Returns whether there were any.
    fn take_lines(&mut self) -> bool {
        let before = self.unwritten.len();
        while let Ok(line) = self.receive(Duration::ZERO) {
            self.keep(line);
        }
        self.unwritten.len() > before
    }

    /// Takes the lines that are still to come from a command that has ended.
    fn take_all_lines(&mut self) {
        loop {
            match self.receive(LIMIT) {
                Ok(line) => self.unwritten.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("an output stays open after {LIMIT:?}"),
            }
        }
    }

    fn write_rest(&mut self, number: &str, out: &mut String) {
        self.take_lines();
        for line in self.unwritten.drain(..) {
            let _ = writeln!(out, "{}", format!("{number}{BAR}{line}").trim_end());
        }
    }

    fn interrupt(&mut self) {
        self.signal(Signal::INT);
        self.is_interrupted = true;
    }

    /// Waits for the end of a command that was interrupted, unless it has printed something
    /// since, and so has its own answer to Ctrl-C.
    fn wait_if_interrupted(&mut self) {
        if std::mem::take(&mut self.is_interrupted) {
            self.wait();
        }
    }

    /// Suspends the command, and returns when all its threads are suspended. (SIGTSTP, which
    /// Ctrl-Z sends, has no effect without a terminal.)
    fn suspend(&mut self) {
        self.signal(Signal::STOP);
        let group = self.child.as_ref().expect("a command that runs").id();
        let deadline = Instant::now() + LIMIT;
        while states(group).iter().any(|state| state != "T") {
            assert!(
                Instant::now() < deadline,
                "not suspended: {:?}",
                states(group)
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resumes the command. nsenter(1) suspends itself once more when it learns that its child
    /// was suspended, so one signal may not be enough.
    fn resume(&mut self) {
        self.signal(Signal::CONT);
        thread::sleep(Duration::from_millis(50));
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        let child = self.child.as_ref().expect("a command that runs");
        kill_process_group(Pid::from_child(child), signal).unwrap();
    }

    /// Kills the command and what it has started, and waits until all output has been read.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.take_lines();
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            self.take_all_lines();
        }
    }
}

/// Returns the states of all threads of a group of processes, such as `S` or `T`
/// (proc_pid_stat(5)).
fn states(group: u32) -> Vec<String> {
    let mut states = Vec::new();
    // A process or thread that ends meanwhile has no file any more.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for thread in std::fs::read_dir(process.path().join("task"))
            .into_iter()
            .flatten()
        {
            let Ok(stat) =
                thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")))
            else {
                continue;
            };
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            let fields: Vec<&str> = fields.split(' ').collect();
            if let [state, _, in_group, ..] = fields[..] {
                if in_group == group.to_string() {
                    states.push(state.to_owned());
                }
            }
        }
    }
    states
}
