//! Which system calls a pair makes, and what they send and receive, as strace(1) sees it.

mod strace;
mod trace;

pub use strace::{Condition, record};
pub use trace::{Event, Side, Trace};
