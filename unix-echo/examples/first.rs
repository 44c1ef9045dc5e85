//! The shortest server and client on one machine: their address is the path of a file. The server leaves
//! its file behind, and cannot start again before somebody removes it. `src/main.rs` is for real use.
//!
//! ```console
//! $ cargo run -p unix-echo --example first -- server
//! listening on first.sock
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo --example first -- client
//! hello
//! $ rm first.sock
//! ```

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
