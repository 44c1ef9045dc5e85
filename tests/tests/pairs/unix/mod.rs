//! What only `unix-echo` and its example `credentials` promise. What all programs with streams
//! promise is in `promises`.

#[cfg(target_os = "linux")]
pub mod credentials;
mod datagram;
mod families;
mod path;
mod stream;
