//! Each file in `book/sessions` is a transcript of some terminals.

use std::fs;
use std::panic::catch_unwind;
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

fn fails(transcript: &str) -> bool {
    // If it cannot be played here, it cannot fail.
    !matches!(catch_unwind(|| assert_played(transcript)), Ok(true))
}

#[rstest]
fn a_command_that_is_not_found_fails_a_transcript_wherever_it_stands(
    #[values(
        "nosuch 2> /dev/null",
        "nosuch 2> /dev/null || true",
        "nosuch 2> /dev/null | cat",
        "echo $(nosuch 2> /dev/null) > /dev/null",
        "bash -c 'nosuch; true' 2> /dev/null",
        "/bin/nosuch 2> /dev/null | cat"
    )]
    command: &str,
) {
    assert!(fails(&format!("1│ $ {command}\n")));
}

#[test]
fn a_command_that_fails_in_silence_fails_a_transcript() {
    assert!(fails("1│ $ ls nosuch 2> /dev/null\n"));
    assert!(fails("1│ $ false\n1│ $ true\n"));
    assert_played("1│ $ ls nosuch 2> /dev/null || echo missing\n1│ missing\n");
}

#[test]
fn what_is_printed_and_not_in_the_transcript_fails_it() {
    assert!(fails("1│ $ echo one; echo two\n1│ one\n"));
    assert!(fails("1│ $ echo one\n1│ two\n"));
}

#[test]
fn a_terminal_has_one_shell_of_an_ordinary_user() {
    assert_played(
        "\
1│ $ exec 3< README.md; name=sockets; greet() { echo hello $name; }; cd book; ulimit -n 24
1│ $ head -1 <&3
1│ # Sockets in pairs
1│ $ greet; ls -d sessions; ulimit -n
1│ hello sockets
1│ sessions
1│ 24
1│ $ id -u; echo $0 ${XDG_RUNTIME_DIR-no folder}
1│ 1001
1│ bash no folder
2│ $ echo $name; mount -t tmpfs none /mnt 2> /dev/null || echo no right
2│
2│ no right
",
    );
}

#[test]
fn a_transcript_with_sudo_is_played_by_root() {
    assert_played("1│ $ sudo ip link set lo down\n1│ $ ip -brief link | cut -d ' ' -f 1\n1│ lo\n");
}

#[test]
fn keys_do_what_they_do_at_a_terminal() {
    assert_played(
        "\
1│ $ sleep 99
1│ ^Z
1│ $ fg
1│ ^C
1│ $ cat
1│ one ⏎
1│ one
1│ ^D
1│ $ echo -n two
1│ two
",
    );
}
