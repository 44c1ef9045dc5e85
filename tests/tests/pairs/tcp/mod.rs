//! What only TCP programs promise: the TCP pair, and the examples `event_loop` and `graceful`.
//! What all programs with streams promise is in `streams`.

mod client;
mod event_loop;
#[cfg(unix)]
mod graceful;
pub mod server;
mod threads;
