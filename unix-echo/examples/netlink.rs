//! Asks the kernel for its network interfaces, through a socket, as `ip link` does. (Linux)
//!
//! ```console
//! $ cargo run -p unix-echo --example netlink
//! lo               UNKNOWN        00:00:00:00:00:00
//! ```
//!
//! The peer of a socket of the family AF_NETLINK is the kernel. Programs such as `ip` send it
//! datagrams to list and to change network interfaces, addresses and routes. This one sends a
//! question, and prints of each interface its name, its state and its hardware address.
//!
//! A datagram of netlink consists of messages, and each message of a header, a fixed part, and
//! any number of *attributes*. Messages and attributes begin with their own length. So a program
//! can skip what it does not know, and the kernel can add an attribute without harm to old
//! programs.
//!
//! Try next:
//!
//! - Run `strace -e network target/debug/examples/netlink`. The kernel sends the list in several
//!   datagrams, and then the message NLMSG_DONE. Without it nobody would know that the list ends.
//! - Run `unshare -rn target/debug/examples/netlink`. Now there is one interface, which is down:
//!   the kernel answers for the *network namespace* in which the socket was opened, and this one
//!   is new.
//!
//! Read `families` first. Read next: netlink(7), rtnetlink(7).

// On systems other than Linux, most of this is unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::io::{self, Write};
use std::net::Ipv4Addr;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use clap::Parser;
#[cfg(target_os = "linux")]
use nix::{
    errno::Errno,
    libc::{
        IFLA_ADDRESS, IFLA_IFNAME, IFLA_OPERSTATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
        NLMSG_DONE, NLMSG_ERROR, RTM_GETLINK, RTM_NEWLINK,
    },
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv,
        send, socket,
    },
};

/// The lengths, in bytes, of the header of a message and of the fixed part of a message about an
/// interface (netlink(7), rtnetlink(7)).
const HEADER: usize = 16;
const FIXED_PART: usize = 16;

/// The length of the header of an attribute, in bytes.
const ATTRIBUTE: usize = 4;

/// The states of an interface, as RFC 2863 numbers and `ip` names them.
const STATES: [&str; 7] = [
    "UNKNOWN",
    "NOTPRESENT",
    "DOWN",
    "LOWERLAYERDOWN",
    "TESTING",
    "DORMANT",
    "UP",
];

/// How often to ask if the interfaces change during the answer.
const ATTEMPTS: u32 = 10;

/// List the network interfaces
#[derive(Parser)]
#[command(version)]
struct Args {}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    Args::parse();
    let lines = list().context("cannot list the interfaces")?;
    let printed = io::stdout().write_all(lines.as_bytes());
    printed.context("cannot write to stdout")
}

#[cfg(target_os = "linux")]
fn list() -> Result<String> {
    for _ in 0..ATTEMPTS {
        let socket = open().context("cannot open a netlink socket")?;
        ask(&socket).context("cannot send to the kernel")?;
        if let Some(list) = receive(&socket)? {
            return Ok(list);
        }
    }
    bail!("they changed during each of {ATTEMPTS} answers")
}

/// Opens a socket to the part of the kernel that knows interfaces and routes.
#[cfg(target_os = "linux")]
fn open() -> nix::Result<OwnedFd> {
    let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    // Port 0 is the kernel; all others are sockets of programs. Those with CAP_NET_ADMIN could send
    // to ours as well. As with UDP, a socket that is connected receives from its peer alone.
    connect(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(netlink)
}

/// Sends the question: RTM_GETLINK ("get an interface") with NLM_F_DUMP ("get all").
#[cfg(target_os = "linux")]
fn ask(socket: &OwnedFd) -> nix::Result<usize> {
    let len = (HEADER + FIXED_PART) as u32;
    let flags = (NLM_F_REQUEST | NLM_F_DUMP) as u16;
    // The kernel is on the same machine, so numbers are in the order of its processor.
    let mut question = Vec::new();
    question.extend(len.to_ne_bytes());
    question.extend(RTM_GETLINK.to_ne_bytes());
    question.extend(flags.to_ne_bytes());
    // The rest of the header is for programs that ask several questions at a time. The fixed part
    // could name one interface.
    question.resize(HEADER + FIXED_PART, 0);
    send(socket.as_raw_fd(), &question, MsgFlags::empty())
}

/// Receives the answer, a line for each interface. Returns `None` if the interfaces have changed
/// meanwhile: then one may be missing, or may be there twice.
#[cfg(target_os = "linux")]
fn receive(socket: &OwnedFd) -> Result<Option<String>> {
    let mut list = String::new();
    let mut has_changed = false;
    loop {
        let datagram = next_datagram(socket).context("cannot receive from the kernel")?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = split_message(rest).context("cannot read a message")?;
            let (kind, flags, body, next) = message;
            has_changed |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                _ if kind == RTM_NEWLINK.into() => list += &line(body)?,
                // The body begins with 0, or with the number of an error, which is negative here.
                NLMSG_DONE | NLMSG_ERROR => {
                    let number = body
                        .first_chunk()
                        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    if number != 0 {
                        return Err(Errno::from_raw(-number).into());
                    }
                    return Ok((!has_changed).then_some(list));
                }
                _ => bail!("the kernel sent a message of type {kind}"),
            }
            rest = next;
        }
    }
}

/// Receives a datagram as long as it is. A shorter buffer would lose its end.
#[cfg(target_os = "linux")]
fn next_datagram(socket: &OwnedFd) -> nix::Result<Vec<u8>> {
    // MSG_PEEK leaves the datagram in the queue, and with MSG_TRUNC recv(2) returns its length.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let mut datagram = vec![0; recv(socket.as_raw_fd(), &mut [], peek)?];
    let len = recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
    datagram.truncate(len);
    Ok(datagram)
}

/// Splits the first message, its type, its flags and its body, off a datagram.
fn split_message(datagram: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let [l0, l1, l2, l3, t0, t1, f0, f1, ..] = *datagram.first_chunk::<HEADER>()?;
    let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let [kind, flags] = [[t0, t1], [f0, f1]].map(|bytes| u16::from_ne_bytes(bytes).into());
    let body = datagram.get(HEADER..len)?;
    Some((kind, flags, body, after(datagram, len)))
}

/// Splits the first attribute, its type and its value, off the attributes of a message.
fn split_attribute(attributes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [l0, l1, t0, t1] = *attributes.first_chunk()?;
    let len = u16::from_ne_bytes([l0, l1]).into();
    let value = attributes.get(ATTRIBUTE..len)?;
    Some((u16::from_ne_bytes([t0, t1]), value, after(attributes, len)))
}

/// Returns what follows the first `len` bytes. It begins at a multiple of four bytes.
fn after(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(len.next_multiple_of(4)..).unwrap_or_default()
}

/// Formats what we show of an interface.
#[cfg(target_os = "linux")]
fn line(body: &[u8]) -> Result<String> {
    let (mut name, mut state, mut address) = (String::new(), "?", String::new());
    let mut rest = body.get(FIXED_PART..).unwrap_or_default();
    while !rest.is_empty() {
        let attribute = split_attribute(rest).context("cannot read an attribute")?;
        let (kind, value, next) = attribute;
        match (kind, value) {
            // A name is nearly any bytes, and a zero byte ends it. Escaped, so that it cannot send
            // commands to the terminal.
            (IFLA_IFNAME, [bytes @ .., 0]) => name = bytes.escape_ascii().to_string(),
            (IFLA_OPERSTATE, [number]) => {
                state = STATES.get(usize::from(*number)).unwrap_or(&"?");
            }
            (IFLA_ADDRESS, bytes) => address = hardware_address(bytes),
            _ => {}
        }
        rest = next;
    }
    Ok(format!("{name:16} {state:14} {address}\n"))
}

/// Formats a hardware address, such as `02:00:00:00:00:07`. A tunnel has an IP address.
fn hardware_address(bytes: &[u8]) -> String {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => Ipv4Addr::from(bytes).to_string(),
        Err(_) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(":")
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot ask this kernel: this example is written for Linux")
}
