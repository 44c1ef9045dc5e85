//! The picture of the bench shows the figures that it is given.

use bench::picture::{Bar, Head, Panel, draw};

const HEAD: Head = Head {
    title: "How fast our servers echo",
    key: "Longer is faster.",
    decimals: 2,
};

fn panel(title: &str, bars: &[(&str, f64)]) -> Panel {
    let bars = bars.iter().map(|(name, figure)| Bar {
        name: name.to_string(),
        figure: *figure,
        is_ours: *name == "ours",
    });
    Panel {
        title: title.to_owned(),
        bars: bars.collect(),
    }
}

/// Draws two panels. The second has one bar.
fn drawn() -> String {
    let first = panel("UDP", &[("ours", 2.0), ("theirs", 1.0)]);
    draw(&HEAD, &[first, panel("TCP", &[("ours", 0.5)])])
}

/// Returns the lengths of the bars, from the first to the last.
fn lengths(svg: &str) -> Vec<f64> {
    let bars = svg.split(r#"<rect width=""#).skip(1);
    bars.map(|rest| rest.split('"').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn bars_are_as_long_as_their_figures_in_all_panels() {
    let lengths = lengths(&drawn());
    assert_eq!(lengths, [lengths[0], lengths[0] / 2.0, lengths[0] / 4.0]);
}

/// When no server is faster than the one that the others are compared with, or that one is missing.
#[test]
fn a_lone_slow_server_has_no_long_bar() {
    let of = |ratio| lengths(&draw(&HEAD, &[panel("UDP", &[("ours", ratio)])]));
    assert_eq!(of(0.25), [of(1.0)[0] / 4.0]);
}

#[test]
fn the_description_tells_what_the_bars_show() {
    let svg = drawn();
    let description = "UDP: ours 2.00, theirs 1.00. TCP: ours 0.50.";
    assert!(svg.contains(&format!(">{description}</desc>")), "{svg}");
    for shown in ["UDP", "TCP", "theirs", "2.00", "1.00", "0.50"] {
        assert!(
            svg.contains(&format!(">{shown}</text>")),
            "no {shown}: {svg}"
        );
    }
}
