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
//! travel. You know two of them: SOCK_STREAM, as with TCP, and SOCK_DGRAM, as with UDP, which you
//! choose here with `--datagram` on both sides. So what is new is the address. It is the path of a
//! file that the kernel creates for the socket, or on Linux an *abstract* name, which has no file
//! and is written `@NAME` here.
//!
//! Try next:
//!
//! - While the server runs, `ls -l /tmp/unix-echo.sock`, or the path that it prints. The type of
//!   the file is `s`, for socket, and only you may write to it.
//! - Kill the server (`pkill -9 unix-echo`) and start the client. The file is still there, but the
//!   kernel refuses the connection, because no socket belongs to the file any more.
//! - Add `--path @echo` to both commands, and look for the name in `/proc/net/unix`.
//!
//! Read next: `address.rs`, then `stream.rs` and `datagram.rs`.

// On other systems, little of this is used.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[cfg(unix)]
mod address;
#[cfg(unix)]
mod datagram;
#[cfg(unix)]
mod stream;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(unix)]
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
#[cfg(unix)]
use signal_hook::{consts::*, iterator::Signals};

#[cfg(unix)]
use address::Address;

/// The pause after an error: one that comes again and again must not make us spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Echo between programs on one machine, over a Unix socket
#[derive(Parser)]
#[command(version)]
struct Args {
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
    Server {
        /// Do not log connections or datagrams
        #[arg(short, long)]
        quiet: bool,
    },
    /// Send to a server and print what comes back
    Client {
        /// Seconds to wait for the connection, and for an answer after everything is sent
        #[arg(long, value_name = "SECS", default_value = "5")]
        #[arg(value_parser = seconds, allow_negative_numbers = true)]
        timeout: Duration,

        /// Messages, each sent as one line or datagram; without any, stdin is sent
        #[arg(value_name = "MESSAGE")]
        messages: Vec<OsString>,
    },
}

#[cfg(unix)]
fn main() -> Result<()> {
    let args = Args::parse();
    let address = Address::new(&args.path.unwrap_or_else(default_path))?;
    match (args.role, args.datagram) {
        (Role::Server { quiet }, is_datagram) => serve(&address, is_datagram, quiet),
        (Role::Client { timeout, messages }, false) => stream::ask(&address, timeout, &messages),
        (Role::Client { timeout, messages }, true) => datagram::ask(&address, timeout, &messages),
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
fn serve(address: &Address, is_datagram: bool, quiet: bool) -> Result<()> {
    let mut signals = Signals::new(signals()).context("cannot wait for signals")?;
    address.remove_dead_socket()?;
    let cannot_listen = || format!("cannot listen on {address}");
    // The file is removed when we return, because of a signal or an error.
    let _file;
    if is_datagram {
        // If there is no memory for it, the program is aborted here, and leaves no file.
        let buffer = vec![0; datagram::BUFFER_SIZE];
        let socket = UnixDatagram::bind_addr(&address.0).with_context(cannot_listen)?;
        _file = address.protect()?;
        datagram::start(socket, buffer, quiet)?;
    } else {
        // For Unix sockets on Linux, std asks for the longest backlog that the kernel allows.
        let listener = UnixListener::bind_addr(&address.0).with_context(cannot_listen)?;
        _file = address.protect()?;
        stream::start(listener, quiet)?;
    }
    // println! would panic if nobody reads stdout any more.
    let _ = writeln!(io::stdout(), "listening on {address}");
    signals.forever().find(|signal| *signal != SIGXFSZ);
    Ok(())
}

/// Returns the signals to wait for. A signal that was ignored when we started stays ignored, as
/// SIGHUP after nohup(1). std cannot tell which these are, but Linux can, in a file. SIGXFSZ says
/// that the log has reached the limit of the shell (`ulimit -f`). If we did not wait for it, it
/// would end us.
#[cfg(unix)]
fn signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mut signals = vec![SIGHUP, SIGINT, SIGTERM, SIGXFSZ];
    signals.retain(|signal| ignored.unwrap_or(0) >> (signal - 1) & 1 == 0);
    signals
}

/// Opens stdout as a file. std's own stdout hides that it is not open for writing (EBADF).
#[cfg(unix)]
fn stdout() -> Result<File> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    Ok(stdout.context("cannot open stdout")?.into())
}

/// Writes a line to stderr with one system call, so that lines of different threads do not
/// mix. eprintln! would panic if nobody reads stderr any more.
fn log(quiet: bool, line: fmt::Arguments) {
    if !quiet {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Reads a time limit in seconds.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(secs) if (0.001..=86_400.0).contains(&secs) => Ok(Duration::from_secs_f64(secs)),
        _ => Err("write a number of seconds from 0.001 to 86400"),
    }
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot open a Unix socket: std has them only on Unix")
}
