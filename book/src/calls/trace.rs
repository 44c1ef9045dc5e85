//! What two programs did with their sockets, and what follows from it.

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

/// Bytes, or something that only the kernels send, on their way from a call to another one. One
/// end is missing if no program was there.
struct Arrow {
    from: Option<usize>,
    to: Option<usize>,
    text: String,
}

impl Arrow {
    fn new(from: Option<usize>, to: Option<usize>, text: &str) -> Arrow {
        let text = text.to_owned();
        Arrow { from, to, text }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl Event {
    /// Returns whether this call takes what the other side sent. Only such a call waits here.
    fn receives(&self) -> bool {
        self.call == "recvfrom" || self.call == "accept4"
    }

    /// Returns whether this call has sent bytes. std writes to a Unix datagram socket.
    fn sends(&self) -> bool {
        (self.call == "sendto" || self.call == "write") && !self.has_failed()
    }

    /// Returns whether this call ended with an error. EINPROGRESS is none: the kernel connects
    /// while the program goes on.
    fn has_failed(&self) -> bool {
        self.outcome.starts_with('E') && self.outcome != "EINPROGRESS"
    }

    /// Returns how many bytes this call moved.
    fn len(&self) -> usize {
        self.outcome.parse().unwrap_or(0)
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

    /// Describes what must be the same in every run: the calls of each side, and which of them
    /// received what was sent. Sending and receiving may happen at the same time, so there is an
    /// order among what a side sends, and another one among what it receives.
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
        for arrow in self.arrows() {
            let [from, to] = [arrow.from, arrow.to].map(|end| self.name(end));
            shape += &format!("{}: {from} -> {to}\n", arrow.text);
        }
        shape
    }

    /// Names an event by its number among the same calls of its side.
    fn name(&self, event: Option<usize>) -> String {
        let Some(index) = event else {
            return "nobody".to_owned();
        };
        let Event { side, call, .. } = &self.0[index];
        let number = self.calls(*side, call).filter(|(i, _)| *i <= index).count();
        format!("{} {call} {number}", side.name())
    }

    /// Returns the calls of a side with this name, with their places in the trace.
    fn calls(&self, side: Side, call: &str) -> impl Iterator<Item = (usize, &Event)> {
        let events = self.0.iter().enumerate();
        events.filter(move |(_, event)| event.side == side && event.call == call)
    }

    fn has_socket(&self, kind: &str) -> bool {
        let mut sockets = self.0.iter().filter(|event| event.call == "socket");
        sockets.any(|event| event.argument.contains(kind))
    }

    /// Finds out what went from which call to which.
    fn arrows(&self) -> Vec<Arrow> {
        let sides = [Side::Client, Side::Server].into_iter();
        if self.has_socket("SOCK_STREAM") {
            let bytes = sides.flat_map(|side| self.bytes_of_stream(side));
            self.ends_of_streams().into_iter().chain(bytes).collect()
        } else {
            sides.flat_map(|side| self.datagrams(side)).collect()
        }
    }

    /// What the kernels send before the first byte of a connection and after the last one. Unix
    /// sockets have the same calls, but no segments.
    fn ends_of_streams(&self) -> Vec<Arrow> {
        let find = |side: Side, is_it: &dyn Fn(&Event) -> bool| {
            let mut events = self.0.iter();
            events.position(|event| event.side == side && is_it(event))
        };
        let is_end = |event: &Event| event.call == "shutdown" || event.call == "close";
        let reads_end = |event: &Event| event.call == "recvfrom" && event.outcome == "0";
        let connect = find(Side::Client, &|event| event.call == "connect");
        let accept = find(Side::Server, &|event| event.call == "accept4");
        let mut arrows = vec![Arrow::new(connect, accept, "SYN, SYN-ACK, ACK")];
        for side in [Side::Client, Side::Server] {
            let (from, to) = (find(side, &is_end), find(side.other(), &reads_end));
            arrows.push(Arrow::new(from, to, "FIN"));
        }
        arrows.retain(|arrow| arrow.from.is_some() && arrow.to.is_some());
        if self.has_socket("AF_UNIX") {
            arrows.iter_mut().for_each(|arrow| arrow.text.clear());
        }
        arrows
    }

    /// A receive takes the bytes of the sends that have the same places in the stream.
    fn bytes_of_stream(&self, side: Side) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        let mut sent = 0;
        for (from, send) in self.calls(side, "sendto") {
            let sends = sent..sent + send.len();
            sent = sends.end;
            let mut received = 0;
            for (to, receive) in self.calls(side.other(), "recvfrom") {
                let receives = received..received + receive.len();
                received = receives.end;
                if sends.start.max(receives.start) < sends.end.min(receives.end) {
                    let is_part = receive.len() < send.len();
                    let bytes = if is_part { receive } else { send };
                    arrows.push(Arrow::new(Some(from), Some(to), &bytes.argument));
                }
            }
        }
        arrows
    }

    /// A datagram was taken by the first receive that has the same bytes and is not another's.
    /// If nobody has the port, the peer's host says so by ICMP.
    fn datagrams(&self, side: Side) -> Vec<Arrow> {
        let mut receives: Vec<_> = self.calls(side.other(), "recvfrom").collect();
        let events = self.0.iter().enumerate();
        let sends = events.filter(|(_, event)| event.side == side && event.sends());
        let sends = sends.map(|(from, send)| {
            let taken = receives.iter().position(|(_, receive)| {
                receive.argument == send.argument && receive.outcome == send.outcome
            });
            let to = taken.map(|place| receives.remove(place).0);
            Arrow::new(Some(from), to, &send.argument)
        });
        let refused = self.calls(side, "recvfrom");
        let refused = refused.filter(|(_, event)| event.outcome == "ECONNREFUSED");
        let refusals = refused.map(|(to, _)| Arrow::new(None, Some(to), "ICMP"));
        sends.chain(refusals).collect()
    }
}
