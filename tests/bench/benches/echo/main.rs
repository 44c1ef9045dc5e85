//! Compares how fast echo servers are: ours, the simplest that std and C allow, and those that
//! other people write.
//!
//! ```console
//! $ cargo bench -p bench                        # all; about ten minutes
//! $ cargo bench -p bench -- --quick             # less exact; about two minutes
//! $ cargo bench -p bench -- --list              # what can be asked, as QUESTION/SERVER
//! $ cargo bench -p bench -- tcp_bulk            # one question
//! $ cargo bench -p bench -- /tcp-server         # one server
//! $ cargo bench -p bench -- growth              # from one connection to 9000
//! ```
//!
//! It prints each figure when it is measured, and writes a summary to `target/summary/README.md`.
//! Client and server share the processors of one machine, without a network between them. Compare
//! only figures of the same run.
//!
//! Two files tell how a figure came about. One says what was measured and how: `questions.rs` in
//! `tests/bench/src` for the ratios, `costs.rs` for latency and CPU time, `growth.rs` for the
//! number of connections. The other, `loads.rs` in `tests/bench/src`, says what the client did.

#[cfg(target_os = "linux")]
mod costs;
#[cfg(target_os = "linux")]
mod growth;
#[cfg(target_os = "linux")]
mod summary;

/// Compares how fast echo servers are
#[cfg(target_os = "linux")]
#[derive(clap::Parser)]
struct Args {
    /// Measure less exactly, in about two minutes
    #[arg(long)]
    quick: bool,
    /// Ask each question once, to see that the bench works, and write no summary
    #[arg(long)]
    test: bool,
    /// Print what can be asked, and measure nothing
    #[arg(long)]
    list: bool,
    /// `cargo bench` adds this, and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
    /// Ask only what contains this, as in tcp_bulk, /tcp-server or growth
    #[arg(default_value = "")]
    filter: String,
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use anyhow::Context;
    use bench::questions::{ALL, BURST, Effort};
    use bench::servers::Peer;
    use clap::Parser;
    use harness::not_run;
    use std::path::Path;
    use std::time::Duration;

    const FULL: Effort = Effort {
        turn: Duration::from_millis(20),
        turns: 3,
        time: Duration::from_millis(2500),
        messages: 20_000,
        sizes: &[1, 10, 100, 1000, 9000],
    };
    const QUICK: Effort = Effort {
        turns: 1,
        time: Duration::from_millis(300),
        messages: 10_000,
        ..FULL
    };
    const TEST: Effort = Effort {
        turn: Duration::ZERO,
        turns: 1,
        time: Duration::ZERO,
        messages: 200,
        sizes: &[1, 10],
    };
    let args = Args::parse();
    let is_test = args.test || !args.bench;
    let effort = match (is_test, args.quick) {
        (true, _) => TEST,
        (_, true) => QUICK,
        _ => FULL,
    };
    let descriptors = harness::descriptors(BURST as u64 + 100);
    descriptors.with_context(|| format!("cannot open {BURST} connections: raise ulimit -n"))?;

    // The servers to ask, with the one that they are compared with, if any of them is asked for.
    let asked = |question: &str, limit: &str, peers: Vec<&'static Peer>| {
        let name = |peer: &Peer| format!("{question}/{}", peer.name);
        let is_wanted = |peer: &&&Peer| name(peer).contains(&args.filter);
        if args.list {
            peers
                .iter()
                .filter(is_wanted)
                .for_each(|peer| println!("{}", name(peer)));
            return Vec::new();
        }
        let any = peers.iter().any(|peer| is_wanted(&peer));
        let with_limit = |peer: &&&Peer| is_wanted(peer) || (any && peer.name == limit);
        let peers = peers.iter().filter(with_limit).copied();
        peers.filter(|peer| peer.is_available()).collect()
    };

    let mut answers = Vec::new();
    for question in &ALL {
        let (name, limit) = (question.name, question.limit);
        let peers = asked(name, limit, question.asked_peers());
        if !peers.iter().any(|peer| peer.name == limit) {
            continue; // There is nothing to compare.
        }
        for (server, why) in question.without {
            not_run(&format!("{server} is left out of {name}: {why}"));
        }
        let times = question.ask(&peers, &effort);
        for peer in peers {
            let time = times[peer.name];
            let (server, ratio, time) = (peer.name, times[limit] / time, summary::time(time));
            println!("{name}/{server}: {time}, ratio {ratio:.2}");
        }
        answers.push((question, times));
    }
    let costs = costs::ALL.map(|question| {
        let peers = asked(question.name, "", question.asked_peers());
        (question, question.ask(&peers, &effort))
    });
    let peers = asked(growth::NAME, "", growth::peers());
    let growth = growth::measure(&peers, &effort);
    if is_test || args.list {
        return Ok(());
    }
    let any = !answers.is_empty() || !growth.is_empty() || costs.iter().any(|(_, c)| !c.is_empty());
    anyhow::ensure!(any, "nothing is called {}: see --list", args.filter);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let folder = target.context("no target folder")?.join("summary");
    summary::write(&folder, &answers, &costs, &growth)
}

#[cfg(not(target_os = "linux"))]
fn main() {}
