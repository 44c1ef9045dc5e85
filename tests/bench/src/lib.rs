//! Measures how fast servers are, for the bench and for the speed tests. [`questions`] says what is
//! measured and how, [`loads`] what the client does, [`servers`] how each server is started.

pub mod loads;
pub mod picture;
pub mod questions;
pub mod servers;
