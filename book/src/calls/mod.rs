//! Which system calls a pair makes, and which call receives what another has sent, as strace(1) sees it.

mod strace;
mod trace;

pub use strace::{Condition, record};
pub use trace::{Event, Side, Trace};
