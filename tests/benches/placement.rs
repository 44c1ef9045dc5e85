//! On which processors client and server run.
//!
//! Where that is left to the kernel it is luck, the luck lasts as long as the process, and a round trip
//! takes three times as long with the bad one: to wake a processor that sleeps is slow, above all in a
//! virtual machine.

use std::sync::LazyLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where client and server run.
#[derive(Clone, Copy)]
pub enum Placement {
    /// On one processor. They wait for each other in turn, so another would not help, and what is measured
    /// is how much work a round trip is.
    Together,
    /// The client on one processor, the server on the others.
    Apart,
}

/// Those that this process may use.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect()
});

impl Placement {
    /// Does what a client does, with all threads that it starts.
    pub fn of_client<T>(self, work: impl FnOnce() -> T) -> T {
        on(&PROCESSORS[..1], work)
    }

    /// Starts a server. It stays where it was started.
    pub fn of_server<T>(self, start: impl FnOnce() -> T) -> T {
        let (first, others) = PROCESSORS.split_at(1);
        match self {
            Placement::Apart if !others.is_empty() => on(others, start),
            _ => on(first, start),
        }
    }
}

fn on<T>(processors: &[usize], work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let mut wanted = CpuSet::new();
    processors.iter().for_each(|processor| wanted.set(*processor));
    sched_setaffinity(None, &wanted).unwrap();
    let result = work();
    sched_setaffinity(None, &before).unwrap();
    result
}
