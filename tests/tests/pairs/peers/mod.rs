//! Our programs together with other people's.

mod balance;
mod clients;
#[cfg(unix)]
mod servers;
mod twins;
