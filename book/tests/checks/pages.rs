//! What the pages of the book include and link to is there, and both languages show the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use book::pages::{Code, expand, walk};
use harness::root;

const LANGUAGES: [&str; 2] = ["en", "zh-CN"];

/// A desktop shows lines of code up to this length without scrolling.
const MAX_COLUMNS: usize = 100;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page of the book.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: PathBuf) -> Page {
        let text = read(&path);
        Page { path, text }
    }

    /// Returns all pages in a language, by their names.
    fn all(language: &str) -> BTreeMap<String, Page> {
        let folder = root().join("book").join(language);
        let pages = walk(&folder, "md").into_iter().map(|path| {
            let name = path.strip_prefix(&folder).unwrap();
            (name.to_str().unwrap().to_owned(), Page::read(path))
        });
        pages.collect()
    }

    /// Returns the files that the page includes.
    fn includes(&self) -> Vec<PathBuf> {
        let parts = self.text.split("{{#include ").skip(1);
        let paths = parts.filter_map(|part| part.split("}}").next());
        paths
            // mdBook takes a part of a file by a name after a colon.
            .map(|path| path.split(':').next().unwrap_or(path))
            .map(|path| self.path.with_file_name("").join(path))
            .collect()
    }

    /// Returns the tests to which the page links.
    fn tests(&self) -> Vec<&str> {
        let parts = self.text.split("{{#test ").skip(1);
        parts.filter_map(|part| part.split("}}").next()).collect()
    }

    /// Returns where the page links to.
    fn links(&self) -> Vec<&str> {
        let parts = self.text.split("](").skip(1);
        parts.filter_map(|part| part.split(')').next()).collect()
    }

    /// Returns what must be the same in both languages: the levels of the headings, what is
    /// included, the links, and the numbers of questions and experiments.
    fn skeleton(&self) -> Vec<String> {
        let mut skeleton = Vec::new();
        let mut in_block = false;
        for line in self.text.lines() {
            in_block ^= line.starts_with("```");
            if line.starts_with('#') && !in_block {
                let level = line.split(' ').next().unwrap_or_default();
                skeleton.push(level.to_owned());
            }
            let is_shown = line.starts_with("{{#include") || line.starts_with("{{#code");
            if is_shown || line.starts_with("<summary>") {
                skeleton.push(line.split('>').next().unwrap_or_default().to_owned());
            }
        }
        let links = self.links().into_iter().chain(self.tests());
        // The first page links to the other language.
        let mut links: Vec<String> = links
            .map(|link| link.replace("../zh-CN/", "../en/"))
            .collect();
        links.sort();
        links.dedup();
        skeleton.extend(links);
        skeleton
    }
}

/// Asserts that a list of complaints is empty, and shows all of them.
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Asks a question of each page in each language, and asserts that nobody complains.
fn assert_for_each_page(complain: impl Fn(&str, &Page) -> Vec<String>) {
    let mut complaints = Vec::new();
    for language in LANGUAGES {
        for (name, page) in Page::all(language) {
            let found = complain(&name, &page).into_iter();
            complaints.extend(found.map(|what| format!("{language}/{name}: {what}")));
        }
    }
    assert_none(complaints);
}

#[test]
fn both_languages_have_the_same_code_transcripts_and_links_on_each_page() {
    let [english, chinese] = LANGUAGES.map(Page::all);
    let mut complaints = Vec::new();
    for (name, page) in &english {
        let Some(other) = chinese.get(name) else {
            complaints.push(format!("zh-CN/{name} is missing"));
            continue;
        };
        let (ours, theirs) = (page.skeleton(), other.skeleton());
        for (behind, has, lacks) in [("zh-CN", &ours, &theirs), ("en", &theirs, &ours)] {
            for item in has.iter().filter(|item| !lacks.contains(item)) {
                complaints.push(format!("{behind}/{name} is behind: no {item}"));
            }
        }
        if complaints.is_empty() && ours != theirs {
            complaints.push(format!("zh-CN/{name}: {theirs:?}, and en: {ours:?}"));
        }
    }
    for name in chinese.keys().filter(|name| !english.contains_key(*name)) {
        complaints.push(format!("en/{name} is missing"));
    }
    assert_none(complaints);
}

#[test]
fn what_a_page_shows_is_there_and_is_not_too_wide() {
    let code = Code::read(&root());
    assert_for_each_page(|_, page| {
        let (text, mut complaints) = match expand(&code, &page.text, false) {
            Ok(expanded) => (expanded.text, Vec::new()),
            Err(errors) => (String::new(), errors),
        };
        let blocks = text.split("\n```").skip(1).step_by(2);
        let mut shown: Vec<String> = blocks.map(str::to_owned).collect();
        for path in page.includes() {
            match fs::read_to_string(&path) {
                Ok(text)
                    if path
                        .extension()
                        .is_some_and(|kind| kind != "svg" && kind != "md") =>
                {
                    shown.push(text);
                }
                Ok(_) => {}
                Err(error) => complaints.push(format!("{}: {error}", path.display())),
            }
        }
        for line in shown.iter().flat_map(|text| text.lines()) {
            if line.chars().count() > MAX_COLUMNS {
                complaints.push(format!("too wide: {line}"));
            }
        }
        complaints
    });
}

/// Code and transcripts that are typed into a page can become false without a notice.
#[test]
fn no_page_shows_code_that_it_does_not_include() {
    assert_for_each_page(|_, page| {
        let blocks = page.text.split("\n```").skip(1).step_by(2);
        let typed = blocks.filter(|block| {
            let mut lines = block.lines().skip(1);
            !lines.all(|line| line.starts_with("{{#include ") || line.starts_with("{{#code "))
        });
        typed.map(|block| format!("typed: {block}")).collect()
    });
}

/// The preprocessor checks the links to tests.
#[test]
fn the_links_lead_somewhere() {
    let code = Code::read(&root());
    assert_for_each_page(|_, page| {
        let links = page.links().into_iter();
        let inside = links.filter(|link| !link.contains("://") && !link.starts_with("{{#"));
        let broken = inside.filter(|link| !leads_somewhere(&code, page, link));
        broken.map(|link| format!("broken: {link}")).collect()
    });
}

fn leads_somewhere(code: &Code, page: &Page, link: &str) -> bool {
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let mut pages_of_code = ["programs/", "tests/"]
        .into_iter()
        .flat_map(|it| code.pages(it));
    if pages_of_code.any(|(page, _)| page == path) {
        return fragment.is_empty();
    }
    let path = match path {
        "" => page.path.clone(),
        path => page.path.with_file_name("").join(path),
    };
    if !path.exists() || path.extension().is_some_and(|found| found != "md") {
        return path.exists();
    }
    let target = Page::read(path);
    let mut headings = target.text.lines().filter(|line| line.starts_with('#'));
    fragment.is_empty() || headings.any(|line| line.ends_with(&format!("{{#{fragment}}}")))
}

/// The page of a chapter ends with experiments, three questions, what to remember, and what to read next. One of the first
/// part has also something to write.
#[test]
fn each_chapter_has_experiments_and_three_questions() {
    let others = [
        "SUMMARY",
        "article",
        "mistakes",
        "glossary",
        "programs",
        "tests",
        "who-keeps-what",
        "welcome",
        "messages",
    ];
    let summary = &Page::all("en")["SUMMARY.md"].text;
    let (first_part, _) = summary.split_once("# When it does not work").unwrap();
    assert_for_each_page(|name, page| {
        if others.iter().any(|other| name.starts_with(other)) {
            return Vec::new();
        }
        let mut complaints = Vec::new();
        let headings = match page.text.contains("## Try this") {
            true => [
                "## Try this",
                "## Questions",
                "## What to remember",
                "## Read next",
            ],
            false => ["## 试一试", "## 问题", "## 记住这几点", "## 接下来读什么"],
        };
        let missing = headings.iter().filter(|text| !page.text.contains(**text));
        complaints.extend(missing.map(|heading| format!("no {heading:?}")));
        let (before, after) = page.text.split_once(headings[1]).unwrap_or_default();
        let questions = after.matches("<summary>").count();
        if questions != 3 {
            complaints.push(format!("{questions} questions"));
        }
        let exercises = ["\n## Write it yourself\n", "\n## 自己写\n"];
        let exercise = exercises.iter().find_map(|it| before.split_once(it));
        let is_judged = |(_, text): (&str, &str)| text.contains("`cargo run -p judge -- ");
        if first_part.contains(&format!("]({name})")) && !exercise.is_some_and(is_judged) {
            complaints.push("no exercise with the judge's command".to_owned());
        }
        complaints
    });
}

/// A chapter defines a term in Chinese as `**词**（term）`. The glossary has it, too, in an entry or as another name.
#[test]
fn the_glossary_has_each_term_that_a_chapter_defines() {
    let pages = Page::all("zh-CN");
    let glossary = &pages["glossary.md"].text;
    let mut complaints = Vec::new();
    let mut terms = 0;
    for (name, page) in &pages {
        for (at, mark) in page.text.match_indices("*（") {
            let before = page.text[..at].trim_end_matches('*');
            let term = before.rsplit('*').next().unwrap();
            let after = &page.text[at + mark.len()..];
            let english = after.split(['）', '，']).next().unwrap();
            let is_chinese = |it: char| ('\u{4E00}'..='\u{9FFF}').contains(&it);
            let is_term = english.is_ascii()
                && english.starts_with(|it: char| it.is_ascii_alphanumeric())
                && term.contains(is_chinese)
                && !term.contains('\n');
            if is_term && !glossary.contains(&format!("{term}（{english}")) {
                complaints.push(format!("{name}: {term}（{english}）"));
            }
            terms += usize::from(is_term);
        }
    }
    assert!(terms > 40, "{terms} terms");
    assert_none(complaints);
}

/// The words for which people search. Those of the Chinese book are searched as pairs of characters, in one page.
#[test]
fn the_glossary_has_each_word_that_people_search() {
    let script = read(&root().join(".ci/browse"));
    for language in LANGUAGES {
        let glossary = Page::all(language)["glossary.md"].text.replace("\n  ", " ");
        let key = format!("\"{language}\": \"\"\"");
        let (_, words) = script.split_once(&key).unwrap();
        let (words, _) = words.split_once("\"\"\"").unwrap();
        let words: Vec<&str> = words.split(',').map(str::trim).collect();
        assert!(words.len() >= 9, "{words:?}");
        let missing = words.iter().filter(|word| !glossary.contains(**word));
        assert_none(missing.map(|word| format!("{language}: {word}")).collect());
    }
}

#[test]
fn the_table_of_errors_says_what_linux_says() {
    for language in LANGUAGES {
        let page = &Page::all(language)["mistakes.md"];
        let rows = page
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("| `"));
        let texts: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert!(texts.len() >= 20, "{language}: {texts:?}");
        for text in texts {
            let (_, number) = text.split_once(" (os error ").unwrap();
            let number = number.trim_end_matches(')').parse().unwrap();
            assert_eq!(text, io::Error::from_raw_os_error(number).to_string());
        }
    }
}

/// The index has a row for each mistake, with its heading and the chapter that explains it; the mistake names the
/// same chapter, and the chapter links to the mistake.
#[test]
fn each_mistake_and_the_chapter_that_explains_it_link_to_each_other() {
    let mut complaints = Vec::new();
    for (language, more) in LANGUAGES.into_iter().zip(["More in", "详见"]) {
        let pages = Page::all(language);
        let rows = pages["mistakes.md"].text.lines();
        let rows: Vec<Vec<&str>> = rows
            .filter(|row| row.contains("#mistake-") && row.matches(" | ").count() == 3)
            .map(|row| row.trim_matches(['|', ' ']).split(" | ").collect())
            .collect();
        assert_eq!(rows.len(), 50, "{language}");
        for row in rows {
            let (number, [mistake, chapter]) = (row[0], [row[2], row[3]].map(link));
            let (page, anchor) = mistake.1.split_once('#').unwrap();
            let heading = format!("\n## {number}. {} {{#{anchor}}}\n", mistake.0);
            let Some((_, text)) = pages[page].text.split_once(&heading) else {
                complaints.push(format!("{language}/{page}: no heading {heading:?}"));
                continue;
            };
            let text = text.split("\n## ").next().unwrap().replace('\n', " ");
            let pointers = text.split(more).skip(1);
            let targets: Vec<&str> = pointers.map(|after| link(after).1).collect();
            if targets != [chapter.1] {
                complaints.push(format!("{language}: mistake {number} leads to {targets:?}"));
            }
            let back = format!("]({})", mistake.1);
            if !pages
                .get(chapter.1)
                .is_some_and(|it| it.text.contains(&back))
            {
                complaints.push(format!(
                    "{language}/{}: no link to {}",
                    chapter.1, mistake.1
                ));
            }
        }
    }
    assert_none(complaints);
}

/// Returns the words and the target of the first link in a text.
fn link(text: &str) -> (&str, &str) {
    let (words, rest) = text.split_once("](").unwrap_or_default();
    let words = words.split_once('[').map_or(words, |(_, words)| words);
    (words, rest.split(')').next().unwrap_or_default())
}

/// mdBook takes what stands inside these elements as it is.
#[test]
fn there_is_no_markdown_inside_html() {
    assert_for_each_page(|_, page| {
        let lines = page.text.lines();
        let html =
            lines.filter(|line| line.starts_with("<summary>") || line.starts_with("<figcaption>"));
        let wrong = html.filter(|line| line.contains('`') || line.contains("]("));
        wrong.map(|line| format!("not HTML: {line}")).collect()
    });
}

/// Who cannot see a figure gets its alternative text.
#[test]
fn each_figure_has_an_alternative_text() {
    assert_for_each_page(|_, page| {
        let mut complaints = Vec::new();
        let mut before = "";
        for line in page.text.lines() {
            let is_drawing = line.starts_with("{{#include") && line.ends_with(".svg}}");
            let text = before.strip_prefix("<div role=\"img\" aria-label=\"");
            if is_drawing && text.is_none_or(|text| text.len() < 30) {
                complaints.push(format!("no text for {line}"));
            }
            if line.contains("![](") {
                complaints.push(format!("no text for {line}"));
            }
            before = line;
        }
        complaints
    });
}
