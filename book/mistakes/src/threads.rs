//! Threads and clones that share a socket: mistakes 35, 47 and 48.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use harness::{LIMIT, udp_socket};

use crate::{SHORT, connection, listener, udp_pair};

/// Waits until a thread has ended.
fn ends<T>(thread: &ScopedJoinHandle<T>) -> bool {
    let deadline = Instant::now() + LIMIT;
    while !thread.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    thread.is_finished()
}

// 35. A thread that waits in accept or recv does not see a flag.

/// Serves one client after the other until the flag is set.
fn serve_until(listener: &TcpListener, stopped: &AtomicBool) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        if stopped.load(Ordering::SeqCst) {
            return Ok(()); // This connection has only woken us.
        }
        let _ = stream.write_all(b"hello\n"); // An error of one client ends nothing.
    }
}

/// Sets the flag. The thread that waits in accept does not look at it.
fn ask_to_stop(stopped: &AtomicBool) {
    stopped.store(true, Ordering::SeqCst);
}

/// Sets the flag, and connects, because accept returns only for a connection.
fn stop(server: SocketAddr, stopped: &AtomicBool) -> io::Result<()> {
    stopped.store(true, Ordering::SeqCst);
    TcpStream::connect(server)?;
    Ok(())
}

#[test]
fn neither_a_flag_nor_a_dropped_clone_wakes_accept_and_a_connection_does() {
    let (listener, addr) = listener();
    let clone = listener.try_clone().unwrap();
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve_until(&listener, &stopped));
        // When a client has been served, the server is in the loop.
        let mut greeting = String::new();
        let mut client = TcpStream::connect(addr).unwrap();
        client.read_to_string(&mut greeting).unwrap();
        thread::sleep(SHORT);
        ask_to_stop(&stopped);
        clone.set_nonblocking(true).unwrap();
        drop(clone);
        thread::sleep(SHORT);
        let still_waits = !server.is_finished();
        stop(addr, &stopped).unwrap();
        assert!(ends(&server), "a connection does not wake it");
        assert!(still_waits, "something else has woken it");
        server.join().unwrap().unwrap();
    });
}

/// Answers datagrams until the flag is set, and looks at it ten times a second.
fn answer_until(socket: &UdpSocket, stopped: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = vec![0; 65_527];
    while !stopped.load(Ordering::SeqCst) {
        match socket.recv_from(&mut buffer) {
            Ok((len, peer)) => {
                let _ = socket.send_to(&buffer[..len], peer);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[test]
fn a_receiver_with_a_time_limit_sees_the_flag() {
    let socket = udp_socket("127.0.0.1");
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| answer_until(&socket, &stopped));
        let client = udp_socket("127.0.0.1");
        client
            .send_to(b"hello", socket.local_addr().unwrap())
            .unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
        ask_to_stop(&stopped);
        assert!(ends(&server));
        server.join().unwrap().unwrap();
    });
}

#[test]
fn shutdown_wakes_a_thread_that_reads_and_a_dropped_clone_does_not() {
    let (stream, _peer) = connection();
    stream.set_read_timeout(None).unwrap();
    let clones = [(); 2].map(|()| stream.try_clone().unwrap());
    thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 8]));
        let [dropped, kept] = clones;
        drop(dropped);
        thread::sleep(SHORT);
        let still_waits = !reader.is_finished();
        kept.shutdown(Shutdown::Both).unwrap();
        assert!(ends(&reader), "shutdown does not wake it");
        assert!(still_waits, "something else has woken it");
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
}

// 47. Clones share whether they block, and accepted sockets differ.

/// Accepts from a non-blocking listener. On macOS the connection is non-blocking as well.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    Ok(stream)
}

/// Accepts from a non-blocking listener a connection that blocks, on every system.
fn accept_blocking(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[test]
fn a_connection_of_a_non_blocking_listener_blocks_on_linux_and_elsewhere_if_told_so() {
    use rustix::fs::{OFlags, fcntl_getfl};
    let (listener, addr) = listener();
    listener.set_nonblocking(true).unwrap();
    for (accept, told) in [
        (accept as fn(&TcpListener) -> io::Result<TcpStream>, false),
        (accept_blocking, true),
    ] {
        let _client = TcpStream::connect(addr).unwrap();
        let deadline = Instant::now() + LIMIT;
        let stream = loop {
            match accept(&listener) {
                Ok(stream) => break stream,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(Instant::now() < deadline);
        };
        let is_blocking = !fcntl_getfl(&stream).unwrap().contains(OFlags::NONBLOCK);
        let expected = told || cfg!(any(target_os = "linux", target_os = "android"));
        assert_eq!(is_blocking, expected);
    }
}

/// Reads what is there without waiting. But now all clones are non-blocking.
fn read_without_waiting(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut clone = stream.try_clone()?;
    clone.set_nonblocking(true)?;
    clone.read(buffer)
}

#[test]
fn clones_share_whether_they_block_and_their_time_limits() {
    let (stream, _peer) = connection();
    let clone = stream.try_clone().unwrap();
    assert!(read_without_waiting(&clone, &mut [0; 8]).is_err());
    drop(clone);
    // The original has 30 seconds, and does not wait any more.
    let error = (&stream).read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let (stream, _peer) = connection();
    let clone = stream.try_clone().unwrap();
    clone.set_read_timeout(None).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);
    // Reading and writing have a limit each, so two threads can each have their own.
    clone.set_write_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);
}

// 48. A second thread on a UDP socket changes the order.

/// Several threads do this at the same time, with the same socket.
fn work_and_answer(socket: &UdpSocket, work: impl Fn(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 65_527];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    work(&buffer[..len]);
    socket.send_to(&buffer[..len], peer)?;
    Ok(())
}

/// Chooses a worker for a peer: always the same, so that the peer's datagrams stay in order.
fn worker_for(peer: SocketAddr, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    (hasher.finish() % workers as u64) as usize
}

#[test]
fn two_threads_on_a_socket_share_the_datagrams_and_answer_out_of_order() {
    let (client, socket) = udp_pair();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    // The first datagram is the one that takes long.
    let work = |datagram: &[u8]| {
        if datagram == b"1" {
            let _ = may_go_on.lock().unwrap().recv_timeout(LIMIT);
        }
    };
    let mut answer = [0];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work_and_answer(&socket, work).unwrap());
        }
        client.send(b"1").unwrap();
        client.send(b"2").unwrap();
        client.recv(&mut answer).unwrap();
        assert_eq!(&answer, b"2");
        go_on.send(()).unwrap();
        client.recv(&mut answer).unwrap();
        assert_eq!(&answer, b"1");
    });
    // Each datagram went to one thread: nothing is left, and nothing came twice.
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut answer).is_err());
}

#[test]
fn with_one_receiver_and_a_worker_for_each_peer_the_order_stays() {
    const WORKERS: usize = 2;
    let socket = udp_socket("127.0.0.1");
    let clients = [(); 4].map(|()| udp_socket("127.0.0.1"));
    for number in 0..10_u8 {
        for client in &clients {
            client
                .send_to(&[number], socket.local_addr().unwrap())
                .unwrap();
        }
    }
    thread::scope(|scope| {
        let queues: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (queue, datagrams) = mpsc::sync_channel::<(u8, SocketAddr)>(100);
                let socket = &socket;
                scope.spawn(move || {
                    for (number, peer) in datagrams {
                        thread::sleep(Duration::from_millis(worker as u64)); // One is slower.
                        socket.send_to(&[number], peer).unwrap();
                    }
                });
                queue
            })
            .collect();
        let mut buffer = [0];
        for _ in 0..clients.len() * 10 {
            let (_, peer) = socket.recv_from(&mut buffer).unwrap();
            let queue = &queues[worker_for(peer, WORKERS)];
            queue.try_send((buffer[0], peer)).unwrap();
        }
    });
    for client in &clients {
        for number in 0..10 {
            let mut answer = [0];
            client.recv(&mut answer).unwrap();
            assert_eq!(answer, [number]);
        }
    }
}
