//! Our programs, and one peer: what starts each, where it runs, and which promises it keeps.

use std::process::Command;

use harness::{Server, example_of, peer, program};

use crate::subject::Reach::{self, Tcp, Udp, UnixDatagram, UnixStream};

/// One of our programs, or one side of it, or a program of the package `peers`.
pub struct Program {
    /// What names of trials call it.
    pub name: &'static str,
    /// The package. A program of `peers` has the name of the entry, and is asked only for what anybody's is.
    pub package: &'static str,
    /// The example of the package, if it is one.
    pub example: Option<&'static str>,
    /// The arguments that come first.
    pub args: &'static [&'static str],
    /// How it gets an address.
    address: Address,
    /// How others reach it, or how it reaches others.
    pub reach: Reach,
    /// Where it runs.
    pub systems: Systems,
    /// Whether a server has the options `--max-connections` and `--idle-timeout`.
    pub has_limits: bool,
    /// The kinds of its promises.
    pub keeps: &'static [&'static str],
}

/// How a program gets an address.
enum Address {
    /// `--addr HOST:PORT`
    Addr,
    /// `--path PATH`
    Path,
    /// The same as `Addr`, after a group and an interface.
    Group,
    /// `--server HOST:PORT`
    Server,
    /// `HOST:PORT`
    Alone,
}
use Address::{Addr, Group, Path};

/// Where a program runs.
#[derive(Clone, Copy)]
pub enum Systems {
    /// Everywhere.
    All,
    /// On Unix.
    Unix,
    /// On Linux.
    Linux,
}
use Systems::{All, Linux, Unix};

/// The package of other people's programs.
const PEERS: &str = "peers";

/// A group for the tests on one host.
pub const GROUP: &str = "239.255.70.7";

const UDP: Program = Program {
    name: "udp_server",
    package: "udp-server",
    example: None,
    args: &[],
    address: Addr,
    reach: Udp,
    systems: All,
    has_limits: false,
    keeps: &["every_server", "datagram_server", "udp_server"],
};

const TCP: Program = Program {
    name: "tcp_server",
    package: "tcp-server",
    reach: Tcp,
    has_limits: true,
    keeps: &["every_server", "stream_server", "stream_pair", "tcp_server"],
    ..UDP
};

const UNIX: Program = Program {
    name: "unix_echo",
    package: "unix-echo",
    args: &["server"],
    address: Path,
    reach: UnixStream,
    systems: Unix,
    keeps: &["every_server", "stream_server", "stream_pair"],
    ..UDP
};

const UNIX_DATAGRAM_SERVER: Program = Program {
    name: "unix_datagram",
    args: &["server", "--datagram"],
    reach: UnixDatagram,
    keeps: &["every_server", "datagram_server"],
    ..UNIX
};

/// `udp-server`
pub static UDP_SERVER: Program = UDP;
/// `udp-server --example batch`
pub static BATCH: Program = Program {
    name: "batch",
    example: Some("batch"),
    systems: Linux,
    ..UDP
};
/// `udp-server --example multicast`
pub static MULTICAST: Program = Program {
    name: "multicast",
    example: Some("multicast"),
    address: Group,
    ..UDP
};
/// `udp-server --example wildcard`
pub static WILDCARD: Program = Program {
    name: "wildcard",
    example: Some("wildcard"),
    systems: Linux,
    ..UDP
};
/// `tcp-server`
pub static TCP_SERVER: Program = TCP;
/// `tcp-server --example event_loop`
pub static EVENT_LOOP: Program = Program {
    name: "event_loop",
    example: Some("event_loop"),
    ..TCP
};
/// `tcp-server --example graceful`
pub static GRACEFUL: Program = Program {
    name: "graceful",
    example: Some("graceful"),
    systems: Unix,
    ..TCP
};
/// `tests/peers/rust/tokio_server.rs`
pub static TOKIO_SERVER: Program = Program {
    name: "tokio_server",
    package: PEERS,
    address: Address::Alone,
    has_limits: false,
    ..TCP
};
/// `tcp-client`
pub static TCP_CLIENT: Program = Program {
    name: "tcp_client",
    package: "tcp-client",
    keeps: &[
        "every_client",
        "ip_client",
        "line_client",
        "tcp_line_client",
        "stream_client",
    ],
    ..TCP
};
/// `udp-client`
pub static UDP_CLIENT: Program = Program {
    name: "udp_client",
    package: "udp-client",
    keeps: &[
        "every_client",
        "ip_client",
        "line_client",
        "datagram_client",
    ],
    ..UDP
};
/// `udp-client --example one_to_many`
pub static ONE_TO_MANY: Program = Program {
    name: "one_to_many",
    package: "udp-client",
    example: Some("one_to_many"),
    systems: Linux,
    keeps: &["every_client", "datagram_client"],
    ..UDP
};
/// `udp-client --example dns`
pub static DNS: Program = Program {
    name: "dns",
    package: "udp-client",
    example: Some("dns"),
    address: Address::Server,
    keeps: &["every_client", "ip_client", "datagram_client"],
    ..UDP
};
/// `unix-echo server`
pub static UNIX_ECHO: Program = UNIX;
/// `unix-echo client`
pub static UNIX_CLIENT: Program = Program {
    args: &["client"],
    keeps: &["every_client", "stream_client"],
    ..UNIX
};

/// `unix-echo server --datagram`
pub static UNIX_DATAGRAM: Program = UNIX_DATAGRAM_SERVER;
/// `unix-echo client --datagram`
pub static UNIX_DATAGRAM_CLIENT: Program = Program {
    args: &["client", "--datagram"],
    keeps: &["every_client", "datagram_client"],
    ..UNIX_DATAGRAM_SERVER
};

/// All of them.
pub static PROGRAMS: [&Program; 16] = [
    &UDP_SERVER,
    &BATCH,
    &MULTICAST,
    &WILDCARD,
    &UDP_CLIENT,
    &ONE_TO_MANY,
    &DNS,
    &TCP_SERVER,
    &EVENT_LOOP,
    &GRACEFUL,
    &TOKIO_SERVER,
    &TCP_CLIENT,
    &UNIX_ECHO,
    &UNIX_CLIENT,
    &UNIX_DATAGRAM,
    &UNIX_DATAGRAM_CLIENT,
];

impl Program {
    /// Whether it runs on this system.
    pub fn runs_here(&self) -> bool {
        match self.systems {
            All => true,
            Unix => cfg!(unix),
            Linux => cfg!(target_os = "linux"),
        }
    }

    /// Whether it has our options, and our lines of log.
    pub fn is_ours(&self) -> bool {
        self.package != PEERS
    }

    /// Returns a command without an address.
    pub fn command(&self) -> Command {
        let mut command = match self.example {
            Some(example) => example_of(self.package, example),
            None if self.is_ours() => program(self.package),
            None => peer(self.name),
        };
        command.args(self.args);
        command
    }

    /// Returns a command with an address: where a server listens, or the server that a client asks.
    pub fn at(&self, addr: &str) -> Command {
        let mut command = self.command();
        if let Group = self.address {
            // A member with an IPv6 address must join an IPv6 group.
            let (group, interface) = match addr.split_once(':').unwrap_or_default().0 {
                _ if addr.starts_with('[') => ("ff12::7007", "1"),
                host if host.starts_with("10.") => (GROUP, host),
                _ => (GROUP, "127.0.0.1"),
            };
            command.args([group, "--interface", interface]);
        }
        let option = match self.address {
            Path => "--path",
            Address::Server => "--server",
            Addr | Group => "--addr",
            Address::Alone => {
                command.arg(addr);
                return command;
            }
        };
        command.args([option, addr]);
        command
    }

    /// Starts a server on a port of IPv4, and waits until it listens.
    ///
    /// # Panics
    ///
    /// It does not announce where it listens.
    pub fn start(&self, args: &[&str]) -> Server {
        Server::start(self.at("127.0.0.1:0").args(args))
    }

    /// Does the same on this address.
    ///
    /// # Panics
    ///
    /// It does not announce where it listens.
    pub fn start_at(&self, addr: &str) -> Server {
        Server::start(&mut self.at(addr))
    }
}
