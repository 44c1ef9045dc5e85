//! The mistakes of the book. Each test shows what the wrong code does, and what to write instead.

#[cfg(unix)]
mod up_to_17;
//! The mistakes of the book that no program of ours makes: each test shows what goes wrong, and
//! that what the book says to write instead goes right.

mod up_to_34;
//! The fifty mistakes of the book: each test shows the wrong code going wrong, and the right code
//! going right. The book shows the functions between the lines with ANCHOR.

#[cfg(unix)]
mod up_to_50;
