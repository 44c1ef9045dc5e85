//! What every server and every client of a kind promises, once. A promise is a function that asks a
//! *subject* and returns what broke: it does not panic, so it can be asked of anybody's program.
//!
//! - [`catalog`] lists our programs, and which kinds of promises each keeps;
//! - [`Subject`] is a program that can be asked; [`Ours`] is one of the catalog, with our options and
//!   lines of log;
//! - [`KINDS`] lists the promises. Each is a `pub fn` of the module that has the name of its kind. The
//!   modules are private, so the compiler warns of a promise that is missing in its list.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::panic::{self, AssertUnwindSafe};

use harness::Finished;

/// Returns from a promise that is broken if a condition is false.
macro_rules! ensure {
    ($is_kept:expr, $($why:tt)+) => {
        if !$is_kept {
            return Err($crate::Broken::Promise(format!($($why)+)));
        }
    };
}

/// Returns from a promise that is broken if two values are not equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(, $($why:tt)+)?) => {
        match (&$left, &$right) {
            (left, right) => if *left != *right {
                let what: &[String] = &[$(format!($($why)+))?];
                let what = what.concat();
                return Err($crate::Broken::Promise(format!("{what}\n  got:      {left:?}\n  expected: {right:?}")));
            }
        }
    };
}

/// Lists the promises of a module: those that anybody can keep, and those that only our programs can;
/// and of both those that need options for limits.
macro_rules! promises {
    (
        anybody: [$($(#[$if_a:meta])? $anybody:ident,)*],
        ours: [$($(#[$if_o:meta])? $ours:ident,)*],
        $(
            anybody_with_a_limit: [$($(#[$if_al:meta])? $anybody_limited:ident,)*],
            ours_with_limits: [$($(#[$if_ol:meta])? $ours_limited:ident,)*],
        )?
    ) => {
        /// The promises of this kind.
        pub const PROMISES: &[$crate::Promise] = &[
            $($(#[$if_a])? $crate::Promise::new(stringify!($anybody), $crate::Ask::Anybody($anybody), false),)*
            $($(#[$if_o])? $crate::Promise::new(stringify!($ours), $crate::Ask::Ours($ours), false),)*
            $(
                $($(#[$if_al])? $crate::Promise::new(
                    stringify!($anybody_limited), $crate::Ask::Anybody($anybody_limited), true,
                ),)*
                $($(#[$if_ol])? $crate::Promise::new(
                    stringify!($ours_limited), $crate::Ask::Ours($ours_limited), true,
                ),)*
            )?
        ];
    };
}

pub mod catalog;
#[cfg(unix)]
mod datagram_client;
#[cfg(unix)]
mod datagram_server;
mod every_client;
#[cfg(unix)]
mod every_server;
#[cfg(target_os = "linux")]
mod forge;
mod ip_client;
#[cfg(unix)]
mod line_client;
mod stream;
mod stream_client;
mod stream_pair;
mod stream_server;
mod subject;
mod tcp_server;
mod udp_server;

pub use catalog::Program;
#[cfg(target_os = "linux")]
pub use forge::forge;
pub use stream::{Stream, send_until_stuck};
pub use subject::{Listening, Ours, Peer, Reach, Ready, Subject};

/// What a promise returns.
pub type Kept = Result<(), Broken>;

/// Why a promise was not kept, or not asked.
#[derive(Debug)]
pub enum Broken {
    /// The subject does not do what it promises.
    Promise(String),
    /// The test could not do its own part.
    Means(String),
    /// The subject cannot be asked here.
    NotAsked(String),
}

impl Broken {
    /// Says why a subject cannot be asked here.
    pub fn not_asked(why: impl Display) -> Broken {
        Broken::NotAsked(why.to_string())
    }
}

impl Display for Broken {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        match self {
            Broken::Promise(why) => write!(to, "{why}"),
            Broken::Means(why) => write!(to, "the test itself: {why}"),
            Broken::NotAsked(why) => write!(to, "not asked: {why}"),
        }
    }
}

/// Without a word on what was promised, an error of the system is one of the test's own means.
impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Means(error.to_string())
    }
}

/// What the harness says of a program, it says of the subject.
impl From<String> for Broken {
    fn from(why: String) -> Broken {
        Broken::Promise(why)
    }
}

/// Says that an error breaks a promise.
trait Promised<T> {
    /// Names what was promised.
    fn promised(self, what: &str) -> Result<T, Broken>;
}

impl<T> Promised<T> for io::Result<T> {
    fn promised(self, what: &str) -> Result<T, Broken> {
        use io::ErrorKind::{ConnectionRefused, TimedOut, UnexpectedEof, WouldBlock};
        self.map_err(|error| match error.kind() {
            TimedOut | WouldBlock => {
                Broken::Promise(format!("{what}: not within {:?}", harness::patience()))
            }
            UnexpectedEof => Broken::Promise(format!("{what}: the connection ended before")),
            ConnectionRefused => Broken::Promise(format!("{what}: nobody listens there any more")),
            _ => Broken::Promise(format!("{what}: {error}")),
        })
    }
}

/// Says what was sent and what came back, if they are not the same.
fn came_back(back: &[u8], sent: &[u8]) -> Kept {
    let shown = |bytes: &[u8]| bytes[..bytes.len().min(40)].escape_ascii().to_string();
    ensure!(
        back == sent,
        "\"{}\" was sent, and \"{}\" came back",
        shown(sent),
        shown(back)
    );
    Ok(())
}

/// Makes a call again if it was interrupted, because the test itself was suspended: no program is to blame
/// for that.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Asks for what a program did, as the assertions of [`Finished`] do, but without a panic.
trait Said {
    /// It succeeded and printed exactly this.
    fn printed(&self, stdout: &[u8]) -> Kept;
    /// It failed with nothing on stdout, and with an error that begins like this.
    fn failed(&self, stderr: &str) -> Kept;
    /// It has this text on stderr.
    fn says(&self, text: &str) -> Kept;
}

impl Said for Finished {
    fn printed(&self, stdout: &[u8]) -> Kept {
        let has_printed = self.code == Some(0) && self.stdout == stdout;
        let shown = String::from_utf8_lossy(&self.stdout);
        ensure!(has_printed, "{:?}, {shown:?}, {}", self.code, self.stderr);
        Ok(())
    }

    fn failed(&self, stderr: &str) -> Kept {
        let has_failed = self.code == Some(1) && self.stdout.is_empty();
        let has_said = self.stderr.starts_with(stderr);
        ensure!(has_failed && has_said, "{self:?}, and not {stderr:?}");
        Ok(())
    }

    fn says(&self, text: &str) -> Kept {
        ensure!(self.stderr.contains(text), "{self:?} does not say {text:?}");
        Ok(())
    }
}

/// One promise.
#[derive(Clone, Copy)]
pub struct Promise {
    /// The name of the function.
    pub name: &'static str,
    /// The function.
    pub ask: Ask,
    /// Whether only a program with options for its limits can make it.
    needs_limits: bool,
}

impl Promise {
    const fn new(name: &'static str, ask: Ask, needs_limits: bool) -> Promise {
        Promise {
            name,
            ask,
            needs_limits,
        }
    }
}

/// Of whom a promise can be asked.
#[derive(Clone, Copy)]
pub enum Ask {
    /// It needs a subject that can be started and reached.
    Anybody(fn(&Subject) -> Kept),
    /// It needs our options or lines of our log.
    Ours(fn(&Ours) -> Kept),
}

/// All kinds of promises, by the names of their modules.
pub const KINDS: &[(&str, &[Promise])] = &[
    #[cfg(unix)]
    ("datagram_client", datagram_client::PROMISES),
    #[cfg(unix)]
    ("datagram_server", datagram_server::PROMISES),
    ("every_client", every_client::PROMISES),
    #[cfg(unix)]
    ("every_server", every_server::PROMISES),
    ("ip_client", ip_client::PROMISES),
    #[cfg(unix)]
    ("line_client", line_client::PROMISES),
    #[cfg(unix)]
    ("udp_line_client", line_client::of_datagrams::PROMISES),
    #[cfg(unix)]
    ("tcp_line_client", line_client::of_streams::PROMISES),
    ("stream_client", stream_client::PROMISES),
    ("stream_pair", stream_pair::PROMISES),
    ("stream_server", stream_server::PROMISES),
    ("tcp_server", tcp_server::PROMISES),
    ("udp_server", udp_server::PROMISES),
];

/// A promise that a program of the catalog makes.
pub struct Trial {
    /// `KIND::PROMISE::PROGRAM`.
    pub name: String,
    promise: Promise,
    program: &'static Program,
}

/// Returns each promise of each program of the catalog that runs on this system.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(kind, promises) in KINDS {
        let here = catalog::PROGRAMS
            .iter()
            .filter(|program| program.runs_here());
        for program in here.filter(|program| program.keeps.contains(&kind)) {
            let promises = promises
                .iter()
                .filter(|promise| program.has_limits || !promise.needs_limits)
                .filter(|promise| program.is_ours() || matches!(promise.ask, Ask::Anybody(_)));
            trials.extend(promises.map(|&promise| Trial {
                name: format!("{kind}::{}::{}", promise.name, program.name),
                promise,
                program,
            }));
        }
    }
    trials
}

impl Trial {
    /// Asks the program.
    pub fn ask(&self) -> Kept {
        let ours = Ours::new(self.program);
        caught(|| match self.promise.ask {
            Ask::Anybody(ask) => ask(&ours),
            Ask::Ours(ask) => ask(&ours),
        })
    }
}

/// Asks, and returns a panic as an error of the test's own means: some parts of the harness panic.
///
/// # Errors
///
/// What the promise returns.
pub fn caught(ask: impl FnOnce() -> Kept) -> Kept {
    panic::catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| {
        let why = panic.downcast::<String>().map(|why| *why);
        let why = why.unwrap_or_else(|_| "a panic".to_owned());
        Err(Broken::Means(why))
    })
}
