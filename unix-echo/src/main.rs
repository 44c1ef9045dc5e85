//! An echo between programs on one machine, over a Unix socket.
//!
//! ```console
//! $ cargo run -p unix-echo -- server        # terminal 1
//! listening on /tmp/unix-echo.sock
//! unnamed: connected
//! unnamed: closed, bytes echoed: 6
//! ```
//!
//! ```console
//! $ cargo run -p unix-echo -- client hello  # terminal 2
//! hello
//! ```
//!
//! The *family* of a socket says what an address is: AF_INET and AF_INET6 stand for IP addresses
//! with ports, AF_UNIX for a *Unix socket*, which needs no network. The *type* says how bytes
//! travel, and there are the same two: SOCK_STREAM, as with TCP, and SOCK_DGRAM, as with UDP,
//! which you choose with `--datagram` on both sides. So only the address is new, and this file is
//! about it. It is the path of a file that the kernel creates for the socket, or on Linux an
//! *abstract* name, which has no file and is written `@NAME` here.
//!
//! Try next:
//!
//! - Look at the file of a running server with `ls -l`. Its type is `s`, for socket, and
//!   only you may write to it.
//! - Kill the server (`kill -9`) and start the client. The file is still there, but the
//!   kernel refuses the connection, because no socket belongs to the file any more.
//!
//! Read next: `stream.rs`, then `datagram.rs`.

// On other systems than Unix, only the last function is used.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::env;
use std::ffi::OsString;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::path::PathBuf;
use std::time::Duration;
#[cfg(unix)]
use std::{
    fmt, fs, io,
    io::{ErrorKind, Write},
    os::unix::ffi::OsStrExt,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    os::unix::net::{SocketAddr, UnixDatagram},
    path::Path,
    process,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

#[cfg(unix)]
mod datagram;
#[cfg(unix)]
mod stream;

// ANCHOR: max_name
/// The longest path or name, in bytes. The field `sun_path` of the address has 108 bytes on
/// Linux and 104 on macOS and the BSDs (unix(7)). One of them is the zero byte that ends a
/// path, or that begins an abstract name.
const MAX_NAME: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
// ANCHOR_END: max_name

/// Echo between programs on one machine, over a Unix socket
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    role: Role,

    /// Path of the server's socket, or @NAME (Linux)
    ///
    /// The default is unix-echo.sock in $XDG_RUNTIME_DIR, or if that is not set, in the
    /// directory for temporary files.
    #[arg(long, global = true)]
    path: Option<PathBuf>,

    /// Use datagrams instead of a stream; needed on both sides
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
    /// How many clients to serve at the same time; further clients wait (streams only)
    #[arg(long, value_name = "N", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Seconds without a read or write after which a connection is closed (streams only)
    #[arg(long, value_name = "SECS", default_value = "60")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    idle_timeout: Duration,

    /// Do not log connections or datagrams
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
struct ClientOptions {
    /// Seconds to wait for the connection, and for an answer after everything is sent
    #[arg(long, value_name = "SECS", default_value = "5")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Messages, each sent as one line or datagram; without any, stdin is sent
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let args = CommandLine::parse();
    let name = Name::new(&args.path.unwrap_or_else(default_path))?;
    match (args.role, args.datagram) {
        (Role::Server(options), false) => stream::serve(&name, options),
        (Role::Server(options), true) => datagram::serve(&name, options.quiet),
        (Role::Client(options), false) => stream::ask(&name, options),
        (Role::Client(options), true) => datagram::ask(&name, &options),
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

/// Returns the default path. Only the user can enter the directory `$XDG_RUNTIME_DIR`,
/// whose specification says that a path that is not absolute should be ignored.
fn default_path() -> PathBuf {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime_dir = runtime_dir.filter(|dir| dir.is_absolute());
    runtime_dir
        .unwrap_or_else(env::temp_dir)
        .join("unix-echo.sock")
}

/// The address of a socket: a path, an abstract name, or nothing (`unnamed`).
#[cfg(unix)]
struct Name(SocketAddr);

#[cfg(unix)]
impl Name {
    fn new(path: &Path) -> Result<Name> {
        let bytes = path.as_os_str().as_bytes();
        let abstract_name = bytes.strip_prefix(b"@");
        let len = abstract_name.unwrap_or(bytes).len();
        let shown = path.display();
        ensure!(len > 0, "cannot use an empty name; give a path to --path");
        ensure!(
            len <= MAX_NAME,
            "cannot use the name {shown}: it has {len} bytes, the limit is {MAX_NAME}"
        );
        let addr = match abstract_name {
            #[cfg(target_os = "linux")]
            Some(name) => SocketAddr::from_abstract_name(name),
            #[cfg(not(target_os = "linux"))]
            Some(_) => bail!("cannot use {shown}: only Linux has abstract names"),
            None => SocketAddr::from_pathname(path),
        };
        Ok(Name(
            addr.with_context(|| format!("cannot use the name {shown}"))?,
        ))
    }

    // ANCHOR: bind
    /// Creates a server's socket with this name; `create` decides on the type. For a path
    /// the kernel also creates a file, and leaves it there when the socket is closed.
    fn bind<S>(&self, create: impl Fn(&SocketAddr) -> io::Result<S>) -> Result<S> {
        if let Some(path) = self.0.as_pathname() {
            self.remove_dead_socket(path)?;
        }
        let socket = create(&self.0).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => ": already in use; choose another --path",
                ErrorKind::NotFound => ": its directory does not exist",
                ErrorKind::PermissionDenied => ": you may not write to its directory",
                _ => "",
            };
            anyhow::Error::new(error).context(format!("cannot listen on {self}{advice}"))
        })?;
        if let Some(path) = self.0.as_pathname() {
            // On Linux a client needs permission to write to the file (unix(7)). Until we have set
            // it, the umask decides who has it; a private directory protects all the time.
            let owner_only = fs::Permissions::from_mode(0o600);
            fs::set_permissions(path, owner_only)
                .with_context(|| format!("cannot restrict the access to {self}"))?;
            remove_on_signal(path)?;
        }
        Ok(socket)
    }
    // ANCHOR_END: bind

    // ANCHOR: dead
    /// Removes the file that a server left when it was killed. Fails if anything else is there.
    ///
    /// If two servers start at the same moment, one can remove the file of the other. A
    /// lock on another file would prevent that (flock(2)).
    fn remove_dead_socket(&self, path: &Path) -> Result<()> {
        // Unlike metadata(), this does not follow a symbolic link, which is not ours either.
        let Ok(file) = fs::symlink_metadata(path) else {
            return Ok(()); // Nothing is there, or bind will say why we cannot look.
        };
        ensure!(
            file.file_type().is_socket(),
            "cannot listen on {self}: this file is not a socket, and stays as it is"
        );
        // Connecting a datagram socket never waits, and no server of either type notices it.
        match UnixDatagram::unbound().and_then(|probe| probe.connect(path)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
                .with_context(|| format!("cannot remove {self}, whose server has ended")),
            _ => bail!(
                "cannot listen on {self}: already in use, or not yours; choose another --path"
            ),
        }
    }
    // ANCHOR_END: dead

    /// Adds to an error of a client what it means here and what to do.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        // The socket there is of the other type.
        const EPROTOTYPE: i32 = if cfg!(target_os = "linux") { 91 } else { 41 };
        let file = self
            .0
            .as_pathname()
            .and_then(|path| fs::metadata(path).ok());
        let is_socket = file.map(|file| file.file_type().is_socket());
        let advice = match (error.kind(), is_socket) {
            // Linux refuses the connection; macOS has an error of its own for it (ENOTSOCK).
            (_, Some(false)) => ": this file is not a socket",
            (ErrorKind::ConnectionRefused, Some(true)) => {
                ": its server has ended; start unix-echo server"
            }
            (ErrorKind::ConnectionRefused, None) => {
                ": nobody listens there; start unix-echo server"
            }
            (ErrorKind::NotFound, _) => ": there is no such file; start unix-echo server",
            (ErrorKind::PermissionDenied, _) => {
                ": only the user who started the server may connect"
            }
            (ErrorKind::WouldBlock, _) => ": its queue is full, and the server does not read",
            _ if error.raw_os_error() == Some(EPROTOTYPE) => {
                ": give --datagram to both sides or to neither"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot reach {self}{advice}"))
    }
}

// ANCHOR: signal
/// Removes the file when SIGINT, SIGTERM or SIGHUP ends the server, if it is still our
/// file: device and inode number tell.
#[cfg(unix)]
fn remove_on_signal(path: &Path) -> Result<()> {
    let path = path.to_owned();
    let identity = |path: &Path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    let ours = identity(&path).context("cannot find the file of the socket")?;
    ctrlc::set_handler(move || {
        if identity(&path).is_ok_and(|file| file == ours) {
            let _ = fs::remove_file(&path);
        }
        process::exit(0)
    })
    .context("cannot wait for signals")
}
// ANCHOR_END: signal

#[cfg(unix)]
impl fmt::Display for Name {
    /// Escaped, because a client chooses its own name and can put control characters into it.
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

/// Writes a line to stderr with one system call, so that lines of different threads do not
/// mix. eprintln! would panic if nobody reads stderr any more.
#[cfg(unix)]
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    CommandLine::parse(); // It answers --help and --version here as well.
    bail!("cannot open a Unix socket: std has them only on Unix")
}
