//! The chapter on speed states figures of the bench by their names.

use book::measured::cell;
use regex::Regex;
use rstest::rstest;

const TABLES: &str = "\
|  | p50 | p99 |
|---|--:|--:|
| ours | 1.0 | 2.0 |
| theirs | 3.0 | 4.0 |

|  | memory |
|---|--:|
| ours | 5.0 |
";

#[test]
fn a_figure_is_found_by_its_column_and_row() {
    assert_eq!(cell(TABLES, "p99/theirs").as_deref(), Ok("4.0"));
    assert_eq!(cell(TABLES, "memory/ours").as_deref(), Ok("5.0"));
    for unknown in ["p99/nobody", "p98/ours", "memory/theirs", "p99"] {
        assert!(cell(TABLES, unknown).is_err(), "{unknown}");
    }
}

#[rstest]
fn no_figure_is_typed(
    #[values(include_str!("../../en/speed.md"), include_str!("../../zh-CN/speed.md"))]
    chapter: &str,
) {
    let ratio = Regex::new(r"\b\d+\.\d+\b").unwrap();
    let typed: Vec<&str> = ratio.find_iter(chapter).map(|it| it.as_str()).collect();
    // What 1.00 means is said in words.
    assert!(typed.iter().all(|typed| *typed == "1.00"), "{typed:?}");
    assert!(chapter.contains("{{#measured "));
}
