//! Shows which sockets the kernel has: it asks for one of each family and type. (Linux)
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
//! loaded. If it has no TIPC, the last line says how to load it.
//!
//! The *family* of a socket says what an address is: a path, an IP address and a port, the name of
//! a service. The *type* says how bytes are delivered. SOCK_STREAM keeps their order but no
//! boundaries. SOCK_DGRAM delivers each message separately. SOCK_SEQPACKET keeps order and
//! boundaries. With SOCK_RAW the program itself writes a header that otherwise the kernel writes.
//! (There is none in AF_UNIX and AF_NETLINK, where SOCK_RAW is SOCK_DGRAM under another name.)
//!
//! Try next:
//!
//! - Run it as root: `sudo target/debug/examples/families`. What was `not permitted` requires the
//!   capability CAP_NET_RAW, because such sockets can read and forge the traffic of other programs.
//! - If the last line names TIPC, load it (`sudo modprobe tipc`) and run the example again. A
//!   kernel can get a family while it runs.
//!
//! Read next: the example `netlink`, which uses a socket of the fourth row; address_families(7).

// On systems other than Linux, most of this is unused.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Parser;
#[cfg(target_os = "linux")]
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};

/// What an address is in each family, and who the peer is; address_families(7) says more.
#[cfg(target_os = "linux")]
const FAMILIES: [(&str, AddressFamily); 7] = [
    ("AF_UNIX", AddressFamily::Unix), // A path or a name; a program on this machine.
    ("AF_INET", AddressFamily::Inet), // IPv4: an address and a port; a program on any host.
    ("AF_INET6", AddressFamily::Inet6), // IPv6: the same.
    ("AF_NETLINK", AddressFamily::Netlink), // A number; a part of the kernel.
    ("AF_TIPC", AddressFamily::Tipc), // A service, wherever in a cluster of machines it runs.
    ("AF_PACKET", AddressFamily::Packet), // A network interface; all on its network, below IP.
    ("AF_VSOCK", AddressFamily::Vsock), // A number and a port; a virtual machine or its host.
];

#[cfg(target_os = "linux")]
const TYPES: [(&str, SockType); 4] = [
    ("SOCK_STREAM", SockType::Stream),
    ("SOCK_DGRAM", SockType::Datagram),
    ("SOCK_SEQPACKET", SockType::SeqPacket),
    ("SOCK_RAW", SockType::Raw),
];

/// Show which families and types of sockets this kernel has
#[derive(Parser)]
#[command(version)]
struct Args {}

#[cfg(target_os = "linux")]
fn main() -> Result<()> {
    Args::parse();
    let text = table().context("cannot ask for a socket")?;
    let printed = io::stdout().write_all(text.as_bytes());
    printed.context("cannot write to stdout")
}

#[cfg(target_os = "linux")]
fn table() -> nix::Result<String> {
    let titles = TYPES.map(|(title, _)| format!("{title:16}")).concat();
    let mut table = format!("{:12}{}\n", "", titles.trim_end());
    for (name, family) in FAMILIES {
        let mut line = format!("{name:12}");
        for (_, kind) in TYPES {
            line += &format!("{:16}", cell(family, kind)?);
        }
        table += &format!("{}\n", line.trim_end());
    }
    // Few programs use TIPC. In most kernels it is a module, which somebody must load.
    if let Err(error @ Errno::EAFNOSUPPORT) = open(AddressFamily::Tipc, SockType::SeqPacket) {
        table += &format!("\nAF_TIPC: {}; as root, try: modprobe tipc\n", error.desc());
    }
    Ok(table)
}

/// Says in a few words what the kernel answers.
#[cfg(target_os = "linux")]
fn cell(family: AddressFamily, kind: SockType) -> nix::Result<&'static str> {
    match open(family, kind) {
        Ok(()) => Ok("yes"),
        Err(Errno::EAFNOSUPPORT) => Ok("no such family"),
        Err(Errno::EPROTOTYPE | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => {
            Ok("no such type")
        }
        Err(Errno::EPERM | Errno::EACCES) => Ok("not permitted"),
        // These say nothing about the family or the type: descriptors or memory have run out.
        Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => Err(error),
        Err(error) => Ok(error.desc()),
    }
}

/// Opens a socket, and closes it again. It has no address, and nothing is sent.
#[cfg(target_os = "linux")]
fn open(family: AddressFamily, kind: SockType) -> nix::Result<()> {
    // The kernel knows which protocol a family and a type imply: AF_INET and SOCK_STREAM imply TCP.
    // Raw IP could carry any protocol, so it must be named.
    let protocol = match (family, kind) {
        (AddressFamily::Inet, SockType::Raw) => Some(SockProtocol::Icmp),
        (AddressFamily::Inet6, SockType::Raw) => Some(SockProtocol::IcmpV6),
        _ => None,
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<()> {
    Args::parse(); // It answers --help and --version here as well.
    anyhow::bail!("cannot ask this kernel: this example knows only the families of Linux")
}
