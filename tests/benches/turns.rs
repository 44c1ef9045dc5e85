//! Asks the servers that criterion has measured once more, now in turn: what slows the machine for a while
//! slows all of them, and their ratios stay. Each is started anew for each of its turns.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use harness::questions::{ALL, Asked, Question};
use harness::servers::Peer;

/// How a server stands.
pub struct Standing {
    /// What one of the load takes, in nanoseconds.
    pub time: f64,
    /// Its rate beside that of the server that the others are measured by.
    pub ratio: f64,
}

/// By the name of a server.
pub type Standings = BTreeMap<String, Standing>;

/// A question, and how the servers stand.
pub type Answer = (&'static Question, Standings);

/// Asks each question that criterion has measured since `begin`, for so long for each server (and for three
/// rounds at least).
pub fn ask(criterion: &Path, begin: SystemTime, limit: Duration) -> Vec<Answer> {
    let times = ALL
        .iter()
        .map(|question| (question, times(&criterion.join(question.name), begin)));
    times
        .filter(|(question, times)| times.contains_key(question.limit))
        .map(|(question, times)| {
            println!("in turn: {}", question.name);
            (question, ask_one(question, &times, limit))
        })
        .collect()
}

/// The medians that criterion has left in a group's folder.
fn times(group: &Path, begin: SystemTime) -> BTreeMap<String, f64> {
    let fresh = |estimates: &PathBuf| {
        fs::metadata(estimates)
            .and_then(|file| file.modified())
            .is_ok_and(|time| time >= begin)
    };
    let mut times = BTreeMap::new();
    for server in fs::read_dir(group).into_iter().flatten().flatten() {
        let estimates = server.path().join("new/estimates.json");
        if fresh(&estimates) {
            let estimates: serde_json::Value =
                serde_json::from_slice(&fs::read(&estimates).unwrap()).unwrap();
            let median = estimates["median"]["point_estimate"].as_f64().unwrap();
            times.insert(server.file_name().into_string().unwrap(), median);
        }
    }
    times
}

/// `times` are what one of the load takes, in nanoseconds.
fn ask_one(question: &Question, times: &BTreeMap<String, f64>, limit: Duration) -> Standings {
    /// How long one server is asked in each round, where one of the load is not longer.
    const TURN: Duration = Duration::from_millis(20);
    const ROUNDS: RangeInclusive<usize> = 3..=63;

    let count = |peer: &Peer| (TURN.as_nanos() as f64 / times[peer.name]).ceil();
    let mut peers: Vec<&Peer> = question
        .peers
        .iter()
        .filter(|peer| times.contains_key(peer.name))
        .collect();
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let begin = Instant::now();
    for round in 1..=*ROUNDS.end() {
        // No server always comes after the same one.
        fastrand::shuffle(&mut peers);
        for peer in &peers {
            // Started anew: where its memory lies is luck, and lasts as long as the process.
            let asked = Asked::start(peer, question);
            asked.time(count(peer) as u64); // Not counted: whatever is slow only once.
            let time = asked.time(count(peer) as u64);
            found
                .entry(peer.name)
                .or_default()
                .push(time.as_nanos() as f64 / count(peer));
        }
        if round >= *ROUNDS.start() && begin.elapsed() > limit * peers.len() as u32 {
            break;
        }
    }
    let medians: BTreeMap<&str, f64> = found
        .into_iter()
        .map(|(name, times)| (name, median(times)))
        .collect();
    let of_limit = medians[question.limit];
    let standing = |time| Standing {
        time,
        ratio: of_limit / time,
    };
    medians
        .into_iter()
        .map(|(name, time)| (name.to_owned(), standing(time)))
        .collect()
}

/// The middle one, or of two the upper.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
