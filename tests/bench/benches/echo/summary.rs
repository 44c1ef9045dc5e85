//! Writes the figures of the bench as a page with three pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use bench::picture::{self, Bar, Head, Panel};
use bench::questions::Question;
use bench::servers::{Peer, TCP, UDP, UNIX_STREAM, named};

use crate::costs::{self, Costs};
use crate::growth::Growth;

/// A question, and how many seconds one repetition takes each server, among them its limit.
pub type Answer = (&'static Question, BTreeMap<&'static str, f64>);

/// The servers that the picture shows beside ours and the limit of the question. No question is
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

const SPEED: Head = Head {
    title: "How fast our servers echo, beside others",
    key: "Longer is faster. 1.00 is a bare loop around the system calls, in C or Rust.",
    decimals: 2,
};
const RATE: Head = Head {
    title: "Messages a second of our servers, beside others",
    key: "Each bar is a number of connections. Longer is faster.",
    decimals: 0,
};
const MEMORY: Head = Head {
    title: "KiB for each connection of our servers, beside others",
    key: "Each bar is a number of connections. Shorter is less memory.",
    decimals: 2,
};

const RATIOS: &str = "\
Each column compares its servers with one of them, which has 1.00. A server with 2.00 is
twice as fast. A dash means that the server was not measured. The servers of a column
took turns, and each figure is a ratio of the medians of all turns.
";

/// Writes the page and its pictures into a folder.
pub fn write(
    folder: &Path,
    answers: &[Answer],
    costs: &[(costs::Question, Vec<Costs>)],
    growth: &[Growth],
) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut page = format!(
        "# How the servers compare\n\nThe figures of one run on one machine: {}\n\n\
         ```console\n$ {}\n```\n",
        machine(),
        command()
    );
    if !answers.is_empty() {
        page += "\n## How fast the servers are\n\n";
        let panels = panels(answers);
        if !panels.is_empty() {
            writeln!(page, "![{}](speed.svg)\n", SPEED.title)?;
            fs::write(folder.join("speed.svg"), picture::draw(&SPEED, &panels))?;
        }
        page += RATIOS;
        // Each server of Unix datagrams is one of Unix streams too.
        for (kind, peers) in [("tcp", &TCP[..]), ("udp", &UDP), ("unix", &UNIX_STREAM)] {
            page += &anchored(kind, &ratios(answers, kind, peers));
        }
        page += &unix_and_tcp(answers);
    }
    for (question, costs) in costs {
        if costs.is_empty() {
            continue;
        }
        page += &format!(
            "\n## {} (`{}`)\n\n{}",
            question.title, question.name, question.text
        );
        let mut columns = question.figures.to_vec();
        let memory = |server| {
            let growth = growth.iter().find(|growth| growth.server == server)?;
            growth.kib_for_each.get(&1000).copied()
        };
        let has_memory = costs.iter().any(|(server, _)| memory(*server).is_some());
        if has_memory {
            columns.push("KiB a connection");
        }
        let row = |(server, figures): &Costs| {
            let mut row: Vec<_> = figures.iter().copied().map(Some).collect();
            row.extend(has_memory.then(|| memory(*server)));
            (*server, row)
        };
        let table = table("", &columns, costs.iter().map(row), 1);
        page += &anchored(question.name, &table);
    }
    if !growth.is_empty() {
        page += "\n## How the cost grows\n\n";
        page += &format!("![{}](growth_rate.svg)\n\n", RATE.title);
        page += "Messages of 512 bytes per second, on all connections together:\n";
        let rates = growth.iter().map(|growth| (growth.server, &growth.rates));
        let rates = growing(folder, "growth_rate.svg", &RATE, rates)?;
        page += &anchored("growth_rate", &rates);
        page += &format!("\n![{}](growth_memory.svg)\n\n", MEMORY.title);
        page += "Resident memory that each idle connection adds to the server's process, in KiB:\n";
        let memory = growth.iter();
        let memory = memory.map(|growth| (growth.server, &growth.kib_for_each));
        let memory = growing(folder, "growth_memory.svg", &MEMORY, memory)?;
        page += &anchored("growth_memory", &memory);
    }
    fs::write(folder.join("README.md"), page)?;
    println!("\nThe summary is in {}", folder.join("README.md").display());
    Ok(())
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = cpus.lines();
    let model = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
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
    format!("cargo bench -p bench{dashes}{}", options.join(" "))
}

/// Formats a time in seconds.
pub fn time(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{:.1} µs", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// Returns a table. A figure that is `None` is a dash.
fn table(
    corner: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (&'static str, Vec<Option<f64>>)>,
    decimals: usize,
) -> String {
    let rule = "--:|".repeat(columns.len());
    let mut text = format!("\n| {corner} | {} |\n|---|{rule}\n", columns.join(" | "));
    for (name, figures) in rows {
        text += &format!("| {name} |");
        for figure in figures {
            text += &figure.map_or(" – |".into(), |figure| format!(" {figure:.decimals$} |"));
        }
        text += "\n";
    }
    text
}

/// Returns a table with a row for each server and a column for each question of this kind.
fn ratios(answers: &[Answer], kind: &str, peers: &[Peer]) -> String {
    let is_of_kind = |answer: &&Answer| answer.0.name.starts_with(kind);
    let columns: Vec<&Answer> = answers.iter().filter(is_of_kind).collect();
    if columns.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n");
    for (question, times) in &columns {
        let (name, title, limit) = (question.name, question.title, question.limit);
        let takes = time(times[limit]);
        text += &format!("- `{name}`: {title}. 1.00 is {limit}, which takes {takes}.\n");
    }
    let rows = peers.iter().map(|peer| {
        let ratios = columns.iter().map(|answer| ratio(answer, peer.name));
        (peer.name, ratios.collect::<Vec<_>>())
    });
    let rows = rows.filter(|(_, ratios)| ratios.iter().any(Option::is_some));
    let names: Vec<&str> = columns.iter().map(|(question, _)| question.name).collect();
    text + &table("", &names, rows, 2)
}

/// Marks a part of the page, so that the book can include it.
fn anchored(name: &str, part: &str) -> String {
    match part {
        "" => String::new(),
        _ => format!("\n<!-- ANCHOR: {name} -->{part}<!-- ANCHOR_END: {name} -->\n"),
    }
}

/// Compares TCP on one machine with Unix sockets, by the simplest server. Both have the same load.
fn unix_and_tcp(answers: &[Answer]) -> String {
    let time = |question: &str| {
        let answer = answers.iter().find(|answer| answer.0.name == question)?;
        answer.1.get("plain").copied()
    };
    let pairs = [
        (
            "an echo of 512 bytes",
            "tcp_one_connection",
            "unix_one_connection",
        ),
        ("a stream of 16 MiB", "tcp_bulk", "unix_bulk"),
    ];
    let rows = pairs.iter().filter_map(|(title, tcp, unix)| {
        let (tcp, unix) = (time(tcp)?, time(unix)?);
        Some((
            *title,
            vec![Some(tcp * 1e6), Some(unix * 1e6), Some(tcp / unix)],
        ))
    });
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let columns = ["TCP, µs", "Unix stream, µs", "times as fast"];
    anchored("unix_and_tcp", &table("plain", &columns, rows, 1))
}

/// Returns the rate of the server divided by the rate of the limit.
fn ratio((question, times): &Answer, server: &str) -> Option<f64> {
    Some(times[question.limit] / times.get(server)?)
}

/// Returns the panels of the picture for which there are figures.
fn panels(answers: &[Answer]) -> Vec<Panel> {
    let panels = PICTURED.iter().filter_map(|(name, title)| {
        let mut answers = answers.iter();
        let answer = answers.find(|answer| answer.0.name == *name)?;
        let limit = answer.0.limit;
        let bars = answer.0.peers.iter().filter_map(|peer| {
            let is_shown = peer.is_ours() || peer.name == limit || OTHERS.contains(&peer.name);
            is_shown.then_some(Bar {
                name: in_words(peer.name).to_owned(),
                figure: ratio(answer, peer.name)?,
                is_ours: peer.is_ours(),
            })
        });
        Some(Panel {
            title: title.to_string(),
            bars: bars.collect(),
        })
    });
    panels.collect()
}

/// Returns a name of the server for readers who have not seen its source.
fn in_words(server: &'static str) -> &'static str {
    match server {
        "c_loop" => "C loop",
        "c_gro" => "C batch",
        "epoll" => "epoll loop",
        "plain" => "Rust loop",
        "tokio_32k" => "tokio",
        "go" => "Go",
        "python" => "Python",
        other => other,
    }
}

/// Draws a panel for each server and in it a bar for each number of connections. Returns a table.
fn growing<'a>(
    folder: &Path,
    file: &str,
    head: &Head,
    servers: impl Iterator<Item = (&'static str, &'a BTreeMap<usize, f64>)>,
) -> anyhow::Result<String> {
    let servers: Vec<_> = servers.filter(|(_, figures)| !figures.is_empty()).collect();
    let panels = servers.iter().map(|(server, figures)| {
        let is_ours = named(&TCP, server).is_ours();
        let bars = figures.iter().map(|(size, figure)| Bar {
            name: size.to_string(),
            figure: *figure,
            is_ours,
        });
        Panel {
            title: server.to_string(),
            bars: bars.collect(),
        }
    });
    let panels: Vec<Panel> = panels.collect();
    fs::write(folder.join(file), picture::draw(head, &panels))?;
    let sizes = servers.iter().flat_map(|(_, figures)| figures.keys());
    let sizes: BTreeSet<&usize> = sizes.collect();
    let columns: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows = servers.iter().map(|(server, figures)| {
        let row = sizes.iter().map(|size| figures.get(size).copied());
        (*server, row.collect())
    });
    Ok(table("connections:", &columns, rows, head.decimals))
}
