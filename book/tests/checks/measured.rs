//! The chapter on speed states the figures of the bench, as it wrote them.

use std::collections::BTreeMap;

use regex::Regex;
use rstest::rstest;

const FIGURES: &str = include_str!("../../../tests/bench/figures/README.md");
const ENGLISH: &str = include_str!("../../en/speed.md");
const EVENT_LOOP: &str = include_str!("../../../tcp-server/examples/event_loop.rs");
const CHINESE: &str = include_str!("../../zh-CN/speed.md");

/// Returns the cells of all tables, by the names of their row and their column.
fn cells(text: &str) -> BTreeMap<(String, String), String> {
    let mut cells = BTreeMap::new();
    let mut columns = Vec::new();
    for line in text.lines() {
        let line = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'));
        let Some(line) = line else {
            columns.clear(); // The table ends.
            continue;
        };
        let row: Vec<_> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        if columns.is_empty() {
            columns = row;
        } else if row[0] != "---" {
            for (column, cell) in columns.iter().zip(&row).skip(1) {
                let place = (row[0].to_owned(), column.to_string());
                cells.insert(place, cell.to_string());
            }
        }
    }
    cells
}

#[rstest]
fn its_tables_are_copied_from_the_figures(#[values(ENGLISH, CHINESE)] chapter: &str) {
    let figures = cells(FIGURES);
    let copied = cells(&chapter.replace("处理器时间", "CPU time"));
    assert!(copied.len() > 20, "{copied:?}");
    for (place, cell) in copied {
        assert_eq!(figures.get(&place), Some(&cell), "{place:?}");
    }
}

#[rstest]
fn its_sentences_name_no_ratio_that_the_figures_lack(#[values(ENGLISH, CHINESE)] chapter: &str) {
    let ratio = Regex::new(r"\b\d\.\d\d\b").unwrap();
    let ratios =
        |text| -> Vec<&str> { ratio.find_iter(text).map(|found| found.as_str()).collect() };
    let figures = ratios(FIGURES);
    let stated = ratios(chapter);
    assert!(stated.len() > 10, "{stated:?}");
    for stated in stated {
        assert!(figures.contains(&stated), "{stated}");
    }
}

#[test]
fn the_head_of_event_loop_names_no_figure_that_they_lack() {
    let head = EVENT_LOOP.split("\nuse ").next().unwrap();
    let figure = Regex::new(r"\b\d+\.\d\d\b").unwrap();
    let figures: Vec<&str> = figure
        .find_iter(FIGURES)
        .map(|found| found.as_str())
        .collect();
    let stated: Vec<&str> = figure.find_iter(head).map(|found| found.as_str()).collect();
    assert_eq!(stated.len(), 4, "{stated:?}");
    assert!(
        stated.iter().all(|stated| figures.contains(stated)),
        "{stated:?}"
    );
}
