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
    fmt, fs,
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    os::unix::net::{SocketAddr, UnixDatagram},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
#[cfg(unix)]
use signal_hook::{consts::*, iterator::Signals};

#[cfg(unix)]
mod datagram;
#[cfg(unix)]
mod stream;

/// The longest path or name, in bytes. The field `sun_path` of the address has 108 bytes on
/// Linux and 104 on macOS and the BSDs (unix(7)). One of them is the zero byte that ends a
/// path, or that begins an abstract name.
const MAX_NAME: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

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
    ///
    /// On Linux the server answers only abstract names, which the clients get by themselves, and
    /// only those of its own network namespace.
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
        (Role::Server(options), is_datagram) => serve(&name, options, is_datagram),
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

/// Starts a server, and waits until a signal ends it. Threads serve the clients.
#[cfg(unix)]
fn serve(name: &Name, options: ServerOptions, is_datagram: bool) -> Result<()> {
    let mut signals = Signals::new(signals()).context("cannot wait for signals")?;
    // The file is removed when we return, because of a signal or an error.
    let _file = if is_datagram {
        datagram::start(name, options.quiet)?
    } else {
        stream::start(name, options)?
    };
    // Nobody may be reading stdout any more: println! would panic, and this does not.
    let _ = writeln!(io::stdout(), "listening on {name}");
    signals.forever().find(|signal| *signal != SIGXFSZ);
    Ok(())
}

/// Returns the signals to wait for. A signal that was ignored when we started stays ignored, as
/// SIGHUP after nohup(1). std cannot tell which these are, but Linux can, in a file; elsewhere we
/// take none for ignored. SIGXFSZ says that the log has reached the limit of the shell
/// (`ulimit -f`). If we did not wait for it, it would end us.
#[cfg(unix)]
fn signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mut signals = vec![SIGHUP, SIGINT, SIGTERM, SIGXFSZ];
    signals.retain(|signal| ignored.unwrap_or(0) >> (signal - 1) & 1 == 0);
    signals
}

/// Takes memory for a buffer. `vec!` would end the program if there is none.
#[cfg(unix)]
fn buffer(size: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    let reserved = buffer.try_reserve_exact(size);
    reserved.context("cannot get memory for a buffer")?;
    buffer.resize(size, 0);
    Ok(buffer)
}

/// Opens stdout as a file. std's own stdout ignores it if nothing can be written there (EBADF),
/// as with `1</dev/null`.
#[cfg(unix)]
fn stdout() -> Result<File> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    Ok(stdout.context("cannot open stdout")?.into())
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

    /// Creates a server's socket with this name; `create` decides on the type. For a path
    /// the kernel also creates a file, and leaves it there when the socket is closed.
    fn bind<S>(
        &self,
        create: impl Fn(&SocketAddr) -> io::Result<S>,
    ) -> Result<(S, Option<SocketFile>)> {
        if let Some(path) = self.0.as_pathname() {
            self.remove_dead_socket(path)?;
        }
        let socket = create(&self.0).with_context(|| format!("cannot listen on {self}"))?;
        let Some(path) = self.0.as_pathname() else {
            return Ok((socket, None));
        };
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path).context("cannot find the file of the socket")?,
        };
        // On Linux a client needs permission to write to the file (unix(7)). Until we have set it,
        // the umask decides who has it; a private directory protects all the time. It must not be
        // another user's directory: that user can replace the file by a link, which chmod(2)
        // follows, so it would change another file of ours.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot restrict the access to {self}"))?;
        Ok((socket, Some(file)))
    }

    /// Removes the file that a server left when it was killed. Fails if anything else is there.
    ///
    /// If two servers start at the same moment, one can remove the file of the other. A
    /// lock on another file would prevent that (flock(2)). And a live server seems dead if we see
    /// its file through an overlay mount, or if it runs on another machine that shares the disk.
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
        let probe = UnixDatagram::unbound().context("cannot open a socket")?;
        match probe.connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
                .with_context(|| format!("cannot remove {self}, where nobody listens")),
            _ => bail!(
                "cannot listen on {self}: already in use, or not yours; choose another --path"
            ),
        }
    }

    /// Adds to an error of a client what it means here.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        let path = self.0.as_pathname();
        let file = path.and_then(|path| fs::metadata(path).ok());
        let advice = match error.kind() {
            _ if file.is_some_and(|file| !file.file_type().is_socket()) => {
                ": this file is not a socket"
            }
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                ": nobody listens there; start unix-echo server"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot reach {self}{advice}"))
    }
}

/// The file of a server's socket. It is removed when this is dropped, if it is still our file:
/// device and inode number tell.
#[cfg(unix)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

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
