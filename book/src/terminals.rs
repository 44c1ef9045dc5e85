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
//! lines are output. Left out is only what bash says about its jobs (`[1]+  Stopped ...`).
//!
//! Each terminal is a pseudo-terminal with one bash for the whole transcript, which an ordinary
//! user has, with the uid 1001. Only a transcript with `$ sudo ` is played by root of the
//! namespaces, from its beginning. What somebody types must succeed, as bash counts it, or be
//! interrupted, or print a line that tells of its failure ([`FAILURE`]). A command that is not
//! found fails the transcript, wherever it stands.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, OutputModes, tcgetattr, tcgetpgrp, tcsetattr};

use harness::{LIMIT, can_trace, example_of, foreign, has_ipv6, has_nginx, program, unshared};

/// What stands between the number of a terminal and the rest of the line.
const BAR: &str = "│ ";

/// What ends a line that somebody typed.
const RETURN: &str = " ⏎";

/// Programs that not every system with bash and coreutils has.
const FOREIGN: [&str; 12] = [
    "dnsmasq", "haproxy", "ip", "nc", "nginx", "pgrep", "ps", "python3", "socat", "ss", "strace",
    "tcpdump",
];

/// What a command prints that fails, as the transcript shows.
const FAILURE: &str = r"(?i)\b(error|cannot|refused|killed|terminated)\b";

/// The characters that the kernel's terminal takes for these keys.
const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const SUSPEND: u8 = 0x1a;

/// What begins the line that a shell prints before each prompt, with the exit status of the
/// command, then those of each part of a pipeline.
const PROMPT: char = '\x1e';

/// The first process in the namespaces. It starts a shell on each terminal whose name it reads.
/// Without `env`, the shells would ignore Ctrl-C, as all that bash starts in the background.
const MACHINE: &str = r#"
    mkdir /run/bin
    cat > ~/.bashrc << 'END'
        set +o emacs # Nobody edits lines here.
        PS1= PS2=
        PROMPT_COMMAND='printf "\36%s\n" "$? ${PIPESTATUS[*]}" > /dev/tty'
        command_not_found_handle() { echo "$1: command not found" > /dev/tty; return 127; }
        export -f command_not_found_handle # For a `bash -c`.
END
    cat > /run/bin/cargo << 'END'
#!/bin/sh
        # Starts the program, which is built already.
        while [ $# -gt 0 ]; do
            case $1 in
                -p) package=$2 program=$2; shift ;;
                --example) program=examples/$package/$2; shift ;;
                --) shift; break ;;
            esac
            shift
        done
        exec "/run/target/$program" "$@"
END
    [ $UID != 0 ] || printf '#!/bin/sh\nexec "$@"\n' > /run/bin/sudo
    chmod +x /run/bin/*
    while read -r terminal; do
        setsid --ctty env --default-signal bash < $terminal &> $terminal &
    done"#;

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
/// numbers that differ from run to run. Returns whether that is possible here.
pub fn assert_played(transcript: &str) -> bool {
    let Some(mut session) = Session::start(transcript) else {
        return false;
    };
    for line in transcript.lines().map(Line::parse) {
        if line.is_action() {
            session.act(&line);
        } else {
            let printed = session.terminal(line.terminal).next_line();
            let printed = printed.unwrap_or_else(|why| format!("({why})"));
            assert_eq!(
                masked(&printed),
                masked(line.text),
                "terminal {} printed {printed:?}",
                line.terminal
            );
        }
    }
    session.wait_for_clients_beside("");
    session.kill();
    let mut rest = String::new();
    for (number, terminal) in &mut session.terminals {
        // Until the last process is killed that has the terminal.
        let end = loop {
            if let Err(end) = terminal.receive(LIMIT) {
                break end;
            }
        };
        assert_eq!(end, RecvTimeoutError::Disconnected, "terminal {number}");
        terminal.write_rest(number, &mut rest);
    }
    assert_eq!(rest, "", "not in the transcript");
    true
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
    static MASKS: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
        [
            (r":(3[2-9]|[45]\d|60)\d{3}\b", ":PORT"),
            // As tcpdump writes it.
            (r"\b(\d+(\.\d+){3})\.(3[2-9]|[45]\d|60)\d{3}\b", "$1.PORT"),
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

/// A few terminals on a machine of their own: with its own network, processes, /run and /tmp.
struct Session {
    /// Keeps the namespaces alive. It is killed at the end, and all other processes with it.
    machine: Child,
    terminals: BTreeMap<String, Terminal>,
}

impl Session {
    fn start(transcript: &str) -> Option<Session> {
        if !can_play(transcript) {
            return None;
        }
        build_programs(transcript);
        let checkout = harness::root();
        let target = env::current_exe().unwrap();
        // They may be in /tmp, which becomes another one.
        let set_up = format!(
            "ip link set lo up && mount -t tmpfs none /run && mkdir -p /run/home/sockets /run/target &&
            mount --rbind '{}' /run/home/sockets && mount --rbind '{}' /run/target &&
            mount -t tmpfs none /tmp && cd /run/home/sockets",
            checkout.display(),
            target.ancestors().nth(2).unwrap().display()
        );
        let mut first = Command::new("env"); // It only starts what follows.
        if !transcript.contains("│ $ sudo ") {
            first.args(["unshare", "--user", "--map-user=1001", "--map-group=1001"]);
        }
        first.args(["bash", "-c", MACHINE]);
        let flags = "-rnpm --fork --kill-child --mount-proc";
        let mut command = unshared(flags, &set_up, &first)?;
        let command = command
            .env_clear()
            .env("HOME", "/run/home")
            .env("LANG", "C.UTF-8")
            .env(
                "PATH",
                "/run/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            )
            .env("TERM", "dumb")
            .stdin(Stdio::piped());
        // If the test is killed, this process is as well, and with it all in the namespaces.
        let machine = harness::watch(command).spawn().unwrap();
        Some(Session {
            machine,
            terminals: BTreeMap::new(),
        })
    }

    fn terminal(&mut self, number: &str) -> &mut Terminal {
        let machine = self.machine.stdin.as_mut().unwrap();
        self.terminals
            .entry(number.to_owned())
            .or_insert_with(|| Terminal::open(machine))
    }

    /// Does what somebody does at a terminal.
    fn act(&mut self, line: &Line) {
        if line.is_key() || line.text == "$ fg" {
            self.wait_for_clients_beside(line.terminal);
        }
        let terminal = self.terminal(line.terminal);
        match line.text {
            "^C" => terminal.press(INTERRUPT),
            "^Z" => terminal.press(SUSPEND),
            "^D" => terminal.write(&[END_OF_INPUT]),
            // Otherwise it would also print the command that it resumes.
            "$ fg" => terminal.start("fg > /dev/null"),
            text => match text.strip_prefix("$ ") {
                Some(command) => terminal.start(command),
                None => {
                    let typed = text.trim_end_matches(RETURN);
                    terminal.write(format!("{typed}\n").as_bytes());
                }
            },
        }
    }

    /// Gives clients at other terminals, which may have their answers, the time to end, as
    /// somebody does who reads the answers before turning to this one.
    fn wait_for_clients_beside(&mut self, terminal: &str) {
        let deadline = Instant::now() + Duration::from_secs(1);
        for (number, other) in &mut self.terminals {
            while number != terminal && other.runs_client() {
                let left = deadline.saturating_duration_since(Instant::now());
                if other.receive(left).is_err() {
                    break;
                }
            }
        }
    }

    /// Waits until nothing is printed for some time: a little more than the time limits of a
    /// client that waits, or of others that notice that a server is suspended.
    fn wait_until_quiet(&mut self, line: &Line) {
        let begin = Instant::now();
        let mut quiet_since = begin;
        while begin.elapsed() < LIMIT {
            for terminal in self.terminals.values_mut() {
                if terminal.receive(Duration::from_millis(20)).is_ok() {
                    quiet_since = Instant::now();
                }
            }
            let quiet = match line.text {
                "^Z" | "$ fg" => Duration::from_millis(3500),
                _ if self.terminal(line.terminal).runs_client() => Duration::from_millis(6500),
                _ => Duration::from_millis(1500),
            };
            if quiet_since.elapsed() > quiet {
                return;
            }
        }
    }

    fn kill(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
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

/// Builds the programs that a transcript names.
fn build_programs(transcript: &str) {
    // A line may have several: the judge starts another program.
    for command in transcript
        .lines()
        .flat_map(|line| line.split("cargo run ").skip(1))
    {
        let words: Vec<&str> = command.split(' ').collect();
        let after = |option| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        let package = after("-p").expect("a package");
        match after("--example") {
            Some(example) => example_of(package, example),
            None => program(package),
        };
    }
}

/// A terminal with a shell, and what the shell does there.
struct Terminal {
    keyboard: File,
    lines: Receiver<String>,
    unwritten: Vec<String>,
    /// The process group of the shell.
    shell: Pid,
    /// Whether a command has the terminal.
    is_busy: bool,
    is_server: bool,
    shows_failure: bool,
    /// Whether bash may begin a new line, because a key has ended a command.
    is_interrupted: bool,
}

impl Terminal {
    fn open(machine: &mut impl Write) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let pty = openpt(flags).unwrap();
        grantpt(&pty).unwrap();
        unlockpt(&pty).unwrap();
        let mut modes = tcgetattr(&pty).unwrap();
        // What is typed is not printed, and a key throws nothing away that was printed before.
        modes.local_modes.remove(LocalModes::ECHO);
        modes.local_modes.insert(LocalModes::NOFLSH);
        modes.output_modes.remove(OutputModes::OPOST);
        tcsetattr(&pty, OptionalActions::Now, &modes).unwrap();
        let name = ptsname(&pty, Vec::new()).unwrap().into_string().unwrap();
        writeln!(machine, "{name}").unwrap();

        let keyboard = File::from(pty);
        let screen = BufReader::new(keyboard.try_clone().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in screen.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                // A command may have printed a last line without an end.
                let (printed, prompt) = line.split_at(line.find(PROMPT).unwrap_or(line.len()));
                if !printed.is_empty() || prompt.is_empty() {
                    let _ = sender.send(printed.trim_end().to_owned());
                }
                if !prompt.is_empty() {
                    let _ = sender.send(prompt.to_owned());
                }
            }
        });
        let mut terminal = Terminal {
            shell: Pid::INIT,
            keyboard,
            lines,
            unwritten: Vec::new(),
            is_busy: true,
            is_server: false,
            shows_failure: false,
            is_interrupted: false,
        };
        terminal.wait();
        terminal.shell = tcgetpgrp(&terminal.keyboard).unwrap();
        terminal
    }

    fn write(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    /// Types a command when the one before has ended.
    fn start(&mut self, command: &str) {
        self.wait();
        self.is_busy = true;
        self.is_server = false;
        self.shows_failure = false;
        self.write(format!("{command}\n").as_bytes());
    }

    /// Presses a key, and waits for the prompt, or for what a program prints that has its own
    /// answer to Ctrl-C.
    fn press(&mut self, key: u8) {
        let deadline = Instant::now() + LIMIT;
        // Before bash has started a command and given it the terminal, bash itself gets the key.
        while self.is_busy && tcgetpgrp(&self.keyboard) == Ok(self.shell) {
            let _ = self.receive(Duration::from_millis(2));
        }
        while self.receive(Duration::ZERO).is_ok() {}
        let before = self.unwritten.len();
        self.is_interrupted = true;
        self.write(&[key]);
        let mut pressed = Instant::now();
        while self.is_busy && self.unwritten.len() == before {
            // A key has no effect on a process that bash is just starting. A second Ctrl-C can mean more than the
            // first, so that waits.
            let patience = if key == SUSPEND { 0 } else { 5 };
            let came = self.receive(Duration::from_millis(200));
            if came.is_err() && pressed.elapsed() > Duration::from_secs(patience) {
                self.write(&[key]);
                pressed = Instant::now();
            }
            assert!(Instant::now() < deadline, "nothing ended or answered");
        }
    }

    /// Waits for the prompt.
    fn wait(&mut self) {
        while self.is_busy {
            self.receive(LIMIT).expect("a prompt");
        }
    }

    fn runs_client(&self) -> bool {
        self.is_busy && !self.is_server
    }

    fn next_line(&mut self) -> Result<String, RecvTimeoutError> {
        while self.unwritten.is_empty() {
            self.receive(LIMIT)?;
        }
        Ok(self.unwritten.remove(0))
    }

    /// Receives a line, and keeps it if a command has printed it.
    fn receive(&mut self, limit: Duration) -> Result<(), RecvTimeoutError> {
        static JOB: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\[\d+\]").unwrap());
        static FAILED: LazyLock<Regex> = LazyLock::new(|| Regex::new(FAILURE).unwrap());
        let line = self.lines.recv_timeout(limit)?;
        if JOB.is_match(&line) || (self.is_interrupted && line.is_empty()) {
            return Ok(()); // It is from bash.
        }
        self.is_interrupted = false;
        if let Some(statuses) = line.strip_prefix(PROMPT) {
            let statuses: Vec<&str> = statuses.split(' ').collect();
            let is_explained = ["0", "130", "148"].contains(&statuses[0]) || self.shows_failure;
            let is_missing = ["126", "127"]
                .iter()
                .any(|status| statuses.contains(status));
            assert!(
                is_explained && !is_missing,
                "a command failed, status {}, after {:?}",
                statuses[0],
                self.unwritten
            );
            self.is_busy = false;
        } else {
            self.is_server |= line.starts_with("listening on");
            self.shows_failure |= FAILED.is_match(&line);
            self.unwritten.push(line);
        }
        Ok(())
    }

    fn write_rest(&mut self, number: &str, out: &mut String) {
        while self.receive(Duration::ZERO).is_ok() {}
        for line in self.unwritten.drain(..) {
            let _ = writeln!(out, "{}", format!("{number}{BAR}{line}").trim_end());
        }
    }
}
