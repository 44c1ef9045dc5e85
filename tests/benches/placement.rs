//! On which processors client and server run.
//!
//! Where both are left to the kernel, a round trip takes several times as long with one process of a
//! server as with the next: they share a processor or they do not, as luck has it, and to wake one that sleeps
//! is slow, above all in a virtual machine.

use std::sync::LazyLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where client and server run.
#[derive(Clone, Copy)]
pub enum Placement {
    /// On one processor. They wait for each other in turn, so another would not help, and what is measured
    /// is how much work a round trip is.
    Together,
    /// The client on the first processor, and the server where the kernel puts it, as if it were started by
    /// hand: it may use all of them.
    Free,
    /// The client on the first processor, and the server on the others. For what one thread of a server does:
    /// it gains nothing from another processor, and the kernel may start it beside the client and leave it
    /// there for a while.
    Apart,
}

/// Those that this process may use.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU)
        .filter(|processor| allowed.is_set(*processor))
        .collect()
});

impl Placement {
    /// Does what a client does, with all threads that it starts.
    pub fn of_client<T>(self, work: impl FnOnce() -> T) -> T {
        on(&PROCESSORS[..1], work)
    }

    /// Starts a server. It stays where it was started.
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
