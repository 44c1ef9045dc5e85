//! A test that fails, panics or is killed leaves nothing behind.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, Server, not_run, program, unshared};

/// The test below sets this variable for the test that it starts.
const STARTED: &str = "STARTED_BY_A_TEST";

#[test]
#[ignore = "it leaves things behind: the test below starts it, and sees them go"]
fn a_test_that_ends_in_the_middle() {
    if env::var_os(STARTED).is_none() {
        return not_run("only the test below starts this one");
    }
    let folder = harness::folder();
    let path = folder.path().join("s");
    let mut unix = Running::start(program("unix-echo").arg("server").arg("--path").arg(&path));
    unix.announced();
    let tcp = Server::start(program("tcp-server").args(["--addr", "127.0.0.1:0"]));
    tcp.running.suspend();
    let mut left = vec![unix.id(), tcp.running.id()];
    let mut wait = Command::new("sh");
    // The shell in the namespace starts another process, which the harness does not know.
    wait.args(["-c", "sleep 600 & echo $!; exec cat"]);
    let set_up = "ip link add one type veth peer name two";
    let host = unshared("-rn", set_up, &wait).map(|mut wait| Running::start(&mut wait));
    let _host = host.map(|mut host| {
        left.push(host.stdout_line().parse().unwrap());
        left.push(host.id());
        host
    });
    println!("left: {} {left:?}", folder.path().display());
    // The test below looks at all of them. Then it kills this process, or lets it go on.
    io::stdin().read_line(&mut String::new()).unwrap();
    panic!("on purpose");
}

/// Returns whether a process still runs. A zombie, for which nobody has waited, does not.
fn is_running(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn a_test_that_panics_or_is_killed_leaves_no_process_namespace_interface_or_file() {
    for how in ["panic", "kill"] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--nocapture", "--test-threads", "1", "--exact"]);
        command.arg("leftovers::a_test_that_ends_in_the_middle");
        let mut test = Running::start(command.env(STARTED, "yes"));
        let line = loop {
            let line = test.stdout_line();
            if let Some((_, line)) = line.split_once("left: ") {
                break line.to_owned();
            }
        };
        let (folder, processes) = line.split_once(' ').unwrap();
        let processes: Vec<&str> = processes.trim_matches(['[', ']']).split(", ").collect();
        assert!(processes.len() >= 2 && Path::new(folder).exists(), "{line}");
        match how {
            "kill" => assert_eq!(test.kill().code, None),
            _ => {
                test.write(b"\n");
                assert_eq!(test.finish().code, Some(101));
            }
        }
        let deadline = Instant::now() + LIMIT;
        while processes.iter().any(|id| is_running(id)) || Path::new(folder).exists() {
            assert!(Instant::now() < deadline, "after {how}: {line}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
