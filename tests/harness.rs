//! Starts the programs of this workspace as processes, with a time limit on every wait.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
#[path = "benches/loads.rs"]
pub mod loads;
#[cfg(target_os = "linux")]
#[path = "benches/placement.rs"]
pub mod placement;
#[cfg(target_os = "linux")]
#[path = "benches/questions.rs"]
pub mod questions;
#[cfg(target_os = "linux")]
#[path = "benches/servers.rs"]
pub mod servers;

/// The limit of every wait. Nothing takes nearly as long, not even on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A command that starts a program of this workspace.
///
/// `cargo test` does not build the programs of other packages, so this builds it first, from the sources
/// as they are and in the profile of the running test: a stale program is never tested.
pub fn program(name: &str) -> Command {
    built(name, escargot::CargoBuild::new().package(name).bin(name))
}

/// The same for an example of this package.
pub fn example(name: &str) -> Command {
    example_of(env!("CARGO_PKG_NAME"), name)
}

/// The same for an example of another package.
pub fn example_of(package: &str, name: &str) -> Command {
    built(
        name,
        escargot::CargoBuild::new().package(package).example(name),
    )
}

/// A program that this project did not write. `None`, and said aloud, where it is not installed.
pub fn foreign(name: &str) -> Option<Command> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian has servers in a folder that not every user's PATH names.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders
        .map(|folder| folder.join(&file))
        .find(|path| path.is_file());
    if found.is_none() {
        not_run(&format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// One of the Python programs in `peers`. `None`, and said aloud, without Python 3.8.
pub fn python(name: &str) -> Option<Command> {
    static IS_NEW_ENOUGH: OnceLock<bool> = OnceLock::new();
    let mut command = foreign("python3")?;
    let ask = || {
        let script = "import sys; sys.exit(sys.version_info < (3, 8))";
        Command::new("python3")
            .args(["-c", script])
            .status()
            .unwrap()
            .success()
    };
    if !IS_NEW_ENOUGH.get_or_init(ask) {
        not_run("python3 is older than 3.8");
        return None;
    }
    command.arg(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(name),
    );
    Some(command)
}

fn built(name: &str, build: escargot::CargoBuild) -> Command {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap();
    let path = built.entry(name.to_owned()).or_insert_with(|| {
        let run = build.args(["--profile", &profile()]).run();
        run.unwrap_or_else(|error| panic!("cannot build {name}: {error}"))
            .path()
            .to_owned()
    });
    let mut command = Command::new(path);
    // anyhow would add a stack trace to the errors that the tests read.
    command
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    command
}

/// The profile of the running test, by the folder that cargo put it into: `target/PROFILE/deps/test`.
fn profile() -> String {
    let test = env::current_exe().unwrap();
    let folder = test
        .ancestors()
        .nth(2)
        .and_then(|path| path.file_name())
        .unwrap();
    match folder.to_str().unwrap() {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    }
}

/// A program that runs. It is killed when this is dropped, also by a test that fails.
pub struct Running {
    child: Child,
    /// What the program reads. `None` closes it.
    pub stdin: Option<ChildStdin>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    #[cfg(unix)]
    leads_group: bool,
}

/// What a program left when it ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of stdout that was not read before.
    pub stdout: Vec<u8>,
    /// All of stderr that was not read before.
    pub stderr: String,
}

impl Running {
    /// Starts a program. Its output is read all the time, so that it never waits for a full pipe.
    pub fn start(command: &mut Command) -> Running {
        Running::start_with(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts a program with an stdout and an stderr of the test's own.
    pub fn start_with(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Running {
        let started = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        let mut child = started.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Running {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(Output::of),
            stderr: child.stderr.take().map(Output::of),
            #[cfg(unix)]
            leads_group: false,
            child,
        }
    }

    /// Starts a server that starts children for its clients: they are killed with it.
    #[cfg(unix)]
    pub fn start_with_children(command: &mut Command) -> Running {
        use std::os::unix::process::CommandExt;
        let mut running = Running::start(command.process_group(0));
        running.leads_group = true;
        running
    }

    /// What a server says after `listening on`, once it does.
    pub fn announced(&mut self) -> String {
        let line = self.stdout_line();
        // On Windows Python ends a line with CR LF.
        let addr = line.trim_end().strip_prefix("listening on ");
        addr.unwrap_or_else(|| panic!("not an announcement: {line:?}"))
            .to_owned()
    }

    /// The next line of stdout, without its newline.
    pub fn stdout_line(&mut self) -> String {
        match self.stdout.as_mut().unwrap().line() {
            Ok(line) => line,
            Err(why) => panic!(
                "stdout: {why}; stderr: {:?}",
                self.stderr.as_mut().map(Output::so_far)
            ),
        }
    }

    /// The next line of stderr, without its newline.
    pub fn stderr_line(&mut self) -> String {
        self.stderr
            .as_mut()
            .unwrap()
            .line()
            .unwrap_or_else(|why| panic!("stderr: {why}"))
    }

    /// The next bytes of stdout, exactly so many.
    pub fn stdout_bytes(&mut self, count: usize) -> Vec<u8> {
        self.stdout
            .as_mut()
            .unwrap()
            .bytes(count)
            .unwrap_or_else(|why| panic!("stdout: {why}"))
    }

    /// No longer reads stdout and stderr.
    pub fn close_output(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }

    /// Writes to the program's stdin.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Closes stdin and waits for the program to end by itself.
    pub fn finish(mut self) -> Finished {
        self.stdin = None;
        let code = self.wait().code();
        self.collect(code)
    }

    /// Ends the program and returns what it wrote until then.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        let code = self.wait().code();
        self.collect(code)
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {LIMIT:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn collect(mut self, code: Option<i32>) -> Finished {
        let rest = |output: Option<Output>| output.map(Output::rest).unwrap_or_default();
        let stdout = rest(self.stdout.take());
        let stderr = String::from_utf8(rest(self.stderr.take())).expect("stderr is text");
        Finished {
            code,
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Tries until a server is ready that does not say so. `false` if it ended, and so was not what answered.
    pub fn becomes_ready(&mut self, is_ready: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        while self.is_running() {
            if is_ready() {
                return self.is_running();
            }
            assert!(
                Instant::now() < deadline,
                "the server is not ready after {LIMIT:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

/// Suspending a program as Ctrl-Z does, and waking it.
#[cfg(unix)]
impl Running {
    /// Sends SIGSTOP, and returns when the program is suspended or has ended.
    pub fn suspend(&self) {
        use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
        self.signal(Signal::STOP);
        // NOWAIT: the end of the program is for `finish` to see.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), events).unwrap();
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        #[cfg(unix)]
        if self.leads_group {
            let _ = rustix::process::kill_process_group(self.pid(), rustix::process::Signal::KILL);
        }
        // It may have ended already: nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program, gives it this stdin, and waits for its end.
pub fn run(command: &mut Command, stdin: &[u8]) -> Finished {
    let mut running = Running::start(command);
    // A program that ends without reading is for the test to judge.
    let _ = running.stdin.as_mut().unwrap().write_all(stdin);
    running.finish()
}

/// Starts a client, gives it these bytes on stdin, and waits until it has printed the same. Its stdin
/// stays open: many tools end with it, whatever is still on its way.
pub fn start_and_expect_echo(command: &mut Command, bytes: &[u8]) -> Running {
    let mut client = Running::start(command);
    let (mut stdin, input) = (client.stdin.take().unwrap(), bytes.to_vec());
    // In a thread, for a client that stands still would hold the write for ever. It ends with the client.
    let writing = thread::spawn(move || stdin.write_all(&input).map(|()| stdin));
    let printed = client.stdout_bytes(bytes.len());
    assert!(
        printed == bytes,
        "{} bytes came back, but not those that were sent",
        bytes.len()
    );
    client.stdin = Some(writing.join().unwrap().unwrap());
    client
}

/// A server that has said where it listens.
pub struct Server {
    /// The process.
    pub running: Running,
    /// What it said after `listening on`.
    pub addr: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(command: &mut Command) -> Server {
        Server::of(Running::start(command))
    }

    /// Waits until a server that was started listens.
    pub fn of(mut running: Running) -> Server {
        let addr = running.announced();
        let addr = addr
            .parse()
            .unwrap_or_else(|error| panic!("{addr:?}: {error}"));
        Server { running, addr }
    }
}

/// Starts a server that must be told its port and does not say when it listens. Between our finding a free
/// port and its taking it, another may have taken it: then it ends, and is started with another.
pub fn on_a_free_port(
    start: impl Fn(SocketAddr) -> Option<Running>,
    is_ready: impl Fn(SocketAddr) -> bool,
) -> Option<(Running, SocketAddr)> {
    let mut said = String::new();
    for _ in 0..10 {
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        if UdpSocket::bind(addr).is_err() {
            continue; // Ports are counted per protocol, and this one is free in one alone.
        }
        let mut server = start(addr)?;
        if server.becomes_ready(|| is_ready(addr)) {
            return Some((server, addr));
        }
        said = server.finish().stderr;
    }
    panic!("the server finds no port, or ends by itself: {said}");
}

/// One pipe of a program, read by a thread of its own.
struct Output {
    chunks: Receiver<Vec<u8>>,
    unread: Vec<u8>,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Output {
        let (sender, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end: the program closed the pipe, or the test is no longer interested.
            while let Ok(len @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Output {
            chunks,
            unread: Vec::new(),
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let line = self.take(|unread| {
            unread
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|end| end + 1)
        })?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned())
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        self.take(|unread| (unread.len() >= count).then_some(count))
    }

    /// Waits until there is what is looked for, and takes everything up to its end.
    fn take(&mut self, end_of: impl Fn(&[u8]) -> Option<usize>) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(end) = end_of(&self.unread) {
                return Ok(self.unread.drain(..end).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match self.chunks.recv_timeout(left) {
                Ok(chunk) => {
                    self.unread.extend(chunk);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => "not in time",
                Err(RecvTimeoutError::Disconnected) => "closed",
            };
            return Err(format!("{why} after {:?}", self.so_far()));
        }
    }

    fn so_far(&mut self) -> String {
        self.unread.extend(self.chunks.try_iter().flatten());
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    fn rest(mut self) -> Vec<u8> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.unread.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return self.unread,
                Err(RecvTimeoutError::Timeout) => panic!("an output stays open after {LIMIT:?}"),
            }
        }
    }
}

/// The same command in namespaces of its own, after some shell commands that set them up. `None`, and
/// said aloud, where this is not possible.
#[cfg(target_os = "linux")]
pub fn unshared(flags: &str, set_up: &str, command: &Command) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args([flags, "sh", "-c", &format!("{set_up} && exec \"$@\""), "sh"]);
        unshare
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE");
        unshare
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            not_run(&format!(
                "unshare {flags}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
            return None;
        }
        Err(error) => {
            not_run(&format!("cannot start unshare: {error}"));
            return None;
        }
    }
    let mut unshared = unshare();
    unshared.arg(command.get_program()).args(command.get_args());
    Some(unshared)
}

/// Whether strace(1) can be used here. If not, says so aloud.
#[cfg(target_os = "linux")]
pub fn can_trace() -> bool {
    match Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
    {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            not_run(&format!(
                "strace: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
            false
        }
        Err(error) => {
            not_run(&format!("strace: {error}"));
            false
        }
    }
}

/// The same command under a limit as prlimit(1) knows them, such as `--nofile=24`.
#[cfg(target_os = "linux")]
pub fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited
        .arg(limit)
        .arg(command.get_program())
        .args(command.get_args());
    limited
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    limited
}

/// A copy of a program in a folder that everybody can reach, for a command that another user starts.
/// The copy goes when the folder is dropped.
#[cfg(unix)]
pub fn copy_for_everybody(name: &str) -> (tempfile::TempDir, PathBuf) {
    copy_of(&program(name))
}

/// The same for a command that is at hand.
#[cfg(unix)]
pub fn copy_of(command: &Command) -> (tempfile::TempDir, PathBuf) {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = std::path::Path::new(command.get_program());
    let copy = folder.path().join(program.file_name().unwrap());
    // By cp: while we held the copy open to write it, another test's child could inherit that, and the
    // kernel does not run a file that is open to be written (ETXTBSY).
    let cp = Command::new("cp").arg(program).arg(&copy).status();
    assert!(cp.unwrap().success());
    (folder, copy)
}

/// Makes the command run as nobody, if it would run as root. Others have no rights to give away.
#[cfg(unix)]
pub fn as_nobody(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY)
    } else {
        command
    }
}

/// Raises this process's limit of open descriptors, which its children inherit. `None` if it may not.
#[cfg(unix)]
pub fn allow_descriptors(count: u64) -> Option<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.current.map(|current| current.max(count));
    setrlimit(Resource::Nofile, limit).ok()
}

/// A figure of a process's memory in KiB, by its name in /proc/PID/status: `VmRSS` now, `VmHWM` at most.
#[cfg(target_os = "linux")]
pub fn memory_kib(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processor time that a process has used, in its own code and in the kernel for it.
#[cfg(target_os = "linux")]
pub fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // proc_pid_stat(5): the name may hold anything, so count behind it. Ticks are 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The same command with a name, `twofold`, that has an IPv6 and an IPv4 address.
#[cfg(target_os = "linux")]
pub fn with_twofold_name(command: &Command) -> Option<Command> {
    let set_up = r"hosts=$(mktemp) && printf '127.0.0.1 twofold\n::1 twofold\n' > $hosts &&
        mount --bind $hosts /etc/hosts && rm $hosts";
    unshared("-rm", set_up, command)
}

/// The same command in a network namespace where the kernel gives port 7007, and no other, to
/// sockets that do not choose one.
#[cfg(target_os = "linux")]
pub fn where_7007_is_the_only_free_port(command: &Command) -> Option<Command> {
    let set_up = "ip link set lo up && echo 7007 7007 >/proc/sys/net/ipv4/ip_local_port_range";
    unshared("-rn", set_up, command)
}

/// How one of two compares with the other.
pub struct Ratio {
    /// The median of all rounds.
    pub median: f64,
    range: (f64, f64),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:.3} (from {:.3} to {:.3})",
            self.median, self.range.0, self.range.1
        )
    }
}

/// Measures two rates in turn, in one run, so that what slows the machine slows both.
pub fn median_ratio(ours: impl Fn() -> f64, other: impl Fn() -> f64) -> Ratio {
    const ROUNDS: usize = 11;
    // Whoever comes first in a round has the colder caches, so each does once.
    let round = |_| {
        let [a, b, c, d] = [ours(), other(), other(), ours()];
        (a + d) / (b + c)
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(round).collect();
    ratios.sort_by(f64::total_cmp);
    Ratio {
        median: ratios[ROUNDS / 2],
        range: (ratios[0], ratios[ROUNDS - 1]),
    }
}

/// Bytes without a pattern that a lost or moved block could hide in (xorshift).
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Writes to a program and reads from it, as Python's `subprocess.run(input=...)` does: in one thread, what
/// the one pipe takes and what the other has. A program that holds on to either pipe while it waits for
/// the network brings both to a halt; then it is ended, and the test fails.
#[cfg(unix)]
pub fn exchange_in_one_thread(command: &mut Command, input: &[u8]) -> Vec<u8> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{OFlags, fcntl_setfl};
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take(), client.stdout.take().unwrap());
    fcntl_setfl(stdin.as_ref().unwrap(), OFlags::NONBLOCK).unwrap();
    let (done, in_time) = mpsc::channel();
    let guard = thread::spawn(move || {
        let too_late = in_time.recv_timeout(LIMIT).is_err();
        if too_late {
            client.kill().unwrap();
        }
        assert!(
            client.wait().unwrap().success() && !too_late,
            "the program failed, or stood still"
        );
    });
    let (mut written, mut output, mut buffer) = (0, Vec::new(), vec![0; 32 * 1024]);
    loop {
        let mut events = vec![PollFd::new(&stdout, PollFlags::IN)];
        events.extend(
            stdin
                .as_ref()
                .map(|stdin| PollFd::new(stdin, PollFlags::OUT)),
        );
        poll(&mut events, None).unwrap();
        let ready: Vec<bool> = events
            .iter()
            .map(|event| !event.revents().is_empty())
            .collect();
        if let (Some(true), Some(pipe)) = (ready.get(1), &mut stdin) {
            let end = input.len().min(written + 64 * 1024);
            written += pipe.write(&input[written..end]).unwrap();
            if written == input.len() {
                stdin = None;
            }
        }
        if ready[0] {
            match stdout.read(&mut buffer).unwrap() {
                0 => break,
                len => output.extend_from_slice(&buffer[..len]),
            }
        }
    }
    // The guard has left already if it had to end the program.
    let _ = done.send(());
    guard.join().unwrap();
    output
}

/// Runs a program with each of these arguments, which it must refuse as wrong usage and say what is right.
pub fn assert_refuses(program: impl Fn() -> Command, wrong: &[([&str; 2], &str)]) {
    for (args, right) in wrong {
        let finished = run(program().args(args), b"");
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(
            finished.stderr.contains(right),
            "{args:?}: {}",
            finished.stderr
        );
    }
}

/// Runs a program with texts that are no addresses. The error names what failed and what is right.
pub fn assert_refuses_addresses(with_address: impl Fn(&str) -> Command, failed: &str) {
    let port = [
        "127.0.0.1:65536",
        "127.0.0.1:",
        "127.0.0.1:http",
        "[::1]",
        "127.0.0.1:-1",
    ];
    for (addr, reason) in port
        .map(|addr| (addr, "invalid port value"))
        .into_iter()
        .chain(["127.0.0.1", "localhost", ""].map(|addr| (addr, "invalid socket address")))
    {
        let finished = run(&mut with_address(addr), b"");
        assert_eq!(finished.code, Some(1), "{addr:?}: {finished:?}");
        let advice = "write HOST:PORT, as in 127.0.0.1:7007 or [::1]:7007";
        let error = format!("Error: {failed}{addr}: {advice}\n\nCaused by:\n    {reason}\n");
        assert_eq!(finished.stderr, error);
    }
    // To the resolver these are names. In a network namespace without a network it can ask nobody.
    #[cfg(target_os = "linux")]
    for addr in [":7007", "::1"] {
        let Some(mut command) = unshared("-rn", "true", &with_address(addr)) else {
            return;
        };
        let finished = run(&mut command, b"");
        assert_eq!(finished.code, Some(1), "{addr:?}: {finished:?}");
        let error = format!("Error: {failed}{addr}\n\nCaused by:\n    failed to lookup address");
        assert!(finished.stderr.starts_with(&error), "{finished:?}");
    }
}

/// Sends a few bytes to an echo server and waits for them to come back.
pub fn echo(mut stream: impl Read + Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert_eq!(back, bytes);
}

/// Sends bytes to an echo server, half-closes, and reads meanwhile. Returns all that comes back.
pub fn echo_all<S: Sync>(
    stream: &S,
    bytes: &[u8],
    half_close: impl Fn(&S) -> io::Result<()> + Sync,
) -> Vec<u8>
where
    for<'a> &'a S: Read + Write,
{
    let mut back = Vec::with_capacity(bytes.len());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(bytes).unwrap();
            half_close(stream).unwrap();
        });
        let mut stream = stream;
        stream.read_to_end(&mut back).unwrap();
    });
    back
}

/// Has a client's reader go away between two lines, while its stdin goes on: an error, and no panic.
pub fn assert_survives_a_lost_reader(client: &mut Command) {
    let mut client = Running::start(client);
    client.write(b"first\n");
    assert_eq!(client.stdout_line(), "first");
    client.stdout = None;
    let mut stdin = client.stdin.take().unwrap();
    let writer = thread::spawn(move || while stdin.write_all(b"more\n").is_ok() {});
    let client = client.finish();
    writer.join().unwrap();
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .starts_with("Error: cannot get everything back from ")
            && client
                .stderr
                .contains("0: cannot write to stdout\n    1: Broken pipe"),
        "{client:?}"
    );
}

/// Text, and every byte there is. Both end in a newline, which a client of datagrams takes off and puts back.
pub fn short_payloads() -> Vec<Vec<u8>> {
    vec![b"hello\n".to_vec(), (0..=255).chain(*b"\n").collect()]
}

/// The same and 1 MiB, for streams.
pub fn payloads() -> Vec<Vec<u8>> {
    let mut payloads = short_payloads();
    payloads.push(noise(1024 * 1024));
    payloads
}

/// A UDP socket of the test's own, on a port that the kernel chooses.
pub fn udp_socket(host: &str) -> UdpSocket {
    let socket =
        UdpSocket::bind((host, 0)).unwrap_or_else(|error| panic!("cannot bind to {host}: {error}"));
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Says aloud that the test, or a part of it, did not run here. Written past the capture of `cargo test`,
/// which hides what passing tests print.
pub fn not_run(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = io::stderr().write_all(format!("\nNOT RUN: {test}: {why}\n").as_bytes());
}
