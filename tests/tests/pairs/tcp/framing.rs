//! Messages in a stream, by two rules: lines, as the example `chat` reads them, and messages with their length in
//! front. Both are tested without a network, with a stream that gives one byte at a time.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::chat::server::{MAX_LINE, printable, read_line};

/// The longest message that is accepted, in bytes.
const MAX_MESSAGE: u32 = 1_000_000;

/// Reads a message: its length in four bytes, the most significant first (*network byte order*),
/// and as many bytes. Returns `None` if the stream ends between two messages. An end within one is
/// an error.
fn read_message(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = Vec::new();
    stream.take(4).read_to_end(&mut len)?;
    let len = match len[..] {
        [] => return Ok(None),
        [a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
        _ => return Err(ErrorKind::UnexpectedEof.into()),
    };
    // Before anything is allocated: the peer may announce 4 GiB.
    if len > MAX_MESSAGE {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("a message of {len} bytes is too long"),
        ));
    }
    let mut message = vec![0; len as usize];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Writes a message, with one call, so that no segment carries the length alone.
fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat())
}

/// Gives one byte with each read, and says before each that it was interrupted.
struct ByteByByte<'a> {
    bytes: &'a [u8],
    is_interrupted: bool,
}

impl Read for ByteByByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        let len = self.bytes.len().min(buffer.len()).min(1);
        self.bytes.read(&mut buffer[..len])
    }
}

fn byte_by_byte(bytes: &[u8]) -> ByteByByte<'_> {
    ByteByByte {
        bytes,
        is_interrupted: false,
    }
}

/// Returns all messages up to the end, and the error if there is one.
fn messages(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<ErrorKind>) {
    let (mut stream, mut messages) = (byte_by_byte(bytes), Vec::new());
    loop {
        match read_message(&mut stream) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error.kind())),
        }
    }
}

/// Does the same with lines.
fn lines(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut stream, mut lines) = (BufReader::new(byte_by_byte(bytes)), Vec::new());
    loop {
        match read_line(&mut stream) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return (lines, None),
            Err(error) => return (lines, Some(error.to_string())),
        }
    }
}

#[test]
fn messages_of_any_bytes_come_out_as_they_went_in() {
    let sent = [&b"hello"[..], b"", b"two\nlines", &[0xff; 70_000]];
    let mut stream = Vec::new();
    for message in sent {
        write_message(&mut stream, message).unwrap();
    }
    let (came, error) = messages(&stream);
    assert_eq!(error, None);
    assert!(came == sent);
}

#[test]
fn the_length_comes_in_network_byte_order() {
    let mut stream = Vec::new();
    write_message(&mut stream, b"hello").unwrap();
    assert_eq!(stream, b"\0\0\0\x05hello");
}

/// Only between two messages nothing is lost.
#[test]
fn an_end_is_clean_only_between_messages() {
    let stream = b"\0\0\0\x02hi\0\0\0\x02ho";
    for end in 0..=stream.len() {
        let (came, error) = messages(&stream[..end]);
        assert_eq!(came.len(), end / 6, "{end}");
        let is_between = end % 6 == 0;
        let expected = (!is_between).then_some(ErrorKind::UnexpectedEof);
        assert_eq!(error, expected, "{end}");
    }
}

/// A peer that announces 4 GiB sends four bytes. Nothing is allocated for it, and nothing more is read.
#[test]
fn a_message_of_four_gibibytes_is_refused_before_anything_is_allocated() {
    let (_, error) = messages(b"\xff\xff\xff\xff");
    assert_eq!(error, Some(ErrorKind::InvalidData));
    let longest = MAX_MESSAGE.to_be_bytes();
    assert_eq!(messages(&longest).1, Some(ErrorKind::UnexpectedEof));
    let longer = (MAX_MESSAGE + 1).to_be_bytes();
    assert_eq!(messages(&longer).1, Some(ErrorKind::InvalidData));
}

/// `GET ` is the number 1,195,725,856.
#[test]
fn a_peer_that_speaks_http_is_refused() {
    let mut stream = byte_by_byte(b"GET / HTTP/1.1\r\n\r\n");
    let error = read_message(&mut stream).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a message of 1195725856 bytes is too long"
    );
}

#[test]
fn over_a_connection_messages_stay_whole_and_a_peer_that_stops_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let long = vec![7; 900_000];
    let sender = thread::spawn(move || {
        for message in [&b"hello"[..], &vec![7; 900_000]] {
            write_message(&mut client, message).unwrap();
        }
        client.write_all(b"\0\0").unwrap(); // Half a length.
    });
    assert_eq!(read_message(&mut server).unwrap(), Some(b"hello".to_vec()));
    assert!(read_message(&mut server).unwrap() == Some(long));
    sender.join().unwrap();
    let error = read_message(&mut server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn lines_end_with_a_newline_or_with_cr_and_a_newline() {
    let (came, error) = lines(b"unix\nwindows\r\n\n\r\nc\rr\nhalf");
    assert_eq!(error, None);
    assert_eq!(came, [&b"unix"[..], b"windows", b"", b"", b"c\rr", b"half"]);
}

#[test]
fn a_line_may_have_a_thousand_bytes() {
    for end in [&b"\n"[..], b"\r\n", b""] {
        let longest = [&[b'x'; MAX_LINE], end].concat();
        assert_eq!(lines(&longest).0, [[b'x'; MAX_LINE]], "{end:?}");
        let longer = [&[b'x'; MAX_LINE + 1], end].concat();
        let too_long = "a line has at most 1000 bytes";
        assert_eq!(lines(&longer), (vec![], Some(too_long.to_owned())));
    }
}

/// Escape sequences can clear a terminal, or change what stands above. U+202E reverses what follows.
#[test]
fn what_a_terminal_would_obey_is_escaped_and_text_stays() {
    let escaped: [(&[u8], &str); 6] = [
        (b"\x1b[2J\x07\t\r", r"\u{1b}[2J\u{7}\t\r"),
        (b"\xff\xfe\xc3", r"\xff\xfe\xc3"),
        ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
        ("\u{202e}abc\u{2066}".as_bytes(), r"\u{202e}abc\u{2066}"),
        ("\u{2028}".as_bytes(), r"\u{2028}"),
        (b"\x00\x7f", r"\u{0}\u{7f}"),
    ];
    for (line, expected) in escaped {
        assert_eq!(printable(line), expected);
    }
    let text = "\"quoted\" it's a \\ 你好 é e\u{301} नमस्ते 👩\u{200d}💻";
    assert_eq!(printable(text.as_bytes()), text);
}
