//! A page of the book explains the errors that the programs print. These tests compare the two, and
//! check the terms and files that the pages name.

use std::fs;
use std::process::Command;

use book::pages::Code;
use harness::{root, run};
use promises::Program;
use promises::catalog::{
    TCP_CLIENT, TCP_SERVER, UDP_CLIENT, UDP_SERVER, UNIX_CLIENT, UNIX_DATAGRAM_CLIENT, UNIX_ECHO,
};
use regex::Regex;

/// The pages that explain errors.
const MESSAGES: [&str; 2] = ["book/en/messages.md", "book/zh-CN/messages.md"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Replaces each number by `N` and each short time by `TIME`, because they differ from run to
/// run.
fn without_numbers(text: &str) -> String {
    let [times, numbers] =
        [r"\d+(\.\d+)?(µs|ms)", r"\d+"].map(|pattern| Regex::new(pattern).unwrap());
    let text = times.replace_all(text, "TIME");
    numbers.replace_all(&text, "N").into_owned()
}

#[test]
#[cfg(unix)]
fn the_errors_that_the_book_explains_are_those_that_unix_echo_prints() {
    let folder = harness::folder();
    let at_its_path = |program: &Program| {
        let mut command = program.command();
        command.env("XDG_RUNTIME_DIR", folder.path());
        command
    };
    let mut server = harness::Running::start(&mut at_its_path(&UNIX_ECHO));
    server.announced();
    // The page shows these errors with a path of its own.
    let assert_explained = |command: &mut Command| {
        let path = folder.path().to_str().unwrap();
        assert_explains(&error_of(command).replace(path, "/tmp"));
    };
    assert_explained(&mut at_its_path(&UNIX_ECHO));
    assert_explained(at_its_path(&UNIX_DATAGRAM_CLIENT).arg("x"));
    drop(server); // It gets SIGKILL, so its file stays.
    assert_explained(at_its_path(&UNIX_CLIENT).arg("x"));
    std::fs::remove_file(folder.path().join("unix-echo.sock")).unwrap();
    assert_explained(at_its_path(&UNIX_CLIENT).arg("x"));
    std::fs::write(folder.path().join("notes.txt"), "").unwrap();
    for program in [&UNIX_ECHO, &UNIX_CLIENT] {
        assert_explained(program.at("notes.txt").current_dir(folder.path()));
    }
}

/// Returns the error with which a command ends.
fn error_of(command: &mut Command) -> String {
    let finished = run(command, b"");
    assert_ne!(finished.code, Some(0), "{command:?}");
    let mut lines = finished.stderr.lines();
    let message = lines.find_map(|line| line.split_once("rror: "));
    let (_, message) = message.unwrap_or_else(|| panic!("no error: {finished:?}"));
    message.to_owned()
}

fn assert_explains(message: &str) {
    let message = without_numbers(message);
    for page in MESSAGES {
        let text = read(page).replace("\n  ", " "); // A long line goes on below.
        assert!(
            !message.is_empty() && without_numbers(&text).contains(&message),
            "{page} does not explain {message:?}"
        );
    }
}

fn assert_explains_that_of(command: &mut Command) {
    assert_explains(&error_of(command));
}

/// The pages quote the kernel as std does: `Connection refused (os error 111)`.
#[test]
#[cfg(target_os = "linux")]
fn the_words_of_the_kernel_are_those_that_the_book_explains() {
    let quoted = Regex::new(r"\n\n`([^`]+ \(os error (\d+)\))`").unwrap();
    for page in MESSAGES {
        let text = read(page);
        let rows: Vec<_> = quoted.captures_iter(&text).collect();
        assert!(rows.len() > 10, "{page} explains {} errors", rows.len());
        for row in rows {
            let error = std::io::Error::from_raw_os_error(row[2].parse().unwrap());
            assert_eq!(row[1], error.to_string(), "{page}");
        }
    }
}

#[test]
fn the_errors_that_the_book_explains_are_those_that_the_programs_print() {
    let server = UDP_SERVER.start(&[]);
    let taken = server.addr.to_string();
    let deaf = harness::udp_socket("127.0.0.1");
    let silent = deaf.local_addr().unwrap().to_string();
    assert_explains_that_of(&mut UDP_SERVER.at(&taken));
    assert_explains_that_of(&mut UDP_SERVER.at("127.0.0.1"));
    assert_explains_that_of(&mut UDP_CLIENT.at("127.0.0.1:70000"));
    assert_explains_that_of(UDP_CLIENT.at(&silent).arg("x"));
    // Windows takes no command line as long as this.
    if !cfg!(windows) {
        assert_explains_that_of(UDP_CLIENT.at(&taken).arg("x".repeat(65_508)));
    }
    let tcp = TCP_SERVER.start(&["--idle-timeout", "0.2"]);
    let addr = tcp.addr.to_string();
    assert_explains_that_of(&mut TCP_SERVER.at(&addr));
    drop(tcp);
    assert_explains_that_of(TCP_CLIENT.at(&addr).arg("x"));
    drop(deaf);
    assert_explains_that_of(UDP_CLIENT.at(&silent).arg("x"));
    if cfg!(target_os = "linux") {
        assert_explains_that_of(UDP_CLIENT.at("127.255.255.255:7007").arg("x"));
    }
}

/// A program explains a term, in *emphasis*, where a reader first meets it.
#[test]
fn the_glossary_has_each_term_that_a_program_explains() {
    let emphasis = Regex::new(r"\*([A-Za-z][^*]*)\*").unwrap();
    let glossary = read("book/en/glossary.md");
    let mut explained = 0;
    for (_, program) in Code::read(&root()).pages("programs") {
        let code = read(program);
        let comments = code
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("//"));
        let words = comments.map(|line| line.trim_start_matches(['/', '!']).trim());
        let text = words.collect::<Vec<_>>().join(" ");
        for term in emphasis
            .captures_iter(&text)
            .map(|found| found[1].to_owned())
        {
            // It may be a plural, or a word of a longer term.
            let entry = format!("\n\n{}", term.trim_end_matches('s'));
            assert!(
                glossary.contains(&entry),
                "no {term}, which {program} explains"
            );
            explained += 1;
        }
    }
    assert!(explained > 20, "the programs explain {explained} terms");
}

#[test]
fn what_cargo_starts_prints_no_stack_trace_below_an_error() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "run",
        "--quiet",
        "-p",
        "udp-client",
        "--",
        "--addr",
        "127.0.0.1",
        "hello",
    ]);
    cargo
        .current_dir(root())
        .env("RUST_BACKTRACE", "1")
        .env_remove("RUST_LIB_BACKTRACE");
    let client = run(&mut cargo, b"");
    assert_eq!(client.code, Some(1), "{client:?}");
    assert!(
        client.stderr.ends_with("    invalid socket address\n"),
        "{}",
        client.stderr
    );
}

/// Every link from one of these pages to a file of the project must work.
#[test]
fn what_the_pages_link_to_is_there() {
    for page in [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "tests/README.md",
        "tests/bench/README.md",
    ] {
        let text = read(page);
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.contains("://")) {
            assert!(
                root().join(page).with_file_name(link).exists(),
                "{page} links to {link}"
            );
        }
    }
}

/// Returns what must be the same in each language, in order: the levels of the headings, the
/// commands and what they print, the arrows of the diagrams, the code and the links.
fn skeleton(page: &str) -> Vec<Vec<String>> {
    let text = read(page)
        .replace("book/zh-CN", "book/en")
        .replace("README.zh-CN.md", "README.md");
    let (mut headings, mut shown, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    for (at, part) in text.split("```").enumerate() {
        if at % 2 == 0 {
            let lines = part.lines().filter(|line| line.starts_with('#'));
            headings.extend(lines.map(|line| line.split(' ').next().unwrap().to_owned()));
            spans.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
            continue;
        }
        for line in part.lines() {
            // A comment behind a command, and the words at an arrow, are in the page's language.
            if let Some((arrow, _)) = line.split_once(": ").filter(|_| line.contains("->>")) {
                shown.push(arrow.to_owned());
            } else if part.starts_with("console") {
                shown.push(line.split("  #").next().unwrap().trim_end().to_owned());
            }
        }
    }
    let links = text.split("](").skip(1);
    let mut links: Vec<String> = links
        .filter_map(|rest| rest.split(')').next().map(str::to_owned))
        .collect();
    for unordered in [&mut spans, &mut links] {
        unordered.sort();
        unordered.dedup();
    }
    vec![headings, shown, spans, links]
}

#[test]
fn the_readme_is_the_same_in_both_languages() {
    let pages = ["README.md", "README.zh-CN.md"].map(skeleton);
    for (english, chinese) in pages[0].iter().zip(&pages[1]) {
        assert_eq!(english, chinese);
        assert!(english.len() > 5, "{english:?}");
    }
}

/// If no `mod` line named a file, its tests would never run, and nobody would notice.
/// The README counts what the judge's table of known servers says.
#[test]
fn the_readme_counts_the_promises_that_are_kept_as_the_judge_does() {
    let count = Regex::new(r"\b(\d+) (?:of|/) (\d+)\b").unwrap();
    let counts = |text: &str| -> Vec<String> {
        let found = count.captures_iter(text);
        found.map(|it| format!("{}/{}", &it[1], &it[2])).collect()
    };
    let known = read("tests/judge/known.md");
    let kept = known.lines().filter(|line| line.starts_with("| **kept"));
    let mut kept = counts(&kept.collect::<String>());
    kept.remove(1); // Our event loop, beside our server.
    kept.sort();
    for readme in ["README.md", "README.zh-CN.md"] {
        let mut counted = counts(&read(readme));
        counted.sort();
        assert_eq!(counted, kept, "{readme}");
    }
}

#[test]
fn every_file_of_tests_is_run() {
    let pairs = root().join("tests/tests/pairs");
    let mut folders = vec![(pairs.clone(), "main.rs")];
    let mut files = 0;
    while let Some((folder, names)) = folders.pop() {
        let declared = fs::read_to_string(folder.join(names)).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push((path.clone(), "mod.rs"));
            } else if path.ends_with(names) {
                continue;
            }
            assert!(
                declared
                    .lines()
                    .any(|line| line.trim_start_matches("pub ") == format!("mod {name};")),
                "{} never runs",
                path.display()
            );
            files += 1;
        }
    }
    assert!(files > 20, "{files} files");
}
