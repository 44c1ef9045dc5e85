//! Draws bar charts as SVG: a panel for each question, and in it a bar for each server.

/// A question, and its servers from top to bottom.
pub struct Panel {
    /// The question.
    pub title: &'static str,
    /// The servers.
    pub bars: Vec<Bar>,
}

/// A server.
pub struct Bar {
    /// Its name, for readers who have not seen its source.
    pub name: &'static str,
    /// Its rate divided by the rate of the server that the others are compared with.
    pub ratio: f64,
    /// Whether it is drawn as one of ours.
    pub is_ours: bool,
}

/// Also for readers who cannot see the picture. The description of the picture gives the figures.
pub const TITLE: &str = "How fast our servers echo, beside others";

const KEY: &str = "Longer is faster. 1.00 is a bare loop around the system calls, in C or Rust.";

const WIDTH: usize = 800;
const COLUMNS: usize = 2;
/// The height of the text above the panels.
const HEAD: usize = 58;
/// The height of a panel's title, with the gap to the panel above.
const PANEL_HEAD: usize = 46;
/// The distance from one bar to the next.
const PITCH: usize = 22;
/// Where the names end and the bars begin, from the left of a panel.
const LEFT: usize = 124;
/// The length of the longest bar. Its figure needs the rest of the panel.
const LONGEST: f64 = 208.0;

/// The page around the picture may have another theme than the one that the browser reports to
/// the picture, so the picture has its own background.
const STYLE: &str = "\
text { font: 16px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.name { text-anchor: end }
.ours, .ours text { fill: #0969da; font-weight: 600 }
.other rect { fill: #8c959f }
.page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours, .ours text { fill: #4493f8 }
  .other rect { fill: #6e7681 }
  .page { fill: #0d1117 }
}
";

/// Returns an SVG of the panels, two in each row. It does not escape their texts.
pub fn draw(panels: &[Panel]) -> String {
    let bars = || panels.iter().flat_map(|panel| &panel.bars);
    let scale = LONGEST / bars().map(|bar| bar.ratio).fold(1.0, f64::max);
    let most_bars = panels.iter().map(|panel| panel.bars.len()).max();
    let panel_height = PANEL_HEAD + PITCH * most_bars.unwrap_or(0);
    let height = HEAD + panel_height * panels.len().div_ceil(COLUMNS) + PITCH / 2;
    let described: Vec<String> = panels.iter().map(describe).collect();
    let drawn = panels.iter().enumerate().map(|(number, panel)| {
        let x = number % COLUMNS * (WIDTH / COLUMNS);
        let y = HEAD + number / COLUMNS * panel_height;
        draw_panel(panel, x, y, scale)
    });
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"
    viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title"
    aria-describedby="description">
<title id="title">{TITLE}</title>
<desc id="description">{}</desc>
<style>
{STYLE}</style>
<rect class="page" width="100%" height="100%"/>
<text class="title" x="16" y="28">{}</text>
<text x="16" y="50">{KEY}</text>
{}</svg>
"#,
        described.join(" "),
        // "our servers" has the colour of their bars, so the picture needs no key.
        TITLE.replace("our servers", r#"<tspan class="ours">our servers</tspan>"#),
        drawn.collect::<String>(),
    )
}

fn describe(panel: &Panel) -> String {
    let bars = panel
        .bars
        .iter()
        .map(|bar| format!("{} {:.2}", bar.name, bar.ratio));
    format!("{}: {}.", panel.title, bars.collect::<Vec<_>>().join(", "))
}

fn draw_panel(panel: &Panel, x: usize, y: usize, scale: f64) -> String {
    let bars = panel.bars.iter().enumerate().map(|(number, bar)| {
        let Bar {
            name,
            ratio,
            is_ours,
        } = bar;
        let kind = if *is_ours { "ours" } else { "other" };
        let top = PANEL_HEAD + number * PITCH;
        let length = ratio * scale;
        format!(
            r#"<g class="{kind}" transform="translate({LEFT} {top})">
<text class="name" x="-8" y="13">{name}</text>
<rect width="{length:.1}" height="15"/>
<text x="{:.1}" y="13">{ratio:.2}</text>
</g>
"#,
            length + 6.0
        )
    });
    format!(
        r#"<g transform="translate({x} {y})">
<text class="title" x="16" y="34">{}</text>
{}</g>
"#,
        panel.title,
        bars.collect::<String>()
    )
}
