//! That the judge judges rightly: what is right keeps everything, and what is broken breaks just what it
//! should. The programs are in `tests/peers/right` and `tests/peers/broken`.
#![cfg(target_os = "linux")]

mod broken;
mod command;
mod right;

use std::process::Command;
use std::time::Duration;

use harness::{Finished, Running};

/// A whole run on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the judge with these arguments and the command of a program.
fn start_judge(args: &[&str], program: &Command) -> Running {
    harness::set_patience(PATIENCE);
    let mut judge = Command::new(env!("CARGO_BIN_EXE_judge"));
    judge.args(args).arg("--").arg(program.get_program());
    judge.args(program.get_args());
    Running::start(&mut judge)
}

/// Does the same, and waits until it ends.
fn judge(args: &[&str], program: &Command) -> Finished {
    start_judge(args, program).finish()
}

/// Returns the command of a Python program in this folder of `tests/peers`, if there is a Python. The name
/// begins with the kind of the program, for which this returns the arguments of the judge as well.
fn python(folder: &str, name: &str) -> Option<(Vec<&'static str>, Command)> {
    let kinds: [(&str, &[&str], &[&str]); 6] = [
        ("udp_server", &["udp-server"], &["{port}", "{host}"]),
        ("tcp_server", &["tcp-server"], &["{port}", "{host}"]),
        ("unix_server", &["unix-server"], &["{path}"]),
        ("unix_datagram", &["unix-server", "--datagram"], &["{path}"]),
        ("udp_client", &["udp-client"], &["{host}", "{port}"]),
        ("tcp_client", &["tcp-client"], &["{host}", "{port}"]),
    ];
    let mut kinds = kinds.into_iter();
    let kind = kinds.find(|(kind, ..)| name.starts_with(kind));
    let (_, args, address) = kind.expect("a name that begins with a kind");
    let mut command = harness::python_in(folder, &format!("{name}.py"))?;
    command.args(address);
    Some((args.to_vec(), command))
}

/// Returns the sentences of the promises that are `kept`, `BROKEN` or `not asked`.
fn which_are<'a>(what: &str, stdout: &'a str) -> Vec<&'a str> {
    let begin = format!("  {what:<10}");
    let lines = stdout.lines();
    lines.filter_map(|line| line.strip_prefix(&begin)).collect()
}

/// Asserts that everything that was asked is kept, and tells what was not asked.
fn assert_keeps_everything(finished: &Finished, may_lack: &[&str]) {
    let stdout = String::from_utf8_lossy(&finished.stdout);
    assert_eq!(finished.code, Some(0), "{stdout}{}", finished.stderr);
    let kept = which_are("kept", &stdout).len();
    let last = format!("{kept} of {kept} promises kept");
    assert_eq!(stdout.lines().last(), Some(&*last), "{stdout}");
    for not_asked in which_are("not asked", &stdout) {
        if !may_lack.iter().any(|why| not_asked.ends_with(why)) {
            harness::not_run(not_asked);
        }
    }
}
