//! Measures once more the servers that criterion has measured, but now they take turns. If the
//! machine is slow for a while, all servers are slow, and their ratios stay the same. Each server
//! is restarted for each of its turns.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use harness::measure::questions::{ALL, Asked, Question};
use harness::measure::servers::Peer;

/// The result of a server.
pub struct Standing {
    /// How long one repetition of the load takes, in nanoseconds.
    pub time: f64,
    /// Its rate divided by the rate of the server that the others are compared with.
    pub ratio: f64,
}

/// The results, by the names of the servers.
pub type Standings = BTreeMap<String, Standing>;

/// A question, and the results of its servers.
pub type Answer = (&'static Question, Standings);

/// Asks each question that criterion has asked since `begin`. This takes about `limit` for each
/// server, but at least three rounds.
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

/// Reads the medians that criterion has written to the folder of a group.
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

/// Asks one question. `times` says how long one repetition of the load takes, in nanoseconds.
fn ask_one(question: &Question, times: &BTreeMap<String, f64>, limit: Duration) -> Standings {
    /// How long a turn of a server takes, unless one repetition takes longer.
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
            // Restarted, because chance decides where a process has its memory.
            let asked = Asked::start(peer, question);
            asked.time(count(peer) as u64); // Not counted: some things are slow only once.
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

/// Returns the middle figure, or the upper one of two.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
