//! The end of `cargo test`: prints which tests did not run here, or not all of them, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

fn main() {
    // Tools that ask for the names of the tests find none here.
    if env::args().any(|arg| arg == "--list") {
        return;
    }
    let path = harness::not_run_list();
    let list = fs::read_to_string(&path).unwrap_or_default();
    if env::var_os("NOT_RUN").is_none() {
        let _ = fs::remove_file(path);
    }
    let mut tests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (test, why) in list.lines().filter_map(|line| line.split_once(": ")) {
        tests.entry(why).or_default().insert(test);
    }
    if tests.is_empty() {
        return println!("\nEvery test could run here.");
    }
    let count: BTreeSet<&str> = tests.values().flatten().copied().collect();
    println!(
        "\nTests that did NOT RUN here, or not all of them: {}",
        count.len()
    );
    for (why, tests) in tests {
        println!("\n- {why}");
        for test in tests {
            println!("    {test}");
        }
    }
}
