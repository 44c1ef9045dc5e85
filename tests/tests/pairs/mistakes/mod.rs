//! The fifty mistakes of the book. Each test shows what the wrong code does, and what to write
//! instead. The book shows the functions between the lines with ANCHOR.

#[cfg(unix)]
mod up_to_17;
mod up_to_34;
#[cfg(unix)]
mod up_to_50;
