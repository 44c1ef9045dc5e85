//! The UDP pair, and the examples that belong to it.

mod batch;
mod client;
mod dns;
mod loss;
mod multicast;
#[cfg(target_os = "linux")]
mod one_to_many;
mod relay;
mod server;
