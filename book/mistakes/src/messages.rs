//! What separates the messages in a stream: mistakes 1, 25, 26 and 41.

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use harness::LIMIT;

use crate::{SHORT, TIMED_OUT, connection, read_to_end, wait_until_arrived};

// 1. One write need not be one read.

/// Takes what one read returns for one message.
fn read_a_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1024];
    let len = stream.read(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// The longest message that we accept, in bytes, without its newline.
const LONGEST: usize = 1024;

/// Reads up to the newline that ends a message. Returns `None` after the last message.
fn next_message(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    // A message without end must not fill the memory.
    let limit = LONGEST as u64 + 1;
    reader.take(limit).read_until(b'\n', &mut message)?;
    match message.pop() {
        Some(b'\n') => Ok(Some(message)),
        None => Ok(None),
        // The message is too long, or the stream has ended in the middle of it.
        Some(_) => Err(ErrorKind::InvalidData.into()),
    }
}

#[test]
fn a_read_returns_several_messages_or_a_part_of_one_and_only_a_delimiter_tells_them_apart() {
    let (mut sender, mut receiver) = connection();
    for message in ["one\n", "two\n", "three\n"] {
        sender.write_all(message.as_bytes()).unwrap();
    }
    wait_until_arrived(&receiver, 14);
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"one\ntwo\nthree\n");
    sender.write_all(b"ha").unwrap();
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"ha");
    sender.write_all(b"lf\n").unwrap();
    assert_eq!(read_a_message(&mut receiver).unwrap(), b"lf\n");

    let longest = vec![b'x'; LONGEST];
    let messages = [&b"one"[..], b"", b"three", &longest];
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|message| [message, &b"\n"[..]].concat())
        .collect();
    for part in [1, 2, 1000, stream.len()] {
        let (mut sender, receiver) = connection();
        let mut receiver = BufReader::new(receiver);
        sender.set_nodelay(true).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for bytes in stream.chunks(part) {
                    sender.write_all(bytes).unwrap();
                }
                sender.shutdown(Shutdown::Write).unwrap();
            });
            for message in messages {
                let next = next_message(&mut receiver).unwrap();
                assert_eq!(next.as_deref(), Some(message), "written in parts of {part}");
            }
            assert_eq!(next_message(&mut receiver).unwrap(), None);
        });
    }
    for wrong in [&b"no newline"[..], &[b'x'; LONGEST + 1]] {
        let error = next_message(&mut &wrong[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

// 25. A line can be longer than the memory.

/// Reads a line, however long it is.
fn any_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The longest line, with its newline.
const MAX_LINE: usize = 1024;

/// Reads a line, and refuses one that is too long.
fn short_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    // One byte more than allowed, to tell a line that fits from one that is too long.
    let mut limited = reader.take(MAX_LINE as u64 + 1);
    limited.read_until(b'\n', &mut line)?;
    if line.len() > MAX_LINE {
        return Err(io::Error::new(ErrorKind::InvalidData, "a line is too long"));
    }
    Ok(line)
}

#[test]
fn a_line_without_end_is_kept_in_memory_unless_its_length_is_limited() {
    const SENT: usize = 10 << 20;
    let send = |mut client: TcpStream| {
        // This fails if the server has refused the line meanwhile.
        let _ = client.write_all(&vec![b'x'; SENT]);
    };
    let (client, server) = connection();
    let sending = thread::spawn(move || send(client));
    assert_eq!(any_line(&mut BufReader::new(server)).unwrap().len(), SENT);
    sending.join().unwrap();

    let (client, server) = connection();
    let sending = thread::spawn(move || send(client));
    let error = short_line(&mut BufReader::new(server)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    sending.join().unwrap();

    let longest = [&[b'x'; MAX_LINE - 1][..], b"\nnext\n"].concat();
    let mut reader = &longest[..];
    assert_eq!(short_line(&mut reader).unwrap().len(), MAX_LINE);
    assert_eq!(short_line(&mut reader).unwrap(), b"next\n");
}

// 26. Bytes wait in a buffer that nobody looks into any more.

/// Echoes lines, with a new BufReader for each.
fn echo_lines_with_new_readers(mut stream: &TcpStream) -> io::Result<()> {
    let mut line = Vec::new();
    while BufReader::new(stream).read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

/// Echoes lines, with one BufReader as long as the connection lasts.
fn echo_lines(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

#[test]
fn a_reader_that_is_dropped_takes_the_second_line_with_it() {
    for (echo, expected) in [
        (
            echo_lines_with_new_readers as fn(&TcpStream) -> io::Result<()>,
            "first\n",
        ),
        (echo_lines, "first\nsecond\n"),
    ] {
        let (mut client, server) = connection();
        client.write_all(b"first\nsecond\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        wait_until_arrived(&server, 13);
        echo(&server).unwrap();
        drop(server);
        let echoed = read_to_end(&client).unwrap();
        assert_eq!(String::from_utf8_lossy(&echoed), expected);
    }
}

#[test]
fn what_a_buf_writer_holds_is_sent_only_by_flush() {
    let (client, mut server) = connection();
    let mut writer = BufWriter::new(client);
    writeln!(writer, "hello").unwrap();
    writer.get_ref().flush().unwrap(); // This flush is TcpStream's, which does nothing.
    server.set_read_timeout(Some(SHORT)).unwrap();
    let error = server.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), TIMED_OUT);

    writer.flush().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    server.read_exact(&mut [0; 6]).expect("the line");
}

// 41. One read is not a whole number of characters.

/// Decodes each read by itself. A character may be in two reads.
fn receive_text(stream: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 4];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(text),
            len => text += &String::from_utf8_lossy(&buffer[..len]),
        }
    }
}

/// Reads a whole line, and decodes it then. A wrong byte spoils no other line.
fn receive_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    const LONGEST: u64 = 64 * 1024;
    let mut line = Vec::new();
    let len = stream.take(LONGEST).read_until(b'\n', &mut line)?;
    Ok((len > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[test]
fn a_character_in_two_reads_is_spoilt_unless_the_whole_line_is_decoded() {
    let sent = |text: &[u8]| {
        let (mut client, server) = connection();
        client.write_all(text).unwrap();
        server
    };
    let text = "abc€\n";
    let spoilt = receive_text(&mut sent(text.as_bytes())).unwrap();
    assert!(spoilt.contains('\u{fffd}'), "{spoilt}");
    let mut stream = BufReader::with_capacity(4, sent(text.as_bytes()));
    assert_eq!(receive_line(&mut stream).unwrap().as_deref(), Some(text));
    assert_eq!(receive_line(&mut stream).unwrap(), None);
}

#[test]
fn lines_reports_a_wrong_byte_as_an_error_although_the_stream_goes_on() {
    let bytes = b"\xff\nnext\n";
    let mut lines = BufReader::new(&bytes[..]).lines();
    let error = lines.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(lines.next().unwrap().unwrap(), "next");
    let mut stream = BufReader::new(&bytes[..]);
    for line in ["\u{fffd}\n", "next\n"] {
        assert_eq!(receive_line(&mut stream).unwrap().as_deref(), Some(line));
    }
}
