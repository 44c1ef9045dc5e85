//! Each file in `book/sessions` is a transcript of some terminals.

use std::fs;
use std::path::PathBuf;

use book::{assert_played, play};
use rstest::rstest;

#[rstest]
fn the_transcript_shows_what_the_programs_print(#[files("sessions/*.txt")] path: PathBuf) {
    let transcript = fs::read_to_string(&path).unwrap();
    if super::refreshes() {
        if let Some(played) = play(&transcript) {
            fs::write(&path, played).unwrap();
        }
    } else {
        assert_played(&transcript);
    }
}
