//! Shows which sockets the kernel has: it asks for one of each family and type.
//!
//! ```console
//! $ cargo run -p unix-echo --example families | head -5
//!             SOCK_STREAM     SOCK_DGRAM      SOCK_SEQPACKET  SOCK_RAW
//! AF_UNIX     yes             yes             yes             yes
//! AF_INET     yes             yes             no such type    not permitted
//! AF_INET6    yes             yes             no such type    not permitted
//! AF_NETLINK  no such type    yes             no such type    yes
//! ```
//!
//! The other rows, AF_TIPC, AF_PACKET and AF_VSOCK, depend on what was built into the kernel, or
//! loaded. Below the table stands how to load TIPC, if it is missing.
//!
//! The *family* of a socket says what an address is: a path, an IP address and a port, the
//! name of a service. The *type* says how bytes are delivered. SOCK_STREAM keeps their
//! order but no boundaries. SOCK_DGRAM delivers each message separately. SOCK_SEQPACKET
//! keeps order and boundaries. With SOCK_RAW the program itself writes headers that
//! otherwise the kernel writes. (AF_UNIX and AF_NETLINK treat SOCK_RAW as SOCK_DGRAM.)
//!
//! ```console
//! $ cargo run -p unix-echo --example families -- links
//! lo               UNKNOWN        00:00:00:00:00:00 <LOOPBACK,UP,LOWER_UP>
//! ```
//!
//! This command asks the kernel through a socket, too. The kernel is the peer of an
//! AF_NETLINK socket: with datagrams to it and from it, programs such as `ip` list and
//! change network interfaces, addresses and routes.
//!
//! Try next:
//!
//! - Run it as root (`sudo target/debug/examples/families`). What was `not permitted`
//!   requires the capability CAP_NET_RAW, because such sockets can read and forge the
//!   traffic of other programs.
//! - Run `strace -e network ip -brief link`, which asks as `links` does.
//!
//! Read next: address_families(7), netlink(7) and rtnetlink(7).

// On other systems than Linux, only the last function is used.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use socket2::{Domain, Protocol, Socket, Type};

/// Linux's numbers for the families (AF_* in its include/linux/socket.h).
/// address_families(7) says what each is for.
const AF_UNIX: i32 = 1;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_NETLINK: i32 = 16;
const AF_PACKET: i32 = 17;
const AF_TIPC: i32 = 30;
const AF_VSOCK: i32 = 40;

const FAMILIES: [(&str, i32); 7] = [
    ("AF_UNIX", AF_UNIX),       // Programs on one machine; a path or a name.
    ("AF_INET", AF_INET),       // IPv4; an address and a port.
    ("AF_INET6", AF_INET6),     // IPv6; the same.
    ("AF_NETLINK", AF_NETLINK), // The kernel; one of its subsystems.
    ("AF_TIPC", AF_TIPC),       // The machines of a cluster; a service, wherever it runs.
    ("AF_PACKET", AF_PACKET),   // Frames of a network interface; the interface.
    ("AF_VSOCK", AF_VSOCK),     // A virtual machine and its host; a number for each, and a port.
];

const TYPES: [(&str, Type); 4] = [
    ("SOCK_STREAM", Type::STREAM),
    ("SOCK_DGRAM", Type::DGRAM),
    ("SOCK_SEQPACKET", Type::SEQPACKET),
    ("SOCK_RAW", Type::RAW),
];

/// The error of a family that the kernel does not have (EAFNOSUPPORT), the errors of types that a
/// family does not have (EPROTOTYPE, EPROTONOSUPPORT, ESOCKTNOSUPPORT), and those that say nothing
/// about either (ENFILE, EMFILE, ENOMEM, ENOBUFS). Alpha, MIPS, PA-RISC and SPARC number some of
/// them differently (errno(3)).
const NO_SUCH_FAMILY: i32 = 97;
const NO_SUCH_TYPE: [i32; 3] = [91, 93, 94];
const NO_ANSWER: [i32; 4] = [23, 24, 12, 105];

/// Show which families and types of sockets this kernel has
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    question: Option<Question>,
}

#[derive(Subcommand)]
enum Question {
    /// List the network interfaces, as `ip -brief link` does
    Links,
}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    let answer = match Args::parse().question {
        None => table().context("cannot ask for a socket")? + &hint(),
        Some(Question::Links) => links::list().context("cannot list the interfaces")?,
    };
    io::stdout()
        .write_all(answer.as_bytes())
        .context("cannot write to stdout")
}

fn table() -> io::Result<String> {
    let titles: String = TYPES
        .iter()
        .map(|(title, _)| format!("{title:16}"))
        .collect();
    let mut lines = format!("{:12}{}\n", "", titles.trim_end());
    for (name, family) in FAMILIES {
        let mut line = format!("{name:12}");
        for (_, kind) in TYPES {
            line += &format!("{:16}", cell(family, kind)?);
        }
        lines += &format!("{}\n", line.trim_end());
    }
    Ok(lines)
}

/// Says in a few words what the kernel answers.
fn cell(family: i32, kind: Type) -> io::Result<String> {
    let Err(error) = open(family, kind) else {
        return Ok("yes".to_owned());
    };
    Ok(match error.raw_os_error() {
        Some(number) if NO_ANSWER.contains(&number) => return Err(error),
        _ if error.kind() == ErrorKind::PermissionDenied => "not permitted".to_owned(),
        Some(NO_SUCH_FAMILY) => "no such family".to_owned(),
        Some(number) if NO_SUCH_TYPE.contains(&number) => "no such type".to_owned(),
        _ => without_number(&error).to_lowercase(),
    })
}

/// Opens a socket. It has no address yet, and nothing is sent.
fn open(family: i32, kind: Type) -> io::Result<Socket> {
    // The kernel knows which protocol a family and a type imply: AF_INET and SOCK_STREAM
    // imply TCP. Raw IP could carry any protocol, so it must be named.
    let protocol = match (family, kind) {
        (AF_INET, Type::RAW) => Some(Protocol::ICMPV4),
        (AF_INET6, Type::RAW) => Some(Protocol::ICMPV6),
        _ => None,
    };
    Socket::new(Domain::from(family), kind, protocol)
}

/// Removes what std adds to the kernel's message: `No such device (os error 19)`.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Says how to get TIPC. Few use it, and in most kernels it is a module to load by hand.
fn hint() -> String {
    match open(AF_TIPC, Type::SEQPACKET) {
        Err(error) if error.raw_os_error() == Some(NO_SUCH_FAMILY) => {
            format!("\nAF_TIPC: {error}; as root, try: modprobe tipc\n")
        }
        _ => String::new(),
    }
}

/// A question to the kernel through netlink, and its answer: all network interfaces.
#[cfg(target_os = "linux")]
mod links {
    use std::io;
    use std::net::Ipv4Addr;

    use anyhow::{Context, Result, bail};
    use netlink_packet_core::{
        DecodeError, Emitable, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
        NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    };
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkMessage, State};
    use netlink_sys::protocols::NETLINK_ROUTE;
    use netlink_sys::{Socket, SocketAddr};

    /// How often to ask if the interfaces change during the answer.
    const ATTEMPTS: u32 = 10;

    /// The flags (netdevice(7)), with the names that `ip` uses, in its order.
    const FLAGS: [(LinkFlags, &str); 18] = [
        (LinkFlags::Loopback, "LOOPBACK"),
        (LinkFlags::Broadcast, "BROADCAST"),
        (LinkFlags::Pointopoint, "POINTOPOINT"),
        (LinkFlags::Multicast, "MULTICAST"),
        (LinkFlags::Noarp, "NOARP"),
        (LinkFlags::Allmulti, "ALLMULTI"),
        (LinkFlags::Promisc, "PROMISC"),
        (LinkFlags::Controller, "MASTER"),
        (LinkFlags::Port, "SLAVE"),
        (LinkFlags::Debug, "DEBUG"),
        (LinkFlags::Dynamic, "DYNAMIC"),
        (LinkFlags::Automedia, "AUTOMEDIA"),
        (LinkFlags::Portsel, "PORTSEL"),
        (LinkFlags::Notrailers, "NOTRAILERS"),
        (LinkFlags::Up, "UP"),
        (LinkFlags::LowerUp, "LOWER_UP"),
        (LinkFlags::Dormant, "DORMANT"),
        (LinkFlags::Echo, "ECHO"),
    ];

    /// The number of a message about an interface, and of the attributes that we read
    /// (rtnetlink(7), the kernel's if_link.h).
    const RTM_NEWLINK: u16 = 16;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINK: u16 = 5;
    const IFLA_OPERSTATE: u16 = 16;
    const IFLA_LINK_NETNSID: u16 = 37;

    pub fn list() -> Result<String> {
        for _ in 0..ATTEMPTS {
            if let Some(links) = receive(&ask()?)? {
                return Ok(links.iter().map(|link| link.line(&links)).collect());
            }
        }
        bail!("they changed during each of {ATTEMPTS} answers")
    }

    /// Sends the question to the kernel: RTM_GETLINK with NLM_F_DUMP, which asks for all.
    fn ask() -> Result<Socket> {
        let socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        // Port 0 is the kernel. Once connected, the socket receives nothing from other processes.
        socket
            .connect(&SocketAddr::new(0, 0))
            .context("cannot connect to the kernel")?;
        // The kernel has answered when a call returns. Should it not, we do not wait for it.
        socket
            .set_non_blocking(true)
            .context("cannot make a socket non-blocking")?;
        let mut question =
            NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        socket
            .send(&bytes, 0)
            .context("cannot send to the kernel")?;
        Ok(socket)
    }

    /// Receives the answer: several datagrams, with several messages in each; the last
    /// message says that it is the last. Returns `None` if the list changed meanwhile,
    /// because then an interface may be missing or may be there twice.
    fn receive(socket: &Socket) -> Result<Option<Vec<Interface>>> {
        let mut links = Vec::new();
        let mut is_consistent = true;
        loop {
            // "full": asks for the length first (MSG_PEEK with MSG_TRUNC), so that nothing is cut.
            let (datagram, _) = socket
                .recv_from_full()
                .context("cannot receive all from the kernel")?;
            for message in messages(&datagram)? {
                is_consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(link) => links.push(link),
                    NetlinkPayload::Done(done) if done.code == 0 => {
                        return Ok(is_consistent.then_some(links));
                    }
                    NetlinkPayload::Done(done) => {
                        return Err(io::Error::from_raw_os_error(-done.code).into());
                    }
                    NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                    other => bail!("the kernel sent what was not asked for: {other:?}"),
                }
            }
        }
    }

    /// Splits a datagram into its messages. Each begins with its length, at a multiple of four.
    fn messages(mut datagram: &[u8]) -> Result<Vec<NetlinkMessage<Interface>>> {
        let mut messages = Vec::new();
        while !datagram.is_empty() {
            let message = NetlinkMessage::<Interface>::deserialize(datagram)
                .context("cannot read what the kernel sent")?;
            let len = (message.header.length as usize).next_multiple_of(4);
            datagram = datagram.get(len..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }

    /// What we show of an interface.
    #[derive(Debug, Default)]
    struct Interface {
        index: u32,
        flags: LinkFlags,
        name: String,
        state: String,
        address: String,
        /// The number of the interface below this one or of its other end; 0 for none.
        lower: Option<u32>,
        /// Whether that interface is in another network namespace, where we cannot see it.
        is_lower_elsewhere: bool,
    }

    impl NetlinkDeserializable for Interface {
        type Error = DecodeError;

        /// Reads what we show from a message: a header, and then attributes. (The crate can read
        /// all attributes, but fails if a name is not UTF-8.)
        fn deserialize(head: &NetlinkHeader, message: &[u8]) -> Result<Interface, DecodeError> {
            if head.message_type != RTM_NEWLINK {
                return Err(DecodeError::from("not what was asked for"));
            }
            let header = LinkHeader::parse(message)?;
            let attributes = message.get(header.buffer_len()..).unwrap_or_default();
            let mut interface = Interface {
                index: header.index,
                flags: header.flags,
                ..Interface::default()
            };
            for attribute in NlasIterator::new(attributes) {
                let attribute = attribute?;
                match (attribute.kind(), attribute.value()) {
                    // Escaped, so that a name cannot send commands to the terminal.
                    (IFLA_IFNAME, [name @ .., 0]) => {
                        interface.name = name.escape_ascii().to_string();
                    }
                    (IFLA_OPERSTATE, [state]) => interface.state = State::from(*state).to_string(),
                    (IFLA_ADDRESS, bytes) => interface.address = hardware_address(bytes),
                    (IFLA_LINK, bytes) => {
                        interface.lower = bytes.try_into().ok().map(u32::from_ne_bytes);
                    }
                    (IFLA_LINK_NETNSID, _) => interface.is_lower_elsewhere = true,
                    _ => {}
                }
            }
            Ok(interface)
        }
    }

    impl Interface {
        fn line(&self, all: &[Interface]) -> String {
            let is_lower =
                |other: &&Interface| Some(other.index) == self.lower && !self.is_lower_elsewhere;
            let lower = all.iter().find(is_lower);
            let name = match (self.lower, lower) {
                (None, _) => self.name.clone(),
                (Some(0), _) => format!("{}@NONE", self.name),
                (Some(_), Some(lower)) => format!("{}@{}", self.name, lower.name),
                (Some(index), None) => format!("{}@if{index}", self.name),
            };
            let flags = self.flag_names(lower).join(",");
            format!("{name:16} {:14} {} <{flags}>\n", self.state, self.address)
        }

        fn flag_names(&self, lower: Option<&Interface>) -> Vec<&str> {
            let has = |flag| self.flags.contains(flag);
            let mut names = Vec::new();
            // `ip` adds two: no cable is plugged in, and the interface below is down.
            if has(LinkFlags::Up) && !has(LinkFlags::Running) {
                names.push("NO-CARRIER");
            }
            names.extend(
                FLAGS
                    .iter()
                    .filter(|(flag, _)| has(*flag))
                    .map(|(_, name)| *name),
            );
            if lower.is_some_and(|lower| !lower.flags.contains(LinkFlags::Up)) {
                names.push("M-DOWN");
            }
            names
        }
    }

    /// Formats a hardware address, such as `02:00:00:00:00:07`. A tunnel has an IP address.
    fn hardware_address(bytes: &[u8]) -> String {
        match <[u8; 4]>::try_from(bytes) {
            Ok(bytes) => Ipv4Addr::from(bytes).to_string(),
            Err(_) => bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
                .join(":"),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    anyhow::bail!("cannot ask this kernel: the numbers of the families are Linux's")
}
