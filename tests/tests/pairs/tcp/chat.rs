//! The examples `chat` of `tcp-server` and `tcp-client`: who hears what, and that nobody waits for a member that
//! does not read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Running, Server, at, example_of, run, wait_until};
use socket2::{Domain, Socket, Type};

/// The server as it stands in its file, whose functions `framing` tests.
#[allow(dead_code)]
#[path = "../../../../tcp-server/examples/chat.rs"]
pub mod server;

fn start(options: &[&str]) -> Server {
    let command = example_of("tcp-server", "chat");
    Server::start(at(command, "127.0.0.1:0").args(options))
}

/// A member that the test plays.
struct Member {
    input: BufReader<TcpStream>,
}

impl Member {
    fn connect(addr: SocketAddr) -> Member {
        let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let input = BufReader::new(stream);
        Member { input }
    }

    /// Joins, and waits until it is told who is here.
    fn join(server: &Server, name: &str) -> Member {
        let mut member = Member::connect(server.addr);
        member.say(name);
        let here = member.hear();
        assert!(here.starts_with("* here: "), "{here}");
        member
    }

    fn send(&self, bytes: &[u8]) {
        self.input.get_ref().write_all(bytes).unwrap();
    }

    fn say(&self, line: &str) {
        self.send(format!("{line}\n").as_bytes());
    }

    /// Returns the next line without its end, or nothing at the end of the stream.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).expect("a line in time");
        line.trim_end_matches('\n').to_owned()
    }

    fn hears(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.hear(), *line);
        }
    }

    /// Returns all lines up to the end of the stream.
    fn hear_all(&mut self) -> Vec<String> {
        let lines = self.input.by_ref().lines();
        lines.map(|line| line.expect("a line in time")).collect()
    }

    fn half_close(&self) {
        self.input.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        super::reset(self.input.into_inner());
    }
}

/// Asserts that a client soon finds a place, and nobody else.
fn becomes_empty(server: &Server) {
    wait_until(|| {
        let mut late = Member::connect(server.addr);
        late.say("late");
        late.hear() == "* here: nobody"
    });
}

/// A member that reads nothing. There is little room for what it does not read: its receive buffer is small, and
/// because its segments are small, so is the send buffer of the server.
fn join_deaf(server: &Server, name: &str) -> Member {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    #[cfg(unix)]
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let deaf = Member {
        input: BufReader::with_capacity(1, stream),
    };
    deaf.say(name);
    deaf
}

#[test]
fn a_member_is_told_who_is_here_and_the_others_who_joins_and_leaves() {
    let server = start(&[]);
    let mut anna = Member::connect(server.addr);
    anna.say("anna");
    anna.hears(&["* here: nobody"]);
    let mut bo = Member::connect(server.addr);
    bo.say("bo");
    bo.hears(&["* here: anna"]);
    let mut carl = Member::connect(server.addr);
    carl.say("carl");
    carl.hears(&["* here: anna, bo"]);
    anna.hears(&["* bo joined", "* carl joined"]);
    bo.half_close();
    bo.hears(&["* carl joined", "* bo left", ""]);
    anna.hears(&["* bo left"]);
    carl.hears(&["* bo left"]);
}

#[test]
fn what_a_member_says_reaches_all_others_and_not_itself() {
    let server = start(&[]);
    let mut anna = Member::join(&server, "anna");
    let mut bo = Member::join(&server, "bo");
    let mut carl = Member::join(&server, "carl");
    anna.hears(&["* bo joined", "* carl joined"]);
    bo.hears(&["* carl joined"]);
    anna.say("hello");
    bo.hears(&["anna: hello"]);
    carl.hears(&["anna: hello"]);
    bo.say("");
    anna.hears(&["bo: "]);
    carl.hears(&["bo: "]);
}

#[test]
fn a_name_is_short_plain_and_taken_once() {
    let server = start(&[]);
    let _anna = Member::join(&server, "anna");
    let rule = "! a name has 1 to 20 letters, digits, - or _";
    let long = "x".repeat(21);
    for name in ["", "two words", "*", "! anna", "a:", "\x1b", &long] {
        let mut refused = Member::connect(server.addr);
        refused.say(name);
        refused.hears(&[rule, ""]);
    }
    let mut second = Member::connect(server.addr);
    second.say("anna");
    second.hears(&["! the name anna is taken", ""]);
    for name in ["Anna", "a-b_9", "小明", &long[..20]] {
        Member::join(&server, name);
    }
}

#[test]
fn of_two_with_one_name_at_the_same_moment_one_joins() {
    let server = start(&[]);
    for round in 0..20 {
        let mut both = [(); 2].map(|()| Member::connect(server.addr));
        let name = format!("round{round}");
        both.iter().for_each(|member| member.say(&name));
        let mut heard = both.each_mut().map(Member::hear);
        heard.sort();
        assert_eq!(heard[0], format!("! the name {name} is taken"));
        assert!(heard[1].starts_with("* here: "), "{heard:?}");
    }
}

#[test]
fn a_name_is_free_again_when_its_member_has_left() {
    let server = start(&[]);
    for _ in 0..20 {
        let mut anna = Member::join(&server, "anna");
        anna.half_close();
        anna.hears(&["* anna left", ""]);
    }
}

/// No member can speak as the server, or as another.
#[test]
fn each_line_that_a_member_says_has_its_name_in_front() {
    let server = start(&[]);
    let anna = Member::join(&server, "anna");
    let mut bo = Member::join(&server, "bo");
    anna.send(b"* bo left\n! full\ncarl: hello\r* bo left\n\x1b[2K* bo left\n");
    anna.say("tfel ob *\u{202e}");
    bo.hears(&[
        "anna: * bo left",
        "anna: ! full",
        r"anna: carl: hello\r* bo left",
        r"anna: \u{1b}[2K* bo left",
        r"anna: tfel ob *\u{202e}",
    ]);
}

#[test]
fn lines_do_not_depend_on_the_writes_that_bring_them() {
    let server = start(&[]);
    let anna = Member::join(&server, "anna");
    let mut bo = Member::join(&server, "bo");
    for byte in b"slow line\n" {
        anna.send(&[*byte]);
        thread::sleep(Duration::from_millis(5));
    }
    bo.hears(&["anna: slow line"]);
    let ten: Vec<String> = (0..10).map(|number| format!("anna: {number}")).collect();
    anna.send(b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    bo.hears(&ten.iter().map(String::as_str).collect::<Vec<_>>());
    anna.send(b"windows\r\nhalf");
    anna.half_close();
    bo.hears(&["anna: windows", "anna: half", "* anna left"]);
}

/// The others write as fast as the machine lets them, and the queues are short.
#[test]
fn a_text_that_is_sent_at_once_ends_nobody_who_reads() {
    let server = start(&[]);
    let anna = Member::join(&server, "anna");
    let mut readers = ["x", "y", "z"].map(|name| Member::join(&server, name));
    let text: String = (0..500).map(|number| format!("{number}\n")).collect();
    anna.send(text.as_bytes());
    for reader in &mut readers {
        let heard = (0..).map(|_| reader.hear());
        let mut said = heard.filter(|line| !line.starts_with('*'));
        for number in 0..500 {
            assert_eq!(said.next(), Some(format!("anna: {number}")));
        }
    }
}

/// It still sends when it is sent away, so a close at once would be a reset.
#[test]
fn a_line_that_is_too_long_ends_its_member_with_a_last_word_that_is_not_lost() {
    let server = start(&[]);
    let mut bo = Member::join(&server, "bo");
    for _ in 0..50 {
        let mut anna = Member::join(&server, "anna");
        anna.say(&("x".repeat(1000) + "\r"));
        anna.send(&[b'x'; 100_000]);
        anna.hears(&["! a line has at most 1000 bytes", ""]);
        let said = format!("anna: {}", "x".repeat(1000));
        bo.hears(&["* anna joined", &said, "* anna left"]);
    }
}

/// A close at once would throw away what waits in the send buffer of the server.
#[test]
fn who_is_sent_away_while_it_sends_gets_all_lines_and_the_reason() {
    let server = start(&[]);
    let mut bo = Member::join(&server, "bo");
    let mut deaf = join_deaf(&server, "deaf");
    bo.hears(&["* deaf joined"]);
    let carl = Member::join(&server, "carl");
    bo.hears(&["* carl joined"]);
    for _ in 0..30 {
        carl.say(&"x".repeat(1000));
        bo.hear();
    }
    deaf.send(&[b'x'; 50_000]);
    bo.hears(&["* deaf left"]);
    thread::sleep(Duration::from_millis(300));
    let heard = deaf.hear_all();
    assert_eq!(heard.len(), 33);
    assert_eq!(heard[32], "! a line has at most 1000 bytes");
}

#[test]
fn all_members_see_all_lines_in_one_order() {
    let server = start(&[]);
    let mut listeners = ["x", "y"].map(|name| Member::join(&server, name));
    listeners[0].hears(&["* y joined"]);
    let speakers: Vec<Member> = (0..4)
        .map(|number| Member::join(&server, &format!("s{number}")))
        .collect();
    for listener in &mut listeners {
        listener.hears(&["* s0 joined", "* s1 joined", "* s2 joined", "* s3 joined"]);
    }
    let mut heard = [vec![], vec![]];
    // No more lines at once than a queue has room for: the machine may be busy.
    for burst in 0..20 {
        thread::scope(|scope| {
            for speaker in &speakers {
                scope.spawn(move || {
                    (0..10).for_each(|line| speaker.say(&format!("{burst} {line}")))
                });
            }
        });
        for (listener, heard) in listeners.iter_mut().zip(&mut heard) {
            heard.extend((0..40).map(|_| listener.hear()));
        }
    }
    let [x, y] = heard;
    assert_eq!(x, y);
    for speaker in 0..4 {
        let said = (0..200).map(|line| format!("s{speaker}: {} {}", line / 10, line % 10));
        let own = x
            .iter()
            .filter(|line| line.starts_with(&format!("s{speaker}:")));
        assert!(
            said.eq(own.cloned()),
            "the lines of one member in its order"
        );
    }
}

#[test]
fn a_member_that_does_not_read_is_cut_off_and_all_are_told() {
    let mut server = start(&[]);
    let mut anna = Member::join(&server, "anna");
    let mut deaf = join_deaf(&server, "deaf");
    anna.hears(&["* deaf joined"]);
    let bo = Member::join(&server, "bo");
    anna.hears(&["* bo joined"]);
    let line = "x".repeat(1000);
    let is_cut_off = (0..5000).any(|_| {
        bo.say(&line);
        anna.hear() == "* deaf left: too slow"
    });
    assert!(is_cut_off);
    // What was on its way still comes, and then the reason.
    let heard = deaf.hear_all();
    assert_eq!(heard.last().map(String::as_str), Some("! too slow"));
    let whole = format!("bo: {line}");
    assert!(heard[2..heard.len() - 1].iter().all(|line| *line == whole));
    loop {
        if server.running.stderr_line().ends_with(": too slow") {
            break;
        }
    }
}

/// How long a thousand lines take to a hundred members that read, and how long at most one of them waits for the
/// next. No more are on the way at once than a queue has room for: the machine may be busy.
fn thousand_lines(server: &Server) -> [Duration; 2] {
    let speaker = Member::join(server, "speaker");
    let mut listeners: Vec<Member> = (0..97)
        .map(|number| Member::join(server, &format!("m{number}")))
        .collect();
    let (heard, longest) = (AtomicUsize::new(0), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for listener in &mut listeners {
            let (heard, longest) = (&heard, &longest);
            scope.spawn(move || {
                let lines = (0..).map(|_| listener.hear());
                let lines = lines.take_while(|line| !line.is_empty());
                let mut lines = lines.filter(|line| line.starts_with("speaker: "));
                for number in 0..1000 {
                    let begin = Instant::now();
                    assert_eq!(lines.next(), Some(format!("speaker: {number:0500}")));
                    longest.fetch_max(begin.elapsed().as_millis() as u64, Relaxed);
                    heard.fetch_add(1, Relaxed);
                }
            });
        }
        for number in 0..1000 {
            speaker.say(&format!("{number:0500}"));
            let deadline = Instant::now() + LIMIT;
            while heard.load(Relaxed) + 32 * 97 < number * 97 {
                assert!(Instant::now() < deadline, "they wait");
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    [
        started.elapsed(),
        Duration::from_millis(longest.into_inner()),
    ]
}

/// The others neither lose a line nor wait. (A wait for one of them would take ten seconds.)
#[test]
fn a_deaf_member_and_one_that_drips_and_one_that_resets_keep_nobody_waiting() {
    let [alone, _] = thousand_lines(&start(&["-q"]));
    let server = start(&["-q"]);
    let _deaf = join_deaf(&server, "deaf");
    let dripping = Member::join(&server, "dripping");
    let resets = Member::join(&server, "resets");
    let [with_three, longest] = thread::scope(|scope| {
        scope.spawn(move || {
            resets.reset();
            for _ in 0..50 {
                let sent = (&mut dripping.input.get_ref()).write_all(b"x");
                sent.expect("it is a member as long as it reads fast enough");
                thread::sleep(Duration::from_millis(20));
            }
        });
        thousand_lines(&server)
    });
    println!(
        "1000 lines took {:.2} times as long, and none longer than {longest:?}",
        with_three.as_secs_f64() / alone.as_secs_f64()
    );
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert!(
        with_three < alone * 3 + Duration::from_secs(5),
        "{with_three:?} and {alone:?}"
    );
}

/// A queue without a bound would grow by two megabytes.
#[cfg(target_os = "linux")]
#[test]
fn a_deaf_member_that_is_fed_for_ten_seconds_costs_no_memory() {
    let server = start(&["-q"]);
    let memory = || harness::memory_kib(server.running.id(), "VmRSS").unwrap();
    let mut reader = Member::join(&server, "reader");
    let _deaf = join_deaf(&server, "deaf");
    let speaker = Member::join(&server, "speaker");
    let before = memory();
    let (started, line) = (Instant::now(), "x".repeat(1000));
    let mut lines = 0;
    while started.elapsed() < Duration::from_secs(10) {
        speaker.say(&line);
        reader.hear();
        lines += 1;
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB after {lines} lines");
    let mut late = Member::connect(server.addr);
    late.say("late");
    assert_eq!(late.hear(), "* here: reader, speaker");
}

#[test]
fn that_everybody_leaves_at_once_harms_nobody() {
    let server = start(&[]);
    for round in 0..3 {
        let members: Vec<Member> = (0..50)
            .map(|number| Member::join(&server, &format!("m{number}")))
            .collect();
        for (number, member) in members.into_iter().enumerate() {
            match (number + round) % 3 {
                0 => member.reset(),
                1 => member.half_close(),
                _ => drop(member),
            }
        }
        becomes_empty(&server);
    }
}

#[test]
fn who_finds_no_place_is_told_and_gets_one_when_another_has_left() {
    let server = start(&["--max-members", "2"]);
    let anna = Member::join(&server, "anna");
    let _unnamed = Member::connect(server.addr);
    let mut third = Member::connect(server.addr);
    third.say("carl");
    third.hears(&["! full", ""]);
    drop(anna);
    becomes_empty(&server);
}

#[test]
fn who_does_not_say_its_name_loses_its_place() {
    let server = start(&["--max-members", "1"]);
    let mut silent = Member::connect(server.addr);
    let heard = silent.hear_all();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("! no name came"), "{heard:?}");
    becomes_empty(&server);
}

#[cfg(unix)]
#[test]
fn being_suspended_costs_the_members_nothing() {
    let server = start(&[]);
    let anna = Member::join(&server, "anna");
    let mut bo = Member::join(&server, "bo");
    for _ in 0..3 {
        server.running.suspend();
        anna.say("are you back?");
        server.running.resume_after(Duration::from_millis(100));
        bo.hears(&["anna: are you back?"]);
    }
}

#[test]
fn it_goes_on_when_nobody_reads_its_output_any_more() {
    let mut server = start(&[]);
    server.running.close_output();
    for number in 0..100 {
        Member::join(&server, &format!("anna{number}")).reset();
        Member::join(&server, &format!("bo{number}")).half_close();
    }
    becomes_empty(&server);
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_descriptor_it_waits_and_then_goes_on() {
    let command = at(example_of("tcp-server", "chat"), "127.0.0.1:0");
    let server = Server::start(&mut harness::limited("--nofile=24", &command));
    let members: Vec<Member> = (0..15)
        .map(|number| Member::join(&server, &format!("m{number}")))
        .collect();
    let waiting: Vec<Member> = (0..15).map(|_| Member::connect(server.addr)).collect();
    members[0].say("still here");
    let before = harness::processor_time(server.running.id());
    thread::sleep(Duration::from_millis(500));
    let used = harness::processor_time(server.running.id()) - before;
    assert!(used < Duration::from_millis(100), "{used:?}");
    drop((members, waiting));
    becomes_empty(&server);
}

fn start_client(addr: SocketAddr, name: &str) -> Running {
    Running::start(at(example_of("tcp-client", "chat"), &addr.to_string()).arg(name))
}

#[test]
fn the_client_prints_what_comes_while_its_user_types() {
    let server = start(&[]);
    let mut client = start_client(server.addr, "anna");
    assert_eq!(client.stdout_line(), "* here: nobody");
    let mut bo = Member::join(&server, "bo");
    assert_eq!(client.stdout_line(), "* bo joined");
    client.write(b"half a li");
    bo.say("are you typing?");
    assert_eq!(client.stdout_line(), "bo: are you typing?");
    client.write(b"ne\n");
    bo.hears(&["anna: half a line"]);
    let client = client.finish();
    assert_eq!(client.code, Some(0));
    bo.hears(&["* anna left"]);
}

#[test]
fn two_clients_talk() {
    let server = start(&[]);
    let mut anna = start_client(server.addr, "anna");
    assert_eq!(anna.stdout_line(), "* here: nobody");
    let command = &mut at(example_of("tcp-client", "chat"), &server.addr.to_string());
    let bo = run(command.arg("bo"), "hello\n你好".as_bytes());
    bo.assert_printed(b"* here: anna\n* bo left\n");
    for line in ["* bo joined", "bo: hello", "bo: 你好", "* bo left"] {
        assert_eq!(anna.stdout_line(), line);
    }
}

#[test]
fn the_client_says_why_it_was_refused_and_that_the_server_has_gone() {
    let server = start(&[]);
    let _anna = Member::join(&server, "anna");
    let refused = start_client(server.addr, "anna").finish();
    assert_eq!(refused.code, Some(1));
    refused.assert_stderr("the server has ended it: the name anna is taken");
    let mut client = start_client(server.addr, "bo");
    assert_eq!(client.stdout_line(), "* here: anna");
    drop(server);
    wait_until(|| !client.is_running());
    let client = client.finish();
    assert_eq!(client.code, Some(1));
}

#[test]
fn the_client_says_that_nobody_reads_what_it_prints() {
    let server = start(&[]);
    let mut client = start_client(server.addr, "anna");
    assert_eq!(client.stdout_line(), "* here: nobody");
    client.close_stdout();
    let bo = Member::join(&server, "bo");
    let deadline = Instant::now() + LIMIT;
    while client.is_running() {
        assert!(Instant::now() < deadline, "it has not noticed");
        bo.say("hello");
        thread::sleep(Duration::from_millis(20));
    }
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    client.assert_stderr("cannot write to stdout");
}

/// A client whose server is silent ends all the same.
#[cfg(unix)]
#[test]
fn the_client_does_not_wait_forever_for_the_farewell() {
    let server = start(&[]);
    let mut client = start_client(server.addr, "anna");
    assert_eq!(client.stdout_line(), "* here: nobody");
    server.running.suspend();
    client.stdin = None;
    let client = client.finish();
    assert_eq!(client.code, Some(1));
    client.assert_stderr("the server did not say within 15s that we have left");
}
