//! The harness starts the programs of this workspace as processes and talks to them. Every
//! wait has a limit, nothing binds to a fixed port, and a program is killed when its handle is
//! dropped.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

mod clients;
#[cfg(target_os = "linux")]
mod hosts;
mod leftovers;
mod limits;
#[cfg(target_os = "linux")]
mod namespaces;
mod network;
mod process;
mod programs;

pub use clients::*;
#[cfg(target_os = "linux")]
pub use hosts::*;
pub use leftovers::*;
pub use limits::*;
#[cfg(target_os = "linux")]
pub use namespaces::*;
pub use network::*;
pub use process::*;
pub use programs::*;

/// The limit of every wait. Nothing takes nearly that long, even on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(30);

static PATIENCE_MILLIS: AtomicU64 = AtomicU64::new(LIMIT.as_millis() as u64);

/// Returns the limit of every wait for a program: [`LIMIT`], unless somebody is less patient.
pub fn patience() -> Duration {
    Duration::from_millis(PATIENCE_MILLIS.load(Relaxed))
}

/// Makes all waits for programs as short as this.
pub fn set_patience(limit: Duration) {
    PATIENCE_MILLIS.store(limit.as_millis() as u64, Relaxed);
}

/// Says why the test, or a part of it, did not run here: now with a line `NOT RUN`, which goes
/// directly to stderr, past `cargo test`, which hides what passing tests print; and at the end of
/// `cargo test` once more, with all others (`tests/what_did_not_run.rs`).
pub fn not_run(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = io::stderr().write_all(format!("\nNOT RUN: {test}: {why}\n").as_bytes());
    let list = OpenOptions::new()
        .append(true)
        .create(true)
        .open(not_run_list());
    let _ = list.and_then(|mut list| list.write_all(format!("{test}: {why}\n").as_bytes()));
}

/// Returns the path of the list of what did not run. Each `cargo test` has its own, named after
/// its process, unless the variable `NOT_RUN` says where it should be.
pub fn not_run_list() -> PathBuf {
    if let Some(path) = env::var_os("NOT_RUN") {
        return path.into();
    }
    #[cfg(unix)]
    let cargo = std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    let cargo = 0;
    // The test is in `target/PROFILE/deps`.
    let test = env::current_exe().unwrap_or_default();
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    folder.join(format!("not-run-{cargo}"))
}
