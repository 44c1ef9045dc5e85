//! The TCP pair, and `event_loop`, which makes the same promises as `tcp-server`.

mod bytes;
mod client;
mod event_loop;
mod server;
mod threads;
