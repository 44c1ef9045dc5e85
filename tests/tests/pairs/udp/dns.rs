//! The example `dns` of `udp-client`: how it handles the answers of a real DNS server, wrong
//! and hostile answers, and arbitrary bytes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Finished, Running, example_of, foreign, on_a_free_port, run, udp_socket};
use proptest::prelude::*;

/// Returns a command that runs the example to ask a server for a name.
fn question(server: SocketAddr, name: &str) -> Command {
    let mut command = example_of("udp-client", "dns");
    command.args(["--server", &server.to_string(), name]);
    command
}

fn assert_prints(client: &Finished, stdout: &str) {
    assert_eq!(client.code, Some(0), "{client:?}");
    assert_eq!(String::from_utf8_lossy(&client.stdout), stdout);
}

fn assert_fails(client: &Finished, error: &str) {
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(1), &b""[..]),
        "{client:?}"
    );
    assert!(
        client.stderr.contains(error) && !client.stderr.contains("panicked"),
        "{}",
        client.stderr
    );
}

// A real server.

/// A dnsmasq without a configuration file, which asks nobody else. It is killed when this is
/// dropped.
struct Dnsmasq {
    _running: Running,
    addr: SocketAddr,
}

impl Dnsmasq {
    /// Starts a dnsmasq that knows this, and waits until it answers. If dnsmasq is not
    /// installed, prints `NOT RUN` and returns `None`.
    fn start(knowledge: &[String]) -> Option<Dnsmasq> {
        let start = |addr: SocketAddr| {
            let mut dnsmasq = foreign("dnsmasq")?;
            dnsmasq.args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--log-facility=-",
            ]);
            dnsmasq.args(["--no-resolv", "--no-poll", "--no-hosts", "--local=/test/"]);
            dnsmasq.args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
            dnsmasq.arg(format!("--port={}", addr.port()));
            dnsmasq
                .args(["--host-record=ready.test,192.0.2.99"])
                .args(knowledge);
            Some(Running::start(&mut dnsmasq))
        };
        let answers = |addr| {
            let client = run(question(addr, "ready.test").args(["--timeout", "0.5"]), b"");
            client.stdout == b"192.0.2.99\n"
        };
        let (running, addr) = on_a_free_port(start, answers)?;
        Some(Dnsmasq {
            _running: running,
            addr,
        })
    }

    fn ask(&self, name: &str) -> Finished {
        run(&mut question(self.addr, name), b"")
    }
}

#[test]
fn a_real_server_is_asked_for_an_address() {
    let Some(dnsmasq) = Dnsmasq::start(&["--address=/name.test/192.0.2.7".into()]) else {
        return;
    };
    assert_prints(&dnsmasq.ask("name.test"), "192.0.2.7\n");
    assert_prints(&dnsmasq.ask("below.name.test."), "192.0.2.7\n");
    assert_prints(&dnsmasq.ask("NaMe.TEST"), "192.0.2.7\n");
    assert_prints(&dnsmasq.ask(&name_of(253, "name.test")), "192.0.2.7\n");
}

#[test]
fn each_of_several_addresses_is_printed_on_a_line() {
    let knowledge = [7, 8, 9].map(|host| format!("--host-record=name.test,192.0.2.{host}"));
    let Some(dnsmasq) = Dnsmasq::start(&knowledge) else {
        return;
    };
    let client = dnsmasq.ask("name.test");
    let mut lines: Vec<&str> = std::str::from_utf8(&client.stdout)
        .unwrap()
        .lines()
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["192.0.2.7", "192.0.2.8", "192.0.2.9"], "{client:?}");
}

#[test]
fn the_addresses_of_an_alias_are_those_of_the_name_it_stands_for() {
    let knowledge = [
        "host-record=name.test,192.0.2.7",
        "cname=alias.test,name.test",
        "cname=far.test,alias.test",
    ];
    let Some(dnsmasq) = Dnsmasq::start(&knowledge.map(|option| format!("--{option}"))) else {
        return;
    };
    assert_prints(&dnsmasq.ask("alias.test"), "192.0.2.7\n");
    assert_prints(&dnsmasq.ask("far.test"), "192.0.2.7\n");
}

#[test]
fn why_there_is_no_address_is_told() {
    let Some(dnsmasq) = Dnsmasq::start(&["--host-record=six.test,2001:db8::1".into()]) else {
        return;
    };
    let missing = dnsmasq.ask("missing.test");
    let context = format!(
        "Error: cannot get an address of missing.test from {}\n",
        dnsmasq.addr
    );
    assert_fails(&missing, &context);
    assert_fails(&missing, "there is no such name (NXDOMAIN)");
    assert_fails(&dnsmasq.ask("six.test"), "the answer has no IPv4 address");
    assert_fails(&dnsmasq.ask("elsewhere.invalid"), "(REFUSED)"); // It can ask nobody.
}

#[test]
fn an_answer_that_does_not_fit_a_datagram_is_told() {
    // Each address takes 16 of the 512 bytes.
    let knowledge: Vec<_> = (1..=40)
        .map(|host| format!("--host-record=name.test,192.0.2.{host}"))
        .collect();
    let Some(dnsmasq) = Dnsmasq::start(&knowledge) else {
        return;
    };
    assert_fails(&dnsmasq.ask("name.test"), "does not fit into a datagram");
}

// Servers that the tests play.

const HEADER: usize = 12;
const POINTER_TO_QUESTION: [u8; 2] = [0xC0, HEADER as u8];

/// Returns a record in the format of RFC 1035, 4.1.3.
fn record(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [name, &[0, kind, 0, 1], &[0, 0, 0, 60], &length, data].concat()
}

fn address(host: u8) -> Vec<u8> {
    record(&POINTER_TO_QUESTION, 1, &[192, 0, 2, host])
}

/// Returns an answer to a query, with these records.
fn answer(query: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[7] = u8::try_from(records.len()).unwrap();
    answer.extend(records.concat());
    answer
}

/// Turns a good answer into a bad one.
type Change = fn(&mut Vec<u8>);

/// Runs the example, and answers its query with these datagrams.
fn answered_with(datagrams: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> Finished {
    let server = udp_socket("127.0.0.1");
    let client = Running::start(
        question(server.local_addr().unwrap(), "name.test").args(["--timeout", "20"]),
    );
    let (query, peer) = receive(&server);
    for datagram in datagrams(&query) {
        server.send_to(&datagram, peer).unwrap();
    }
    client.finish()
}

fn receive(server: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 1024];
    let (len, peer) = server.recv_from(&mut buffer).unwrap();
    (buffer[..len].to_vec(), peer)
}

#[test]
fn the_query_is_one_question_under_an_id_that_cannot_be_foretold() {
    let server = udp_socket("127.0.0.1");
    let mut ids = Vec::new();
    for _ in 0..8 {
        let _client = Running::start(&mut question(server.local_addr().unwrap(), "name.test"));
        let (query, _) = receive(&server);
        let (id, rest) = query.split_at(2);
        assert_eq!(
            rest,
            b"\x01\x00\0\x01\0\0\0\0\0\0\x04name\x04test\0\0\x01\0\x01"
        );
        ids.push(u16::from_be_bytes(id.try_into().unwrap()));
    }
    let steps: Vec<u16> = ids
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    assert!(
        steps.windows(2).any(|pair| pair[0] != pair[1]),
        "the ids are equal or count: {ids:?}"
    );
}

#[test]
fn datagrams_that_do_not_answer_the_question_are_passed_over() {
    let not_answers: [(&str, Change); 11] = [
        ("another id", |it| it[1] ^= 1),
        ("a query", |it| it[2] &= 0x7F),
        ("no question", |it| it[5] = 0),
        ("two questions", |it| it[5] = 2),
        ("another name", |it| it[HEADER + 1] = b'g'),
        ("another type", |it| it[HEADER + 12] = 28),
        ("a header alone", |it| it.truncate(HEADER)),
        ("a header alone that denies the name", |it| {
            it.truncate(HEADER);
            it[3] |= 3;
        }),
        ("a header alone with another id", |it| {
            it.truncate(HEADER);
            it[3] |= 2;
            it[1] ^= 1;
        }),
        ("nothing", |it| it.clear()),
        ("garbage", |it| *it = harness::noise(512)),
    ];
    for (what, change) in not_answers {
        let client = answered_with(|query| {
            let mut wrong = answer(query, &[address(66)]);
            change(&mut wrong);
            vec![wrong, answer(query, &[address(7)])]
        });
        assert_eq!(client.stdout, b"192.0.2.7\n", "{what}: {client:?}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_or_used_is_an_error() {
    let bad_answers: [(&str, Change); 8] = [
        ("ends too early", |it| it.truncate(it.len() - 1)),
        ("ends too early", |it| it[6] = 0xFF), // It promises too many records.
        ("is not 4 bytes", |it| {
            let length = it.len() - 5;
            it[length] = 3;
        }),
        ("a label of an unknown kind", |it| it[HEADER + 15] = 0x80),
        ("does not fit into a datagram", |it| it[2] |= 0x02),
        ("SERVFAIL", |it| it[3] |= 2),
        ("NXDOMAIN", |it| it[3] |= 3),
        ("the server reports error 4", |it| it[3] |= 4),
    ];
    for (error, change) in bad_answers {
        let client = answered_with(|query| {
            let mut bad = answer(query, &[address(66)]);
            change(&mut bad);
            vec![bad]
        });
        assert_fails(&client, error);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_a_name_has_twice_is_asked_once() {
    let server = udp_socket("127.0.0.1");
    let mut command = example_of("udp-client", "dns");
    let addr = format!("double:{}", server.local_addr().unwrap().port());
    command.args(["--server", &addr, "--timeout", "0.1", "name.test"]);
    let hosts = r"127.0.0.1 double\n127.0.0.1 double\n";
    let Some(mut command) = harness::with_hosts(hosts, &command) else {
        return;
    };
    assert_fails(&run(&mut command, b""), "within 100ms");
    server.recv(&mut [0; 64]).unwrap();
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 64]).is_err(), "asked twice");
}

#[test]
fn an_answer_of_512_bytes_is_read_to_its_end() {
    let client = answered_with(|query| {
        let rest = 512 - answer(query, &[record(b"\0", 16, b""), address(7)]).len();
        vec![answer(
            query,
            &[record(b"\0", 16, &vec![0; rest]), address(7)],
        )]
    });
    assert_prints(&client, "192.0.2.7\n");
}

#[test]
fn a_longer_answer_is_read_to_its_end_as_well() {
    let client = answered_with(|query| {
        let text = record(b"\0", 16, &[0; 9000]);
        vec![answer(query, &[text, address(7)])]
    });
    assert_prints(&client, "192.0.2.7\n");
}

#[test]
fn an_error_that_is_a_header_alone_is_an_answer() {
    for (code, error) in [
        (1, "the server reports error 1"),
        (2, "SERVFAIL"),
        (4, "the server reports error 4"),
        (5, "REFUSED"),
    ] {
        let client = answered_with(|query| {
            let mut header = answer(query, &[])[..HEADER].to_vec();
            header[3] |= code;
            header[5] = 0; // No question.
            vec![header]
        });
        assert_fails(&client, error);
    }
}

#[test]
fn a_pointer_to_itself_is_no_circle() {
    let client = answered_with(|query| {
        let itself = [0xC0, u8::try_from(query.len()).unwrap()];
        vec![answer(query, &[record(&itself, 1, &[192, 0, 2, 7])])]
    });
    assert_prints(&client, "192.0.2.7\n");
}

#[test]
fn a_server_that_says_nothing_is_waited_for_until_the_time_limit() {
    let server = udp_socket("127.0.0.1");
    let addr = server.local_addr().unwrap();
    let started = Instant::now();
    let client = run(question(addr, "name.test").args(["--timeout", "0.3"]), b"");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_fails(
        &client,
        &format!("Error: cannot get an answer from {addr} within 300ms\n"),
    );
}

// Names.

/// Returns a name of this length and end: labels of 63 bytes, and the rest in the first ones.
fn name_of(length: usize, end: &str) -> String {
    let mut name = end.to_owned();
    while name.len() < length {
        // At least two bytes must remain for the next label and its dot.
        let left = length - name.len();
        let label = if left <= 64 {
            left - 1
        } else {
            (left - 3).min(63)
        };
        name = format!("{}.{name}", "x".repeat(label));
    }
    name
}

#[test]
fn a_name_that_cannot_be_written_is_not_asked_for() {
    let server = udp_socket("127.0.0.1");
    let addr = server.local_addr().unwrap();
    let bad_label = "a label has 1 to 63 bytes\n";
    let refused = [
        ("", bad_label),
        (".", bad_label),
        ("name..test", bad_label),
        (".name.test", bad_label),
        ("name.test..", bad_label),
        (&format!("{}.test", "x".repeat(64)), bad_label),
        (&format!("{}.test", "x".repeat(256 + 5)), bad_label),
        (&name_of(254, "test"), "a name has at most 253 bytes\n"),
        ("名字.test", "write it in ASCII, as xn--...\n"),
    ];
    for (name, why) in refused {
        assert_fails(
            &run(&mut question(addr, name), b""),
            &format!("Error: cannot ask for {name:?}: {why}"),
        );
    }
    server.set_nonblocking(true).unwrap();
    assert_eq!(
        server.recv(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

// Arbitrary bytes. Each case runs the program, so there are few cases.

/// Returns a good answer with two aliases, a record of another type, and two addresses.
fn good_answer(query: &[u8]) -> Vec<u8> {
    let records = [
        record(&POINTER_TO_QUESTION, 5, b"\x05alias\x04test\0"),
        record(b"\x05alias\x04test\0", 5, b"\x03far\xC0\x11"),
        record(b"\0", 16, b"\x03txt"),
        address(7),
        address(8),
    ];
    answer(query, &records)
}

#[test]
fn of_all_records_the_addresses_are_taken() {
    let client = answered_with(|query| vec![good_answer(query)]);
    assert_prints(&client, "192.0.2.7\n192.0.2.8\n");
}

/// Asserts that the example believed the answer, reported an error, or took the good one.
fn assert_copes(client: &Finished) {
    assert!(matches!(client.code, Some(0 | 1)), "{client:?}");
}

/// Nothing is written into the repository, because a failure shows the bytes.
fn a_hundred_cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    }
}

#[test]
fn no_bytes_make_it_panic() {
    proptest!(a_hundred_cases(), |(bytes in prop::collection::vec(any::<u8>(), 0..480))| {
            assert_copes(&answered_with(|query| {
                // The bytes are the records of an answer that promises as many as possible.
                let mut many = answer(query, &[]);
                many[6..8].copy_from_slice(&[0xFF, 0xFF]);
                vec![bytes.clone(), [many, bytes.clone()].concat()]
            }));
    });
}

#[test]
fn no_change_of_a_good_answer_makes_it_panic() {
    proptest!(a_hundred_cases(), |(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>())| {
            assert_copes(&answered_with(|query| {
                let mut changed = good_answer(query);
                for (index, byte) in &changes {
                    // The byte may be anywhere, also after the question, where the addresses are.
                    *index.get_mut(&mut changed[..]) = *byte;
                }
                changed.truncate(length.index(changed.len() + 1));
                vec![changed, good_answer(query)]
            }));
    });
}

#[test]
fn every_name_that_can_be_written_is_asked_for_and_no_other_makes_it_panic() {
    proptest!(a_hundred_cases(), |(good in r"[a-z][a-z-]{0,62}(\.[a-zA-Z0-9]{1,62}){0,2}\.?",
        bad in "[^\0]*")| {
            let server = udp_socket("127.0.0.1");
            let client = Running::start(&mut question(server.local_addr().unwrap(), &good));
            let (query, peer) = receive(&server);
            // Names are the same in upper and lower case.
            let answer = [&query[..2], &answer(&query, &[address(7)])[2..].to_ascii_uppercase()].concat();
            server.send_to(&answer, peer).unwrap();
            assert_prints(&client.finish(), "192.0.2.7\n");

            let mut client = example_of("udp-client", "dns");
            client.args(["--timeout", "0.001", "--server", &server.local_addr().unwrap().to_string()]);
            prop_assert_eq!(run(client.args(["--", &bad]), b"").code, Some(1));
    });
}
