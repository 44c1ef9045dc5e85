//! Asks the questions with criterion: a group for each question, and in it a function for each
//! server.

use std::cell::LazyCell;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use harness::measure::questions::{ALL, Asked, BURST, Question, Unit};
use harness::measure::servers::Peer;
use harness::{allow_descriptors, not_run};

/// Asks all questions. For each question, it asks one server after the other.
pub fn ask(criterion: &mut Criterion) {
    assert!(
        allow_descriptors(BURST as u64 + 100).is_some(),
        "cannot open {BURST} connections: raise ulimit -n"
    );
    for question in &ALL {
        println!("\n{}: {}", question.name, question.title);
        let mut group = criterion.benchmark_group(question.name);
        group.throughput(match question.unit {
            Unit::Elements(count) => Throughput::Elements(count),
            Unit::Bytes(count) => Throughput::Bytes(count),
        });
        for peer in question.peers {
            match question.without.iter().find(|(name, _)| *name == peer.name) {
                Some((name, why)) => {
                    not_run(&format!("{name} is left out of {}: {why}", question.name))
                }
                None if peer.is_installed() => measure(&mut group, question, peer),
                None => {}
            }
        }
    }
}

fn measure(group: &mut BenchmarkGroup<WallTime>, question: &Question, peer: &Peer) {
    // Starts the server only when it is needed, because the command line may leave it out.
    let asked = LazyCell::new(|| Asked::start(peer, question));
    group.bench_function(peer.name, |bencher| {
        bencher.iter_custom(|count| asked.time(count))
    });
}
