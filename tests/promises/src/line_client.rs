//! What every client promises that reads lines from stdin, sends each as a message (over UDP without its
//! newline), prints what comes back as a line, and ends with 0 if all came back.

use std::cmp::Ordering;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, Running, patience, udp_socket};
use socket2::SockRef;

use crate::every_client::sockets_that_take_nothing;
use crate::{Broken, Kept, Promised, Reach, Subject, uninterrupted};

promises! {
    anybody: [
        each_line_comes_back_as_a_line,
        an_empty_line_and_a_long_one_come_back,
        each_value_of_a_byte_is_sent_and_printed,
        much_is_sent_and_received_at_the_same_time,
        a_silent_server_is_given_up,
        that_nobody_listens_is_an_error,
        what_came_while_it_was_suspended_is_printed,
        that_nobody_reads_what_it_prints_is_an_error,
    ],
    ours: [],
}

/// What only those of datagrams promise.
pub mod of_datagrams {
    use super::*;

    promises! {
        anybody: [
            a_datagram_that_is_lost_is_sent_again,
            wrong_answers_do_not_prolong_its_wait,
            an_echo_that_comes_twice_is_printed_once,
            what_others_send_is_not_taken_for_the_echo,
        ],
        ours: [],
    }
}

/// What only those of streams promise.
pub mod of_streams {
    use super::*;

    promises! {
        anybody: [
            a_line_that_comes_back_in_pieces_is_one_line,
            a_server_that_closes_early_is_an_error,
            a_server_that_resets_is_an_error,
        ],
        ours: [],
    }
}

/// How long a client may wait until it gives up.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(25);

/// A server of datagrams that the test plays.
fn udp_server() -> Result<(UdpSocket, String), Broken> {
    let server = udp_socket("127.0.0.1");
    let addr = server.local_addr()?.to_string();
    Ok((server, addr))
}

/// A server of streams that the test plays.
fn tcp_server() -> Result<(TcpListener, String), Broken> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?.to_string();
    Ok((listener, addr))
}

fn accept(listener: &TcpListener) -> Result<TcpStream, Broken> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + patience();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(patience()))?;
            stream.set_write_timeout(Some(patience()))?;
            return Ok(stream);
        }
        ensure!(Instant::now() < deadline, "it does not connect");
        thread::sleep(Duration::from_millis(5));
    }
}

fn receive(server: &UdpSocket) -> Result<(Vec<u8>, std::net::SocketAddr), Broken> {
    let mut buffer = vec![0; 65_536];
    let (len, peer) = uninterrupted(|| server.recv_from(&mut buffer)).promised("a datagram")?;
    buffer.truncate(len);
    Ok((buffer, peer))
}

/// Starts the client, and writes lines to its stdin in a thread, which then closes it.
fn start(subject: &Subject, addr: &str, lines: &[u8]) -> Running {
    let mut client = subject.run(&mut subject.at(addr));
    if let Some(mut stdin) = client.stdin.take() {
        let lines = lines.to_vec();
        // It fails if the client ends before it has read all. The test judges whether it may.
        thread::spawn(move || stdin.write_all(&lines));
    }
    client
}

/// Closes the connection once the client has half-closed or closed it. Before that, it could not know
/// that nothing of what it had still to send was lost.
fn close_after_its_end(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()); // It may have reset it, having printed all.
}

/// Starts a server that echoes everything, whatever its peers do, for as long as this process lives.
fn echo_server(reach: Reach) -> Result<String, Broken> {
    match reach {
        Reach::Udp => {
            let server = UdpSocket::bind("127.0.0.1:0")?;
            let addr = server.local_addr()?.to_string();
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while let Ok((len, peer)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..len], peer);
                }
            });
            Ok(addr)
        }
        Reach::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let addr = listener.local_addr()?.to_string();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
                }
            });
            Ok(addr)
        }
        _ => Err(Broken::not_asked("it is for clients over IP")),
    }
}

/// The client gets all of these lines back, prints them, and ends with 0.
fn comes_back(subject: &Subject, lines: &[u8]) -> Kept {
    let addr = echo_server(subject.reach)?;
    let client = start(subject, &addr, lines).try_finish()?;
    printed(&client, lines)
}

fn printed(client: &Finished, lines: &[u8]) -> Kept {
    let how = match client.code {
        Some(code) => format!("exit code {code}"),
        None => "a signal".to_owned(),
    };
    let (count, len, stderr) = (client.stdout.len(), lines.len(), client.stderr.trim_end());
    let what = match count.cmp(&len) {
        Ordering::Equal => "others",
        Ordering::Less => "not all",
        Ordering::Greater => "too many",
    };
    ensure!(
        client.stdout == lines,
        "of {len} bytes it printed {count}, {what}, and ended with {how}: {stderr}"
    );
    ensure!(
        client.code == Some(0),
        "it printed all, and ended with {how}: {stderr}"
    );
    Ok(())
}

fn fails(client: Running, what: &str) -> Kept {
    let client = client.try_finish()?;
    ensure!(client.code != Some(0), "{what}, and it ended with 0");
    Ok(())
}

pub fn each_line_comes_back_as_a_line(subject: &Subject) -> Kept {
    comes_back(subject, "hello\ntwo words\n你好\n".as_bytes())
}

pub fn an_empty_line_and_a_long_one_come_back(subject: &Subject) -> Kept {
    let long = "x".repeat(60_000);
    comes_back(subject, format!("\n{long}\n\nend\n").as_bytes())
}

pub fn each_value_of_a_byte_is_sent_and_printed(subject: &Subject) -> Kept {
    let mut line: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    comes_back(subject, &line)
}

/// A client of streams that sends all before it reads would wait for a server that waits for it.
pub fn much_is_sent_and_received_at_the_same_time(subject: &Subject) -> Kept {
    // The buffers of the kernel hold some megabytes.
    let (lines, len) = match subject.reach {
        Reach::Udp => (500, 5),
        _ => (20_000, 2000),
    };
    let lines: String = (0..lines)
        .map(|number| format!("line {number:0len$}\n"))
        .collect();
    comes_back(subject, lines.as_bytes())
}

pub fn a_line_that_comes_back_in_pieces_is_one_line(subject: &Subject) -> Kept {
    let (listener, addr) = tcp_server()?;
    let client = start(subject, &addr, b"pieces\n");
    let mut stream = accept(&listener)?;
    let mut line = [0; 7];
    stream.read_exact(&mut line).promised("the line")?;
    for byte in line {
        let _ = stream.write_all(&[byte]); // The client may have gone. What it has printed counts.
        thread::sleep(Duration::from_millis(30));
    }
    close_after_its_end(stream);
    printed(&client.try_finish()?, &line)
}

pub fn a_silent_server_is_given_up(subject: &Subject) -> Kept {
    let udp = udp_socket("127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = match subject.reach {
        Reach::Udp => udp.local_addr()?,
        _ => listener.local_addr()?,
    };
    let mut client = start(subject, &addr.to_string(), b"hello\n");
    let deadline = Instant::now() + GIVES_UP_WITHIN;
    while client.is_running() {
        ensure!(
            Instant::now() < deadline,
            "it waits for {GIVES_UP_WITHIN:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    fails(client, "nothing came back")
}

pub fn that_nobody_listens_is_an_error(subject: &Subject) -> Kept {
    let (udp, tcp) = sockets_that_take_nothing()?;
    let addr = match subject.reach {
        Reach::Udp => udp.local_addr()?,
        _ => tcp.local_addr()?,
    };
    let client = start(subject, &addr.to_string(), b"hello\n");
    fails(client, "nobody listened")
}

pub fn a_datagram_that_is_lost_is_sent_again(subject: &Subject) -> Kept {
    let (server, addr) = udp_server()?;
    let client = start(subject, &addr, b"one\ntwo\n");
    for line in [b"one", b"two"] {
        receive(&server)?; // It is lost.
        let (again, peer) = receive(&server)?;
        ensure_eq!(again, line, "what it sends again");
        server.send_to(&again, peer)?;
    }
    printed(&client.try_finish()?, b"one\ntwo\n")
}

/// Were the time limit one of each receive, it would begin anew with each wrong answer.
pub fn wrong_answers_do_not_prolong_its_wait(subject: &Subject) -> Kept {
    let (server, addr) = udp_server()?;
    let mut client = start(subject, &addr, b"hello\n");
    let (_, peer) = receive(&server)?;
    let deadline = Instant::now() + patience();
    while client.is_running() {
        ensure!(
            Instant::now() < deadline,
            "after {:?} it still waits",
            patience()
        );
        let _ = server.send_to(b"wrong", peer); // The client may have gone.
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

pub fn an_echo_that_comes_twice_is_printed_once(subject: &Subject) -> Kept {
    let (server, addr) = udp_server()?;
    let client = start(subject, &addr, b"one\ntwo\nthree\n");
    for _ in 0..3 {
        let (line, peer) = receive(&server)?;
        server.send_to(&line, peer)?;
        let _ = server.send_to(&line, peer);
    }
    printed(&client.try_finish()?, b"one\ntwo\nthree\n")
}

pub fn what_others_send_is_not_taken_for_the_echo(subject: &Subject) -> Kept {
    let (server, addr) = udp_server()?;
    let client = start(subject, &addr, b"hello\n");
    let (line, peer) = receive(&server)?;
    let _ = udp_socket("127.0.0.1").send_to(b"forged", peer);
    server.send_to(&line, peer)?;
    printed(&client.try_finish()?, b"hello\n")
}

pub fn a_server_that_closes_early_is_an_error(subject: &Subject) -> Kept {
    let (listener, addr) = tcp_server()?;
    let client = start(subject, &addr, b"hello\nworld\n");
    let mut stream = accept(&listener)?;
    // A client may wait for each line before it sends the next.
    stream.read_exact(&mut [0; 6]).promised("a line")?;
    stream.write_all(b"hello\n").promised("it takes a line")?;
    stream.read_exact(&mut [0; 6]).promised("the second line")?;
    drop(stream);
    fails(client, "one of two lines came back")
}

pub fn a_server_that_resets_is_an_error(subject: &Subject) -> Kept {
    let (listener, addr) = tcp_server()?;
    let client = start(subject, &addr, b"hello\n");
    let mut stream = accept(&listener)?;
    stream.read_exact(&mut [0; 6]).promised("a line")?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    fails(client, "the server has reset the connection")
}

pub fn what_came_while_it_was_suspended_is_printed(subject: &Subject) -> Kept {
    if subject.reach == Reach::Udp {
        let (server, addr) = udp_server()?;
        let client = start(subject, &addr, b"hello\n");
        let (line, peer) = receive(&server)?;
        client.suspend();
        server.send_to(&line, peer)?;
        client.resume();
        return printed(&client.try_finish()?, b"hello\n");
    }
    let (listener, addr) = tcp_server()?;
    let client = start(subject, &addr, b"hello\n");
    let mut stream = accept(&listener)?;
    stream.read_exact(&mut [0; 6]).promised("a line")?;
    client.suspend();
    stream.write_all(b"hello\n").promised("it takes a line")?;
    client.resume();
    close_after_its_end(stream);
    printed(&client.try_finish()?, b"hello\n")
}

pub fn that_nobody_reads_what_it_prints_is_an_error(subject: &Subject) -> Kept {
    let addr = echo_server(subject.reach)?;
    let mut client = subject.run_unread(&mut subject.at(&addr));
    client.write(b"hello\nworld\n");
    fails(client, "nobody read its output")
}
