//! `udp-server --join`: one datagram to a group reaches each member.
//!
//! Here the group is joined on the loopback interface, so nothing leaves the machine. Several servers, each
//! on a host of its own, and IPv6 are in `hosts.rs`.

use std::process::Command;

#[path = "promises/udp_multicast.rs"]
mod promises;

fn server() -> Command {
    harness::program("udp-server")
}
