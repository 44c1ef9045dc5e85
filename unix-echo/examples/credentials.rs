//! A server that learns from the kernel who its clients are, and reads files for them that it
//! may not open itself. (Linux)
//!
//! ```console
//! $ cargo run -p unix-echo --example credentials -- server                      # terminal 1
//! listening on @credentials
//! uid 1001, gid 1001, pid 4242: served
//! uid 1001, gid 1001, pid 4243: served, first line "# Sockets in pairs"
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo --example credentials -- client                      # terminal 2
//! you are uid 1001, gid 1001, pid 4242
//! $ cargo run -p unix-echo --example credentials -- client README.md
//! you are uid 1001, gid 1001, pid 4243
//! ```
//!
//! A client cannot lie about these *credentials*: its user, group and process. At connect(2)
//! the kernel notes them, and the server asks for them (SO_PEERCRED, unix(7)). This needs no
//! password, because one kernel serves both sides. The client, too, learns who called listen(2).
//!
//! An abstract name needs this. A file has permissions, but an abstract name has none:
//! anybody in the same network namespace can connect to it, or take it before the real
//! server does. So here both sides ask, and by default trust only their own user and root.
//!
//! What counts is who connected. A process can hand its connection to another, and the answer
//! stays the same. Or it has ended, and its number is in use again. So decide by the user,
//! and use the number of the process only in the log.
//!
//! A Unix socket can also *pass a descriptor* (SCM_RIGHTS). The receiver gets a descriptor
//! of its own for the same open file. Rights are checked only when a file is opened, so a
//! server with few rights can read just the files that its clients choose. But what comes
//! can be anything, such as a pipe that never gives a line, and whoever forgets to close one
//! descriptor of each client can soon open no more.
//!
//! This is for a service on one machine, such as D-Bus or a database. The price: std has
//! neither, so two crates bring the names of C, and a stream of bytes gets companions that
//! nobody sees, which must be received with the right byte.
//!
//! Try next:
//!
//! - Start the client as another user: `sudo -u nobody target/debug/examples/credentials
//!   --allow $(id -u) client`. Then give the server `--allow` with the number of nobody.
//! - Pass a file that only root may open: `sudo target/debug/examples/credentials
//!   --allow $(id -u) client /etc/shadow`.
//!
//! Read `unix-echo` first, which explains the address. Read next: unix(7), cmsg(3).

// On other systems than Linux, only the last function is used.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::path::PathBuf;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{
    fmt, fs,
    fs::File,
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    os::linux::net::SocketAddrExt,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{FileExt, PermissionsExt},
    os::unix::net::{SocketAddr, UnixListener, UnixStream},
    thread,
    time::Instant,
};

use anyhow::Result;
#[cfg(target_os = "linux")]
use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
#[cfg(target_os = "linux")]
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How long the server waits for the byte of a client. All others wait as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the client waits for its answer: longer than for a few others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an error, so that an error that repeats does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// More than a server answers, in bytes.
const LONGEST_ANSWER: u64 = 1024;

/// How many bytes of a line the log shows.
const SHOWN: usize = 64;

/// Learn from the kernel who the peer is, and pass an open file
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    role: Role,

    /// Path of the server's socket, or @NAME
    #[arg(long, global = true, default_value = "@credentials")]
    path: PathBuf,

    /// Number of a user to trust, instead of your own user and root; may be repeated
    #[arg(long, global = true, value_name = "UID")]
    allow: Vec<u32>,
}

#[derive(Subcommand)]
enum Role {
    /// Say to the users whom it trusts who they are, and read the first line of their files
    Server,
    /// Ask a server, and print its answer
    Client {
        /// File to open and to pass to the server
        file: Option<PathBuf>,
    },
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let Args { role, path, allow } = Args::parse();
    let name = path.display();
    let addr = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let addr = addr.with_context(|| format!("cannot use the name {name}"))?;
    match role {
        Role::Server => {
            let listener = listen(&addr);
            let listener = listener.with_context(|| format!("cannot listen on {name}"))?;
            let _ = writeln!(io::stdout(), "listening on {name}");
            serve(&listener, &allow)
        }
        Role::Client { file } => {
            let file = file.map(open).transpose()?;
            let stream = UnixStream::connect_addr(&addr);
            let stream = stream.with_context(|| format!("cannot reach {name}"))?;
            let server = peer_of(&stream)?;
            let (shown, uid) = (shown(&server), server.uid());
            ensure!(
                is_allowed(&server, &allow),
                "cannot trust {name}: its server is {shown}; if you do, add --allow {uid}"
            );
            let answer = ask(stream, file);
            let answer = answer.with_context(|| format!("cannot get an answer from {name}"))?;
            // A file, since std's stdout ignores some errors (see `unix-echo`).
            let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            let printed = stdout.and_then(|mut stdout| stdout.write_all(&answer));
            printed.context("cannot write to stdout")
        }
    }
}

/// Asks the kernel who is at the other end: the effective user and group, as our namespaces
/// number them. 65534 stands for all users who have no number here (user_namespaces(7)),
/// and 0 for a process that we cannot see. (rustix asks as well, but has no process 0.)
#[cfg(target_os = "linux")]
fn peer_of(stream: &UnixStream) -> Result<UnixCredentials> {
    getsockopt(stream, PeerCredentials).context("cannot ask who it is")
}

#[cfg(target_os = "linux")]
fn is_allowed(peer: &UnixCredentials, allow: &[u32]) -> bool {
    if allow.is_empty() {
        return [0, rustix::process::geteuid().as_raw()].contains(&peer.uid());
    }
    allow.contains(&peer.uid())
}

#[cfg(target_os = "linux")]
fn shown(peer: &UnixCredentials) -> String {
    format!("uid {}, gid {}, pid {}", peer.uid(), peer.gid(), peer.pid())
}

#[cfg(target_os = "linux")]
fn listen(addr: &SocketAddr) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(addr)?;
    if let Some(path) = addr.as_pathname() {
        // Everybody may connect. The credentials decide, as with an abstract name.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    }
    Ok(listener)
}

/// Serves one client after the other, forever. An error of a client does not end it.
#[cfg(target_os = "linux")]
fn serve(listener: &UnixListener, allow: &[u32]) -> ! {
    loop {
        let accepted = listener.accept().map_err(anyhow::Error::new);
        let asked = accepted.and_then(|(stream, _)| Ok((peer_of(&stream)?, stream)));
        let (peer, stream) = match asked {
            Ok(connection) => connection,
            Err(error) => {
                log(format_args!("cannot accept: {error:#}"));
                thread::sleep(PAUSE);
                continue;
            }
        };
        let shown = shown(&peer);
        if !is_allowed(&peer, allow) {
            log(format_args!("{shown}: refused"));
            // Closed without a word, and the kernel closes what the client may have passed. This
            // can wait for hours, if it is a TCP socket with SO_LINGER, so a thread does it. (If
            // none can be started, we close it after all.)
            let _ = thread::Builder::new().spawn(move || drop(stream));
            continue;
        }
        match answer(stream, &shown) {
            Ok(outcome) => log(format_args!("{shown}: served{outcome}")),
            Err(error) => log(format_args!("{shown}: {error:#}")),
        }
    }
}

/// Receives a client's message and answers it. Returns what to log besides.
#[cfg(target_os = "linux")]
fn answer(mut stream: UnixStream, peer: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (descriptor, more) = receive(&stream)?;
    let has_one = descriptor.is_some();
    let mut outcome = match descriptor.map(first_line) {
        None => String::new(),
        Some(Ok(line)) => format!(", first line {line}"),
        Some(Err(error)) => format!(", cannot read what it passed: {error}"),
    };
    if more && has_one {
        outcome += ", closed what was beyond one descriptor";
    } else if more {
        outcome += ", could not take what it passed";
    }
    // So few bytes always fit into the kernel's buffer, so this does not wait.
    let written = stream.write_all(format!("you are {peer}\n").as_bytes());
    written.context("cannot send the answer")?;
    Ok(outcome)
}

/// Receives one byte and at most one descriptor with it. Returns whether there were more.
#[cfg(target_os = "linux")]
fn receive(stream: &UnixStream) -> Result<(Option<OwnedFd>, bool)> {
    let mut byte = [0];
    // The kernel puts descriptors into a second buffer, the control buffer. Because of
    // alignment, one with space for one descriptor can have space for several, and the
    // kernel fills it. So our count, and not the size, decides how many we keep.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let started = Instant::now();
    let message = loop {
        // Looked at before the call, because a byte may have come while we were suspended.
        let is_late = started.elapsed() > PATIENCE;
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        // CLOEXEC: no program that we might start inherits the descriptor.
        match recvmsg(stream, bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) if !is_late => {} // We were suspended (signal(7)).
            Err(Errno::AGAIN | Errno::INTR) => bail!("it sent nothing"),
            result => break result.context("cannot receive")?,
        }
    };
    ensure!(message.bytes > 0, "it sent nothing");
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(), // We have asked for no other kind.
    });
    let first = descriptors.next();
    // What is counted is dropped, and so closed.
    let more = descriptors.count() > 0;
    // What did not fit, the kernel has closed. It also sets this flag if our table of
    // descriptors is full (`ulimit -n`); then there is perhaps not even a first.
    let cut = message.flags.contains(ReturnFlags::CTRUNC);
    Ok((first, more || cut))
}

/// Reads the first line of a file, whatever the client has passed, and closes it.
#[cfg(target_os = "linux")]
fn first_line(descriptor: OwnedFd) -> Result<String> {
    let file = File::from(descriptor);
    // A pipe or a socket could make us wait. Non-blocking mode would be no way out: it
    // belongs to the open file, so we would change it for the client as well. (A client that
    // we trust can still make us wait: reading a file of FUSE may wait, or /proc/kmsg, and so
    // may closing a TCP socket. Who serves strangers, does this in a process that can be killed.)
    ensure!(file.metadata()?.is_file(), "not a regular file");
    // The client shares the position in the open file as well. read_at leaves it alone.
    let mut buffer = [0; SHOWN + 1];
    let len = file.read_at(&mut buffer, 0)?;
    let line = buffer[..len].split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    let more = if line.len() > SHOWN { "..." } else { "" };
    // Escaped, so that nobody can forge log lines or send commands to the terminal.
    let shown = line[..line.len().min(SHOWN)].escape_ascii();
    Ok(format!("\"{shown}\"{more}"))
}

#[cfg(target_os = "linux")]
fn open(path: PathBuf) -> Result<File> {
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Sends one byte, and with it the descriptor of a file. On a stream a descriptor cannot travel
/// without a byte.
#[cfg(target_os = "linux")]
fn ask(stream: UnixStream, file: Option<File>) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let descriptors: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let byte = [IoSlice::new(b"?")];
    match sendmsg(&stream, &byte, &mut control, SendFlags::empty()) {
        // The server has refused us already. Then the answer is empty.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(error) => return Err(error).context("cannot send"),
    }
    let mut answer = Vec::new();
    match stream.take(LONGEST_ANSWER).read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error.into()),
        _ => ensure!(!answer.is_empty(), "it may not serve your user"),
    }
    ensure!((answer.len() as u64) < LONGEST_ANSWER, "it does not end");
    Ok(answer)
}

/// Writes a line to stderr. eprintln! would panic if nobody reads stderr any more.
#[cfg(target_os = "linux")]
fn log(line: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot ask this kernel who connects: this example is written for Linux")
}
