//! What the pages of the book include and link to is there, and both languages show the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LANGUAGES: [&str; 2] = ["en", "zh-CN"];

/// A desktop shows lines of code up to this length without scrolling.
const MAX_COLUMNS: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

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
        let folder = root().join("book").join(language).join("src");
        let pages = walk(&folder, "md").into_iter().map(|path| {
            let name = path.strip_prefix(&folder).unwrap();
            (name.to_str().unwrap().to_owned(), Page::read(path))
        });
        pages.collect()
    }

    /// Returns the paths and the anchors of what the page includes.
    fn includes(&self) -> Vec<(PathBuf, Option<&str>)> {
        let parts = self.text.split("{{#include ").skip(1);
        let includes = parts.map(|part| {
            let include = part.split("}}").next().unwrap();
            let (path, anchor) = include
                .split_once(':')
                .map_or((include, None), |(path, anchor)| (path, Some(anchor)));
            (self.path.with_file_name("").join(path), anchor)
        });
        includes.collect()
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
            if line.starts_with("{{#include") || line.starts_with("<summary>") {
                skeleton.push(line.split('>').next().unwrap_or_default().to_owned());
            }
        }
        let mut links: Vec<String> = self.links().iter().map(|link| link.to_string()).collect();
        links.sort();
        links.dedup();
        skeleton.extend(links);
        skeleton
    }
}

/// Returns the files of a folder and of the folders in it, in order.
fn walk(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns what mdBook includes: a file, or the part between the marks of an anchor.
fn included(path: &Path, anchor: Option<&str>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let Some(anchor) = anchor else {
        return Some(text);
    };
    let is = |line: &str, mark: &str| line.trim().ends_with(&format!("{mark}: {anchor}"));
    let mut lines = text.lines().skip_while(|line| !is(line, "ANCHOR"));
    lines.next()?;
    let lines: Vec<&str> = lines.collect();
    let end = lines.iter().position(|line| is(line, "ANCHOR_END"))?;
    Some(lines[..end].join("\n"))
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
fn what_a_page_includes_is_there_and_is_not_too_wide() {
    assert_for_each_page(|name, page| {
        let mut complaints = Vec::new();
        for (path, anchor) in page.includes() {
            let Some(text) = included(&path, anchor) else {
                complaints.push(format!("no {} {anchor:?}", path.display()));
                continue;
            };
            let is_drawing = path.extension().is_some_and(|found| found == "svg");
            let is_code_page = name.contains('/');
            let mut lines = text.lines();
            let too_wide = lines.find(|line| line.chars().count() > MAX_COLUMNS);
            if let (Some(line), false, false) = (too_wide, is_drawing, is_code_page) {
                complaints.push(format!("too wide, in {}: {line}", path.display()));
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
            !lines.all(|line| line.trim().starts_with("{{#include "))
        });
        typed.map(|block| format!("typed: {block}")).collect()
    });
}

#[test]
fn the_links_lead_somewhere() {
    assert_for_each_page(|_, page| {
        let links = page.links().into_iter();
        let inside = links.filter(|link| !link.contains("://"));
        let broken = inside.filter(|link| !leads_somewhere(page, link));
        broken.map(|link| format!("broken: {link}")).collect()
    });
}

fn leads_somewhere(page: &Page, link: &str) -> bool {
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let path = match path {
        "" => page.path.clone(),
        path => page.path.with_file_name("").join(path),
    };
    if path.extension().is_some_and(|found| found != "md") {
        return path.exists();
    }
    if !path.exists() {
        return false;
    }
    let target = Page::read(path);
    match fragment.strip_prefix(":~:text=") {
        Some(name) => {
            let includes = target.includes();
            let mut code = includes.iter().filter_map(|(path, at)| included(path, *at));
            code.any(|code| code.contains(&format!("fn {name}(")))
        }
        None if fragment.is_empty() => true,
        None => {
            let mut headings = target.text.lines().filter(|line| line.starts_with('#'));
            headings.any(|heading| heading.ends_with(&format!("{{#{fragment}}}")))
        }
    }
}

/// The page of a chapter ends with experiments, three questions, and what to read next.
#[test]
fn each_chapter_has_experiments_and_three_questions() {
    let others = ["SUMMARY", "mistakes", "glossary", "programs", "tests"];
    assert_for_each_page(|name, page| {
        if others.iter().any(|other| name.starts_with(other)) {
            return Vec::new();
        }
        let mut complaints = Vec::new();
        let headings = match page.text.contains("## Try this") {
            true => ["## Try this", "## Questions", "## Read next"],
            false => ["## 试一试", "## 问题", "## 接下来读什么"],
        };
        let missing = headings.iter().filter(|text| !page.text.contains(**text));
        complaints.extend(missing.map(|heading| format!("no {heading:?}")));
        let questions = page.text.matches("<summary>").count();
        if questions != 3 {
            complaints.push(format!("{questions} questions"));
        }
        complaints
    });
}

/// A chapter defines a term in Chinese as `*词*（term）`. The glossary has it, too.
#[test]
fn the_glossary_has_each_term_that_a_chapter_defines() {
    let pages = Page::all("zh-CN");
    let glossary = &pages["glossary.md"].text;
    let mut complaints = Vec::new();
    let mut terms = 0;
    for (name, page) in &pages {
        for (before, after) in page.text.match_indices("*（").map(|(at, mark)| {
            let (before, after) = page.text.split_at(at);
            (before, &after[mark.len()..])
        }) {
            let term = before.rsplit('*').next().unwrap();
            let english = after.split(['）', '，']).next().unwrap();
            let is_term = !before.ends_with('*') && english.is_ascii() && !term.contains('\n');
            if is_term && !glossary.contains(&format!("\n{term}（{english}")) {
                complaints.push(format!("{name}: {term}（{english}）"));
            }
            terms += usize::from(is_term);
        }
    }
    assert!(terms > 40, "{terms} terms");
    assert_none(complaints);
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

/// mdBook takes no file from outside its book, so each has a copy.
#[test]
fn both_books_look_the_same() {
    let [english, chinese] =
        LANGUAGES.map(|language| read(&root().join("book").join(language).join("book.css")));
    assert_eq!(english, chinese);
}

/// Each program and each file of tests has a page of its own, which a link can lead to.
#[test]
fn each_program_and_each_file_of_tests_has_its_page() {
    let mut complaints = Vec::new();
    for language in LANGUAGES {
        let src = root().join("book").join(language).join("src");
        let mut summary = read(&src.join("SUMMARY.md"));
        for (folder, code) in [("programs", programs()), ("tests", files_of_tests())] {
            let mut list = String::new();
            for (name, path) in code {
                let title = path.trim_start_matches("tests/tests/pairs/");
                list += &format!("  - [{title}]({folder}/{name}.md)\n");
                let page = format!(
                    "# {title}\n\n<div class=\"{folder}\">\n\n```rust\n\
                     {{{{#include ../../../../{path}}}}}\n```\n\n</div>\n"
                );
                complaints.extend(differs(&src.join(folder).join(format!("{name}.md")), &page));
            }
            // In the table of contents they stand below the page that is called like the folder.
            let parent = format!("]({folder}.md)\n");
            let (before, after) = summary.split_once(&parent).expect("the parent's line");
            let is_child = |line: &&str| line.starts_with("  - ");
            let rest: Vec<&str> = after.lines().skip_while(is_child).collect();
            summary = format!("{before}{parent}{list}{}", rest.join("\n"));
            summary = format!("{}\n", summary.trim_end());
        }
        complaints.extend(differs(&src.join("SUMMARY.md"), &summary));
    }
    assert_none(complaints);
}

/// Compares a file with what it should be, or writes it.
fn differs(path: &Path, expected: &str) -> Option<String> {
    if super::refreshes() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, expected).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    (found != expected).then(|| format!("{} is out of date", path.display()))
}

/// Returns the name of the page and the path of each program.
fn programs() -> Vec<(String, String)> {
    let mut programs = Vec::new();
    for package in [
        "udp-server",
        "udp-client",
        "tcp-server",
        "tcp-client",
        "unix-echo",
        "tests",
    ] {
        for folder in ["src", "examples"] {
            let folder = root().join(package).join(folder);
            if package == "tests" && folder.ends_with("src") || !folder.exists() {
                continue;
            }
            for path in walk(&folder, "rs") {
                let stem = path
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('_', "-");
                let name = if stem == "main" {
                    package.to_owned()
                } else {
                    stem
                };
                programs.push((name, below_root(&path)));
            }
        }
    }
    programs
}

fn files_of_tests() -> Vec<(String, String)> {
    let pairs = root().join("tests/tests/pairs");
    let files = walk(&pairs, "rs").into_iter().filter_map(|path| {
        let below = path.strip_prefix(&pairs).unwrap().with_extension("");
        let name = below.to_str().unwrap().replace('/', "-");
        let text = read(&path);
        let has_tests = ["#[test]", "#[rstest]", "#[apply("]
            .iter()
            .any(|mark| text.contains(mark));
        // These name what mdBook would include. They are not about sockets, either.
        let is_about_the_book = name.starts_with("book");
        (has_tests && !is_about_the_book).then(|| (name, below_root(&path)))
    });
    files.collect()
}

fn below_root(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}
