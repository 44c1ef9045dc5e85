//! The shortest server and client on one machine. Their address is a file, `first.sock` in this folder.
//! Start `cargo run -p unix-echo --example first -- server`, then the same with `client`.
//! The file stays, and must be removed before the next server. `src/main.rs` takes care of that.

#[cfg(unix)]
fn main() -> std::io::Result<()> {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    let path = std::env::args().nth(2).unwrap_or("first.sock".into());
    if std::env::args().nth(1).as_deref() == Some("server") {
        let listener = UnixListener::bind(&path)?;
        println!("listening on {path}");
        for stream in listener.incoming() {
            let stream = stream?;
            std::io::copy(&mut &stream, &mut &stream)?; // Until the client has sent all.
        }
    } else {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(b"hello\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        print!("{line}");
    }
    Ok(())
}

#[cfg(not(unix))]
fn main() {}
