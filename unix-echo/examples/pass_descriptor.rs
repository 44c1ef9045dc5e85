//! A client passes an open file to a server that may not open it itself. (Linux)
//!
//! ```console
//! $ cargo run -p unix-echo --example pass_descriptor -- server                      # terminal 1
//! listening on @pass_descriptor
//! uid 1001: first line "# Sockets in pairs"
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo --example pass_descriptor -- client README.md            # terminal 2
//! first line "# Sockets in pairs"
//! ```
//!
//! A *descriptor* is a number by which one process refers to an open file or socket. To *pass* it
//! (SCM_RIGHTS, unix(7)) is more than to send this number: the kernel gives the receiver a
//! descriptor of its own for the same open file. Permissions are checked when a file is opened,
//! and not again. So a server with few rights can read just the files that its clients have
//! opened for it.
//!
//! A descriptor travels beside the bytes of the stream, in a *control message*, and belongs to
//! one of these bytes: a program that reads this byte without asking for control messages loses
//! it. And what comes can be anything, such as a pipe into which nobody writes. A server that
//! forgets to close what comes soon has no descriptor left.
//!
//! This is for services on one machine, such as D-Bus or systemd. The price: std can neither send
//! nor receive control messages. The crates that can keep the names of C.
//!
//! Try next:
//!
//! - Pass what is no file: `cargo run -p unix-echo --example pass_descriptor -- client
//!   /dev/zero`. The server looks before it reads.
//! - Pass a file that only root may open, to a server of somebody who may not:
//!   `sudo -u nobody target/debug/examples/pass_descriptor server --peer 0`, and then
//!   `sudo target/debug/examples/pass_descriptor client --peer $(id -u nobody) /etc/shadow`.
//!
//! Read `credentials` first: how each side learns who the other is. Read next: cmsg(3), unix(7).

// On systems other than Linux, most of this is unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::{
    fd::{AsFd, OwnedFd},
    linux::net::SocketAddrExt,
    unix::fs::FileExt,
    unix::net::{SocketAddr, UnixListener, UnixStream},
};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Uid,
};
#[cfg(target_os = "linux")]
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many bytes of a line the server reads.
const SHOWN: usize = 64;

/// The pause after an error of accept: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Pass an open file to another process
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    role: Role,

    /// Name of the server in the abstract namespace
    #[arg(long, global = true, default_value = "pass_descriptor")]
    name: String,

    /// Number of the user to trust at the other end, instead of your own
    #[arg(long, global = true, value_name = "UID")]
    peer: Option<u32>,
}

#[derive(Subcommand)]
enum Role {
    /// Read the first line of files that clients pass
    Server,
    /// Open a file, pass it to the server, and print what the server has read
    Client { file: PathBuf },
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let Args { role, name, peer } = Args::parse();
    let trusted = peer.unwrap_or(Uid::effective().as_raw());
    let addr = SocketAddr::from_abstract_name(&name);
    let addr = addr.with_context(|| format!("cannot use the name {name:?}"))?;
    match role {
        Role::Server => {
            let listener = UnixListener::bind_addr(&addr);
            let listener = listener.with_context(|| format!("cannot listen on @{name}"))?;
            let _ = writeln!(io::stdout(), "listening on @{name}");
            serve(&listener, trusted)
        }
        Role::Client { file: path } => {
            let file = File::open(&path);
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            let stream = UnixStream::connect_addr(&addr);
            let stream = stream.with_context(|| format!("cannot reach @{name}"))?;
            let line = ask(&stream, trusted, &file);
            let line = line.with_context(|| format!("cannot get an answer from @{name}"))?;
            let printed = io::stdout().write_all(line.as_bytes());
            printed.context("cannot write to stdout")
        }
    }
}

/// Serves each client in a thread of its own, which the client can make wait: it may send
/// nothing, or pass a file of a slow file system, or a socket whose close waits (SO_LINGER).
#[cfg(target_os = "linux")]
fn serve(listener: &UnixListener, trusted: u32) -> ! {
    loop {
        let started = listener.accept().and_then(|(stream, _)| {
            thread::Builder::new().spawn(move || {
                let answered = answer(&stream, trusted);
                log(&answered.unwrap_or_else(|error| format!("{error:#}")));
            })
        });
        if let Err(error) = started {
            log(&format!("cannot serve a client: {error}"));
            thread::sleep(PAUSE);
        }
    }
}

/// Reads a line of the file that a client passes, and sends it back. Returns what to log.
#[cfg(target_os = "linux")]
fn answer(mut stream: &UnixStream, trusted: u32) -> Result<String> {
    let uid = user_of(stream)?;
    ensure!(uid == trusted, "uid {uid}: refused");
    let line = receive(stream).and_then(|file| first_line(&file));
    let line = line.with_context(|| format!("uid {uid}: cannot read what it passed"))?;
    let written = stream.write_all(format!("{line}\n").as_bytes());
    written.with_context(|| format!("uid {uid}: cannot send the answer"))?;
    Ok(format!("uid {uid}: {line}"))
}

/// Asks the kernel which user is at the other end; `credentials` explains it.
#[cfg(target_os = "linux")]
fn user_of(stream: &UnixStream) -> Result<u32> {
    let peer = getsockopt(stream, PeerCredentials).context("cannot ask who it is")?;
    Ok(peer.uid())
}

/// Receives one byte, and one descriptor with it.
#[cfg(target_os = "linux")]
fn receive(stream: &UnixStream) -> Result<File> {
    let mut byte = [0];
    let bytes = &mut [IoSliceMut::new(&mut byte)];
    // The kernel puts descriptors into a second buffer, the control buffer. Because of alignment, a
    // buffer for one descriptor may have room for more, and the kernel uses it. So we count them.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // CMSG_CLOEXEC: no program that we might start inherits a descriptor.
    let message = recvmsg(stream, bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    ensure!(message.bytes > 0, "it sent nothing");
    // An OwnedFd closes its descriptor when it is dropped, so whatever we do not return is closed.
    let mut received: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received.extend(descriptors);
        }
    }
    // A descriptor that does not fit into the buffer, or into our table of descriptors (`ulimit
    // -n`), is closed by the kernel, which then sets this flag.
    let is_cut = message.flags.contains(ReturnFlags::CTRUNC);
    ensure!(!is_cut, "there is no room for a descriptor");
    let one = <[OwnedFd; 1]>::try_from(received);
    let [one] = one.map_err(|all| anyhow!("{} descriptors instead of one", all.len()))?;
    Ok(File::from(one))
}

/// Reads the first line of a file, whatever the client has passed.
#[cfg(target_os = "linux")]
fn first_line(file: &File) -> Result<String> {
    // To read from a pipe or a socket could take forever. Non-blocking mode would be no way out: it
    // belongs to the open file, so we would change it for the client as well.
    ensure!(file.metadata()?.is_file(), "not a regular file");
    // The client shares the position in the open file as well. read_at leaves it alone.
    let mut buffer = [0; SHOWN];
    let len = file.read_at(&mut buffer, 0)?;
    let line = buffer[..len].split(|byte| *byte == b'\n').next();
    // Escaped, so that nobody can forge log lines or send commands to the terminal.
    let line = line.unwrap_or_default().escape_ascii();
    Ok(format!("first line \"{line}\""))
}

/// Sends one byte, and with it the descriptor of a file, if the server is run by the trusted user.
/// (On a stream a descriptor cannot travel without a byte.) Returns the answer.
#[cfg(target_os = "linux")]
fn ask(mut stream: &UnixStream, trusted: u32, file: &File) -> Result<String> {
    let uid = user_of(stream)?;
    ensure!(
        uid == trusted,
        "its user is {uid}; if you trust this user, add --peer {uid}"
    );
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let byte = [IoSlice::new(b"?")];
    sendmsg(stream, &byte, &mut control, SendFlags::empty()).context("cannot send")?;
    let mut line = String::new();
    stream.read_to_string(&mut line)?;
    ensure!(!line.is_empty(), "it has closed the connection");
    Ok(line)
}

/// Writes a line to stderr. eprintln! would panic if nobody reads stderr any more.
fn log(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot pass a descriptor: this example is written for Linux")
}
