//! What a TCP server promises, to good clients and in spite of bad ones.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Server, echo, echo_all, example_of, noise, not_run, program, run};
use rstest::rstest;
use rstest_reuse::{apply, template};
use socket2::SockRef;

/// The servers that keep these promises.
#[derive(Clone, Copy)]
pub enum TcpServer {
    Threads,
    EventLoop,
}

#[template]
#[export]
#[rstest]
#[case::tcp_server(TcpServer::Threads)]
#[case::event_loop(TcpServer::EventLoop)]
pub fn every_tcp_server(#[case] tcp: TcpServer) {}

impl TcpServer {
    pub fn command(self) -> Command {
        match self {
            TcpServer::Threads => program("tcp-server"),
            TcpServer::EventLoop => example_of("tcp-server", "event_loop"),
        }
    }

    pub fn start(self, args: &[&str]) -> Server {
        Server::start(self.command().args(["--addr", "127.0.0.1:0"]).args(args))
    }

    /// Starts it under strace with these options, which writes its calls into a file.
    #[cfg(target_os = "linux")]
    pub fn start_traced(self, log: &Path, options: &[&str]) -> Option<Server> {
        let mut strace = harness::foreign("strace")?;
        // -D: the server is our child, and strace is the server's.
        strace.args(["-D", "-f", "-o"]).arg(log).args(options);
        strace.arg(self.command().get_program());
        Some(Server::start(strace.args(["--addr", "127.0.0.1:0"])))
    }
}

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server.addr, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn half_close(stream: &TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)
}

pub fn assert_serves(server: &Server) {
    echo(&connect(server), b"still there?");
}

/// Closes with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Sends for ever, without reading, until nothing moves any more.
pub fn send_until_stuck(mut stream: &TcpStream) -> usize {
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

#[apply(every_tcp_server)]
fn who_half_closes_gets_everything_back_and_then_the_end(#[case] tcp: TcpServer) {
    let mut server = tcp.start(&[]);
    let stream = connect(&server);
    let peer = stream.local_addr().unwrap();
    let bytes = noise(1_000_003);
    let back = echo_all(&stream, &bytes, half_close);
    assert!(back == bytes, "{} bytes came back", back.len());
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, bytes echoed: 1000003")
    );
}

#[apply(every_tcp_server)]
fn who_half_closes_and_reads_late_still_gets_everything(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--max-connections", "1"]);
    let mut late = connect(&server);
    late.write_all(&[7; 200_000]).unwrap();
    late.shutdown(Shutdown::Write).unwrap();
    assert_serves(&server); // The server is done with the first one, who has read nothing yet.
    let mut back = Vec::new();
    late.read_to_end(&mut back).unwrap();
    assert!(back == [7; 200_000], "{} bytes came back", back.len());
}

/// The buffers on the way hold some megabytes. Who sends more before reading waits for the server, which
/// waits for the client to read. Reading ends it, and so does `tcp-client`, which reads all the time.
#[apply(every_tcp_server)]
fn who_sends_all_before_reading_is_stuck_until_it_reads(#[case] tcp: TcpServer) {
    let server = tcp.start(&[]);
    let stream = connect(&server);
    let sent = send_until_stuck(&stream);
    assert_serves(&server);
    let more = vec![b'x'; 8 << 20];
    assert_eq!(
        echo_all(&stream, &more, half_close).len(),
        sent + more.len()
    );
    let client = run(
        program("tcp-client").args(["--addr", &server.addr.to_string()]),
        &vec![b'x'; sent + more.len()],
    );
    assert_eq!(
        (client.code, client.stdout.len()),
        (Some(0), sent + more.len()),
        "{}",
        client.stderr
    );
}

/// A write that waits, with a time limit, and is interrupted has written a part.
#[apply(every_tcp_server)]
#[cfg(unix)]
fn being_suspended_while_it_waits_to_write_loses_nothing(#[case] tcp: TcpServer) {
    let server = tcp.start(&[]);
    let stream = connect(&server);
    let sent = send_until_stuck(&stream);
    for _ in 0..3 {
        server.running.suspend();
        server.running.resume();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    (&stream).read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), sent);
}

/// The kernel of a client acknowledges late (40 ms on Linux) what is not a full segment. A server without
/// TCP_NODELAY would wait for that before it sends the next small one.
#[apply(every_tcp_server)]
fn small_writes_are_echoed_without_waiting_for_acknowledgements(#[case] tcp: TcpServer) {
    let server = tcp.start(&["-q"]);
    let stream = connect(&server);
    stream.set_nodelay(true).unwrap();
    let median = |exchange: &dyn Fn()| {
        let mut times: Vec<Duration> = (0..31)
            .map(|_| {
                let started = Instant::now();
                exchange();
                started.elapsed()
            })
            .collect();
        times.sort();
        times[15]
    };
    let write_apart = || {
        (&stream).write_all(b"x").unwrap();
        thread::sleep(Duration::from_micros(200)); // Let each be read, and answered, on its own.
    };
    let one_by_one = median(&|| {
        for _ in 0..3 {
            write_apart();
            (&stream).read_exact(&mut [0; 1]).unwrap();
        }
    });
    let in_a_row = median(&|| {
        for _ in 0..3 {
            write_apart();
        }
        (&stream).read_exact(&mut [0; 3]).unwrap();
    });
    let short = median(&|| echo(&stream, b"abc"));
    let long = median(&|| echo(&stream, &[b'x'; 100_000])); // The server reads and writes it in parts.
    println!("one by one {one_by_one:?}, in a row {in_a_row:?}; short {short:?}, long {long:?}");
    assert!(
        in_a_row < 10 * one_by_one,
        "three in a row took {in_a_row:?}, one by one {one_by_one:?}"
    );
    assert!(
        long < 100 * short,
        "a long message took {long:?}, a short one {short:?}"
    );
}

/// When a peer no longer acknowledges, the kernel gives the connection up after a quarter of an
/// hour. strace makes the first read fail with the same error.
#[apply(every_tcp_server)]
#[cfg(target_os = "linux")]
fn a_connection_that_the_kernel_gives_up_is_not_logged_as_idle(#[case] tcp: TcpServer) {
    let options = ["-e", "inject=recvfrom:error=ETIMEDOUT:when=1"];
    let Some(mut server) = tcp.start_traced(Path::new("/dev/null"), &options) else {
        return;
    };
    let stream = connect(&server);
    let peer = stream.local_addr().unwrap();
    (&stream).write_all(b"hello").unwrap();
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, Connection timed out (os error 110)")
    );
}

/// What this spares shows only where a message is longer than the server's buffer by little, so here it is
/// whether the kernel is asked for it.
#[apply(every_tcp_server)]
#[cfg(target_os = "linux")]
fn it_asks_the_kernel_not_to_hold_up_small_segments(#[case] tcp: TcpServer) {
    let folder = harness::folder();
    let log = folder.path().join("calls");
    let Some(server) = tcp.start_traced(&log, &[]) else {
        return;
    };
    for _ in 0..3 {
        assert_serves(&server);
    }
    drop(server);
    let calls = std::fs::read_to_string(log).unwrap();
    assert_eq!(calls.matches("TCP_NODELAY, [1]").count(), 3, "{calls}");
}

#[apply(every_tcp_server)]
fn clients_that_reset_or_leave_harm_nobody(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--max-connections", "2"]);
    let good = connect(&server);
    for _ in 0..50 {
        let mut bad = connect(&server);
        bad.write_all(&[b'x'; 100_000]).unwrap();
        reset(bad);
        drop(connect(&server));
        echo(&good, b"undisturbed");
    }
    drop(good);
    assert_serves(&server);
}

#[apply(every_tcp_server)]
fn who_never_writes_is_closed_after_the_idle_timeout(#[case] tcp: TcpServer) {
    let mut server = tcp.start(&["--idle-timeout", "0.3", "--max-connections", "1"]);
    let mut silent = connect(&server);
    let peer = silent.local_addr().unwrap();
    assert_eq!(
        silent.read(&mut [0; 8]).expect("the end of the connection"),
        0
    );
    assert_eq!(server.running.stderr_line(), format!("{peer}: connected"));
    assert_eq!(
        server.running.stderr_line(),
        format!("{peer}: closed, no read or write for 300ms")
    );
    assert_serves(&server);
}

#[apply(every_tcp_server)]
fn who_never_reads_is_closed_after_the_idle_timeout(#[case] tcp: TcpServer) {
    let mut server = tcp.start(&["--idle-timeout", "0.3", "--max-connections", "1"]);
    let deaf = connect(&server);
    let peer = deaf.local_addr().unwrap();
    // Its place comes free again, for one who has waited for it.
    let waiting = connect(&server);
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

#[apply(every_tcp_server)]
#[cfg(unix)]
fn what_came_while_it_was_suspended_is_echoed_before_it_counts_who_is_idle(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--idle-timeout", "1"]);
    let clients: Vec<TcpStream> = (0..5).map(|_| connect(&server)).collect();
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

#[apply(every_tcp_server)]
fn who_drips_a_byte_within_the_idle_timeout_is_served_on(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--idle-timeout", "2"]);
    let stream = connect(&server);
    for _ in 0..4 {
        thread::sleep(Duration::from_secs(1));
        echo(&stream, b".");
    }
}

#[apply(every_tcp_server)]
fn the_third_of_two_waits_and_is_then_served(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--max-connections", "2"]);
    let [first, second] = [connect(&server), connect(&server)];
    echo(&first, b"first");
    echo(&second, b"second");
    let mut third = connect(&server);
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

#[apply(every_tcp_server)]
fn a_thousand_clients_at_once_are_each_served(#[case] tcp: TcpServer) {
    const CLIENTS: usize = 1000;
    #[cfg(unix)]
    if harness::allow_descriptors(CLIENTS as u64 + 100).is_none() {
        return not_run("no right to so many descriptors");
    }
    let server = tcp.start(&["-q", "--max-connections", &CLIENTS.to_string()]);
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(&number.to_be_bytes()).unwrap();
    }
    for (number, mut client) in clients.iter().enumerate() {
        let mut back = 0_usize.to_be_bytes();
        client.read_exact(&mut back).expect("an echo");
        assert_eq!(usize::from_be_bytes(back), number);
    }
}

#[apply(every_tcp_server)]
#[cfg(target_os = "linux")]
fn out_of_descriptors_it_waits_and_then_serves_again(#[case] tcp: TcpServer) {
    let command = harness::limited("--nofile=24", tcp.command().args(["--addr", "127.0.0.1:0"]));
    let started = Instant::now();
    let server = Server::start(&mut { command });
    let mut clients: Vec<TcpStream> = (0..60).map(|_| connect(&server)).collect();
    echo(&clients[0], b"served");
    let before = harness::processor_time(server.running.id());
    // Neither who waits in the queue makes it try again at once, nor who joins it.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(20));
        clients.push(connect(&server));
    }
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(300),
        "it spins: {used:?} of processor time in a second"
    );
    // Those who wait are served as places come free.
    for client in clients {
        echo(&client, b"at last");
    }
    assert_serves(&server);
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

#[apply(every_tcp_server)]
#[cfg(target_os = "linux")]
fn who_waits_for_a_place_or_does_not_read_costs_no_processor_time(#[case] tcp: TcpServer) {
    let server = tcp.start(&["--max-connections", "1"]);
    let deaf = connect(&server);
    send_until_stuck(&deaf);
    let waiting = connect(&server);
    (&waiting).write_all(b"my turn?").unwrap();
    let before = harness::processor_time(server.running.id());
    thread::sleep(Duration::from_secs(1));
    let used = harness::processor_time(server.running.id()) - before;
    assert!(
        used < Duration::from_millis(100),
        "it spins: {used:?} of processor time in a second"
    );
}

/// A server whose stderr is this.
#[cfg(unix)]
fn start_with_stderr(tcp: TcpServer, stderr: UnixStream, args: &[&str]) -> Server {
    use std::process::Stdio;
    let stderr = std::os::fd::OwnedFd::from(stderr);
    let mut command = tcp.command();
    command.args(["--addr", "127.0.0.1:0"]).args(args);
    Server::of(harness::Running::start_with(
        &mut command,
        Stdio::piped(),
        stderr.into(),
    ))
}

#[apply(every_tcp_server)]
#[cfg(unix)]
fn it_serves_on_when_nobody_reads_its_output_any_more(#[case] tcp: TcpServer) {
    let (stderr, ours) = UnixStream::pair().unwrap();
    drop(ours);
    let server = start_with_stderr(tcp, stderr, &["--max-connections", "1"]);
    for _ in 0..50 {
        assert_serves(&server);
    }
}

#[apply(every_tcp_server)]
#[cfg(unix)]
fn a_log_that_is_not_read_makes_it_wait_unless_it_is_quiet(#[case] tcp: TcpServer) {
    for args in [&[][..], &["-q"]] {
        let (stderr, ours) = UnixStream::pair().unwrap();
        stderr.set_nonblocking(true).unwrap();
        while (&stderr)
            .write(b"like a pager that shows a full page\n")
            .is_ok()
        {}
        stderr.set_nonblocking(false).unwrap();
        let server = start_with_stderr(tcp, stderr, args);
        let mut client = connect(&server);
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

#[apply(every_tcp_server)]
fn quiet_logs_nothing_per_connection(#[case] tcp: TcpServer) {
    let server = tcp.start(&["-q"]);
    assert_serves(&server);
    assert_eq!(server.running.kill().stderr, "");
}

#[apply(every_tcp_server)]
#[cfg(unix)]
fn it_starts_again_on_the_same_port_while_an_old_connection_is_open(#[case] tcp: TcpServer) {
    let first = tcp.start(&[]);
    let addr = first.addr;
    let old = connect(&first);
    echo(&old, b"before");
    drop(first);
    let second = Server::start(tcp.command().args(["--addr", &addr.to_string()]));
    assert_eq!(second.addr, addr);
    assert_serves(&second);
    drop(old);
}

#[apply(every_tcp_server)]
fn a_second_server_on_the_address_is_told_that_it_is_in_use(#[case] tcp: TcpServer) {
    let first = tcp.start(&[]);
    let addr = first.addr.to_string();
    let second = run(tcp.command().args(["--addr", &addr]), b"");
    assert_eq!((second.code, &second.stdout[..]), (Some(1), &b""[..]));
    assert!(
        second
            .stderr
            .starts_with(&format!("Error: cannot listen on {addr}: another socket")),
        "{second:?}"
    );
    assert_serves(&first);
}

#[apply(every_tcp_server)]
fn ipv6_is_served_as_well(#[case] tcp: TcpServer) {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        return not_run(&format!("no IPv6: {error}"));
    }
    assert_serves(&Server::start(tcp.command().args(["--addr", "[::1]:0"])));
}

#[apply(every_tcp_server)]
fn wrong_usage_is_refused_with_what_is_right(#[case] tcp: TcpServer) {
    let wrong = [
        (["--max-connections", "0"], "0 is not in 1.."),
        (["--max-connections", "-1"], "unexpected argument '-1'"),
        (["--idle-timeout", "0"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "-1"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "nan"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "inf"], "seconds from 0.001 to 86400"),
        (["--idle-timeout", "1e300"], "seconds from 0.001 to 86400"),
    ];
    harness::assert_refuses(|| tcp.command(), &wrong);
    let with_address = |addr: &str| {
        let mut command = tcp.command();
        command.args(["--addr", addr]);
        command
    };
    harness::assert_refuses_addresses(with_address, "cannot listen on ");
}
