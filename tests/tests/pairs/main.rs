//! All tests of the pairs, in one program:
//!
//! - `udp`, `tcp`, `unix`: what our programs promise, shown by peers that the tests play;
//! - `streams`: what every server and client of streams promises, over TCP and Unix sockets;
//! - `peers`: our programs together with other people's;
//! - `article`: what the article states about sockets, whatever programs use them;
//! - `book`: that the book shows what happens;
//! - `mistakes`: the mistakes of the book, each with what to write instead;
//! - `texts`: that the README, the heads and the tables say what the programs do;
//! - `leftovers`: that a test leaves nothing behind, however it ends;
//! - `limits`: that an ordinary user has enough descriptors for them;
//! - `loads`, `picture`: the benchmark itself;
//! - `speed`: the speed of our programs (only in `.ci/run`).
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
