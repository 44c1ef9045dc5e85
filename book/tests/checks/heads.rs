//! The head of a program or example shows in its blocks of `console` what to type and what is
//! printed. It is a transcript in another notation, which leaves out when a server logs.

use std::fs;
use std::path::{Path, PathBuf};

use book::assert_played;
use rstest::rstest;

/// What ends a line that is typed in, or printed by, another terminal than the one before.
const TERMINAL: &str = " # terminal ";

/// What ends the first line of a client whose server has the first block, in its own head.
const SERVER: &str = " # start ";

fn is_action(line: &str) -> bool {
    line.starts_with(['$', '^']) || line.ends_with(" ⏎")
}

/// Turns blocks of `console` into a transcript. A block begins in the terminal with its own
/// number. The first line below what is typed comes at once, so that a server listens before
/// its client starts. All others come before the next line is typed in this terminal.
fn transcript<'a>(blocks: impl Iterator<Item = &'a str>) -> String {
    let mut transcript = String::new();
    let mut logs = vec![String::new(); 10];
    let mut waits_for = 0; // The terminal whose next line comes at once, if there is one.
    for (number, block) in (1..).zip(blocks) {
        let mut terminal: usize = number;
        for line in block.lines() {
            let (line, number) = line.rsplit_once(TERMINAL).unwrap_or((line, ""));
            terminal = number.parse().unwrap_or(terminal);
            let line = line.trim_end();
            if is_action(line) {
                let line = line.split(SERVER).next().unwrap_or(line).trim_end();
                transcript += &std::mem::take(&mut logs[terminal]);
                // What prints nothing, such as dnsmasq, has a second to start.
                let begin = if waits_for == 0 { "$ " } else { "$ sleep 1; " };
                transcript += &format!("{terminal}│ {}\n", line.replacen("$ ", begin, 1));
                waits_for = terminal;
            } else {
                let comes_at_once = waits_for == terminal;
                let out = if comes_at_once {
                    &mut transcript
                } else {
                    &mut logs[terminal]
                };
                *out += &format!("{terminal}│ {line}\n");
                waits_for = 0;
            }
        }
    }
    transcript + &logs.concat()
}

/// Returns the blocks of `console`, without those that measure.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```console\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| !block.contains("$ cargo test") && !block.contains("$ cargo bench"))
}

#[rstest]
fn the_head_shows_what_is_printed(
    #[files("../*/src/main.rs")]
    #[files("../*/examples/*.rs")]
    path: PathBuf,
) {
    let head = head(&path);
    let server = head.lines().find_map(|line| line.split_once(SERVER));
    let server = server.map(|(_, server)| self::head(&server_of(server, &path)));
    let first_block = server.iter().flat_map(|head| blocks(head).take(1));
    let transcript = transcript(first_block.chain(blocks(&head)));
    assert!(transcript.contains("│ $ "), "no command in {head}");
    assert_played(&transcript);
}

fn head(path: &Path) -> String {
    let code = fs::read_to_string(path).unwrap();
    let lines = code.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    // A long command continues on the next line.
    lines.join("\n").replace("\\\n    ", "")
}

/// Returns the path of the program in `PACKAGE first`, or of the example with the name of the client's in
/// `that of PACKAGE first`.
fn server_of(server: &str, client: &Path) -> PathBuf {
    let server = server.trim_end_matches(" first");
    match server.strip_prefix("that of ") {
        Some(package) => {
            let example = client.file_name().unwrap();
            Path::new("..").join(package).join("examples").join(example)
        }
        None => Path::new("..").join(server).join("src/main.rs"),
    }
}

#[rstest]
fn the_readme_shows_what_the_first_pair_prints(
    #[values("../README.md", "../README.zh-CN.md")] page: &str,
) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let page = fs::read_to_string(page).unwrap();
    assert_played(&transcript(blocks(&page).take(2)));
}
