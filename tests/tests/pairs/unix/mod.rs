//! What only `unix-echo` promises. What all programs with streams promise is in `streams`.

mod datagram;
mod path;
mod stream;
