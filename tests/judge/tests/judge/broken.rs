//! Each program in `tests/peers/broken` has one mistake. The judge must notice it, and blame nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use crate::{judge, python, which_are};

/// A program with a mistake.
struct Case {
    name: &'static str,
    /// The options of the judge, so that it asks only what matters here.
    options: &'static [&'static str],
    /// The promises that it breaks, in the order in which they are asked.
    breaks: &'static [&'static str],
}

/// Makes a test of each program.
macro_rules! cases {
    ($($name:ident $options:tt $breaks:tt)*) => {
        const CASES: &[Case] = &[
            $(Case { name: stringify!($name), options: &$options, breaks: &$breaks },)*
        ];

        $(#[test]
        fn $name() {
            breaks_just_that(stringify!($name));
        })*
    };
}

cases! {
    udp_server_answers_something_else []
        ["what is sent comes back"]
    // The sizes that are sent over IPv6 have the same fault.
    udp_server_has_a_short_buffer ["--stage=2"]
        ["a datagram of any size comes back whole", "ipv6 works up to its longer limit"]
    // So it is here.
    udp_server_ends_at_an_empty_datagram ["--stage=2"]
        ["a datagram of any size comes back whole", "ipv6 works up to its longer limit"]
    udp_server_echoes_text ["--stage=4"]
        ["each value of a byte comes back"]
    udp_server_thinks_of_ipv4_alone ["--stage=4"]
        ["ipv6 works up to its longer limit"]
    udp_server_answers_only_the_newest ["--stage=4"]
        ["each of a hundred peers gets its own"]
    udp_server_answers_its_own_port_number ["--stage=4"]
        ["a datagram from our own port number is not answered"]
    udp_server_answers_services ["--stage=4"]
        ["a datagram from a port of the system is not answered"]
    udp_server_ends_at_an_error ["--stage=4"]
        ["a forged sender does not end it"]
    udp_server_asks_again_and_again ["--only=it"]
        ["while nothing happens it costs no processor time"]
    udp_server_remembers_every_peer []
        ["peers that have gone leave nothing behind"]
    udp_server_ends_when_interrupted []
        ["what came while it was suspended comes back"]
    udp_server_prints_each_datagram ["--only=it"]
        ["it serves on when nobody reads its output any more"]
    udp_server_must_print_where_it_listens ["--only=it"]
        ["it serves when nobody reads even where it listens"]
    unix_datagram_ends_at_an_error ["--stage=4"]
        ["a peer that has gone harms nobody"]

    tcp_server_echoes_text ["--stage=4"]
        ["who half closes gets everything back and then the end"]
    // Whoever sends more than once, or more than comes at once, notices it.
    tcp_server_echoes_once ["--stage=4"]
        [
            "who half closes gets everything back and then the end",
            "small writes are echoed without waiting for acknowledgements",
            "who does not read makes nobody wait",
            "who drips makes nobody wait",
            "who sends all before reading is stuck until it reads",
            "who half closes and reads late still gets everything",
            "clients that reset or leave harm nobody",
        ]
    // Whoever waits for the end notices it.
    tcp_server_never_closes ["--stage=4"]
        [
            "who half closes gets everything back and then the end",
            "who sends all before reading is stuck until it reads",
            "who half closes and reads late still gets everything",
        ]
    // So it is here.
    tcp_server_resets_at_the_end ["--stage=4"]
        [
            "who half closes gets everything back and then the end",
            "who sends all before reading is stuck until it reads",
            "who half closes and reads late still gets everything",
        ]
    tcp_server_waits_for_acknowledgements ["--stage=2"]
        ["small writes are echoed without waiting for acknowledgements"]
    tcp_server_knows_ipv4_alone ["--stage=2"]
        ["ipv6 is served as well"]
    // More than a hundred clients come for each of these.
    tcp_server_accepts_fifty_times ["--stage=4"]
        [
            "clients come one after the other",
            "a hundred clients at once are each served",
            "clients that reset or leave harm nobody",
        ]
    tcp_server_serves_fifty_at_once ["--stage=4"]
        ["a hundred clients at once are each served"]
    // Each of these has a client that does not end.
    tcp_server_serves_one_at_a_time ["--stage=4"]
        [
            "a hundred clients at once are each served",
            "who is silent makes nobody wait",
            "who does not read makes nobody wait",
            "who drips makes nobody wait",
            // While one client stays, those that have left fill the backlog.
            "clients that reset or leave harm nobody",
        ]
    tcp_server_waits_for_the_first_byte ["--stage=4"]
        ["who is silent makes nobody wait"]
    tcp_server_writes_under_a_lock ["--stage=4"]
        ["who does not read makes nobody wait"]
    unix_server_waits_for_whole_messages ["--stage=4"]
        ["who drips makes nobody wait"]
    unix_server_ends_after_eight_mebibytes ["--stage=4"]
        ["who sends all before reading is stuck until it reads"]
    // Each other promise with a client that does not read is broken as well.
    tcp_server_keeps_what_is_not_read ["--only=who does not read"]
        ["who does not read makes nobody wait"]
    tcp_server_ends_at_an_error ["--stage=4"]
        ["clients that reset or leave harm nobody"]
    // It spins as well while a client waits.
    tcp_server_asks_again_and_again ["--only=processor"]
        [
            "while nothing happens it costs no processor time",
            "who waits or does not read costs no processor time",
        ]
    tcp_server_spins_while_it_cannot_write ["--only=processor"]
        ["who waits or does not read costs no processor time"]
    tcp_server_ignores_its_limit ["--limit=--most N", "--only=wait"]
        ["the third of two waits and is then served"]
    tcp_server_spins_without_descriptors ["--only=wait"]
        ["out of descriptors it waits and then serves again"]
    tcp_server_remembers_every_client ["--only=clients"]
        ["clients that have gone leave nothing behind"]
    // On a busy machine it may not have accepted the client that another promise has.
    tcp_server_ends_when_interrupted ["--only=what came"]
        ["what came while it was suspended comes back"]
    tcp_server_ends_a_connection_when_interrupted ["--only=suspended"]
        ["being suspended while it waits to read ends no connection"]
    tcp_server_forgets_the_rest_when_interrupted ["--only=suspended"]
        ["being suspended while it waits to write loses nothing"]
    tcp_server_prints_each_client ["--only=it"]
        ["it serves on when nobody reads its output any more"]

    udp_client_adds_words []
        ["each line comes back as a line"]
    udp_client_has_a_short_buffer ["--stage=2"]
        ["an empty line and a long one come back"]
    udp_client_prints_text ["--stage=2"]
        ["each value of a byte is sent and printed"]
    udp_client_hides_that_nobody_listens []
        ["that nobody listens is an error"]
    udp_client_hides_that_nothing_came []
        ["a silent server is given up"]
    // To it, a datagram that is lost is the same. That is not asked here, because it takes long.
    udp_client_waits_forever ["--only=silent"]
        ["a silent server is given up"]
    udp_client_sends_once ["--only=is"]
        ["a datagram that is lost is sent again"]
    udp_client_waits_anew_after_each_datagram ["--only=wrong"]
        ["wrong answers do not prolong its wait"]
    udp_client_takes_any_answer []
        ["an echo that comes twice is printed once"]
    udp_client_takes_answers_from_anybody []
        ["what others send is not taken for the echo"]
    udp_client_ends_when_interrupted []
        ["what came while it was suspended is printed"]
    udp_client_hides_that_nobody_reads []
        ["that nobody reads what it prints is an error"]

    tcp_client_sends_all_first []
        ["much is sent and received at the same time"]
    tcp_client_stops_at_an_empty_line []
        ["an empty line and a long one come back"]
    tcp_client_takes_a_pause_for_the_end ["--only=line"]
        ["a line that comes back in pieces is one line"]
    // A long line may come in pieces as well, and is not asked for here.
    tcp_client_receives_lines ["--only=pieces"]
        ["a line that comes back in pieces is one line"]
    tcp_client_prints_text ["--stage=2"]
        ["each value of a byte is sent and printed"]
    tcp_client_waits_forever ["--only=silent"]
        ["a silent server is given up"]
    tcp_client_does_not_count []
        ["a server that closes early is an error"]
    tcp_client_takes_a_reset_for_the_end []
        ["a server that resets is an error"]
}

fn breaks_just_that(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let Some((mut args, program)) = python("broken", name) else {
        return;
    };
    args.extend(case.options);
    let finished = judge(&args, &program);
    let stdout = String::from_utf8_lossy(&finished.stdout);
    let mut breaks = case.breaks.to_vec();
    for not_asked in which_are("not asked", &stdout) {
        assert!(!not_asked.contains("the judge failed"), "{stdout}");
        // Some promises need IPv6, or rights of root.
        breaks.retain(|sentence| {
            let is_asked = !not_asked.starts_with(sentence);
            if !is_asked {
                harness::not_run(not_asked);
            }
            is_asked
        });
    }
    assert_eq!(which_are("BROKEN", &stdout), breaks, "{stdout}");
    let code = i32::from(!breaks.is_empty());
    assert_eq!(finished.code, Some(code), "{stdout}{}", finished.stderr);
}

#[test]
fn each_promise_is_broken_by_a_program() {
    let broken: BTreeSet<&str> = CASES.iter().flat_map(|case| case.breaks).copied().collect();
    for kind in [
        "udp_server",
        "tcp_server",
        "unix_datagram",
        "udp_client",
        "tcp_client",
    ] {
        let Some((mut args, _)) = python("right", kind) else {
            return;
        };
        args.push("--list");
        let listed = judge(&args, &Command::new("unused"));
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let (_, sentence) = line.split_once(": ").unwrap();
            assert!(broken.contains(sentence), "no program breaks: {sentence}");
        }
    }
}

#[test]
fn each_program_is_tested() {
    let folder = harness::root().join("tests/peers/broken");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_tested = CASES.iter().any(|case| name == format!("{}.py", case.name));
        assert!(is_tested || name == "right.py", "{name}");
    }
}
