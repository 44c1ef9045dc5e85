//! The TCP pair, and `event_loop`, which makes the same promises as `tcp-server`.

mod client;
mod event_loop;
pub mod server;
mod threads;
