//! What only TCP programs promise: the TCP pair, and the example `event_loop`. What all
//! programs with streams promise is in `streams`.

mod client;
mod event_loop;
pub mod server;
mod threads;
