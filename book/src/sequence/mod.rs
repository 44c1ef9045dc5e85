//! Sequence diagrams of the pairs, drawn from what strace(1) saw of a real run.

mod drawing;
mod strace;
mod trace;

pub use drawing::draw;
pub use strace::{Condition, record};
pub use trace::{Event, Side, Trace};
