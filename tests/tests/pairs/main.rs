//! What only one of our programs promises, and what they do together with others:
//!
//! - `udp`, `tcp`, `unix`: what one program promises, shown by peers that the tests play;
//! - `peers`: our programs together with other people's;
//! - `first`: the shortest programs, with each other and with those for real use;
//! - `facts`: what std and the kernel do, whatever programs use them;
//! - `leftovers`: that a test leaves nothing behind, however it ends;
//! - `limits`: that an ordinary user has enough descriptors for them;
//! - `recipe`: a test with std alone, for those who test programs of their own.
//!
//! What all programs of a kind promise is in the package `promises`, and is asked of each by the test
//! target `promises`.

mod facts;
mod first;
#[cfg(target_os = "linux")]
mod leftovers;
#[cfg(target_os = "linux")]
mod limits;
mod peers;
mod recipe;
mod tcp;
mod udp;
#[cfg(unix)]
mod unix;
