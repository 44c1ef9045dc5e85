//! Decides on which processors client and server run.
//!
//! If the kernel decides, a round trip takes several times as long with one process of a server as
//! with the next: they share a processor or not, by chance, and it is slow to wake a processor
//! that sleeps, especially in a virtual machine.

use std::sync::LazyLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where client and server run.
#[derive(Clone, Copy)]
pub enum Placement {
    /// Both on one processor. They take turns, so a second processor would not help. The time of
    /// a round trip is then the work that it takes.
    Together,
    /// The client on the first processor. The server may use all processors, and the kernel places
    /// it, as if somebody had started it by hand.
    Free,
    /// The client on the first processor, and the server on the others. This is for work that one
    /// thread of a server does. It gains nothing from another processor, and the kernel may start
    /// it on the client's processor and leave it there for a while.
    Apart,
}

/// The processors that this process may use.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU)
        .filter(|processor| allowed.is_set(*processor))
        .collect()
});

impl Placement {
    /// Runs the work of a client, with all threads that it starts, on the client's processor.
    pub fn of_client<T>(self, work: impl FnOnce() -> T) -> T {
        on(&PROCESSORS[..1], work)
    }

    /// Starts a server on its processors. It stays there.
    pub fn of_server<T>(self, start: impl FnOnce() -> T) -> T {
        match self {
            Placement::Together => on(&PROCESSORS[..1], start),
            Placement::Free => on(&PROCESSORS, start),
            Placement::Apart => match &PROCESSORS[1..] {
                [] => on(&PROCESSORS, start),
                others => on(others, start),
            },
        }
    }
}

fn on<T>(processors: &[usize], work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let mut wanted = CpuSet::new();
    processors
        .iter()
        .for_each(|processor| wanted.set(*processor));
    sched_setaffinity(None, &wanted).unwrap();
    let result = work();
    sched_setaffinity(None, &before).unwrap();
    result
}
