//! The pages of the programs and of the tests, and the links to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::items::{Part, dedent, item, paragraph, parts};
use crate::{html, measured};

/// What the pages of the code show: where the files are, and on which page each test stands.
pub struct Code {
    root: PathBuf,
    /// The files of the programs, and of the tests, by the names of their pages.
    files: BTreeMap<String, File>,
    /// The page of each test, by the path of its module and its name.
    tests: BTreeMap<String, String>,
}

/// A file that has a page of its own.
struct File {
    /// Below the folder of the workspace.
    path: String,
    title: String,
    source: String,
    /// The module of its tests.
    module: Vec<String>,
    /// A program has none.
    tests: Vec<Part>,
}

/// Where the tests are, with the module that begins their names.
const TESTS: [(&str, &str); 5] = [
    ("tests/tests/pairs", ""),
    ("tests/promises/src", ""),
    ("book/mistakes/src", "mistakes"),
    ("book/tests/checks/calls.rs", "book"),
    ("tests/bench/tests/checks", "bench"),
];

impl Code {
    /// Reads the programs and the tests of the workspace.
    ///
    /// # Panics
    ///
    /// A file cannot be read, or is no Rust, or two pages have the same name.
    #[must_use]
    pub fn read(root: &Path) -> Code {
        let mut code = Code {
            root: root.to_owned(),
            files: BTreeMap::new(),
            tests: BTreeMap::new(),
        };
        for package in fs::read_dir(root).into_iter().flatten().flatten() {
            let package = package.path();
            if package.join("src/main.rs").exists() {
                for folder in ["src", "examples"] {
                    for path in walk(&package.join(folder), "rs") {
                        code.add_program(&path);
                    }
                }
            }
        }
        for (place, module) in TESTS {
            let place = root.join(place);
            if place.is_file() {
                code.add_tests(place.parent().unwrap_or(root), module, &place);
            }
            for path in walk(&place, "rs") {
                code.add_tests(&place, module, &path);
            }
        }
        code
    }

    fn add(&mut self, page: String, file: File) {
        let other = self.files.insert(page, file);
        assert!(other.is_none(), "two files have one page");
    }

    fn add_program(&mut self, path: &Path) {
        let below = below(&self.root, path);
        let (package, _) = below.split_once('/').unwrap_or_default();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = match &*stem {
            "main" => package.to_owned(),
            // More than one package has it.
            "chat" | "first" => format!("{stem}-{package}"),
            stem => stem.replace('_', "-"),
        };
        let file = File {
            path: below.clone(),
            title: below,
            source: read(path),
            module: Vec::new(),
            tests: Vec::new(),
        };
        self.add(format!("programs/{name}.md"), file);
    }

    fn add_tests(&mut self, folder: &Path, module: &str, path: &Path) {
        let source = read(path);
        let below_folder = below(folder, path);
        let names = below_folder.trim_end_matches(".rs").split('/');
        let names = [module].into_iter().chain(names);
        let modules = names.filter(|name| !["", "mod", "main", "lib"].contains(name));
        let module: Vec<String> = modules.map(str::to_owned).collect();
        let parts = parts(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tests: Vec<Part> = parts.into_iter().filter(|part| part.is_test).collect();
        if tests.is_empty() {
            return;
        }
        let page = format!("tests/{}.md", module.join("-"));
        for test in &tests {
            let name = [&module[..], &test.path].concat().join("::");
            self.tests.insert(name, page.clone());
        }
        let file = File {
            path: below(&self.root, path),
            title: format!("{}.rs", module.join("/")),
            source,
            module,
            tests,
        };
        self.add(page, file);
    }

    /// Returns the names of the pages in a folder (`programs` or `tests`), with their titles.
    pub fn pages<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.files.iter();
        let inside = files.filter(move |(page, _)| page.starts_with(folder));
        inside.map(|(page, file)| (page.as_str(), file.title.as_str()))
    }

    /// Returns where the link to a test leads, from a page at the top of the book.
    ///
    /// # Errors
    ///
    /// There is no such test.
    pub fn link(&self, test: &str) -> Result<String, String> {
        let page = self
            .tests
            .get(test)
            .ok_or_else(|| format!("no test is called {test}"))?;
        Ok(format!("{page}#{}", test.replace("::", "-")))
    }

    /// Returns the page that shows a file.
    #[must_use]
    pub fn page_of(&self, file: &str) -> Option<String> {
        let mut files = self.files.iter();
        files
            .find(|(_, found)| found.path == file)
            .map(|(page, _)| page.clone())
    }

    /// Returns the parts of a file with these names (`a, b`), or the whole file. `use` stands for the lines
    /// that begin with this word.
    ///
    /// # Errors
    ///
    /// There is no such file, or no such part in it.
    pub fn listing(&self, file: &str, names: Option<&str>) -> Result<String, String> {
        let source = fs::read_to_string(self.root.join(file));
        let source = source.map_err(|error| format!("{file}: {error}"))?;
        let Some(names) = names else {
            return Ok(source.trim_end().to_owned());
        };
        let parts = match file.ends_with(".rs") {
            true => Some(parts(&source).map_err(|error| format!("{file}: {error}"))?),
            false => None,
        };
        let found = names.split(", ").map(|name| {
            let found = match &parts {
                Some(_) if name == "use" => Some(uses(&source)),
                Some(parts) => item(&source, parts, name),
                None => paragraph(&source, name),
            };
            found.ok_or_else(|| format!("{file} has no {name}"))
        });
        Ok(found.collect::<Result<Vec<_>, _>>()?.join("\n\n"))
    }

    /// Reads what a chapter includes.
    fn included(&self, path: &str) -> Result<String, String> {
        let found = fs::read_to_string(self.root.join("book/en").join(path));
        found.map_err(|error| format!("{path}: {error}"))
    }

    /// Returns the text of a page of the code: links back to the chapters, and the whole file. Each test
    /// has a heading, and so an address.
    #[must_use]
    pub fn page(&self, page: &str, chapters: &str) -> String {
        let file = &self.files[page];
        let mut text = format!("# {}\n\n{chapters}", file.title);
        let lines: Vec<&str> = file.source.lines().collect();
        let mut begin = 0;
        for test in &file.tests {
            let id = [&file.module[..], &test.path].concat().join("-");
            text += &block(&lines[begin..test.lines.start]);
            text += &format!("## {} {{#{id}}}\n\n", test.path.join("::"));
            text += &block(&lines[test.lines.clone()]);
            begin = test.lines.end;
        }
        text + &block(&lines[begin..])
    }
}

/// Returns a block of code with these lines, if there is anything in them.
fn block(lines: &[&str]) -> String {
    let code = dedent(lines);
    match code.trim_matches('\n') {
        code if code.trim().is_empty() => String::new(),
        code => format!("```rust\n{code}\n```\n\n"),
    }
}

/// Returns the files of a folder and of the folders in it, in order.
#[must_use]
pub fn walk(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn uses(source: &str) -> String {
    let lines: Vec<&str> = source
        .lines()
        .filter(|line| line.starts_with("use "))
        .collect();
    lines.join("\n")
}

fn below(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    below.to_string_lossy().into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A chapter without the directives of ours.
pub struct Expanded {
    /// What mdBook gets.
    pub text: String,
    /// The pages of code of which the chapter shows or names something.
    pub pages: Vec<String>,
}

/// Where the bench has written its figures.
const FIGURES: &str = "tests/bench/figures/README.md";

/// Replaces `{{#code ..}}`, `{{#test ..}}`, `{{#measured ..}}` and the `{{#include ..}}` of transcripts and drawings in a chapter.
///
/// # Errors
///
/// Each name that does not exist, with the reason.
pub fn expand(code: &Code, chapter: &str, is_chinese: bool) -> Result<Expanded, Vec<String>> {
    let word = if is_chinese { "测试" } else { "test" };
    let chapter = match is_chinese {
        true => html::joined(chapter),
        false => chapter.to_owned(),
    };
    let chapter = html::bare(&chapter);
    let mut parts = chapter.split("{{#");
    let mut text = parts.next().unwrap_or_default().to_owned();
    let (mut pages, mut errors) = (Vec::new(), Vec::new());
    for part in parts {
        let (directive, mut rest) = part.split_once("}}").unwrap_or((part, ""));
        let replaced = match directive.split_once(' ') {
            Some(("code", what)) => {
                let (file, names) = what
                    .split_once(": ")
                    .map_or((what, None), |(file, names)| (file, Some(names)));
                let page = code.page_of(file);
                // Only above the first part of a listing.
                let fence = text.rfind("```").unwrap_or(0);
                if text[fence..].lines().count() == 1 {
                    text.insert_str(fence, &html::origin(file, page.as_deref()));
                }
                pages.extend(page);
                code.listing(file, names)
            }
            Some(("test", name)) => code.link(name).map(|link| {
                pages.extend(link.split_once('#').map(|(page, _)| page.to_owned()));
                if text.ends_with("](") {
                    link
                } else {
                    html::mark(&link, word, name)
                }
            }),
            Some(("measured", name)) => measured::cell(&read(&code.root.join(FIGURES)), name),
            Some(("include", path)) if path.ends_with(".txt") => {
                text.truncate(text.trim_end_matches("```console\n").len());
                rest = rest.trim_start_matches("\n```");
                code.included(path).map(|shown| html::transcript(&shown))
            }
            Some(("include", path)) if path.ends_with(".svg") => {
                let words = match is_chinese {
                    true => code.included("../figures/zh-CN.txt"),
                    false => Ok(String::new()),
                };
                let svg = code.included(path);
                words.and_then(|words| Ok(html::figure(svg?.trim_end(), &words)))
            }
            _ => Ok(format!("{{{{#{directive}}}}}")),
        };
        match replaced {
            Ok(replaced) => text += &replaced,
            Err(error) => errors.push(error),
        }
        text += rest;
    }
    if errors.is_empty() {
        Ok(Expanded { text, pages })
    } else {
        Err(errors)
    }
}

/// What marks the English text that a Chinese page follows.
const MARK: &str = "<!-- follows the English text ";

/// Returns a short name of a text: it changes with each character (FNV-1a).
fn name_of(text: &str) -> String {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}

/// Whether an English page has changed since the Chinese one has followed it.
#[must_use]
pub fn is_behind(chinese: &str, english: &str) -> bool {
    !chinese.contains(&format!("{MARK}{}", name_of(english)))
}

/// Returns the Chinese page with the mark that it follows the English one.
#[must_use]
pub fn marked(chinese: &str, english: &str) -> String {
    let text = chinese.split(MARK).next().unwrap_or_default().trim_end();
    format!("{text}\n\n{MARK}{} -->\n", name_of(english))
}
