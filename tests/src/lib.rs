//! The harness starts the programs of this workspace as processes and talks to them. Every
//! wait has a limit, nothing binds to a fixed port, and a program is killed when its handle is
//! dropped.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

mod clients;
mod leftovers;
mod limits;
#[cfg(target_os = "linux")]
pub mod measure;
#[cfg(target_os = "linux")]
mod namespaces;
mod network;
mod process;
mod programs;
#[cfg(target_os = "linux")]
pub mod sequence;
#[cfg(target_os = "linux")]
mod terminals;

pub use clients::*;
pub use leftovers::folder;
pub use limits::*;
#[cfg(target_os = "linux")]
pub use namespaces::*;
pub use network::*;
pub use process::*;
pub use programs::*;
#[cfg(target_os = "linux")]
pub use terminals::*;

/// The limit of every wait. Nothing takes nearly that long, even on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(30);

// ANCHOR: not_run
/// Prints `NOT RUN` and why the test, or a part of it, did not run here. This goes directly to
/// stderr, past `cargo test`, which hides what passing tests print.
pub fn not_run(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = io::stderr().write_all(format!("\nNOT RUN: {test}: {why}\n").as_bytes());
}
// ANCHOR_END: not_run
