//! Our programs together with those of other people.

mod balance;
mod clients;
mod servers;
mod twins;
