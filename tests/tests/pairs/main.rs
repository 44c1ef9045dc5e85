//! All tests of the pairs, in one program:
//!
//! - `udp`, `tcp`, `unix`: what our programs promise, shown by peers that the tests play;
//! - `streams`: what every server and client of streams promises, over TCP and Unix sockets;
//! - `peers`: our programs together with other people's;
//! - `facts`: what std and the kernel do, whatever programs use them;
//! - `leftovers`: that a test leaves nothing behind, however it ends;
//! - `limits`: that an ordinary user has enough descriptors for them.
//!
//! A promise that several servers make is written once. It takes the server as a parameter,
//! and the test output names both, as in
//! `udp::server::ipv6_works_up_to_its_longer_limit::case_2_batch`.

mod facts;
#[cfg(target_os = "linux")]
mod leftovers;
#[cfg(target_os = "linux")]
mod limits;
mod peers;
mod streams;
mod tcp;
mod udp;
#[cfg(unix)]
mod unix;
