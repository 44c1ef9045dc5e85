//! What the preprocessor makes of a chapter for its readers.

use std::fs;

use book::html::{bare, figure, joined, transcript, translated};
use book::pages::{Code, expand, walk};
use harness::root;
use regex::Regex;
use rstest::rstest;

#[test]
fn a_transcript_tells_terminals_commands_input_and_output_apart() {
    let html = transcript("1│ $ cat <a & b\n12│ one ⏎\n1│\n2│ ^C\n2│ costs $ 2");
    let lines = [
        "<i class=\"terminal-1\">1 </i><i>$ </i><b>cat &lt;a &amp; b</b>",
        "<i class=\"terminal-12\">12 </i><strong>one ⏎</strong>",
        "<i class=\"terminal-1\">1 </i>",
        "<i class=\"terminal-2\">2 </i><strong>^C</strong>",
        "<i class=\"terminal-2\">2 </i>costs $ 2",
    ];
    let lines = lines.map(|line| format!("<span>{line}\n</span>"));
    let expected = format!(
        "<pre class=\"terminals\"><code class=\"nohighlight\">{}</code></pre>",
        lines.concat()
    );
    assert_eq!(html, expected);
}

#[test]
fn each_terminal_of_a_transcript_has_a_colour() {
    let css = fs::read_to_string(root().join("book/book.css")).unwrap();
    for path in walk(&root().join("book/sessions"), "txt") {
        for line in fs::read_to_string(path).unwrap().lines() {
            let (number, _) = line.split_once('│').unwrap();
            assert!(css.contains(&format!(".terminal-{number} ")), "{line}");
        }
    }
}

#[rstest]
#[case("It is so ({{#test a}}).", "It is so{{#test a}}.")]
#[case(
    "It is so\n  ({{#test a}},\n  {{#test b}}).",
    "It is so{{#test a}}{{#test b}}."
)]
#[case(
    "是这样（{{#test a}}；{{#test b}}）。",
    "是这样{{#test a}}{{#test b}}。"
)]
#[case(
    "| Right. | {{#test a}}, {{#test b}} |",
    "| Right. | {{#test a}}{{#test b}} |"
)]
#[case("So (RFC 1; {{#test a}}).", "So (RFC 1{{#test a}}).")]
#[case(
    "[So]({{#test a}}), and [so]({{#test b}})",
    "[So]({{#test a}}), and [so]({{#test b}})"
)]
fn a_mark_needs_no_parentheses(#[case] chapter: &str, #[case] expected: &str) {
    assert_eq!(bare(chapter), expected);
}

#[test]
fn lines_of_chinese_are_joined_and_others_are_not() {
    assert_eq!(
        joined("一行，\n两行\n（三）。\n\n四"),
        "一行，两行（三）。\n\n四"
    );
    let others = "一行 a\nb 两行\n- 三\n- 四\n";
    assert_eq!(joined(others), others);
}

#[test]
fn a_chapter_has_marks_and_origins_and_transcripts() {
    let test = "udp_server::one_socket_on_all_addresses_serves_both_families";
    let code = Code::read(&root());
    let chapter = format!(
        "So ({{{{#test {test}}}}}).\n\n```rust\n{{{{#code udp-server/src/main.rs: bind}}}}\n{{{{#code udp-server/src/main.rs: serve}}}}\n```\n\n```console\n{{{{#include ../sessions/tcp-echo.txt}}}}\n```\n"
    );
    let Ok(expanded) = expand(&code, &chapter, true) else {
        panic!("{chapter}")
    };
    let text = expanded.text;
    assert!(
        text.starts_with("So\u{2060}<a class=\"test\" href=\"tests/"),
        "{text}"
    );
    let name = format!("title=\"测试 {test}\" aria-label=\"测试 {test}\">✓</a>.\n");
    assert!(text.contains(&name), "{text}");
    let origin = "\n\n<p class=\"origin\"><a href=\"programs/udp-server.md\">udp-server/src/main.rs</a></p>\n\n```rust\n";
    assert_eq!(text.matches(origin).count(), 1, "{text}");
    assert_eq!(text.matches("origin").count(), 1, "{text}");
    assert!(
        text.contains("\n```\n\n<pre class=\"terminals\">"),
        "{text}"
    );
    assert!(text.ends_with("</code></pre>\n"), "{text}");
}

/// The drawings of the book, and those of the bench.
fn drawings() -> Vec<(String, String)> {
    let folders = ["book/figures", "tests/bench/figures"].map(|folder| root().join(folder));
    let paths = folders.iter().flat_map(|folder| walk(folder, "svg"));
    paths
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_words_of_a_figure_are_in_the_language_of_the_book() {
    let words = fs::read_to_string(root().join("book/figures/zh-CN.txt")).unwrap();
    let text = Regex::new(">([^<>]+)<").unwrap();
    let english = Regex::new(r"\b[a-z]{2,},? [a-z]{2,}\b").unwrap();
    let mut all = String::new();
    for (path, svg) in drawings() {
        let english_figure = figure(&svg, "");
        for found in text.captures_iter(&english_figure) {
            let is_known = translated(&found[1], &words).is_some();
            assert!(
                is_known || !english.is_match(&found[1]),
                "{path}: {}",
                &found[1]
            );
        }
        let chinese = figure(&svg, &words);
        assert!(
            !chinese.contains("<style>") && !chinese.contains("\n\n"),
            "{path}"
        );
        all += &english_figure;
    }
    for (word, _) in words.lines().filter_map(|line| line.split_once('|')) {
        assert!(
            all.contains(&format!(">{word}<")),
            "no figure says {word:?}"
        );
    }
}
