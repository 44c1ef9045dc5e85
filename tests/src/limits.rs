//! Limits for a process, and how much memory and processor time a process has used.

use std::process::Command;
use std::time::Duration;

// ANCHOR: limited
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
// ANCHOR_END: limited

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

/// Raises the limit of open descriptors for this process and its children. Returns `None` if
/// this is not permitted.
#[cfg(unix)]
pub fn allow_descriptors(count: u64) -> Option<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.current.map(|current| current.max(count));
    setrlimit(Resource::Nofile, limit).ok()
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

/// Returns the processor time that a process has used, in its own code and in the kernel.
#[cfg(target_os = "linux")]
pub fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // proc_pid_stat(5): the name may contain anything, so we count after it. A tick is 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
