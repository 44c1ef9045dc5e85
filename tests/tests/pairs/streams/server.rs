//! What every server of streams promises to good clients, even if others are bad. What only
//! TCP servers promise is in `tcp/server.rs`.

use std::io::{ErrorKind, Read, Write};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::Stdio;
#[cfg(unix)]
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, echo, echo_all, noise, run};
use rstest::rstest;
use rstest_reuse::apply;
#[cfg(unix)]
use rustix::process::Signal;

use super::{Listening, Service, Stream, every_stream_server};

/// Sends without reading, until nothing more can be sent. Returns how many bytes were sent.
pub fn send_until_stuck(mut stream: &Stream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 20 {
        match stream.write(&[b'x'; 64 * 1024]) {
            Ok(len) => (sent, stuck) = (sent + len, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

#[apply(every_stream_server)]
fn who_half_closes_gets_everything_back_and_then_the_end(#[case] service: Service) {
    let mut server = service.start(&[]);
    let stream = server.connect();
    let peer = stream.name_in_logs();
    let bytes = noise(1_000_003);
    let back = echo_all(&stream, &bytes, Stream::half_close);
    assert!(back == bytes, "{} bytes came back", back.len());
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, bytes echoed: 1000003")
    );
}

#[apply(every_stream_server)]
fn who_half_closes_and_reads_late_still_gets_everything(#[case] service: Service) {
    let server = service.start(&["--max-connections", "1"]);
    let mut late = server.connect();
    late.write_all(&[7; 200_000]).unwrap();
    late.half_close().unwrap();
    server.assert_serves(); // The first client is served, but has read nothing yet.
    let mut back = Vec::new();
    late.read_to_end(&mut back).unwrap();
    assert!(back == [7; 200_000], "{} bytes came back", back.len());
}

/// The buffers on the way hold some megabytes. A client that sends more before it reads waits
/// for the server, which waits for the client to read. When the client reads, both go on. Our
/// clients read all the time.
#[apply(every_stream_server)]
fn who_sends_all_before_reading_is_stuck_until_it_reads(#[case] service: Service) {
    let server = service.start(&[]);
    let stream = server.connect();
    let sent = send_until_stuck(&stream);
    server.assert_serves();
    let more = vec![b'x'; 8 << 20];
    assert_eq!(
        echo_all(&stream, &more, Stream::half_close).len(),
        sent + more.len()
    );
    let client = run(&mut server.client(), &vec![b'x'; sent + more.len()]);
    assert_eq!(
        (client.code, client.stdout.len()),
        (Some(0), sent + more.len()),
        "{}",
        client.stderr
    );
}

/// If a write with a time limit waits and is interrupted, it has written only a part.
#[apply(every_stream_server)]
#[cfg(unix)]
fn being_suspended_while_it_waits_to_write_loses_nothing(#[case] service: Service) {
    let server = service.start(&[]);
    let stream = server.connect();
    let sent = send_until_stuck(&stream);
    for _ in 0..3 {
        server.running.suspend();
        server.running.resume();
    }
    stream.half_close().unwrap();
    let mut back = Vec::new();
    (&stream).read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), sent);
    let log = server.running.kill().stderr;
    assert!(!log.contains("cannot"), "{log}");
}

/// If a peer no longer acknowledges, the kernel gives up the connection after a quarter of an
/// hour. strace makes the first read fail with the same error, at once.
#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn a_connection_that_the_kernel_gives_up_is_not_logged_as_idle(#[case] service: Service) {
    let options = ["-e", "inject=recvfrom:error=ETIMEDOUT:when=1"];
    let Some(mut server) = service.start_traced(Path::new("/dev/null"), &options) else {
        return;
    };
    let stream = server.connect();
    let peer = stream.name_in_logs();
    // The event loop reads only when there is something. The others may have closed already.
    let _ = (&stream).write_all(b"hello");
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, Connection timed out (os error 110)")
    );
}

#[apply(every_stream_server)]
fn clients_that_reset_or_leave_harm_nobody(#[case] service: Service) {
    let server = service.start(&["--max-connections", "2"]);
    let good = server.connect();
    for _ in 0..50 {
        let mut bad = server.connect();
        bad.write_all(&[b'x'; 100_000]).unwrap();
        bad.reset();
        drop(server.connect());
        echo(&good, b"undisturbed");
    }
    drop(good);
    server.assert_serves();
}

#[apply(every_stream_server)]
fn who_never_writes_is_closed_after_the_idle_timeout(#[case] service: Service) {
    let mut server = service.start(&["--idle-timeout", "0.3", "--max-connections", "1"]);
    let mut silent = server.connect();
    let peer = silent.name_in_logs();
    assert_eq!(
        silent.read(&mut [0; 8]).expect("the end of the connection"),
        0
    );
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, no read or write for 300ms")
    );
    server.assert_serves();
}

#[apply(every_stream_server)]
fn who_never_reads_is_closed_after_the_idle_timeout(#[case] service: Service) {
    let mut server = service.start(&["--idle-timeout", "0.3", "--max-connections", "1"]);
    let deaf = server.connect();
    let peer = deaf.name_in_logs();
    // Another client waits in the backlog for the place of this one.
    let waiting = server.connect();
    deaf.set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    while (&deaf).write(&[b'x'; 64 * 1024]).is_ok() {}
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, no read or write for 300ms")
    );
    echo(&waiting, b"my turn");
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn what_came_while_it_was_suspended_is_echoed_before_it_counts_who_is_idle(
    #[case] service: Service,
) {
    let server = service.start(&["--idle-timeout", "1"]);
    let clients: Vec<Stream> = (0..5).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| echo(client, b"hello"));
    server.running.suspend();
    for mut client in &clients {
        client.write_all(b"are you back?").unwrap();
    }
    thread::sleep(Duration::from_millis(1200));
    server.running.resume();
    for mut client in &clients {
        let mut back = [0; 13];
        client.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"are you back?");
    }
}

/// Suspends a server again and again, until a line of its log says that it has closed a connection
/// as idle. Linux interrupts a call with a time limit each time. If the call then began anew, the
/// limit would never pass here.
#[cfg(unix)]
fn assert_closes_while_suspended_again_and_again(mut server: Listening, client: Stream) {
    let peer = client.name_in_logs();
    let expected = format!("{peer}: closed, no read or write for 1s");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let (id, is_over) = (server.running.id(), &is_over);
        scope.spawn(move || {
            let id = rustix::process::Pid::from_raw(id as i32).unwrap();
            let deadline = Instant::now() + LIMIT;
            while !is_over.load(SeqCst) && Instant::now() < deadline {
                for signal in [Signal::STOP, Signal::CONT] {
                    rustix::process::kill_process(id, signal).unwrap();
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let lines = [server.running.stderr_line(), server.running.stderr_line()];
        is_over.store(true, SeqCst);
        assert_eq!(lines[1], expected);
    });
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn to_be_suspended_does_not_prolong_the_time_of_who_never_writes(#[case] service: Service) {
    let server = service.start(&["--idle-timeout", "1"]);
    let silent = server.connect();
    assert_closes_while_suspended_again_and_again(server, silent);
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn to_be_suspended_does_not_prolong_the_time_of_who_never_reads(#[case] service: Service) {
    let server = service.start(&["--idle-timeout", "1"]);
    let deaf = server.connect();
    send_until_stuck(&deaf);
    assert_closes_while_suspended_again_and_again(server, deaf);
}

#[apply(every_stream_server)]
fn who_drips_a_byte_within_the_idle_timeout_is_served_on(#[case] service: Service) {
    let server = service.start(&["--idle-timeout", "2"]);
    let stream = server.connect();
    for _ in 0..4 {
        thread::sleep(Duration::from_secs(1));
        echo(&stream, b".");
    }
}

#[apply(every_stream_server)]
fn the_third_of_two_waits_and_is_then_served(#[case] service: Service) {
    let server = service.start(&["--max-connections", "2"]);
    let [first, second] = [server.connect(), server.connect()];
    echo(&first, b"first");
    echo(&second, b"second");
    let mut third = server.connect();
    third.write_all(b"third").unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(third.read(&mut [0; 8]).is_err(), "it is not served yet");
    drop(first);
    third.set_read_timeout(Some(LIMIT)).unwrap();
    let mut back = [0; 5];
    third.read_exact(&mut back).expect("its turn");
    assert_eq!(&back, b"third");
}

#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn out_of_descriptors_it_waits_and_then_serves_again(#[case] service: Service) {
    let started = Instant::now();
    let server = service.start_as(|command| harness::limited("--nofile=24", &command));
    let mut clients: Vec<Stream> = (0..60).map(|_| server.connect()).collect();
    echo(&clients[0], b"served");
    let before = harness::processor_time(server.running.id());
    // The server must not try again at once for clients in the backlog, nor for new ones.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(20));
        clients.push(server.connect());
    }
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(300),
        "it spins: {used:?} of processor time in a second"
    );
    // The waiting clients are served as soon as others leave.
    for client in clients {
        echo(&client, b"at last");
    }
    server.assert_serves();
    let log = server.running.kill().stderr;
    let errors = log
        .lines()
        .filter(|line| line.starts_with("cannot accept: "))
        .count();
    let most = started.elapsed().as_millis() as usize / 100 + 1;
    assert!(
        (1..=most).contains(&errors),
        "{errors} failures, with a pause of 100 ms after each: {most}"
    );
}

#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn who_waits_for_a_place_or_does_not_read_costs_no_processor_time(#[case] service: Service) {
    let server = service.start(&["--max-connections", "1"]);
    let deaf = server.connect();
    send_until_stuck(&deaf);
    let waiting = server.connect();
    (&waiting).write_all(b"my turn?").unwrap();
    let before = harness::processor_time(server.running.id());
    thread::sleep(Duration::from_secs(1));
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(100),
        "it spins: {used:?} of processor time in a second"
    );
}

/// Starts a server with this stderr.
#[cfg(unix)]
fn start_with_stderr(
    service: Service,
    stderr: impl Into<std::os::fd::OwnedFd>,
    args: &[&str],
) -> Listening {
    let stderr: std::os::fd::OwnedFd = stderr.into();
    service.start_on(|command| {
        command.args(args);
        Running::start_with(command, Stdio::piped(), stderr.into())
    })
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn it_serves_on_when_nobody_reads_its_output_any_more(#[case] service: Service) {
    let (stderr, ours) = UnixStream::pair().unwrap();
    drop(ours);
    let server = start_with_stderr(service, stderr, &["--max-connections", "1"]);
    for _ in 0..50 {
        server.assert_serves();
    }
}

#[apply(every_stream_server)]
#[cfg(unix)]
fn a_log_that_is_not_read_makes_it_wait_unless_it_is_quiet(#[case] service: Service) {
    for args in [&[][..], &["-q"]] {
        let (stderr, ours) = UnixStream::pair().unwrap();
        stderr.set_nonblocking(true).unwrap();
        while (&stderr)
            .write(b"like a pager that shows a full page\n")
            .is_ok()
        {}
        stderr.set_nonblocking(false).unwrap();
        let server = start_with_stderr(service, stderr, args);
        let mut client = server.connect();
        client.write_all(b"hello").unwrap();
        let is_logging = args.is_empty();
        if is_logging {
            client
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            assert!(client.read(&mut [0; 8]).is_err(), "it does not wait");
            client.set_read_timeout(Some(LIMIT)).unwrap();
            thread::spawn(move || std::io::copy(&mut &ours, &mut std::io::sink()));
        }
        client.read_exact(&mut [0; 5]).expect("an echo");
    }
}

#[apply(every_stream_server)]
fn quiet_logs_nothing_per_connection(#[case] service: Service) {
    let server = service.start(&["-q"]);
    server.assert_serves();
    server.assert_serves();
    assert_eq!(server.running.kill().stderr, "");
}

#[apply(every_stream_server)]
fn wrong_usage_is_refused_with_what_is_right(#[case] service: Service) {
    let wrong = [
        (["--max-connections", "0"], "0 is not in 1.."),
        (["--max-connections", "-1"], "unexpected argument '-1'"),
        (["--idle-timeout", "0"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "-1"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "nan"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "inf"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "1e300"], "seconds from 0.001 to 86400"),
    ];
    harness::assert_refuses(|| service.command(), &wrong);
}

/// A pair of connected sockets keeps the boundaries of writes, where a pipe would join them.
#[apply(every_stream_server)]
#[cfg(unix)]
fn a_log_line_is_one_write(#[case] service: Service) {
    let (stderr, log) = std::os::unix::net::UnixDatagram::pair().unwrap();
    log.set_read_timeout(Some(LIMIT)).unwrap();
    let server = start_with_stderr(service, stderr, &[]);
    let client = server.connect();
    let name = client.name_in_logs();
    echo(&client, b"hello");
    drop(client);
    for what in ["connected", "closed, bytes echoed: 5"] {
        let mut write = [0; 4096];
        let len = log.recv(&mut write).unwrap();
        let write = String::from_utf8_lossy(&write[..len]);
        assert_eq!(write, format!("{name}: {what}\n"));
    }
}

#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn while_nothing_happens_it_costs_no_processor_time(#[case] service: Service) {
    let server = service.start(&[]);
    let idle = server.connect();
    echo(&idle, b"hello");
    let before = harness::processor_time(server.running.id());
    thread::sleep(Duration::from_secs(1));
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(100),
        "it spins: {used:?} of processor time in a second"
    );
}

#[apply(every_stream_server)]
#[cfg(target_os = "linux")]
fn idle_workers_do_not_use_up_the_descriptors(#[case] service: Service) {
    let server = service.start_as(|command| harness::limited("--nofile=24", &command));
    (0..5).for_each(|_| server.assert_serves());
    let log = server.running.kill().stderr;
    let is_usual = |line: &str| line.ends_with(": connected") || line.contains(": closed, ");
    assert!(log.lines().all(is_usual), "{log}");
}
