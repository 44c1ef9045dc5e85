//! What the kernel does with descriptors that pass through a Unix socket, and whom it names as a peer.
//! Each test shows one fact, without our programs.

use std::io::{ErrorKind, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::unix::pass_descriptor::{pipe, send};

/// CMSG_SPACE for one descriptor is aligned, so there is room for two, and the kernel fills
/// it. It joins several messages into one.
#[test]
fn a_control_buffer_for_one_descriptor_may_receive_two() {
    #[repr(align(8))] // As cmsghdr, so rustix leaves out none of it.
    struct Space([MaybeUninit<u8>; rustix::cmsg_aligned_space!(ScmRights(1))]);
    let (sender, receiver) = UnixStream::pair().unwrap();
    let (mut reader, writer) = pipe();
    let one = writer.as_raw_fd();
    for (lists, received, is_cut) in [
        (&[&[one][..]][..], 1, false),
        (&[&[one; 2]], 2, false),
        (&[&[one; 3]], 2, true),
        (&[&[one], &[one]], 2, false),
        (&[&[one], &[one], &[one]], 2, true),
    ] {
        send(&sender, lists).unwrap();
        let mut space = Space([MaybeUninit::uninit(); rustix::cmsg_aligned_space!(ScmRights(1))]);
        let mut control = RecvAncillaryBuffer::new(&mut space.0);
        let mut byte = [0];
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        let message = recvmsg(&receiver, bytes, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(message.flags.contains(ReturnFlags::CTRUNC), is_cut);
        let counts: Vec<usize> = control
            .drain()
            .map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
                _ => 0,
            })
            .collect();
        assert_eq!(counts, [received]);
    }
    drop(writer);
    // Nobody else has it: what did not fit is closed.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// Who reads a byte without a control buffer does not get what came with it.
#[test]
fn a_descriptor_is_lost_with_its_byte() {
    let (sender, mut receiver) = UnixStream::pair().unwrap();
    let (mut reader, writer) = pipe();
    send(&sender, &[&[writer.as_raw_fd()]]).unwrap();
    drop(writer);
    assert_eq!(receiver.read(&mut [0]).unwrap(), 1);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// A socket closes what is still on its way in it.
#[test]
fn a_descriptor_that_nobody_receives_is_closed_with_the_socket() {
    let (sender, receiver) = UnixStream::pair().unwrap();
    let (mut reader, writer) = pipe();
    send(&sender, &[&[writer.as_raw_fd()]]).unwrap();
    drop((writer, sender));
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
    let error = reader.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(receiver);
    // A program that another test is starting has copies of all sockets for a moment, so this waits.
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// Returns how many datagrams of one byte wait for a receiver that does not read.
#[cfg(target_os = "linux")]
fn datagrams_that_wait() -> usize {
    use std::os::unix::net::UnixDatagram;
    let folder = harness::folder();
    let path = folder.path().join("receiver");
    let _receiver = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    sender.set_nonblocking(true).unwrap();
    let sent = (0..5000).take_while(|_| sender.send(b"x").is_ok());
    sent.count()
}

/// Linux looks whether there are *more* datagrams in the queue than max_dgram_qlen.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "the test below starts it where max_dgram_qlen is 3"]
fn four_datagrams_wait() {
    assert_eq!(datagrams_that_wait(), 4);
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "the test below starts it where max_dgram_qlen is 512"]
fn the_buffer_of_the_sender_is_full_before_512_datagrams_wait() {
    let count = datagrams_that_wait();
    println!("{count} datagrams wait");
    assert!((100..512).contains(&count), "{count}");
}

/// systemd sets 512; the kernel alone has 10.
#[test]
#[cfg(target_os = "linux")]
fn max_dgram_qlen_is_the_length_of_the_queue_of_unix_datagrams() {
    let cases = [
        (3, "four_datagrams_wait"),
        (
            512,
            "the_buffer_of_the_sender_is_full_before_512_datagrams_wait",
        ),
    ];
    for (length, name) in cases {
        let set_up = format!("echo {length} >/proc/sys/net/unix/max_dgram_qlen");
        harness::assert_passes_unshared("-rn", &set_up, &format!("facts::unix::{name}"));
    }
}

/// No error says that the kernel does not know who is at the other end.
#[test]
fn asked_who_a_tcp_peer_is_the_kernel_succeeds_and_names_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = getsockopt(&stream, PeerCredentials).unwrap();
    assert_eq!(
        (peer.pid(), peer.uid(), peer.gid()),
        (0, u32::MAX, u32::MAX)
    );
}
