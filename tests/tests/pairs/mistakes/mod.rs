//! The mistakes of the book. Each test shows what the wrong code does, and what to write instead.

#[cfg(unix)]
mod up_to_17;
