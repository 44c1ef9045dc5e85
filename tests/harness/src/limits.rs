//! Limits for a process, and how much memory and processor time a process has used.

use std::process::Command;
use std::sync::{Condvar, LazyLock, Mutex};
use std::time::Duration;

use crate::not_run;

/// Returns the same command under a limit in the form of prlimit(1), such as `--nofile=24`.
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

/// Makes the command run as nobody if it would run as root. Others have no rights to lose.
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

/// The most descriptors that are of use: the bench opens about as many at a time.
const USEFUL: u64 = 32_768;

/// How many descriptors are kept for the tests that need few of them, and do not ask.
const FOR_OTHERS: u64 = 600;

/// How many descriptors this process and each of its children may open. The first use raises the
/// soft limit, often 1024, as far as the hard limit allows and is of use.
pub(crate) static MAX_DESCRIPTORS: LazyLock<u64> = LazyLock::new(|| {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(USEFUL).min(USEFUL);
        let before = limit.current.unwrap_or(USEFUL);
        limit.current = Some(before.max(most));
        // macOS refuses more than its kernel allows. Then the limit stays as it is.
        match setrlimit(Resource::Nofile, limit) {
            Ok(()) => before.max(most),
            Err(_) => before,
        }
    }
    #[cfg(not(unix))]
    USEFUL
});

/// The descriptors that nobody has asked for, beside those for the others.
static FREE: LazyLock<Mutex<u64>> =
    LazyLock::new(|| Mutex::new(MAX_DESCRIPTORS.saturating_sub(FOR_OTHERS)));
static RETURNED: Condvar = Condvar::new();

/// A number of descriptors that a test may open, until this is dropped.
pub struct Descriptors(u64);

/// Waits until so many descriptors are free, and takes them. If there can never be so many here,
/// prints `NOT RUN` and returns `None`.
pub fn descriptors(count: u64) -> Option<Descriptors> {
    enough_descriptors(count).map_err(|why| not_run(&why)).ok()
}

/// Does the same, and returns why there can never be so many.
pub fn enough_descriptors(count: u64) -> Result<Descriptors, String> {
    if *MAX_DESCRIPTORS < count + FOR_OTHERS {
        let limit = *MAX_DESCRIPTORS;
        return Err(format!(
            "{count} descriptors beside those of other tests: the limit is {limit}"
        ));
    }
    let mut free = FREE.lock().unwrap();
    while *free < count {
        free = RETURNED.wait(free).unwrap();
    }
    *free -= count;
    Ok(Descriptors(count))
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // The lock is held only for a sum, so no panic can have poisoned it.
        *FREE.lock().unwrap() += self.0;
        RETURNED.notify_all();
    }
}

/// Returns the memory of a process in KiB: what it uses now (`VmRSS`) or has used at most
/// (`VmHWM`). These are the names in /proc/PID/status.
#[cfg(target_os = "linux")]
pub fn memory_kib(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Returns the fields of /proc/PID/stat after the name, which may contain anything (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1.split(' ');
    Some(fields.map(str::to_owned).collect())
}

/// Returns the process group of a process that exists.
#[cfg(target_os = "linux")]
pub(crate) fn group_of(process: u32) -> Option<u32> {
    stat(process)?.get(2)?.parse().ok()
}

/// Returns whether a thread of this process runs, or would run if a processor were free.
#[cfg(target_os = "linux")]
pub fn wants_processor(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, fields)| fields.starts_with('R'))
        })
    })
}

/// Returns the processor time that a process has used, in its own code and in the kernel. A tick is 10 ms.
#[cfg(target_os = "linux")]
pub fn processor_time(process: u32) -> Duration {
    // A child may end at any time.
    let Some(fields) = stat(process) else {
        return Duration::ZERO;
    };
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
