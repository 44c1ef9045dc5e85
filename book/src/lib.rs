//! What keeps the book true: [`sequence`] draws its figures from real runs, and the player of
//! transcripts ([`play`]) does again what its terminals show. [`pages`] adds the code to it.

pub mod items;
pub mod pages;
#[cfg(target_os = "linux")]
pub mod sequence;
#[cfg(target_os = "linux")]
mod terminals;

#[cfg(target_os = "linux")]
pub use terminals::*;
