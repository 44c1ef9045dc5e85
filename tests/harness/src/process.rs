//! Starts programs as processes, with a limit on every wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::patience;

/// A program that runs. It is killed when this is dropped, also when a test fails.
pub struct Running {
    child: Child,
    /// The stdin of the program. `None` closes it.
    pub stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<Output>,
    stderr: Option<Output>,
    #[cfg(unix)]
    leads_group: bool,
}

/// The exit code and the output of a program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or `None` if a signal ended the program.
    pub code: Option<i32>,
    /// All of stdout that was not read before.
    pub stdout: Vec<u8>,
    /// All of stderr that was not read before.
    pub stderr: String,
}

impl Finished {
    /// Asserts that the program succeeded and printed exactly this on stdout.
    pub fn assert_printed(&self, stdout: &[u8]) {
        let has_printed = self.code == Some(0) && self.stdout == stdout;
        let shown = String::from_utf8_lossy(&self.stdout);
        assert!(has_printed, "{:?}, {shown:?}, {}", self.code, self.stderr);
    }

    /// Asserts that the program failed with nothing on stdout, and that stderr begins like
    /// this.
    pub fn assert_failed(&self, stderr: &str) {
        let failed = self.code == Some(1) && self.stdout.is_empty();
        assert!(
            failed && self.stderr.starts_with(stderr),
            "{self:?}, and not {stderr:?}"
        );
    }

    /// Says how a server has ended that should go on, and what it printed.
    pub fn ended_early(&self) -> String {
        let code = self.code.map(|code| format!("exit code {code}"));
        let code = code.unwrap_or_else(|| "a signal".to_owned());
        let printed = printed(&String::from_utf8_lossy(&self.stdout), &self.stderr);
        format!("it ended by itself, with {code}, and {printed}")
    }

    /// Asserts that stderr has this text somewhere.
    pub fn assert_stderr(&self, text: &str) {
        assert!(self.stderr.contains(text), "{self:?} does not say {text:?}");
    }
}

/// Shows the last lines that a program printed.
fn printed(stdout: &str, stderr: &str) -> String {
    let lines = stdout.lines().chain(stderr.lines());
    let matters = |line: &&str| !line.trim().is_empty() && !line.contains("`RUST_BACKTRACE=1`");
    let lines: Vec<&str> = lines.filter(matters).collect();
    match &lines[lines.len().saturating_sub(10)..] {
        [] => "printed nothing".to_owned(),
        last => format!("printed:\n{}", last.join("\n")),
    }
}

impl Running {
    /// Starts a program. Threads read its output all the time, so that no pipe is ever full.
    pub fn start(command: &mut Command) -> Running {
        Running::start_with(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts a program with this stdout and this stderr.
    pub fn start_with(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Running {
        command.stdin(Stdio::piped());
        #[cfg(unix)]
        crate::leftovers::watch(command);
        Running::spawn(command, stdout, stderr)
    }

    /// Starts a program with this stdin.
    #[cfg(unix)]
    pub fn start_with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Running {
        command.stdin(stdin);
        crate::leftovers::watch(command);
        Running::spawn(command, Stdio::piped(), Stdio::piped())
    }

    fn spawn(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Running {
        let started = command.stdout(stdout).stderr(stderr).spawn();
        let mut child = started.unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy();
            panic!("cannot start {program}: {error}")
        });
        Running {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(Output::of),
            stderr: child.stderr.take().map(Output::of),
            #[cfg(unix)]
            leads_group: false,
            child,
        }
    }

    /// Starts a server that starts children for its clients. What is done to it is done to them as well.
    #[cfg(unix)]
    pub fn start_with_children(command: &mut Command) -> Running {
        Running::start_group(command, Stdio::piped(), Stdio::piped())
    }

    /// Does the same, with this stdout and this stderr.
    #[cfg(unix)]
    pub fn start_group(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Running {
        use std::os::unix::process::CommandExt;
        let command = crate::leftovers::mark(command);
        let command = command.process_group(0).stdin(Stdio::piped());
        let mut running = Running::spawn(command, stdout, stderr);
        running.leads_group = true;
        crate::leftovers::also_kill(running.id());
        running
    }

    /// Waits until a server listens, and returns what it prints after `listening on`.
    pub fn announced(&mut self) -> String {
        self.try_announced().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns why if the server does not announce where it listens.
    pub fn try_announced(&mut self) -> Result<String, String> {
        let line = self.try_stdout_line()?;
        // On Windows Python ends a line with CR LF.
        let addr = line.trim_end().strip_prefix("listening on ");
        addr.map(str::to_owned)
            .ok_or_else(|| format!("not an announcement: {line:?}"))
    }

    /// Returns the next line of stdout, without its newline.
    pub fn stdout_line(&mut self) -> String {
        self.try_stdout_line().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns why if there is no line.
    pub fn try_stdout_line(&mut self) -> Result<String, String> {
        let line = self.stdout.as_mut().unwrap().line();
        line.map_err(|why| self.explained(&why))
    }

    /// Returns the next line of stderr, without its newline.
    pub fn stderr_line(&mut self) -> String {
        self.try_stderr_line().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns why if there is no line.
    pub fn try_stderr_line(&mut self) -> Result<String, String> {
        let line = self.stderr.as_mut().unwrap().line();
        line.map_err(|why| format!("stderr: {why}"))
    }

    /// Returns the next bytes of stdout, exactly this many.
    pub fn stdout_bytes(&mut self, count: usize) -> Vec<u8> {
        self.try_stdout_bytes(count)
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns why if there are not so many.
    pub fn try_stdout_bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let bytes = self.stdout.as_mut().unwrap().bytes(count);
        bytes.map_err(|why| self.explained(&why))
    }

    fn explained(&mut self, why: &str) -> String {
        let stderr = self.stderr.as_mut().map(Output::so_far);
        format!("stdout: {why}; stderr: {stderr:?}")
    }

    /// Stops reading stdout.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Stops reading stdout and stderr.
    pub fn close_output(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }

    /// Writes to the program's stdin.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Closes stdin and waits until the program ends by itself.
    pub fn finish(self) -> Finished {
        self.try_finish().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns why if the program does not end.
    pub fn try_finish(mut self) -> Result<Finished, String> {
        self.stdin = None;
        let code = self.wait()?.code();
        self.collect(code)
    }

    /// Kills the program and returns what it wrote before.
    pub fn kill(mut self) -> Finished {
        #[cfg(unix)]
        if self.leads_group {
            self.signal(rustix::process::Signal::KILL);
        }
        self.child.kill().unwrap();
        let finished = self.wait().map(|status| status.code());
        let finished = finished.and_then(|code| self.collect(code));
        finished.unwrap_or_else(|why| panic!("{why}"))
    }

    fn wait(&mut self) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(format!("still running after {:?}", patience()));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn collect(mut self, code: Option<i32>) -> Result<Finished, String> {
        let rest = |output: Option<Output>| output.map_or(Ok(Vec::new()), Output::rest);
        let stdout = rest(self.stdout.take())?;
        let stderr = String::from_utf8(rest(self.stderr.take())?);
        Ok(Finished {
            code,
            stdout,
            stderr: stderr.map_err(|error| format!("stderr is no text: {error}"))?,
        })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for a server that does not say when it is ready. Returns `false` if the server
    /// has ended, because then any answer came from another program.
    pub fn becomes_ready(&mut self, is_ready: impl Fn() -> bool) -> bool {
        self.try_becomes_ready(patience(), is_ready)
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does the same, and returns an error if the server is not ready in time.
    pub fn try_becomes_ready(
        &mut self,
        limit: Duration,
        is_ready: impl Fn() -> bool,
    ) -> Result<bool, String> {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if is_ready() {
                return Ok(self.is_running());
            }
            if Instant::now() >= deadline {
                let so_far = |output: &mut Option<Output>| output.as_mut().map(Output::so_far);
                let [stdout, stderr] = [&mut self.stdout, &mut self.stderr].map(so_far);
                let printed = printed(&stdout.unwrap_or_default(), &stderr.unwrap_or_default());
                return Err(format!(
                    "it runs, but neither accepts nor answers within {limit:?}, and {printed}"
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    /// Returns the processes that were started: one, or a group.
    #[cfg(target_os = "linux")]
    pub fn processes(&self) -> Vec<u32> {
        if !self.leads_group {
            return vec![self.id()];
        }
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| crate::group_of(*id) == Some(self.id()))
            .collect()
    }
}

/// Suspends a program, as Ctrl-Z does, and resumes it.
#[cfg(unix)]
impl Running {
    /// Sends SIGSTOP, and returns when the program is suspended or has ended.
    pub fn suspend(&self) {
        use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
        self.signal(Signal::STOP);
        // NOWAIT: `finish` must still be able to see the end of the program.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), events).unwrap();
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Sends SIGCONT later, while the caller goes on.
    pub fn resume_after(&self, time: Duration) {
        let (pid, is_group) = (self.pid(), self.leads_group);
        thread::spawn(move || {
            thread::sleep(time);
            // An error means that the program has ended.
            let _ = send(pid, is_group, rustix::process::Signal::CONT);
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        send(self.pid(), self.leads_group, signal).unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }
}

/// Sends a signal to a process, or to the group that it leads.
#[cfg(unix)]
fn send(
    pid: rustix::process::Pid,
    is_group: bool,
    signal: rustix::process::Signal,
) -> rustix::io::Result<()> {
    match is_group {
        true => rustix::process::kill_process_group(pid, signal),
        false => rustix::process::kill_process(pid, signal),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        #[cfg(unix)]
        if self.leads_group {
            let _ = rustix::process::kill_process_group(self.pid(), rustix::process::Signal::KILL);
        }
        // An error means that the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program with this stdin, and waits until it ends.
pub fn run(command: &mut Command, stdin: &[u8]) -> Finished {
    try_run(command, stdin).unwrap_or_else(|why| panic!("{why}"))
}

/// Does the same, and returns why if the program does not end.
pub fn try_run(command: &mut Command, stdin: &[u8]) -> Result<Finished, String> {
    let mut running = Running::start(command);
    // This fails if the program ends without reading. The test judges whether it may.
    let _ = running.stdin.as_mut().unwrap().write_all(stdin);
    running.try_finish()
}

/// A server that has announced its address.
pub struct Server {
    /// The process.
    pub running: Running,
    /// The address that it announced.
    pub addr: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(command: &mut Command) -> Server {
        Server::of(Running::start(command))
    }

    /// Waits until a server that runs already listens.
    pub fn of(mut running: Running) -> Server {
        let addr = running.announced();
        let addr = addr
            .parse()
            .unwrap_or_else(|error| panic!("{addr:?}: {error}"));
        Server { running, addr }
    }
}

/// Starts a server that must be told its port and does not say when it listens. We look for a
/// free port, but another program may take it before the server does. Then the server ends,
/// and we start it again with another port.
pub fn on_a_free_port(
    start: impl Fn(SocketAddr) -> Option<Running>,
    is_ready: impl Fn(SocketAddr) -> bool,
) -> Option<(Running, SocketAddr)> {
    try_on_a_free_port(patience(), start, is_ready).unwrap_or_else(|why| panic!("{why}"))
}

/// Does the same, and returns why if the server does not start, or is not ready within the limit.
pub fn try_on_a_free_port(
    limit: Duration,
    start: impl Fn(SocketAddr) -> Option<Running>,
    is_ready: impl Fn(SocketAddr) -> bool,
) -> Result<Option<(Running, SocketAddr)>, String> {
    /// No kernel gives these ports to a socket that does not choose one, so other tests get none.
    const PORTS: Range<u16> = 10_000..32_000;
    static USED: AtomicU16 = AtomicU16::new(0);
    let is_free = |addr| TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok();
    let mut has_failed = false;
    for _ in 0..20 {
        // Another process of tests begins somewhere else.
        let begin = std::process::id() as u16;
        let number = begin
            .wrapping_mul(97)
            .wrapping_add(USED.fetch_add(1, Relaxed));
        let port = PORTS.start + number % PORTS.len() as u16;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if !is_free(addr) {
            continue;
        }
        let Some(mut server) = start(addr) else {
            return Ok(None);
        };
        if server.try_becomes_ready(limit, || is_ready(addr))? {
            return Ok(Some((server, addr)));
        }
        let finished = server.try_finish()?;
        // If nobody else has the port, the server has another reason to end. Once this may be chance.
        if std::mem::replace(&mut has_failed, is_free(addr)) && has_failed {
            return Err(finished.ended_early());
        }
    }
    Err("no port is free".to_owned())
}

/// An output of a program, which a thread reads.
pub(crate) struct Output {
    chunks: Receiver<Vec<u8>>,
    unread: Vec<u8>,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Output {
        let (sender, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // This ends when the program closes the pipe, or when the test drops the receiver.
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

    /// Waits until `end_of` finds the end of something, and takes everything up to there.
    fn take(&mut self, end_of: impl Fn(&[u8]) -> Option<usize>) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + patience();
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

    fn rest(mut self) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + patience();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.unread.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.unread),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "it has ended, but its output is still open after {:?}, in a process that it started",
                        patience()
                    ));
                }
            }
        }
    }
}
