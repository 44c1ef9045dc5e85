//! Draws a trace: the client on the left, the server on the right, and time runs downward.
//!
//! The picture becomes a part of a page of the book. So it takes its colours from the page, has
//! no ids, and no blank line, which would end the HTML in Markdown.

use super::trace::{Arrow, Event, Side, Trace};

/// On a phone the picture is scaled to about 330, and the text must stay readable.
const WIDTH: f64 = 424.0;
const HEAD: f64 = 34.0;
/// The distance from one row to the next.
const PITCH: f64 = 21.0;
const ACCENT: &str = "var(--links, #20609f)";

/// A point of the picture.
type Point = (f64, f64);

/// Where an event is drawn. A call that waits has a row for its begin and one for its return.
struct Place {
    begin: f64,
    end: f64,
    waits: bool,
}

/// Returns an SVG of a trace. The titles are the names of the client and the server.
pub fn draw(trace: &Trace, titles: [&str; 2]) -> String {
    let (places, height) = places(trace);
    let mut lines = vec![format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" style="max-width: {WIDTH}px; font-family: var(--mono-font, monospace)" font-size="13" fill="currentColor" aria-hidden="true">"#
    )];
    for (side, title) in [Side::Client, Side::Server].into_iter().zip(titles) {
        if trace.0.iter().any(|event| event.side == side) {
            lines.extend(draw_lane(side, title, height));
        }
    }
    for (event, place) in trace.0.iter().zip(&places) {
        lines.extend(draw_event(event, place));
    }
    for arrow in trace.arrows() {
        lines.extend(draw_arrow(&arrow, trace, &places));
    }
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

/// Gives each event its rows in the order of time. Returns also where the picture ends.
fn places(trace: &Trace) -> (Vec<Place>, f64) {
    let waits: Vec<bool> = trace.0.iter().map(|event| waits(event, trace)).collect();
    let mut rows = Vec::new();
    for (index, event) in trace.0.iter().enumerate() {
        if waits[index] {
            rows.push((event.start, index));
            rows.extend(event.end.map(|end| (end, index)));
        } else {
            rows.push((moment(event), index));
        }
    }
    rows.sort();
    let height = HEAD + PITCH * rows.len() as f64;
    let mut places: Vec<Place> = Vec::new();
    for (index, event) in trace.0.iter().enumerate() {
        let y = |row: usize| HEAD + PITCH * row as f64;
        let begin = rows.iter().position(|row| row.1 == index).map_or(0.0, y);
        let end = rows.iter().rposition(|row| row.1 == index).map_or(0.0, y);
        places.push(Place {
            begin,
            end: event.end.map_or(height, |_| end),
            waits: waits[index],
        });
    }
    (places, height)
}

/// The moment that counts: a call sends when it begins, and has received when it returns.
fn moment(event: &Event) -> u64 {
    let received = event.end.filter(|_| event.receives());
    received.unwrap_or(event.start)
}

/// Returns whether a call is drawn as a bar, because it waits while something else happens.
/// A call that fails is always drawn so, because the name of its error needs a row.
fn waits(event: &Event, trace: &Trace) -> bool {
    let Some(end) = event.end else {
        return event.receives();
    };
    let others = trace.0.iter().filter(|other| *other != event);
    let happens = |time: u64| event.start < time && time < end;
    event.has_failed() || event.receives() && others.map(moment).any(happens)
}

fn lane(side: Side) -> f64 {
    match side {
        Side::Client => 120.0,
        Side::Server => WIDTH - 120.0,
    }
}

fn draw_lane(side: Side, title: &str, height: f64) -> [String; 2] {
    let x = lane(side);
    let top = HEAD - PITCH / 2.0;
    let line =
        format!(r#"<path d="M{x} {top}V{height}" stroke="currentColor" stroke-opacity="0.4"/>"#);
    [line, write(x, 14.0, "middle", title)]
}

fn draw_event(event: &Event, place: &Place) -> Vec<String> {
    let x = lane(event.side);
    let Place { begin, end, waits } = *place;
    if !waits {
        let dot = format!(r#"<circle cx="{x}" cy="{begin}" r="2.5"/>"#);
        return vec![dot, label(event.side, begin, &call(event))];
    }
    let (left, height) = (x - 4.0, end - begin);
    let bar = format!(
        r#"<rect x="{left}" y="{begin}" width="8" height="{height}" rx="2" fill-opacity="0.6" style="fill: {ACCENT}"/>"#
    );
    let mut drawn = vec![
        bar,
        label(event.side, begin, &format!("{} ...", event.call)),
    ];
    if event.end.is_some() {
        drawn.push(label(event.side, end, &outcome(event)));
    }
    drawn
}

/// Writes outside of a lane.
fn label(side: Side, y: f64, text: &str) -> String {
    let (x, anchor) = match side {
        Side::Client => (lane(side) - 9.0, "end"),
        Side::Server => (lane(side) + 9.0, "start"),
    };
    write(x, y + 4.0, anchor, text)
}

fn write(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = escaped(text);
    format!(r#"<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>"#)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// What a call that waited returned.
fn outcome(event: &Event) -> String {
    let took = event.end.map_or(0, |end| end - event.start) as f64 / 1e6;
    match event.outcome.as_str() {
        "" => format!("... {}", event.call),
        "EAGAIN" => format!("EAGAIN {took:.1} s"),
        error if event.has_failed() => error.to_owned(),
        count => format!("... = {count}"),
    }
}

/// A call that did not wait, with an argument if it teaches something. Bytes stand on the arrow.
fn call(event: &Event) -> String {
    let (call, argument) = (&event.call, &event.argument);
    let short = match call.as_str() {
        "sendto" | "write" | "recvfrom" => return format!("{call} = {}", event.outcome),
        "socket" | "shutdown" => argument.rsplit('_').next(),
        // Not the host: it is this one.
        "bind" | "connect" => argument.find(':').map(|colon| &argument[colon..]),
        _ => None,
    };
    format!("{call} {}", short.unwrap_or(argument))
        .trim_end()
        .to_owned()
}

fn draw_arrow(arrow: &Arrow, trace: &Trace, places: &[Place]) -> Vec<String> {
    let lane = |index: usize| lane(trace.0[index].side);
    let from = arrow.from.map(|index| (lane(index), places[index].begin));
    let to = arrow.to.map(|index| (lane(index), places[index].end));
    // What nobody took ends in the middle, below its begin. Two rows below its begin is the
    // error of the call that learns of it.
    let middle = |y: f64| (WIDTH / 2.0, y);
    let end = to.or(from.map(|(_, y)| middle(y + 0.5 * PITCH)));
    let begin = from.or(to.map(|(_, y)| middle(y - 1.5 * PITCH)));
    let (Some(begin), Some(end)) = (begin, end) else {
        return Vec::new();
    };
    let way = way(begin, end);
    let mark = if to.is_some() {
        draw_head(&way)
    } else {
        draw_cross(end)
    };
    let (x, y) = begin;
    let text = match &arrow.text {
        text if from.is_none() => write(x + 12.0, y + 4.0, "start", text),
        text if x < end.0 => write(x + 15.0, y - 4.0, "start", text),
        text => write(x - 15.0, y - 4.0, "end", text),
    };
    vec![draw_line(&way), mark, text]
}

/// The way of an arrow. What is taken much later waits in a queue beside the receiver's lane.
fn way(from: Point, to: Point) -> Vec<Point> {
    if to.1 - from.1 < 5.0 * PITCH {
        return vec![from, to];
    }
    let queue = to.0 + if from.0 < to.0 { -11.0 } else { 11.0 };
    let [arrival, departure] = [from.1 + PITCH / 2.0, to.1 - PITCH / 2.0];
    vec![from, (queue, arrival), (queue, departure), to]
}

fn draw_line(way: &[Point]) -> String {
    let points: Vec<String> = way.iter().map(|(x, y)| format!("{x} {y}")).collect();
    let line = points.join("L");
    format!(r#"<path d="M{line}" fill="none" stroke-width="1.5" style="stroke: {ACCENT}"/>"#)
}

/// Draws the head of an arrow: a triangle whose point touches the lane.
fn draw_head(way: &[Point]) -> String {
    let [.., (x1, y1), (x2, y2)] = *way else {
        return String::new();
    };
    let length = (x2 - x1).hypot(y2 - y1);
    let (dx, dy) = ((x2 - x1) / length, (y2 - y1) / length);
    let corner = |back: f64, aside: f64| {
        let (x, y) = (x2 - back * dx - aside * dy, y2 - back * dy + aside * dx);
        format!("{x:.1} {y:.1}")
    };
    let (point, left, right) = (corner(3.0, 0.0), corner(12.0, 4.0), corner(12.0, -4.0));
    format!(r#"<path d="M{point}L{left}L{right}Z" style="fill: {ACCENT}"/>"#)
}

/// Draws the end of what nobody took.
fn draw_cross((x, y): Point) -> String {
    let (left, right, top, bottom) = (x - 5.0, x + 5.0, y - 5.0, y + 5.0);
    format!(
        r#"<path d="M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}" stroke="currentColor" stroke-width="2"/>"#
    )
}
