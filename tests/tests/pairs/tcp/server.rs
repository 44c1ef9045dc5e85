//! What every TCP server promises is in `promises`; this is about the limit of their log.

use std::process::Command;

use harness::{Server, program, run};

/// Starts a server whose log may have 100 bytes, and returns whether it serves ten clients.
fn serves_beside_a_full_log(set_up: &str, server: &Command, client: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{set_up} exec \"$0\" --addr 127.0.0.1:0")]);
    shell.arg(server.get_program());
    let log = tempfile::tempfile().unwrap();
    let mut command = harness::limited("--fsize=100", &shell);
    let stdout = std::process::Stdio::piped();
    let server = harness::Running::start_with(&mut command, stdout, log.into());
    let server = Server::of(server);
    let mut client = harness::at(program(client), &server.addr.to_string());
    client.args(["--timeout", "0.5", "hello"]);
    (0..10).all(|_| run(&mut client, b"").code == Some(0))
}

/// The kernel sends SIGXFSZ to a process whose file would grow beyond `ulimit -f`, and by default this
/// ends it. If the signal is ignored, the write fails, which costs a line of the log.
#[test]
fn a_log_at_the_limit_of_the_shell_ends_a_server_unless_the_signal_is_ignored() {
    for (server, client) in [("udp-server", "udp-client"), ("tcp-server", "tcp-client")] {
        let server = program(server);
        assert!(!serves_beside_a_full_log("", &server, client), "{server:?}");
        let ignored = serves_beside_a_full_log("trap '' XFSZ;", &server, client);
        assert!(ignored, "{server:?}");
    }
}
