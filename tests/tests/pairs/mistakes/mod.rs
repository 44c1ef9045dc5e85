//! The mistakes of the book. Each test shows what the wrong code does, and what to write instead.

#[cfg(unix)]
mod up_to_17;
//! The mistakes of the book that no program of ours makes: each test shows what goes wrong, and
//! that what the book says to write instead goes right.

mod up_to_34;
