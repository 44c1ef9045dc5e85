//! A server that learns from the kernel who connects, and serves users that it trusts. (Linux)
//!
//! ```console
//! $ cargo run -p unix-echo --example credentials -- server                      # terminal 1
//! listening on @credentials
//! uid 1001, gid 1001, pid 4242: served
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo --example credentials -- client                      # terminal 2
//! you are uid 1001, gid 1001, pid 4242
//! ```
//!
//! The client sends nothing, and cannot lie about these *credentials*: its user, its group and
//! its process. At connect(2) the kernel notes them, and the server asks for them (SO_PEERCRED,
//! unix(7)). This needs no password, because one kernel serves both sides. The client can ask as
//! well: for it, the credentials are those of the process that called listen(2).
//!
//! A name in the abstract namespace needs this. A file has permissions, but an abstract name has
//! none: every program in the same network namespace can connect to it, or take it before the real
//! server does. So here both sides ask, and by default trust only their own user and root.
//!
//! The credentials are those of the process that connected. It can hand its connection to another,
//! and the answer stays the same. Or it has ended, and another process has its number. So decide by
//! the user, and use the number of the process only in the log.
//!
//! Try next:
//!
//! - Start the client as another user: `sudo -u nobody target/debug/examples/credentials
//!   --allow $(id -u) client`. It is refused. Then start the server with `--allow $(id -u nobody)`.
//! - Connect with another program: `socat - abstract-connect:credentials`. The server knows all the
//!   same who runs it.
//!
//! Read `unix-echo` first, which explains the address. Read next: the example `pass_descriptor`,
//! for what else a Unix socket can do; unix(7).

// On systems other than Linux, most of this is unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::io::{self, Read, Write};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use nix::{
    sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials},
    unistd::Uid,
};

/// The pause after an error of accept: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Learn from the kernel who the peer is
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    role: Role,

    /// Name of the server in the abstract namespace
    #[arg(long, global = true, default_value = "credentials")]
    name: String,

    /// Number of a user to trust, instead of your own user and root; may be repeated
    #[arg(long, global = true, value_name = "UID")]
    allow: Vec<u32>,
}

#[derive(Subcommand)]
enum Role {
    /// Say to the users whom it trusts who they are
    Server,
    /// Print what the server says, if it is run by a trusted user
    Client,
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let Args { role, name, allow } = Args::parse();
    let addr = SocketAddr::from_abstract_name(&name);
    let addr = addr.with_context(|| format!("cannot use the name {name:?}"))?;
    match role {
        Role::Server => {
            let listener = UnixListener::bind_addr(&addr);
            let listener = listener.with_context(|| format!("cannot listen on @{name}"))?;
            let _ = writeln!(io::stdout(), "listening on @{name}");
            serve(&listener, &allow)
        }
        Role::Client => {
            let stream = UnixStream::connect_addr(&addr);
            let stream = stream.with_context(|| format!("cannot reach @{name}"))?;
            let answer = ask(stream, &allow);
            let answer = answer.with_context(|| format!("cannot get an answer from @{name}"))?;
            let printed = io::stdout().write_all(answer.as_bytes());
            printed.context("cannot write to stdout")
        }
    }
}

/// Serves one client after the other, forever. An error with one of them does not end the server.
#[cfg(target_os = "linux")]
fn serve(listener: &UnixListener, allow: &[u32]) -> ! {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                log(&format!("cannot accept: {error}"));
                thread::sleep(PAUSE);
                continue;
            }
        };
        let answered = answer(&stream, allow);
        log(&answered.unwrap_or_else(|error| format!("{error:#}")));
        // A client may have passed us descriptors (see `pass_descriptor`), which the kernel closes
        // together with the stream. That can take hours, if one is a TCP socket with the option
        // SO_LINGER. So a thread closes it. (If none can be started, it is closed here.)
        let _ = thread::Builder::new().spawn(move || drop(stream));
    }
}

/// Answers a client, if it may have an answer. Returns what to log.
#[cfg(target_os = "linux")]
fn answer(mut stream: &UnixStream, allow: &[u32]) -> Result<String> {
    let peer = peer_of(stream)?;
    let shown = describe(&peer);
    if !is_allowed(&peer, allow) {
        return Ok(format!("{shown}: refused"));
    }
    // The buffer of a new stream has room for so few bytes, so this does not wait for the client.
    let written = stream.write_all(format!("you are {shown}\n").as_bytes());
    written.with_context(|| format!("{shown}: cannot send the answer"))?;
    Ok(format!("{shown}: served"))
}

/// Asks the kernel who is at the other end: the effective user and group, as our user namespace
/// numbers them. 65534 stands for all users who have no number in it (user_namespaces(7)), and 0
/// for a process that has no number in our PID namespace.
#[cfg(target_os = "linux")]
fn peer_of(stream: &UnixStream) -> Result<UnixCredentials> {
    getsockopt(stream, PeerCredentials).context("cannot ask who it is")
}

#[cfg(target_os = "linux")]
fn is_allowed(peer: &UnixCredentials, allow: &[u32]) -> bool {
    if allow.is_empty() {
        return [0, Uid::effective().as_raw()].contains(&peer.uid());
    }
    allow.contains(&peer.uid())
}

#[cfg(target_os = "linux")]
fn describe(peer: &UnixCredentials) -> String {
    format!("uid {}, gid {}, pid {}", peer.uid(), peer.gid(), peer.pid())
}

/// Waits for the answer of a server, if this is run by a trusted user.
#[cfg(target_os = "linux")]
fn ask(mut stream: UnixStream, allow: &[u32]) -> Result<String> {
    let server = peer_of(&stream)?;
    ensure!(
        is_allowed(&server, allow),
        "its server is {}; if you trust it, add --allow {}",
        describe(&server),
        server.uid()
    );
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.is_empty(), "it may not serve your user");
    Ok(answer)
}

/// Writes a line to stderr. eprintln! would panic if nobody reads stderr any more.
fn log(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot ask this kernel who connects: this example is written for Linux")
}
