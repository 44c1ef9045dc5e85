//! Our programs together with other people's.

mod balance;
mod clients;
#[cfg(target_os = "linux")]
mod hosts;
mod python;
#[cfg(unix)]
mod servers;
mod twins;
