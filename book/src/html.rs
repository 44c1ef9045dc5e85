//! What Markdown cannot say: transcripts, listings with the names of their files, marks and figures.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Returns a transcript as HTML. The number of the terminal and the prompt are in `<i>`, which no reader
/// selects; a command is in `<b>`, which the button copies; keys and lines of input are in `<strong>`.
#[must_use]
pub fn transcript(text: &str) -> String {
    let mut html = "<pre class=\"terminals\"><code class=\"nohighlight\">".to_owned();
    for line in text.lines() {
        let (number, rest) = line.split_once('│').unwrap_or(("", line));
        let rest = escaped(rest.strip_prefix(' ').unwrap_or(rest));
        let shown = match rest.strip_prefix("$ ") {
            Some(command) => format!("<i>$ </i><b>{command}</b>"),
            None if ["^C", "^D", "^Z"].contains(&&*rest) || rest.ends_with(" ⏎") => {
                format!("<strong>{rest}</strong>")
            }
            None => rest,
        };
        html += &format!("<span><i class=\"terminal-{number}\">{number} </i>{shown}\n</span>");
    }
    html + "</code></pre>"
}

/// Returns the line above a listing: its file, with a link to the page that shows the whole, if there is one.
#[must_use]
pub fn origin(file: &str, page: Option<&str>) -> String {
    match page {
        Some(page) => format!("<p class=\"origin\"><a href=\"{page}\">{file}</a></p>\n\n"),
        None => format!("<p class=\"origin\">{file}</p>\n\n"),
    }
}

/// Returns a mark that leads to a test. It stays on the line of the word before it (U+2060).
#[must_use]
pub fn mark(link: &str, word: &str, test: &str) -> String {
    let name = format!("{word} {test}");
    format!(
        "\u{2060}<a class=\"test\" href=\"{link}\" title=\"{name}\" aria-label=\"{name}\">✓</a>"
    )
}

/// Takes away what stands around links to tests and between them: a mark needs no parentheses.
#[must_use]
pub fn bare(chapter: &str) -> String {
    static PARENTHESES: LazyLock<Regex> =
        LazyLock::new(|| regex(r"([^\]\s])\s*[(（]((?:\{\{#test [^}]+\}\}[,;，；、]?\s*)+)[)）]"));
    static SEPARATOR: LazyLock<Regex> = LazyLock::new(|| regex(r"[,;，；、]\s*(\{\{#test )"));
    let bare = PARENTHESES.replace_all(chapter, "$1$2");
    SEPARATOR.replace_all(&bare, "$1").into_owned()
}

/// Joins the lines of Chinese paragraphs: browsers make a blank of the end of a line.
#[must_use]
pub fn joined(chapter: &str) -> String {
    static END: LazyLock<Regex> =
        LazyLock::new(|| regex(r"([\p{Han}，。；：、？！）】”])\n *([\p{Han}（“])"));
    END.replace_all(chapter, "$1$2").into_owned()
}

/// Returns a drawing for a page. Its style and description are those of the page, and its words are those of
/// a list (`English|other language`, a line for each).
#[must_use]
pub fn figure(svg: &str, words: &str) -> String {
    static OWN: LazyLock<Regex> =
        LazyLock::new(|| regex(r"(?s)<(style|title|desc)>.*?</(style|title|desc)>\n?"));
    static TEXT: LazyLock<Regex> = LazyLock::new(|| regex(r">([^<>]+)<"));
    let in_words = |found: &Captures| {
        let word = translated(&found[1], words).unwrap_or(&found[1]).to_owned();
        format!(">{word}<")
    };
    TEXT.replace_all(&OWN.replace_all(svg, ""), in_words)
        .into_owned()
}

/// Returns what a list has for a text.
#[must_use]
pub fn translated<'a>(text: &str, words: &'a str) -> Option<&'a str> {
    let mut pairs = words.lines().filter_map(|line| line.split_once('|'));
    pairs
        .find(|(english, _)| *english == text)
        .map(|(_, other)| other)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{error}"))
}
