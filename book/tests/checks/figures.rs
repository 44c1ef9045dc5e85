//! The sequence diagrams of the book show what the pairs do. Each is drawn from a trace, a real
//! run that strace(1) saw, and the pairs still do the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use book::sequence::{Condition, Trace, draw, record};
use harness::{at, program};

/// Compares the files of a figure with a run, or writes them.
fn check(name: &str, server: &Command, client: &Command, condition: Condition) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures");
    let [trace, svg] = ["trace", "svg"].map(|kind| folder.join(format!("{name}.{kind}")));
    let titles = [client, server].map(title);
    let titles = [titles[0].as_str(), titles[1].as_str()];
    let run = record(server, client, condition);
    if super::refreshes() {
        let Some(run) = &run else { return };
        fs::write(&trace, run.to_string()).unwrap();
        fs::write(&svg, draw(run, titles)).unwrap();
    }
    let committed = Trace::of_text(&read(&trace));
    assert_eq!(
        draw(&committed, titles),
        read(&svg),
        "not drawn from {trace:?}"
    );
    assert!(
        !read(&svg).contains("\n\n"),
        "a blank line would end the HTML"
    );
    if let Some(run) = run {
        assert_eq!(run.shape(), committed.shape(), "not what {trace:?} shows");
    }
}

fn read(path: &PathBuf) -> String {
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{path:?}: {error}; REFRESH_BOOK=1 writes it"))
}

/// Returns the name of a program, and which side it is if the name does not say it.
fn title(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap();
    let side = command.get_args().next().filter(|_| name == "unix-echo");
    let words = [Some(name), side].into_iter().flatten();
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Returns a UDP server and its client with these options.
fn udp_pair(options: &[&str]) -> [Command; 2] {
    let [server, mut client] =
        ["udp-server", "udp-client"].map(|name| at(program(name), "127.0.0.1:7007"));
    client.args(options).arg("hello");
    [server, client]
}

/// Returns a Unix server and its client with these options.
fn unix_pair(folder: &Path, options: &[&str]) -> [Command; 2] {
    let mut pair = ["server", "client"].map(|role| {
        let mut command = program("unix-echo");
        command.arg(role).args(options);
        command.arg("--path").arg(folder.join("e.sock"));
        command
    });
    pair[1].args(PATIENT).arg("hello");
    pair
}

/// One thread accepts and serves in turn. If there were more, another would wait in accept.
const ALONE: [&str; 2] = ["--max-connections", "1"];

/// A busy machine must not make a client give up, or send again.
const PATIENT: [&str; 2] = ["--timeout", "30"];

#[test]
fn udp() {
    let [server, client] = udp_pair(&PATIENT);
    check("udp", &server, &client, Condition::Serving);
}

#[test]
fn udp_refused() {
    let [server, client] = udp_pair(&[]);
    check("udp-refused", &server, &client, Condition::Absent);
}

#[test]
fn udp_retry() {
    let [server, client] = udp_pair(&["--timeout", "0.3", "--attempts", "2"]);
    check("udp-retry", &server, &client, Condition::Suspended);
}

#[test]
fn tcp() {
    let [mut server, mut client] =
        ["tcp-server", "tcp-client"].map(|name| at(program(name), "127.0.0.1:7007"));
    server.args(ALONE);
    client.args(PATIENT).arg("hello");
    check("tcp", &server, &client, Condition::Serving);
}

#[test]
fn unix_stream() {
    let folder = harness::folder();
    let [mut server, client] = unix_pair(folder.path(), &[]);
    server.args(ALONE);
    check("unix-stream", &server, &client, Condition::Serving);
}

#[test]
fn unix_datagram() {
    let folder = harness::folder();
    let [server, client] = unix_pair(folder.path(), &["--datagram"]);
    check("unix-datagram", &server, &client, Condition::Serving);
}

/// A run that does not happen on loopback: the second receive takes the bytes of two sends.
#[test]
fn a_receive_may_take_the_bytes_of_several_sends() {
    let calls = [
        "client\tsocket\tAF_INET SOCK_STREAM\t-",
        "client\tsendto\t\"abc\"\t3",
        "client\tsendto\t\"de\"\t2",
        "server\trecvfrom\t\"a\"\t1",
        "server\trecvfrom\t\"bcde\"\t4",
    ];
    let lines: Vec<String> = (0..)
        .zip(calls)
        .map(|(ms, call)| format!("{ms}.000\t{ms}.100\t{call}"))
        .collect();
    let shape = Trace::of_text(&lines.join("\n")).shape();
    let arrows = "\"a\": client sendto 1 -> server recvfrom 1\n\
                  \"abc\": client sendto 1 -> server recvfrom 2\n\
                  \"de\": client sendto 2 -> server recvfrom 2\n";
    assert!(shape.ends_with(arrows), "{shape}");
}
