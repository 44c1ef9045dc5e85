//! Our programs together with other people's.

mod balance;
mod clients;
mod servers;
mod twins;
