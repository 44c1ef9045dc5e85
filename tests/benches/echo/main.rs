//! Compares how fast echo servers are: ours, the simplest that std and C allow, and those that
//! other people write. A group of criterion is a question, and a function in it is a server.
//!
//! ```console
//! $ cargo bench -p tests                        # all; about twelve minutes
//! $ cargo bench -p tests -- --quick             # less exact; about three minutes
//! $ cargo bench -p tests -- tcp_bulk            # one question
//! $ cargo bench -p tests -- /tcp-server         # one server
//! $ cargo bench -p tests -- growth              # from one connection to 9000
//! ```
//!
//! At the end it writes a summary to `target/summary/README.md`. criterion's own report is
//! `target/criterion/report/index.html`. Client and server share the processors of one machine,
//! without a network between them. Compare only figures of the same run.

#[cfg(target_os = "linux")]
mod growth;
#[cfg(target_os = "linux")]
mod measured;
#[cfg(target_os = "linux")]
mod picture;
#[cfg(target_os = "linux")]
mod summary;
#[cfg(target_os = "linux")]
mod turns;

#[cfg(target_os = "linux")]
fn main() {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    let begin = SystemTime::now();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut criterion = criterion::Criterion::default()
        .output_directory(&target.join("criterion"))
        .sample_size(10) // The fewest that criterion allows: some loads take seconds.
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .nresamples(10_000);
    let has_option = |option: &str| std::env::args().any(|arg| arg == option);
    // With this option criterion measures until two samples agree or the time is over. It draws
    // nothing, because drawing would take longer.
    if has_option("--quick") {
        criterion = criterion
            .warm_up_time(Duration::from_millis(50))
            .measurement_time(Duration::from_millis(200))
            .without_plots();
    }
    let mut criterion = criterion.configure_from_args();
    measured::ask(&mut criterion);
    criterion.final_summary();

    if has_option("--list") {
        return;
    }
    let limit = Duration::from_millis(if has_option("--quick") { 100 } else { 2500 });
    let answers = turns::ask(&target.join("criterion"), begin, limit);

    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let growth = match filter {
        Some(filter) if filter != "growth" => Vec::new(),
        _ if has_option("--test") => growth::measure(&[1, 10], 1),
        _ if has_option("--quick") => growth::measure(&growth::SIZES, 1),
        _ => growth::measure(&growth::SIZES, 7),
    };
    if !has_option("--test") {
        summary::write(&target.join("summary"), &answers, &growth).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
