//! Our programs and their Python twins in `peers/`, each server with each client.

use std::path::Path;
use std::process::Command;

use harness::{Running, noise, not_run, program, run};

/// A program that does the same as one of ours. `None`, and said aloud, without Python 3.8.
fn twin(name: &str) -> Option<Command> {
    let version = "import sys; sys.exit(sys.version_info < (3, 8))";
    if !Command::new("python3").args(["-c", version]).status().is_ok_and(|status| status.success()) {
        not_run("python3, 3.8 or later, is not installed");
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(format!("{name}.py"));
    let mut twin = Command::new("python3");
    twin.arg(path);
    Some(twin)
}

/// A server of the one kind, asked by a client of the other.
fn assert_echo(server: &mut Command, mut client: impl FnMut(&str) -> Command, inputs: &[&[u8]]) {
    let mut server = Running::start(server);
    let addr = server.announced();
    let answer = run(client(&addr).args(["hello", "two words"]), b"");
    assert_eq!((answer.code, &answer.stdout[..]), (Some(0), &b"hello\ntwo words\n"[..]), "{answer:?}");
    for input in inputs {
        let answer = run(&mut client(&addr), input);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert!(answer.stdout == *input, "{} of {} bytes came back", answer.stdout.len(), input.len());
    }
}

fn assert_network_pair(ours: &str, twins: &str, inputs: &[&[u8]]) {
    let names = |prefix: &str, half: &str, dash: char| format!("{prefix}{dash}{half}");
    let Some(mut server) = twin(&names(twins, "server", '_')) else { return };
    let client_of = |mut client: Command, addr: &str| {
        client.args(["--addr", addr, "--timeout", "20"]);
        client
    };
    let our_client = |addr: &str| client_of(program(&names(ours, "client", '-')), addr);
    let their_client = |addr: &str| client_of(twin(&names(twins, "client", '_')).unwrap(), addr);
    assert_echo(server.args(["--addr", "127.0.0.1:0"]), our_client, inputs);
    assert_echo(program(&names(ours, "server", '-')).args(["--addr", "127.0.0.1:0"]), their_client, inputs);
}

/// All bytes but the newline, which ends a message.
fn every_byte() -> Vec<u8> {
    (0..=255).filter(|byte| *byte != b'\n').chain([b'\n']).collect()
}

#[test]
fn udp_pairs_with_its_twin() {
    assert_network_pair("udp", "udp", &[&every_byte(), b"one\n\nthree\n"]);
}

#[test]
fn tcp_pairs_with_its_twin() {
    assert_network_pair("tcp", "tcp", &[&every_byte(), b"no newline", b"", &noise(1 << 20)]);
}

#[cfg(unix)]
fn assert_unix_pair(options: &[&str], inputs: &[&[u8]]) {
    let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
    let role = |mut command: Command, role: &str, path: &Path| {
        command.arg(role).args(options).arg("--path").arg(path);
        command
    };
    let Some(theirs) = twin("unix_echo") else { return };
    let path = folder.path().join("theirs");
    let client = |addr: &str| role(program("unix-echo"), "client", Path::new(addr));
    assert_echo(&mut role(theirs, "server", &path), client, inputs);
    let path = folder.path().join("ours");
    let client = |addr: &str| role(twin("unix_echo").unwrap(), "client", Path::new(addr));
    assert_echo(&mut role(program("unix-echo"), "server", &path), client, inputs);
}

#[test]
#[cfg(unix)]
fn unix_streams_pair_with_their_twin() {
    assert_unix_pair(&[], &[&every_byte(), b"no newline", b"", &noise(1 << 20)]);
}

#[test]
#[cfg(unix)]
fn unix_datagrams_pair_with_their_twin() {
    assert_unix_pair(&["--datagram"], &[&every_byte(), b"one\n\nthree\n"]);
}
