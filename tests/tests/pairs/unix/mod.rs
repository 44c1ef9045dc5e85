//! `unix-echo`.

mod datagram;
mod path;
mod stream;
