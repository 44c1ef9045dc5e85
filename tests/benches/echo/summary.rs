//! Writes the figures of the bench as a page with three pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use plotters::prelude::*;

use crate::growth::Point;
use crate::picture::{self, Bar, Panel};
use crate::turns::{Answer, Standings};

const OURS: [&str; 5] = [
    "udp-server",
    "batch",
    "tcp-server",
    "event_loop",
    "unix-echo",
];

/// The servers that the picture shows next to ours and the limit of the question. No question is
/// asked of both `tokio` and `tokio_32k`.
const OTHERS: [&str; 4] = ["tokio", "tokio_32k", "go", "python"];

/// The questions that the picture shows, two in each row, and their titles in it.
const PICTURED: [(&str, &str); 6] = [
    ("udp_stop_and_wait", "UDP, one datagram at a time"),
    ("tcp_one_connection", "TCP, one connection"),
    ("udp_128_on_their_way", "UDP, 128 datagrams on their way"),
    ("tcp_50_connections", "TCP, 50 connections"),
    ("unix_one_connection", "Unix stream, one connection"),
    ("tcp_connects", "TCP, a new connection for each echo"),
];

/// Writes the page and its pictures into a folder, if there are any figures.
pub fn write(folder: &Path, measured: &[Answer], growth: &[Point]) -> Result<(), Box<dyn Error>> {
    if measured.is_empty() && growth.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let mut page = format!(
        "# How the servers compare\n\nThe figures of one run on one machine: {}\n\n\
         ```console\n$ {}\n```\n",
        machine(),
        command()
    );
    if !measured.is_empty() {
        page += "\n## How fast the servers are\n\n";
        let panels = panels(measured);
        if !panels.is_empty() {
            writeln!(page, "![{}](speed.svg)\n", picture::TITLE)?;
            fs::write(folder.join("speed.svg"), picture::draw(&panels))?;
        }
        page += &ratios(measured)?;
    }
    if !growth.is_empty() {
        page += &growth_tables(growth)?;
        let rate = |point: &Point| point.messages_per_second;
        draw_growth(
            &folder.join("growth_rate.svg"),
            "messages a second",
            growth,
            rate,
        )?;
        let memory = |point: &Point| kib_for_each(point, growth);
        draw_growth(
            &folder.join("growth_memory.svg"),
            "KiB for each connection",
            growth,
            memory,
        )?;
    }
    fs::write(folder.join("README.md"), page)?;
    println!("\nThe summary is in {}", folder.join("README.md").display());
    Ok(())
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{}; {}, {} processors, {}; {}.",
        output("date", "+%F"),
        model.map_or("unknown processor", |(_, name)| name),
        std::thread::available_parallelism().map_or(0, usize::from),
        output("uname", "-sr"),
        output("rustc", "--version")
    )
}

fn output(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}

fn command() -> String {
    // cargo adds --bench itself.
    let options: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let dashes = if options.is_empty() { "" } else { " -- " };
    format!("cargo bench -p tests{dashes}{}", options.join(" "))
}

/// Returns the tables, with a row for each server and a column for each question. A figure is the
/// rate of the server divided by the rate of the limit.
fn ratios(measured: &[Answer]) -> Result<String, Box<dyn Error>> {
    let mut text = String::from(
        "Each column compares its servers with one of them, which has 1.00. A server with 2.00 is\n\
         twice as fast. A dash means that the server was not measured. The servers of a column\n\
         took turns, and each figure is a ratio of the medians of all rounds.\n",
    );
    for kind in ["tcp", "udp", "unix"] {
        let columns: Vec<_> = measured
            .iter()
            .filter(|(question, _)| question.name.starts_with(kind))
            .collect();
        if columns.is_empty() {
            continue;
        }
        writeln!(text)?;
        for (question, standings) in &columns {
            let limit = time(standings[question.limit].time);
            writeln!(
                text,
                "- `{}`: {}. 1.00 is {}, which takes {limit}.",
                question.name, question.title, question.limit
            )?;
        }
        let names: Vec<&str> = columns.iter().map(|(question, _)| question.name).collect();
        writeln!(
            text,
            "\n| | {} |\n|---|{}",
            names.join(" | "),
            "---|".repeat(names.len())
        )?;
        for server in servers(columns.iter().map(|(_, standings)| standings)) {
            let cells: Vec<String> = columns
                .iter()
                .map(|(_, standings)| {
                    let standing = standings.get(&server);
                    standing.map_or("–".into(), |standing| format!("{:.2}", standing.ratio))
                })
                .collect();
            writeln!(text, "| {server} | {} |", cells.join(" | "))?;
        }
    }
    Ok(text)
}

/// Returns the names of the servers: ours first, then the others, each group in alphabetical order.
fn servers<'a>(standings: impl Iterator<Item = &'a Standings>) -> Vec<String> {
    let mut names: Vec<String> = standings
        .flat_map(|standings| standings.keys().cloned())
        .collect();
    names.sort_by_key(|name| (!is_ours(name), name.clone()));
    names.dedup();
    names
}

fn is_ours(server: &str) -> bool {
    OURS.contains(&server)
}

/// Returns the panels of the picture for which there are figures.
fn panels(measured: &[Answer]) -> Vec<Panel> {
    let answer = |name| measured.iter().find(|(question, _)| question.name == name);
    let panels = PICTURED.iter().filter_map(|(name, title)| {
        let (question, standings) = answer(*name)?;
        let servers = OURS.iter().chain([&question.limit]).chain(&OTHERS);
        let bars = servers.filter_map(|server| {
            Some(Bar {
                name: in_words(server),
                ratio: standings.get(*server)?.ratio,
                is_ours: is_ours(server),
            })
        });
        Some(Panel {
            title,
            bars: bars.collect(),
        })
    });
    panels.collect()
}

/// Returns a name of the server for readers who have not seen its source.
fn in_words(server: &'static str) -> &'static str {
    match server {
        "c_loop" => "C loop",
        "c_segment" => "C batch",
        "epoll" => "epoll loop",
        "plain" => "Rust loop",
        "tokio_32k" => "tokio",
        "go" => "Go",
        "python" => "Python",
        other => other,
    }
}

/// Formats a time, which criterion measures in nanoseconds.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e6 => format!("{:.1} µs", nanoseconds / 1e3),
        ..1e9 => format!("{:.1} ms", nanoseconds / 1e6),
        _ => format!("{:.2} s", nanoseconds / 1e9),
    }
}

fn growth_tables(growth: &[Point]) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("\n## How the cost grows\n\n");
    text += "Messages of 512 bytes per second, on all connections together:\n\n";
    text += &growth_table(growth, |point| {
        Some(format!("{:.0}", point.messages_per_second?))
    })?;
    text += "\n![rate](growth_rate.svg)\n\n";
    text += "Resident memory that each idle connection adds to the server's process, ";
    text += "in KiB:\n\n";
    text += &growth_table(growth, |point| {
        Some(format!("{:.2}", kib_for_each(point, growth)?))
    })?;
    text += "\n![memory](growth_memory.svg)\n";
    Ok(text)
}

/// Returns a table with a row for each number of connections and a column for each server, if
/// there are figures for them.
fn growth_table(
    growth: &[Point],
    figure: impl Fn(&Point) -> Option<String>,
) -> Result<String, Box<dyn Error>> {
    let figures: BTreeMap<(usize, &str), String> = growth
        .iter()
        .filter_map(|point| Some(((point.connections, point.server), figure(point)?)))
        .collect();
    let names = names(growth, &figure);
    let sizes: BTreeSet<usize> = figures
        .keys()
        .map(|(connections, _)| *connections)
        .collect();

    let mut text = format!(
        "| connections | {} |\n|--:|{}\n",
        names.join(" | "),
        "--:|".repeat(names.len())
    );
    for connections in sizes {
        let figure_of =
            |name: &&'static str| figures.get(&(connections, *name)).map(String::as_str);
        let cells: Vec<&str> = names
            .iter()
            .map(|name| figure_of(name).unwrap_or("–"))
            .collect();
        writeln!(text, "| {connections} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

/// Returns the servers that have figures, in the order in which they were measured.
fn names<F>(growth: &[Point], figure: impl Fn(&Point) -> Option<F>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for point in growth {
        if figure(point).is_some() && !names.contains(&point.server) {
            names.push(point.server);
        }
    }
    names
}

/// Returns how much memory each connection after the first has added to the server.
fn kib_for_each(point: &Point, growth: &[Point]) -> Option<f64> {
    let of_one = growth
        .iter()
        .find(|one| one.server == point.server && one.connections == 1)?;
    let added = point.memory_kib.saturating_sub(of_one.memory_kib);
    // With fewer connections, the memory that they share hides what each of them costs.
    (point.connections >= 100).then(|| added as f64 / (point.connections - 1) as f64)
}

fn colour(number: usize) -> PaletteColor<Palette99> {
    Palette99::pick(number)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws a key next to the chart, which says what each colour means.
fn draw_key(area: &Area, left: i32, names: &[&str]) -> Result<(), Box<dyn Error>> {
    for (number, name) in names.iter().enumerate() {
        let y = 20 + 20 * number as i32;
        area.draw(&Circle::new((left, y), 5, colour(number).filled()))?;
        area.draw(&Text::new(
            name.to_string(),
            (left + 12, y - 6),
            ("sans-serif", 13),
        ))?;
    }
    Ok(())
}

/// Draws a line for each server, over the number of connections.
fn draw_growth(
    path: &Path,
    title: &str,
    growth: &[Point],
    figure: impl Fn(&Point) -> Option<f64>,
) -> Result<(), Box<dyn Error>> {
    let most = growth.iter().filter_map(&figure).fold(1.0, f64::max);
    let names = names(growth, &figure);
    let area = SVGBackend::new(path, (800, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    draw_key(&area, 690, &names)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .margin_right(120)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d((1.0..10_000.0).log_scale(), 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("connections")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    for (number, name) in names.iter().enumerate() {
        let line = growth
            .iter()
            .filter(|point| point.server == *name)
            .filter_map(|point| Some((point.connections as f64, figure(point)?)));
        chart.draw_series(LineSeries::new(line, colour(number).stroke_width(2)).point_size(4))?;
    }
    area.present()?;
    Ok(())
}
