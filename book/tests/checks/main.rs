//! The book can show only what is true: these tests play its transcripts, and check its
//! pages. With the environment variable REFRESH_BOOK they write anew what they check.

#![cfg(target_os = "linux")]

mod calls;
#[cfg(target_os = "linux")]
mod heads;
mod html;
mod measured;
mod pages;
mod sessions;
mod texts;

/// Returns whether to write what the book shows instead of checking it.
fn refreshes() -> bool {
    std::env::var_os("REFRESH_BOOK").is_some()
}
