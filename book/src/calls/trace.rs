//! What two programs did with their sockets.

use std::fmt;

/// One of the two programs.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    /// The one that asks.
    Client,
    /// The one that answers.
    Server,
}

/// A system call, or a signal that suspends or resumes the program.
#[derive(Clone, PartialEq)]
pub struct Event {
    /// When it began, in microseconds.
    pub start: u64,
    /// When it returned, if it did.
    pub end: Option<u64>,
    /// Who made it.
    pub side: Side,
    /// Its name.
    pub call: String,
    /// What it was about: an address, or the bytes that were sent or received.
    pub argument: String,
    /// How many bytes were sent or received, or the name of an error.
    pub outcome: String,
}

/// All events of a run, in the order in which they began.
pub struct Trace(pub Vec<Event>);

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

impl Event {
    /// Returns whether this call takes what the other side sent. Only such a call waits here.
    fn receives(&self) -> bool {
        self.call == "recvfrom" || self.call == "accept4"
    }

    /// Reads a line that `fmt` wrote.
    fn of_line(line: &str) -> Option<Event> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [start, end, side, call, argument, outcome] = columns[..] else {
            return None;
        };
        let sides = [Side::Client, Side::Server];
        let text = |column: &str| if column == "-" { "" } else { column }.to_owned();
        Some(Event {
            start: microseconds(start)?,
            end: microseconds(end),
            side: sides.into_iter().find(|known| known.name() == side)?,
            call: call.to_owned(),
            argument: text(argument),
            outcome: text(outcome),
        })
    }
}

/// Reads a time with a fraction of six digits in seconds, or of three in milliseconds.
pub(super) fn microseconds(text: &str) -> Option<u64> {
    text.replace('.', "").parse().ok()
}

/// Writes an event as a line: start, end, side, call, argument and outcome.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let time = |time: u64| format!("{}.{:03}", time / 1000, time % 1000);
        let text = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        let columns = [
            time(self.start),
            self.end.map_or("-".to_owned(), time),
            self.side.name().to_owned(),
            self.call.clone(),
            text(&self.argument),
            text(&self.outcome),
        ];
        f.write_str(&columns.join("\t"))
    }
}

/// Writes a trace as lines, one for each event. The times are milliseconds.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl Trace {
    /// Reads the lines of a trace.
    pub fn of_text(text: &str) -> Trace {
        let event = |line| Event::of_line(line).unwrap_or_else(|| panic!("not an event: {line:?}"));
        Trace(text.lines().map(event).collect())
    }

    /// Describes what must be the same in every run: the calls of each side, with what they sent or
    /// received. Sending and receiving may happen at the same time, so there is an order among what
    /// a side sends, and another one among what it receives. From both follows which call received
    /// what another had sent.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for side in [Side::Client, Side::Server] {
            for receives in [false, true] {
                for event in &self.0 {
                    if event.side == side && event.receives() == receives {
                        let (call, argument) = (&event.call, &event.argument);
                        let waits = receives && event.end.is_none();
                        let outcome = if waits { "waits" } else { &event.outcome };
                        shape += &format!("{} {call} {argument} {outcome}\n", side.name());
                    }
                }
            }
        }
        shape
    }
}
