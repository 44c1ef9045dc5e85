//! An echo between processes of one machine: no network, no port, but a name in the file system.
//!
//! ```console
//! $ cargo run -p unix-echo -- server        # terminal 1
//! listening on /run/user/1000/unix-echo.sock
//! unnamed: connected
//! unnamed: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo -- client hello  # terminal 2
//! hello
//! ```
//!
//! The family AF_UNIX (AF_LOCAL) has the same two kinds of sockets as the network has: streams, and with
//! `--datagram` on both sides, datagrams. What differs is the address, which is what this file is about:
//! a path, or on Linux a name that no file stands for, written `@NAME`.
//!
//! Try next:
//!
//! - `ls -l` the file of a running server: its type is `s`, and nobody but you may write to it.
//! - Kill the server (`kill -9`) and ask again: the file is still there, but nobody behind it.
//!
//! Read next: `stream.rs`, then `datagram.rs`.

#![cfg_attr(not(unix), allow(dead_code, unused_imports))] // There, only the last function is of use.

use std::env;
use std::ffi::OsString;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;
use std::time::Duration;
#[cfg(unix)]
use std::{
    fmt, fs, io,
    io::ErrorKind,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    os::unix::net::{SocketAddr, UnixDatagram},
    path::Path,
    process,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

#[cfg(unix)]
mod datagram;
#[cfg(unix)]
mod stream;

/// The longest name in bytes. The field for it, `sun_path`, has 108 on Linux and 104 on the BSDs and on
/// macOS (unix(7)); one is for the NUL that ends a path, or that begins an abstract name.
const MAX_NAME: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Echo between processes of one machine, over a Unix socket
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    role: Role,

    /// Where the server is: a path, or on Linux @NAME for a name without a file [default: unix-echo.sock
    /// in $XDG_RUNTIME_DIR, else in the directory for temporary files]
    #[arg(long, global = true)]
    path: Option<PathBuf>,

    /// Use datagrams, not streams; on both sides
    #[arg(long, global = true)]
    datagram: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Send everything back
    Server(ServerOptions),
    /// Send to a server and print what comes back
    Client(ClientOptions),
}

#[derive(Args)]
struct ServerOptions {
    /// How many clients to serve at once, each by a thread; further ones wait (streams only)
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// When to close a connection on which nothing moves; fractions are allowed (streams only)
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Log no connections and no datagrams
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
struct ClientOptions {
    /// How long to wait for a connection and, when all is sent, for more to come back; fractions are
    /// allowed
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Each is sent as a line, or as a datagram; without any, stdin is sent, or each of its lines
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let CommandLine {
        role,
        path,
        datagram,
    } = CommandLine::parse();
    let name = Name::of(&path.unwrap_or_else(default_path))?;
    match (role, datagram) {
        (Role::Server(options), false) => stream::serve(&name, options),
        (Role::Server(options), true) => datagram::serve(&name, &options),
        (Role::Client(options), false) => stream::ask(&name, options),
        (Role::Client(options), true) => datagram::ask(&name, &options),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write seconds from 0.001 to 86400".into()),
    }
}

/// `$XDG_RUNTIME_DIR` is a directory that nobody but the user may enter. Its specification has a path
/// that is not absolute ignored.
fn default_path() -> PathBuf {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    runtime_dir
        .unwrap_or_else(env::temp_dir)
        .join("unix-echo.sock")
}

/// What others call a socket: a path, or a name in Linux's abstract namespace, or nothing.
#[cfg(unix)]
struct Name(SocketAddr);

#[cfg(unix)]
impl Name {
    fn of(path: &Path) -> Result<Name> {
        let bytes = path.as_os_str().as_bytes();
        let abstract_name = bytes.strip_prefix(b"@");
        let len = abstract_name.unwrap_or(bytes).len();
        ensure!(len > 0, "cannot use an empty name: give a path to --path");
        ensure!(
            len <= MAX_NAME,
            "cannot use the name {}: it has {len} bytes, the limit is {MAX_NAME}",
            path.display()
        );
        let addr = match abstract_name {
            #[cfg(target_os = "linux")]
            Some(name) => SocketAddr::from_abstract_name(name),
            #[cfg(not(target_os = "linux"))]
            Some(_) => anyhow::bail!(
                "cannot use {}: only Linux has names without a file",
                path.display()
            ),
            None => SocketAddr::from_pathname(path),
        };
        Ok(Name(addr.with_context(|| {
            format!("cannot use the name {}", path.display())
        })?))
    }

    /// Gives a server's socket its name. The kernel makes a file for a path, and leaves it there when the
    /// socket is closed, so what stands in the way may be the file of a server that has died.
    fn bind<S>(&self, bind: impl Fn(&SocketAddr) -> io::Result<S>) -> Result<S> {
        let socket = match (bind(&self.0), self.0.as_pathname()) {
            (Err(error), Some(path)) if error.kind() == ErrorKind::AddrInUse => {
                let obstacle = obstacle(path);
                ensure!(
                    obstacle.is_none(),
                    "cannot listen on {self}: {}",
                    obstacle.unwrap_or_default()
                );
                // Two servers that start in the same moment might both come here, and the later remove
                // the earlier's file. Who must exclude that locks another file first (flock(2)).
                fs::remove_file(path).with_context(|| format!("cannot replace the dead {self}"))?;
                bind(&self.0)
            }
            (result, _) => result,
        };
        let socket = socket.map_err(|error| {
            let meaning = match error.kind() {
                ErrorKind::AddrInUse => ": already in use, choose another --path",
                ErrorKind::NotFound => ": its directory does not exist",
                ErrorKind::PermissionDenied => ": you may not write to its directory",
                _ => "",
            };
            anyhow::Error::new(error).context(format!("cannot listen on {self}{meaning}"))
        })?;
        if let Some(path) = self.0.as_pathname() {
            // To connect is to write to the file (unix(7)). Between bind and here others might, where the
            // umask lets them: the real lock is a directory that they cannot enter.
            let only_us = fs::Permissions::from_mode(0o600);
            fs::set_permissions(path, only_us).with_context(|| format!("cannot protect {self}"))?;
            remove_on_signal(path)?;
        }
        Ok(socket)
    }

    /// Says of a client's error what it means here and what to do.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        const EPROTOTYPE: i32 = if cfg!(target_os = "linux") { 91 } else { 41 };
        let is_path = self.0.as_pathname().is_some();
        let meaning = match error.kind() {
            ErrorKind::NotFound => ": nobody is there (no such file), start unix-echo server",
            ErrorKind::ConnectionRefused if is_path => {
                ": nobody is behind this file any more, start unix-echo server"
            }
            ErrorKind::ConnectionRefused => ": nobody listens there, start unix-echo server",
            ErrorKind::PermissionDenied => ": it is for the user who started the server",
            ErrorKind::WouldBlock => ": its queue is full, and its server does not read",
            _ if error.raw_os_error() == Some(EPROTOTYPE) => {
                ": give --datagram to both sides or to none"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot reach {self}{meaning}"))
    }
}

/// What keeps a server from a path that is taken; nothing if it is the file of a server that has died.
#[cfg(unix)]
fn obstacle(path: &Path) -> Option<&'static str> {
    // metadata() would follow a link, and what is there at its end is nothing of ours.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Some("what is there is no socket, and stays as it is");
    }
    // Connecting a datagram socket does not disturb a server, of either type, and never waits.
    match UnixDatagram::unbound().and_then(|probe| probe.connect(path)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
        _ => Some("already in use, choose another --path"),
    }
}

/// Removes the file when SIGINT or SIGTERM ends the server, if the file is still the one that is there now.
#[cfg(unix)]
fn remove_on_signal(path: &Path) -> Result<()> {
    let path = path.to_owned();
    let identity = |path: &Path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    let ours = identity(&path).with_context(|| format!("cannot find {} again", path.display()))?;
    ctrlc::set_handler(move || {
        if identity(&path).is_ok_and(|there| there == ours) {
            let _ = fs::remove_file(&path);
        }
        process::exit(0)
    })
    .context("cannot wait for signals")
}

#[cfg(unix)]
impl fmt::Display for Name {
    /// Escaped, since a client's name is its own choice, control characters and all.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        #[cfg(target_os = "linux")]
        if let Some(name) = self.0.as_abstract_name() {
            return write!(f, "@{}", String::from_utf8_lossy(name).escape_debug());
        }
        match self.0.as_pathname() {
            Some(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
            None => write!(f, "unnamed"),
        }
    }
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    anyhow::bail!("cannot open a Unix socket: Rust's std has them on Unix alone")
}
