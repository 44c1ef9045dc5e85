//! `unix-echo` over a stream: the TCP pair's promises, within one machine.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Running, echo, noise, program, run};

/// A server with a path of its own.
struct Server {
    running: Running,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn folder() -> tempfile::TempDir {
    harness::folder()
}

fn start(args: &[&str]) -> Server {
    let folder = folder();
    let path = folder.path().join("s");
    let mut running = Running::start(
        program("unix-echo")
            .arg("server")
            .arg("--path")
            .arg(&path)
            .args(args),
    );
    running.announced();
    Server {
        running,
        path,
        _folder: folder,
    }
}

fn client_of(path: &PathBuf) -> Command {
    let mut client = program("unix-echo");
    client.arg("client").arg("--path").arg(path);
    client
}

fn connect(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(&server.path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn assert_serves(server: &Server) {
    echo(&connect(server), b"still there?");
}

#[test]
fn messages_are_lines_and_stdin_comes_back_byte_for_byte() {
    let server = start(&[]);
    let client = run(
        client_of(&server.path).args(["hello", "", "two words"]),
        b"",
    );
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), &b"hello\n\ntwo words\n"[..]),
        "{client:?}"
    );
    for len in [0, 1, 65_535, 65_536, 1_000_003] {
        let input = noise(len);
        let client = run(&mut client_of(&server.path), &input);
        assert_eq!(
            (client.code, &client.stderr[..]),
            (Some(0), ""),
            "{len} bytes"
        );
        assert!(
            client.stdout == input,
            "{} of {len} bytes came back",
            client.stdout.len()
        );
    }
}

#[test]
fn a_program_that_writes_and_reads_in_one_thread_gets_16_mib_back() {
    let server = start(&["-q"]);
    let input = noise(16 << 20);
    let output = harness::exchange_in_one_thread(&mut client_of(&server.path), &input);
    assert!(
        output == input,
        "{} of {} bytes came back",
        output.len(),
        input.len()
    );
}

#[test]
fn a_line_comes_back_while_both_ends_stay_open_whoever_is_suspended_meanwhile() {
    let server = start(&[]);
    let mut client = Running::start(&mut client_of(&server.path));
    for round in 0..20 {
        for side in [&server.running, &client] {
            side.suspend();
            side.resume();
        }
        client.write(format!("round {round}\n").as_bytes());
        assert_eq!(client.stdout_line(), format!("round {round}"));
    }
    assert_eq!(client.finish().code, Some(0));
}

#[test]
fn who_half_closes_gets_everything_back_and_then_the_end() {
    let mut server = start(&[]);
    let stream = connect(&server);
    let bytes = noise(1_000_003);
    let back = harness::echo_all(&stream, &bytes, |stream| stream.shutdown(Shutdown::Write));
    assert!(back == bytes, "{} bytes came back", back.len());
    assert_eq!(server.running.stderr_line(), "unnamed: connected");
    assert_eq!(
        server.running.stderr_line(),
        "unnamed: closed, bytes echoed: 1000003"
    );
}

#[test]
fn a_client_that_has_a_name_is_logged_by_it_and_escaped() {
    let mut server = start(&[]);
    let name = server.path.with_file_name("me\n\x1b[2J");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&name).unwrap())
        .unwrap();
    socket
        .connect(&socket2::SockAddr::unix(&server.path).unwrap())
        .unwrap();
    let line = server.running.stderr_line();
    assert!(line.ends_with("/me\\n\\u{1b}[2J: connected"), "{line}");
}

#[test]
fn who_never_writes_or_never_reads_is_closed_and_the_place_comes_free() {
    let mut server = start(&["--idle-timeout", "0.3", "--max-connections", "1"]);
    let mut silent = connect(&server);
    assert_eq!(
        silent.read(&mut [0; 8]).expect("the end of the connection"),
        0
    );
    let deaf = connect(&server);
    let waiting = connect(&server);
    deaf.set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    while (&deaf).write(&[b'x'; 64 * 1024]).is_ok() {}
    for _ in 0..2 {
        assert_eq!(server.running.stderr_line(), "unnamed: connected");
        assert_eq!(
            server.running.stderr_line(),
            "unnamed: closed, no read or write for 300ms"
        );
    }
    echo(&waiting, b"my turn");
}

#[test]
fn the_third_of_two_waits_and_is_then_served() {
    let server = start(&["--max-connections", "2"]);
    let [first, second] = [connect(&server), connect(&server)];
    echo(&first, b"first");
    echo(&second, b"second");
    let mut third = connect(&server);
    third.write_all(b"third").unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert_eq!(
        third.read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "it is not served yet"
    );
    drop(first);
    third.set_read_timeout(Some(LIMIT)).unwrap();
    let mut back = [0; 5];
    third.read_exact(&mut back).expect("its turn");
    assert_eq!(&back, b"third");
}

#[test]
fn clients_that_leave_in_the_middle_harm_nobody() {
    let server = start(&["--max-connections", "2"]);
    let good = connect(&server);
    for _ in 0..50 {
        // Closed with an echo unread, this gives the server an error (ECONNRESET or EPIPE).
        connect(&server).write_all(&[b'x'; 100_000]).unwrap();
        drop(connect(&server));
        echo(&good, b"undisturbed");
    }
    drop(good);
    assert_serves(&server);
}

#[test]
#[cfg(target_os = "linux")]
fn out_of_descriptors_it_waits_and_then_serves_again() {
    let folder = folder();
    let path = folder.path().join("s");
    let command = harness::limited(
        "--nofile=24",
        program("unix-echo").arg("server").arg("--path").arg(&path),
    );
    let mut running = Running::start(&mut { command });
    running.announced();
    let server = Server {
        running,
        path,
        _folder: folder,
    };
    let clients: Vec<UnixStream> = (0..60).map(|_| connect(&server)).collect();
    let before = harness::processor_time(server.running.id());
    std::thread::sleep(Duration::from_secs(1));
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(300),
        "it spins: {used:?} of processor time in a second"
    );
    for client in clients {
        echo(&client, b"at last");
    }
    assert_serves(&server);
}

#[test]
fn it_serves_on_when_nobody_reads_its_output_any_more() {
    let mut server = start(&["--max-connections", "1"]);
    server.running.close_output();
    for _ in 0..50 {
        assert_serves(&server);
    }
}

/// A server that the test plays itself, and a client that has connected to it.
fn accept_from(args: &[&str]) -> (Running, UnixStream, tempfile::TempDir) {
    let folder = folder();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Running::start(client_of(&path).args(args));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    (client, stream, folder)
}

#[test]
fn a_server_that_closes_early_is_told_with_what_came_back() {
    let (client, mut stream, _folder) = accept_from(&["hello", "world"]);
    stream
        .read_to_end(&mut Vec::new())
        .expect("the client's half-close");
    stream.write_all(b"hel").unwrap();
    drop(stream);
    let client = client.finish();
    assert_eq!((client.code, &client.stdout[..]), (Some(1), &b"hel"[..]));
    assert!(
        client.stderr.ends_with(
            "/s: 3 of 12 bytes came back\n\nCaused by:\n    the server closed the connection\n"
        ),
        "{client:?}"
    );
}

#[test]
fn a_server_that_falls_silent_is_told_with_what_came_back() {
    let (client, stream, _folder) = accept_from(&["--timeout", "0.3", "hello"]);
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .ends_with("/s: 0 of 6 bytes came back\n\nCaused by:\n    nothing came for 300ms\n"),
        "{client:?}"
    );
    drop(stream);
}

/// Over TCP the kernel would drop what asks for a connection; here it makes the client wait, for ever.
#[test]
#[cfg(target_os = "linux")]
fn a_server_whose_queue_is_full_is_given_up_in_time() {
    let folder = folder();
    let path = folder.path().join("s");
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _in_the_queue = UnixStream::connect(&path).unwrap();
    let client = run(client_of(&path).args(["--timeout", "0.3", "hello"]), b"");
    assert_eq!(client.code, Some(1));
    assert!(
        client
            .stderr
            .contains(" within 300ms: the server's backlog is full\n"),
        "{}",
        client.stderr
    );
}

#[test]
fn a_reader_that_has_gone_is_an_error_and_not_a_panic() {
    let server = start(&[]);
    harness::assert_survives_a_lost_reader(&mut client_of(&server.path));
}
