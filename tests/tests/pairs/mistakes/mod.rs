//! The mistakes of the book that no program of ours makes: each test shows what goes wrong, and
//! that what the book says to write instead goes right.

mod up_to_34;
