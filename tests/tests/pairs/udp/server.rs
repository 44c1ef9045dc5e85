//! What only `udp-server` promises. What every UDP server promises is in `promises`.

#[cfg(target_os = "linux")]
use std::net::SocketAddrV4;
#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use harness::not_run;
use harness::{run, udp_socket};
use promises::catalog::UDP_SERVER;
#[cfg(target_os = "linux")]
use promises::{Broken, forge};

/// Runs `udp-server` with this address. It must not start.
fn refused(addr: &str) -> String {
    let server = run(&mut UDP_SERVER.at(addr), b"");
    assert_eq!((server.code, &server.stdout[..]), (Some(1), &b""[..]));
    server.stderr
}

/// Escaped, and 64 bytes of them.
#[test]
fn the_log_shows_the_first_bytes_of_a_datagram() {
    let mut server = UDP_SERVER.start(&[]);
    let socket = udp_socket("127.0.0.1");
    let peer = socket.local_addr().unwrap();
    let long = [b'x'; 65];
    for (datagram, shown) in [
        (&b"hello"[..], r#"length 5 "hello""#.to_owned()),
        (b"\x1b[2J\n\xff", r#"length 6 "\x1b[2J\n\xff""#.to_owned()),
        (&long[..64], format!("length 64 \"{}\"", "x".repeat(64))),
        (&long, format!("length 65 \"{}\"...", "x".repeat(64))),
    ] {
        socket.send_to(datagram, server.addr).unwrap();
        let line = server.running.stderr_line();
        assert_eq!(line, format!("{peer}: {shown}"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_log_says_why_a_peer_is_not_answered() {
    let mut server = UDP_SERVER.start(&[]);
    for (ip, port, reason) in [
        ([127, 0, 0, 1], 0, "port 0 stands for no port (RFC 768)"),
        (
            [127, 0, 0, 1],
            1023,
            "ports below 1024 belong to system services",
        ),
        (
            [127, 0, 0, 2],
            server.addr.port(),
            "our own port number, perhaps another echo server",
        ),
        ([239, 1, 2, 3], 40_000, "an address that no host has"),
    ] {
        let from = SocketAddrV4::new(ip.into(), port);
        match forge(from, server.addr) {
            Err(Broken::NotAsked(why)) => return not_run(&why),
            forged => forged.unwrap(),
        }
        let line = server.running.stderr_line();
        assert_eq!(line, format!("{from}: not answered, {reason}"));
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = refused("192.0.2.1:0");
    assert!(
        error.contains("192.0.2.1:0: not an address of this machine\n"),
        "{error}"
    );
}

#[test]
fn an_address_that_is_none_is_refused_and_the_message_says_what_is_right() {
    let server = |addr: &str| UDP_SERVER.at(addr);
    harness::assert_refuses_addresses(server, "cannot bind a UDP socket to ");
}

#[test]
#[cfg(target_os = "linux")]
fn a_port_of_the_system_needs_the_right_to_it() {
    let first_free =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim().parse::<u16>().unwrap() <= 1 {
        return not_run("here every port is everybody's (ip_unprivileged_port_start)");
    }
    let server = UDP_SERVER.at("127.0.0.1:1");
    let (_folder, copy) = harness::copy_of(&server);
    let mut command = std::process::Command::new(copy);
    command.args(server.get_args()).env_remove("RUST_BACKTRACE");
    harness::as_nobody(&mut command);
    let server = run(&mut command, b"");
    assert_eq!(server.code, Some(1), "{server:?}");
    server.assert_stderr("127.0.0.1:1: ports below 1024 often need a privilege");
}

/// Where no port is free, another port is no help; and a sandbox may refuse any port.
#[test]
#[cfg(target_os = "linux")]
fn advice_is_given_only_where_it_is_true() {
    let server = UDP_SERVER.at("127.0.0.1:0");
    let server = harness::where_no_port_is_free(&server).map_err(|why| not_run(&why));
    let Ok(mut server) = server else { return };
    let error = "Error: cannot bind a UDP socket to 127.0.0.1:0\n";
    run(&mut server, b"").assert_failed(error);
    if !harness::can_trace() {
        return;
    }
    let server = UDP_SERVER.at("127.0.0.1:7150");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "inject=bind:error=EACCES"]);
    strace.arg(server.get_program()).args(server.get_args());
    let error = "Error: cannot bind a UDP socket to 127.0.0.1:7150\n";
    run(&mut strace, b"").assert_failed(error);
}
