//! What every TCP server promises. What every server of streams promises is in
//! `streams/server.rs`.

use std::io::{Read, Write};
use std::iter;
use std::net::{TcpStream, UdpSocket};
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Server, echo, example_of, program, run};
use rstest::rstest;
use rstest_reuse::{apply, template};
use socket2::SockRef;

/// The servers that keep these promises.
#[derive(Clone, Copy)]
pub enum TcpServer {
    Threads,
    EventLoop,
    #[cfg(unix)]
    Graceful,
}

#[cfg(unix)]
#[template]
#[export]
#[rstest]
#[case::tcp_server(TcpServer::Threads)]
#[case::event_loop(TcpServer::EventLoop)]
#[case::graceful(TcpServer::Graceful)]
pub fn every_tcp_server(#[case] tcp: TcpServer) {}

#[cfg(not(unix))]
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
            #[cfg(unix)]
            TcpServer::Graceful => example_of("tcp-server", "graceful"),
        }
    }

    pub fn start(self, args: &[&str]) -> Server {
        Server::start(self.command().args(["--addr", "127.0.0.1:0"]).args(args))
    }

    /// Starts the server under strace with these options. strace writes the calls into a file.
    #[cfg(target_os = "linux")]
    pub fn start_traced(self, log: &Path, options: &[&str]) -> Option<Server> {
        let mut strace = harness::foreign("strace")?;
        // With -D the server is our child, and strace is not its parent.
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

pub fn assert_serves(server: &Server) {
    echo(&connect(server), b"still there?");
}

/// Closes the connection with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// The client's kernel acknowledges a small segment late (on Linux after 40 ms). Without
/// TCP_NODELAY the server would wait for this before it sends the next small segment.
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
        thread::sleep(Duration::from_micros(200)); // The server answers each byte separately.
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
    let long = median(&|| echo(&stream, &[b'x'; 100_000])); // The server echoes it in parts.
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

/// The effect of TCP_NODELAY is visible only if a message is a little longer than the server's
/// buffer. So this test checks whether the server asks the kernel for it.
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
fn a_thousand_clients_at_once_are_each_served(#[case] tcp: TcpServer) {
    const CLIENTS: usize = 1000;
    let Some(_descriptors) = harness::descriptors(CLIENTS as u64 + 100) else {
        return;
    };
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
    second.assert_failed(&format!("Error: cannot listen on {addr}"));
    assert_serves(&first);
}

#[apply(every_tcp_server)]
fn ipv6_is_served_as_well(#[case] tcp: TcpServer) {
    if !harness::has_ipv6() {
        return;
    }
    assert_serves(&Server::start(tcp.command().args(["--addr", "[::1]:0"])));
}

#[apply(every_tcp_server)]
fn both_servers_run_side_by_side_on_one_port_number(#[case] tcp: TcpServer) {
    // Another test may have a UDP socket with the number that the kernel chose.
    let mut servers = iter::repeat_with(|| tcp.start(&["-q"])).take(10);
    let tcp = servers.find(|tcp| UdpSocket::bind(tcp.addr).is_ok());
    let tcp = tcp.expect("a number that is free for UDP as well");
    let udp = Server::start(program("udp-server").args(["--addr", &tcp.addr.to_string()]));
    assert_eq!(udp.addr, tcp.addr);
    for client in ["tcp-client", "udp-client"] {
        let client = run(
            program(client).args(["--addr", &tcp.addr.to_string(), "hello"]),
            b"",
        );
        client.assert_printed(b"hello\n");
    }
}

/// Nobody hears where it listens, so the test chooses the port.
#[apply(every_tcp_server)]
#[cfg(unix)]
fn it_serves_when_nobody_reads_even_where_it_listens(#[case] tcp: TcpServer) {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    use std::process::Stdio;
    let start = |addr: std::net::SocketAddr| {
        let stdout = OwnedFd::from(UnixStream::pair().unwrap().0).into();
        let mut command = tcp.command();
        // One connection at a time: then the main thread serves alone.
        command.args(["--addr", &addr.to_string(), "--max-connections", "1"]);
        Some(harness::Running::start_with(
            &mut command,
            stdout,
            Stdio::piped(),
        ))
    };
    let answers = |addr| {
        let Ok(mut stream) = TcpStream::connect(addr) else {
            return false;
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"anybody?").is_ok() && stream.read_exact(&mut [0; 8]).is_ok()
    };
    harness::on_a_free_port(start, answers);
}

/// Starts a server whose log may have 100 bytes, and returns whether it serves ten clients.
#[cfg(target_os = "linux")]
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
/// ends it. If the signal is ignored or caught, the write fails, which costs a line of the log.
#[test]
#[cfg(target_os = "linux")]
fn a_log_at_the_limit_of_the_shell_ends_a_server_unless_the_signal_is_ignored_or_caught() {
    for (server, client) in [("udp-server", "udp-client"), ("tcp-server", "tcp-client")] {
        let server = program(server);
        assert!(!serves_beside_a_full_log("", &server, client), "{server:?}");
        let ignored = serves_beside_a_full_log("trap '' XFSZ;", &server, client);
        assert!(ignored, "{server:?}");
    }
    let graceful = TcpServer::Graceful.command();
    assert!(serves_beside_a_full_log("", &graceful, "tcp-client"));
}
