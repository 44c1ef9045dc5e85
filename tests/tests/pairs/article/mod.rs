//! What the article states about sockets, whatever programs one writes.

mod families;
#[cfg(target_os = "linux")]
mod hosts;
mod listings;
mod std_facts;
#[cfg(target_os = "linux")]
mod system_calls;
