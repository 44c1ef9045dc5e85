//! Asks each of our programs for what all programs of its kind promise. A trial is called
//! `KIND::PROMISE::PROGRAM`, as in `stream_server::the_third_of_two_waits_and_is_then_served::tcp_server`.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use libtest_mimic::{Arguments, Failed, Trial};
use promises::Broken;

/// Asks in a thread with the name of the trial, which `not_run` and a panic tell. A broken promise is told
/// at once as well, and not only at the end.
fn ask(trial: promises::Trial) -> Result<(), Failed> {
    let name = trial.name.clone();
    let asking = thread::Builder::new().name(name.clone());
    let kept = asking.spawn(move || match trial.ask() {
        Err(Broken::NotAsked(why)) => {
            harness::not_run(&why);
            Ok(())
        }
        kept => kept,
    });
    match kept?.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(broken)) => {
            let line = format!("promise '{name}' is broken:\n{broken}\n");
            let _ = io::stderr().write_all(line.as_bytes()); // At once, so that no other comes between.
            Err(broken.to_string().into())
        }
        Err(_) => Err("it panicked".into()),
    }
}

fn main() -> ExitCode {
    // libtest-mimic takes one filter, and cargo test any number. It does not know the variable.
    let (mut args, mut filters) = (Vec::new(), Vec::new());
    let mut is_value = true; // The first is the name of this program.
    for arg in env::args() {
        let takes_value = [
            "--skip",
            "--test-threads",
            "--color",
            "--format",
            "--logfile",
            "-Z",
        ];
        let next_is_value = takes_value.contains(&&*arg);
        match arg.starts_with('-') || is_value {
            true => args.push(arg),
            false => filters.push(arg),
        }
        is_value = next_is_value;
    }
    let mut arguments = Arguments::from_iter(args);
    let threads = env::var("RUST_TEST_THREADS").ok();
    let threads = threads.and_then(|threads| threads.parse().ok());
    arguments.test_threads = arguments.test_threads.or(threads);
    let is_asked = |trial: &promises::Trial| match arguments.exact {
        true => filters.contains(&trial.name),
        false => filters.iter().any(|filter| trial.name.contains(filter)),
    };
    let trials = promises::trials().into_iter();
    let asked = trials.filter(|trial| filters.is_empty() || is_asked(trial));
    let asked = asked.map(|trial| Trial::test(trial.name.clone(), move || ask(trial)));
    libtest_mimic::run(&arguments, asked.collect()).exit_code()
}
