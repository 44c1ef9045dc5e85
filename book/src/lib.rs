//! What keeps the book true: [`calls`] records what its figures show, and the player of
//! transcripts ([`play`]) does again what its terminals show. [`pages`] adds the code to it.

#[cfg(target_os = "linux")]
pub mod calls;
pub mod html;
pub mod items;
pub mod measured;
pub mod pages;
#[cfg(target_os = "linux")]
mod terminals;

#[cfg(target_os = "linux")]
pub use terminals::*;
