//! The UDP pair, the examples that belong to it, and the example `relay`.

mod batch;
mod client;
mod dns;
#[cfg(unix)]
mod loss;
mod multicast;
#[cfg(target_os = "linux")]
mod one_to_many;
mod relay;
mod server;
#[cfg(target_os = "linux")]
mod wildcard;
