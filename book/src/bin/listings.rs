//! The preprocessor of the book. mdBook gives it all chapters as JSON, and takes them back
//! (<https://rust-lang.github.io/mdBook/for_developers/preprocessors.html>). In a chapter,
//!
//! - `{{#code FILE}}` shows a file, and `{{#code FILE: NAME, NAME}}` its functions or other items;
//! - `{{#test MODULE::NAME}}` becomes a mark that leads to a test, without the parentheses around it, and in
//!   `[words]({{#test MODULE::NAME}})` only the target of the link;
//! - `{{#include FILE}}` of a transcript shows what somebody types apart from what is printed, and that of a
//!   drawing has its words in the language of the book.
//!
//! It also adds a page for each program and each file of tests, which leads back to the chapters. A
//! name that does not exist ends it with an error, and with it the build. It lists the Chinese pages
//! whose English text has changed since they were marked:
//!
//! ```console
//! $ cargo run -p book --bin listings -- mark udp.md tcp.md
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use book::pages::{Code, expand, is_behind, marked};
use serde_json::{Value, json};

fn main() -> ExitCode {
    // mdBook asks first for which of its outputs this is. It is for all.
    if std::env::args().nth(1).as_deref() == Some("supports") {
        return ExitCode::SUCCESS;
    }
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("mark") => args.try_for_each(|page| mark(&page)),
        _ => run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ERROR {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut input = String::new();
    let read = io::stdin().read_to_string(&mut input);
    read.map_err(|error| format!("cannot read stdin: {error}"))?;
    let input = serde_json::from_str(&input);
    let [context, mut book]: [Value; 2] =
        input.map_err(|error| format!("this is not what mdBook sends: {error}"))?;
    let is_chinese = context["config"]["book"]["language"] == "zh-CN";
    let from = match is_chinese {
        true => "出自以下各章：",
        false => "From the chapters ",
    };

    let root = harness::root();
    let code = Code::read(&root);
    let mut errors = Vec::new();
    // Which chapters show or name something of a page of code.
    let mut origins: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for_each_chapter(&mut book["items"], &mut |chapter| {
        let Some(content) = chapter["content"].as_str() else {
            return;
        };
        let path = chapter["path"].as_str().unwrap_or_default();
        let link = format!(
            "[{}](../{path})",
            chapter["name"].as_str().unwrap_or_default()
        );
        let english = fs::read_to_string(root.join("book/en").join(path));
        if is_chinese && english.is_ok_and(|english| is_behind(content, &english)) {
            let _ = writeln!(
                io::stderr(),
                "BEHIND zh-CN/{path}: its English text has changed"
            );
        }
        match expand(&code, content, is_chinese) {
            Ok(expanded) => {
                for page in expanded.pages {
                    origins.entry(page).or_default().insert(link.clone());
                }
                chapter["content"] = expanded.text.into();
            }
            Err(wrong) => errors.extend(wrong.into_iter().map(|wrong| format!("{path}: {wrong}"))),
        }
    });
    if !errors.is_empty() {
        return Err(errors.join("\nERROR "));
    }
    for_each_chapter(&mut book["items"], &mut |chapter| {
        let name = chapter["name"].clone();
        let Some(folder) = chapter["path"]
            .as_str()
            .and_then(|path| path.strip_suffix(".md"))
        else {
            return;
        };
        if !["programs", "tests"].contains(&folder) {
            return;
        }
        let pages = code.pages(folder).map(|(page, title)| {
            let links: Vec<String> = origins.remove(page).into_iter().flatten().collect();
            let links = match links.is_empty() {
                true => String::new(),
                false => format!(
                    "{from}{}\n\n",
                    links.join(if is_chinese { "、" } else { ", " })
                ),
            };
            json!({"Chapter": {
                "name": title,
                "content": code.page(page, &links),
                "number": null,
                "sub_items": [],
                "path": page,
                "source_path": null,
                "parent_names": [name],
            }})
        });
        chapter["sub_items"] = pages.collect();
    });
    writeln!(io::stdout(), "{book}").map_err(|error| format!("cannot write to stdout: {error}"))
}

/// Notes that a Chinese page follows the English one of today.
fn mark(page: &str) -> Result<(), String> {
    let book = harness::root().join("book");
    let [english, chinese] = ["en", "zh-CN"].map(|language| book.join(language).join(page));
    let read =
        |path| fs::read_to_string(path).map_err(|error| format!("cannot read {page}: {error}"));
    let marked = marked(&read(&chinese)?, &read(&english)?);
    fs::write(&chinese, marked).map_err(|error| format!("cannot write {page}: {error}"))
}

fn for_each_chapter(items: &mut Value, work: &mut impl FnMut(&mut Value)) {
    for item in items.as_array_mut().into_iter().flatten() {
        if let Some(chapter) = item.get_mut("Chapter") {
            work(chapter);
            for_each_chapter(&mut chapter["sub_items"], work);
        }
    }
}
