//! The tests need no more descriptors than an ordinary user has.

use std::env;
use std::process::Command;

use harness::{limited, run};

/// Runs the tests of a thousand clients in a process of their own, under a limit of descriptors.
/// Returns what they say on stderr.
fn a_thousand_clients_under(limit: &str) -> String {
    let folder = harness::folder();
    let tests = Command::new(env::current_exe().unwrap());
    let mut tests = limited(&format!("--nofile={limit}"), &tests);
    tests.args(["a_thousand_clients_fit", "an_idle_connection_costs"]);
    let finished = run(tests.env("NOT_RUN", folder.path().join("list")), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stderr
}

#[test]
fn where_a_thousand_clients_are_too_many_their_tests_say_that_they_did_not_run() {
    let said = a_thousand_clients_under("1024:1024");
    assert_eq!(said.matches("NOT RUN").count(), 3, "{said}");
    assert!(said.contains("the limit is 1024"), "{said}");
}

#[test]
fn the_soft_limit_is_raised_and_what_is_too_little_for_all_at_once_is_shared() {
    if harness::descriptors(1100).is_none() {
        return;
    }
    assert_eq!(a_thousand_clients_under("256:1800"), "");
}
