//! Draws bar charts as SVG: panels, and in each of them a bar for each figure.

/// Some bars with a title.
pub struct Panel {
    /// What the bars have in common.
    pub title: String,
    /// The bars from top to bottom.
    pub bars: Vec<Bar>,
}

/// A figure of a server.
pub struct Bar {
    /// Its name, for readers who have not seen our sources.
    pub name: String,
    /// The figure.
    pub figure: f64,
    /// Whether it is drawn as one of ours.
    pub is_ours: bool,
}

/// What stands above the panels, and how their figures are written.
pub struct Head {
    /// Also for readers who cannot see the picture, as the description is, which gives the figures.
    pub title: &'static str,
    /// What a long bar means.
    pub key: &'static str,
    /// How many digits of a figure stand behind its point.
    pub decimals: usize,
}

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
const LONGEST: f64 = 196.0;

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
pub fn draw(head: &Head, panels: &[Panel]) -> String {
    let Head { title, key, .. } = head;
    let bars = || panels.iter().flat_map(|panel| &panel.bars);
    let scale = LONGEST / bars().map(|bar| bar.figure).fold(1.0, f64::max);
    let most_bars = panels.iter().map(|panel| panel.bars.len()).max();
    let panel_height = PANEL_HEAD + PITCH * most_bars.unwrap_or(0);
    let height = HEAD + panel_height * panels.len().div_ceil(COLUMNS) + PITCH / 2;
    let described: Vec<String> = panels.iter().map(|panel| describe(head, panel)).collect();
    let drawn = panels.iter().enumerate().map(|(number, panel)| {
        let x = number % COLUMNS * (WIDTH / COLUMNS);
        let y = HEAD + number / COLUMNS * panel_height;
        draw_panel(head, panel, x, y, scale)
    });
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"
    viewBox="0 0 {WIDTH} {height}" role="img">
<title>{title}</title>
<desc>{}</desc>
<style>
{STYLE}</style>
<rect class="page" width="100%" height="100%"/>
<text class="title" x="16" y="28">{}</text>
<text x="16" y="50">{key}</text>
{}</svg>
"#,
        described.join(" "),
        // "our servers" has the colour of their bars, so the picture needs no key.
        title.replace("our servers", r#"<tspan class="ours">our servers</tspan>"#),
        drawn.collect::<String>(),
    )
}

fn describe(head: &Head, panel: &Panel) -> String {
    let bars = panel.bars.iter();
    let bars = bars.map(|bar| format!("{} {}", bar.name, written(head, bar)));
    format!("{}: {}.", panel.title, bars.collect::<Vec<_>>().join(", "))
}

fn written(head: &Head, bar: &Bar) -> String {
    format!("{:.*}", head.decimals, bar.figure)
}

fn draw_panel(head: &Head, panel: &Panel, x: usize, y: usize, scale: f64) -> String {
    let bars = panel.bars.iter().enumerate().map(|(number, bar)| {
        let (name, figure) = (&bar.name, written(head, bar));
        let kind = if bar.is_ours { "ours" } else { "other" };
        let top = PANEL_HEAD + number * PITCH;
        let length = bar.figure * scale;
        format!(
            r#"<g class="{kind}" transform="translate({LEFT} {top})">
<text class="name" x="-8" y="13">{name}</text>
<rect width="{length:.1}" height="15"/>
<text x="{:.1}" y="13">{figure}</text>
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
