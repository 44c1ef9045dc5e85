//! The preprocessor of the book. mdBook gives it all chapters as JSON, and takes them back
//! (<https://rust-lang.github.io/mdBook/for_developers/preprocessors.html>). In a chapter,
//!
//! - `{{#code FILE}}` shows a file, and `{{#code FILE: NAME, NAME}}` its functions or other items;
//! - `{{#test MODULE::NAME}}` becomes a link to a test, and in `[words]({{#test MODULE::NAME}})` only
//!   its target.
//!
//! It also adds a page for each program and each file of tests, which leads back to the chapters. A
//! name that does not exist ends it with an error, and with it the build.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use book::pages::{Code, expand};
use serde_json::{Value, json};

fn main() -> ExitCode {
    // mdBook asks first for which of its outputs this is. It is for all.
    if std::env::args().nth(1).as_deref() == Some("supports") {
        return ExitCode::SUCCESS;
    }
    match run() {
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
    let [word, from] = match is_chinese {
        true => ["测试", "出自以下各章："],
        false => ["test", "From the chapters "],
    };

    let code = Code::read(&harness::root());
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
        match expand(&code, content, word) {
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

fn for_each_chapter(items: &mut Value, work: &mut impl FnMut(&mut Value)) {
    for item in items.as_array_mut().into_iter().flatten() {
        if let Some(chapter) = item.get_mut("Chapter") {
            work(chapter);
            for_each_chapter(&mut chapter["sub_items"], work);
        }
    }
}
