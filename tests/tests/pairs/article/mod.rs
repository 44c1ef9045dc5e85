//! What the article states about sockets, whatever programs use them. `tests/README.md` lists
//! the statements.

mod families;
#[cfg(target_os = "linux")]
pub mod hosts;
mod listings;
mod std_facts;
