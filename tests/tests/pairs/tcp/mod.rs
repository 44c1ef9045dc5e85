//! What only TCP programs promise: the TCP pair, and the examples `event_loop`, `graceful` and
//! `lingering_close`. What all programs with streams promise is in `streams`.

mod client;
mod event_loop;
#[cfg(unix)]
mod graceful;
mod lingering_close;
pub mod server;
mod threads;
