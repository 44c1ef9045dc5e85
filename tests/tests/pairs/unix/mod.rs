//! What only `unix-echo` and its examples promise. What all programs with streams
//! promise is in `promises`.

#[cfg(target_os = "linux")]
pub mod credentials;
mod datagram;
mod families;
mod netlink;
#[cfg(target_os = "linux")]
pub mod pass_descriptor;
mod path;
mod stream;
