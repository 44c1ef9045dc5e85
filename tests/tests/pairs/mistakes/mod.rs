//! The fifty mistakes of the book: each test shows the wrong code going wrong, and the right code
//! going right. The book shows the functions between the lines with ANCHOR.

#[cfg(unix)]
mod up_to_50;
