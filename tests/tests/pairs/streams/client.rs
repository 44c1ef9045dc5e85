//! What every client of streams promises, shown by servers that are good, slow, silent, or
//! close too early. What only `tcp-client` promises is in `tcp/client.rs`.

use std::io::{Read, Write};
use std::net::TcpListener;
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use harness::{LIMIT, Running, run};
use rstest::rstest;
use rstest_reuse::{apply, template};
#[cfg(unix)]
use tempfile::TempDir;

use super::{Service, Stream, client_of};

#[cfg(unix)]
#[template]
#[rstest]
#[case::tcp_client(Service::TcpServer)]
#[case::unix_echo(Service::UnixEcho)]
fn every_stream_client(#[case] service: Service) {}

#[cfg(not(unix))]
#[template]
#[rstest]
#[case::tcp_client(Service::TcpServer)]
fn every_stream_client(#[case] service: Service) {}

/// A server that the test plays.
enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, TempDir),
}

impl Listener {
    fn new(service: Service) -> Listener {
        match service {
            #[cfg(unix)]
            Service::UnixEcho => {
                let folder = harness::folder();
                Listener::Unix(UnixListener::bind(folder.path().join("s")).unwrap(), folder)
            }
            _ => Listener::Tcp(TcpListener::bind("127.0.0.1:0").unwrap()),
        }
    }

    fn addr(&self) -> String {
        match self {
            Listener::Tcp(listener) => listener.local_addr().unwrap().to_string(),
            #[cfg(unix)]
            Listener::Unix(_, folder) => folder.path().join("s").to_str().unwrap().to_owned(),
        }
    }

    fn accept(&self) -> Stream {
        let stream = match self {
            Listener::Tcp(listener) => Stream::Tcp(listener.accept().unwrap().0),
            #[cfg(unix)]
            Listener::Unix(listener, _) => Stream::Unix(listener.accept().unwrap().0),
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

/// Starts the client and accepts its connection. Returns the address as well.
fn accept_at(service: Service, args: &[&str]) -> (Running, Stream, String) {
    let listener = Listener::new(service);
    let client = Running::start(client_of(service, &listener.addr()).args(args));
    (client, listener.accept(), listener.addr())
}

fn accept_from(service: Service, args: &[&str]) -> (Running, Stream) {
    let (client, stream, _) = accept_at(service, args);
    (client, stream)
}

fn read_to_end(mut stream: &Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("the client's half-close");
    bytes
}

#[apply(every_stream_client)]
fn it_half_closes_and_still_prints_what_comes_after(#[case] service: Service) {
    let (client, mut stream) = accept_from(service, &["hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    thread::sleep(Duration::from_millis(100));
    stream.write_all(b"good").unwrap();
    thread::sleep(Duration::from_millis(100));
    stream.write_all(b"bye!").unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..], &client.stderr[..]),
        (Some(0), &b"goodbye!"[..], "")
    );
}

#[apply(every_stream_client)]
fn what_comes_is_printed_at_once_also_without_a_newline(#[case] service: Service) {
    let (mut client, mut stream) = accept_from(service, &[]);
    for bytes in [&b"no newline"[..], b"\xff\x00\x1b"] {
        stream.write_all(bytes).unwrap();
        assert_eq!(client.stdout_bytes(bytes.len()), bytes);
    }
}

#[apply(every_stream_client)]
fn a_server_that_closes_early_is_told_with_what_came_back(#[case] service: Service) {
    let (client, mut stream, addr) = accept_at(service, &["hello", "world"]);
    assert_eq!(read_to_end(&stream), b"hello\nworld\n");
    stream.write_all(b"hel").unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!((client.code, &client.stdout[..]), (Some(1), &b"hel"[..]));
    let error = format!(
        "Error: cannot get everything back from {addr}: 3 of 12 bytes came back\n\nCaused by:\n    the server closed the connection\n"
    );
    assert!(client.stderr.starts_with(&error), "{}", client.stderr);
}

#[apply(every_stream_client)]
fn a_server_that_closes_while_we_still_type_ends_the_client(#[case] service: Service) {
    let (mut client, mut stream) = accept_from(service, &[]);
    client.write(b"hello\n");
    let mut line = [0; 6];
    stream.read_exact(&mut line).unwrap();
    stream.write_all(&line).unwrap();
    drop(stream);
    assert_eq!(client.stdout_line(), "hello");
    let stdin = client.stdin.take(); // It stays open, and the client must still end.
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    client.assert_stderr("6 of 6 bytes came back\n\nCaused by:\n    the server closed the connection before everything was sent");
    drop(stdin);
}

#[apply(every_stream_client)]
fn a_server_that_leaves_in_the_middle_of_much_is_told(#[case] service: Service) {
    let listener = Listener::new(service);
    let mut command = client_of(service, &listener.addr());
    let server = thread::spawn(move || {
        let mut stream = listener.accept();
        stream.read_exact(&mut [0; 100_000]).unwrap();
        stream.write_all(&[b'x'; 50_000]).unwrap();
        // Bytes are still unread when the connection is closed, so it is reset.
    });
    let client = run(&mut command, &vec![b'x'; 16 << 20]);
    server.join().unwrap();
    assert_eq!(client.code, Some(1));
    client.assert_stderr(" bytes came back");
    assert!(!client.stderr.contains("panicked"), "{}", client.stderr);
}

#[apply(every_stream_client)]
fn once_all_is_sent_a_silent_server_is_given_up(#[case] service: Service) {
    let (client, stream) = accept_from(service, &["--timeout", "0.3", "hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    client.assert_stderr("0 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms");
}

#[apply(every_stream_client)]
fn a_server_that_gives_all_back_but_never_closes_is_given_up_too(#[case] service: Service) {
    let (client, mut stream) = accept_from(service, &["--timeout", "0.3", "hello"]);
    stream.write_all(&read_to_end(&stream)).unwrap();
    let client = client.finish();
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b"hello\n"[..])
    );
    client.assert_stderr("6 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms");
}

#[apply(every_stream_client)]
fn the_time_limit_begins_when_all_is_sent(#[case] service: Service) {
    let (mut client, mut stream) = accept_from(service, &["--timeout", "2"]);
    thread::sleep(Duration::from_millis(3500)); // Longer than the limit, but stdin is open.
    client.write(b"patience\n");
    client.stdin = None;
    let line = read_to_end(&stream);
    thread::sleep(Duration::from_millis(1000)); // Shorter than the limit.
    stream.write_all(&line).unwrap();
    drop(stream);
    let client = client.finish();
    client.assert_printed(b"patience\n");
}

#[apply(every_stream_client)]
fn a_server_that_drips_within_the_time_limit_is_waited_for(#[case] service: Service) {
    let (client, mut stream) = accept_from(service, &["--timeout", "2", "drip"]);
    for byte in read_to_end(&stream) {
        thread::sleep(Duration::from_millis(600));
        stream.write_all(&[byte]).unwrap();
    }
    drop(stream);
    let client = client.finish();
    client.assert_printed(b"drip\n");
}

#[apply(every_stream_client)]
#[cfg(unix)]
fn a_reader_that_has_gone_is_an_error_and_not_a_panic(#[case] service: Service) {
    let server = service.start(&["-q"]);
    let mut command = server.client();
    harness::assert_survives_a_lost_reader(&mut command);
}

#[apply(every_stream_client)]
#[cfg(unix)]
fn a_stdin_that_cannot_be_read_is_told(#[case] service: Service) {
    let server = service.start(&["-q"]);
    let mut command = server.client();
    let client = command
        .stdin(std::fs::File::open("/").unwrap())
        .output()
        .unwrap();
    assert_eq!(client.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&client.stderr);
    assert!(
        stderr.contains(
            "0 of 0 bytes came back\n\nCaused by:\n    cannot read stdin: Is a directory"
        ),
        "{stderr}"
    );
}

#[apply(every_stream_client)]
fn wrong_usage_is_refused_with_what_is_right(#[case] service: Service) {
    let wrong = [
        (["--timeout", "0"], "seconds from 0.001 to 86400"),
        (["--timeout", "-1"], "seconds from 0.001 to 86400"),
        (["--timeout", "nan"], "seconds from 0.001 to 86400"),
        (["--timeout", "inf"], "seconds from 0.001 to 86400"),
        (["--timeout", "1e300"], "seconds from 0.001 to 86400"),
    ];
    harness::assert_refuses(|| client_of(service, "unused"), &wrong);
}

/// The client learns that a limit has passed only when a read ends. So after a pause in which there was
/// more to send, the last reads have a shorter limit, and each answer begins a new one.
#[apply(every_stream_client)]
fn each_answer_begins_the_time_limit_anew(#[case] service: Service) {
    let (mut client, mut stream) = accept_from(service, &["--timeout", "2"]);
    // The first read ends after two seconds, when there is more to send; the second after four.
    thread::sleep(Duration::from_millis(3000));
    client.write(b"ab");
    client.stdin = None;
    let line = read_to_end(&stream);
    // The limit is over after five seconds.
    for byte in line {
        thread::sleep(Duration::from_millis(1600));
        stream.write_all(&[byte]).unwrap();
    }
    drop(stream);
    client.finish().assert_printed(b"ab");
}

#[apply(every_stream_client)]
fn a_silent_server_is_given_up_as_soon_as_the_limit_is_over(#[case] service: Service) {
    let (mut client, stream) = accept_from(service, &["--timeout", "3"]);
    thread::sleep(Duration::from_millis(500));
    client.write(b"hello");
    client.stdin = None;
    read_to_end(&stream);
    let started = std::time::Instant::now();
    assert_eq!(client.finish().code, Some(1));
    let time = started.elapsed();
    assert!(time < Duration::from_millis(4500), "after {time:?}");
}

/// Linux interrupts a call with a time limit each time. If the call then began anew, the limit would
/// never pass here.
#[apply(every_stream_client)]
#[cfg(unix)]
fn to_be_suspended_does_not_prolong_the_time_limit(#[case] service: Service) {
    let (mut client, stream) = accept_from(service, &["--timeout", "0.5", "hello"]);
    assert_eq!(read_to_end(&stream), b"hello\n");
    let deadline = std::time::Instant::now() + LIMIT;
    while client.is_running() {
        assert!(std::time::Instant::now() < deadline, "it has not ended");
        client.suspend();
        client.resume();
        thread::sleep(Duration::from_millis(20));
    }
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    client.assert_stderr("0 of 6 bytes came back\n\nCaused by:\n    nothing came for 500ms");
}

/// The client is suspended for longer than its time limit.
#[apply(every_stream_client)]
#[cfg(unix)]
fn what_came_while_it_was_suspended_is_in_time(#[case] service: Service) {
    let (client, mut stream) = accept_from(service, &["--timeout", "1", "hello"]);
    let line = read_to_end(&stream);
    client.suspend();
    stream.write_all(&line).unwrap();
    drop(stream);
    thread::sleep(Duration::from_millis(1500));
    client.resume();
    client.finish().assert_printed(b"hello\n");
}
