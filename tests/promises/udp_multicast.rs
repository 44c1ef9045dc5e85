//! `--join`, of every server that takes the place of `udp-server`. The file that includes this says which
//! one, by `server()`.

use harness::{Server, run, udp_socket};

#[test]
fn a_member_of_an_ipv4_group_hears_it() {
    let server = Server::start(super::server().args([
        "--addr",
        "0.0.0.0:0",
        "--join",
        "239.255.70.7%127.0.0.1",
    ]));
    let socket = udp_socket("127.0.0.1"); // This address makes loopback the interface to send from.
    socket
        .send_to(b"to all members", ("239.255.70.7", server.addr.port()))
        .unwrap();
    let (len, from) = socket.recv_from(&mut [0; 64]).expect("an echo");
    assert_eq!((len, from.port()), (14, server.addr.port()));
    assert!(
        !from.ip().is_multicast(),
        "the answer comes from the member's own address, not from {from}"
    );
}

#[test]
fn who_has_not_joined_does_not_hear_it() {
    let server = Server::start(super::server().args(["--addr", "0.0.0.0:0"]));
    let socket = udp_socket("127.0.0.1");
    socket
        .send_to(b"to all members", ("239.255.70.8", server.addr.port()))
        .unwrap();
    // What comes first is answered first.
    socket
        .send_to(b"to you alone", ("127.0.0.1", server.addr.port()))
        .unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).expect("an echo");
    assert_eq!(&buffer[..len], b"to you alone");
}

#[test]
fn what_is_no_group_is_refused() {
    for (group, error) in [
        ("192.0.2.1", "not a multicast address"),
        ("::1", "not a multicast address"),
        ("239.1.2.3%eth0", "invalid IPv4 address syntax"),
        ("ff12::7%eth0", "invalid digit"),
        ("everybody", "invalid IP address syntax"),
    ] {
        let server = run(super::server().args(["--join", group]), b"");
        assert_eq!(server.code, Some(2), "{group}: {server:?}");
        assert!(server.stderr.contains(error), "{group}: {}", server.stderr);
    }
    let server = run(
        super::server().args(["--addr", "127.0.0.1:0", "--join", "ff12::7007%1"]),
        b"",
    );
    assert_eq!(server.code, Some(1));
    assert!(
        server
            .stderr
            .starts_with("Error: cannot join ff12::7007 on interface 1\n"),
        "{}",
        server.stderr
    );
}
