//! A member of a chat: prints what the others say while you type.
//!
//! ```console
//! $ echo hello | cargo run -p tcp-client --example chat -- anna   # start that of tcp-server first
//! * here: nobody
//! * anna left
//! ```
//!
//! One thread sends what you type, the other prints what comes. The main thread waits for the
//! first of the two that ends. Ctrl-D ends your input: the client then half-closes the
//! connection, and has left when the server has said so.
//!
//! Read next: `tcp-server/examples/chat.rs`, where the decisions are.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

/// The pause after each line. The server passes on at most 200 lines of a member in a second. More
/// would wait in the buffers of the kernels, where Ctrl-C does not reach them.
const PAUSE: Duration = Duration::from_millis(10);

/// How long to wait for the farewell of the server.
const PATIENCE: Duration = Duration::from_secs(15);

/// Join a chat: what you type reaches all others
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7007")]
    addr: String,

    /// Your name: 1 to 20 letters, digits, - or _
    name: String,
}

/// What a thread tells the main thread at its end.
enum End {
    /// All input is sent, and the connection is half-closed.
    Input,
    /// The server has closed the connection, or something has failed.
    Connection(Result<()>),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let stream = TcpStream::connect(&args.addr)
        .with_context(|| format!("cannot connect to {}", args.addr))?;
    let output = stream.try_clone().context("cannot share the stream")?;
    let farewell = format!("* {} left\n", args.name);
    let (ends, end) = mpsc::channel();
    let ends_too = ends.clone();
    let send = move || {
        let sent = send(&args.name, &output);
        let _ =
            ends_too.send(sent.map_or_else(|error| End::Connection(Err(error)), |()| End::Input));
    };
    let receive = move || {
        let _ = ends.send(End::Connection(receive(&stream, &farewell)));
    };
    // thread::spawn would panic if the system has no thread left.
    thread::Builder::new()
        .spawn(send)
        .context("cannot start a thread")?;
    thread::Builder::new()
        .spawn(receive)
        .context("cannot start a thread")?;
    match end.recv()? {
        End::Connection(end) => end,
        End::Input => match end.recv_timeout(PATIENCE) {
            Ok(End::Connection(end)) => end,
            _ => bail!("the server did not say within {PATIENCE:?} that we have left"),
        },
    }
}

/// Sends the name, and each line when it is complete.
fn send(name: &str, mut stream: &TcpStream) -> Result<()> {
    let mut line = format!("{name}\n").into_bytes();
    let mut input = io::stdin().lock();
    // Both calls fail only if the connection no longer exists, which the other thread notices.
    while !line.is_empty() && stream.write_all(&line).is_ok() {
        line.clear();
        thread::sleep(PAUSE);
        input
            .read_until(b'\n', &mut line)
            .context("cannot read stdin")?;
    }
    let _ = stream.shutdown(Shutdown::Write);
    Ok(())
}

/// Prints what comes until the server closes the connection. Its last line must be the farewell.
fn receive(stream: &TcpStream, farewell: &str) -> Result<()> {
    let (mut input, mut line) = (BufReader::new(stream), Vec::new());
    let mut last = Vec::new();
    while input
        .read_until(b'\n', &mut line)
        .context("cannot receive")?
        > 0
    {
        // println! would panic if nobody reads stdout any more.
        let mut stdout = io::stdout();
        let printed = stdout.write_all(&line).and_then(|()| stdout.flush());
        printed.context("cannot write to stdout")?;
        last = std::mem::take(&mut line);
    }
    match last.strip_prefix(b"! ") {
        _ if last == farewell.as_bytes() => Ok(()),
        Some(why) => bail!(
            "the server has ended it: {}",
            String::from_utf8_lossy(why).trim_end()
        ),
        None => bail!("the server has gone"),
    }
}
