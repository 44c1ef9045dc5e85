//! What `udp-server` promises.

use std::process::Command;

#[path = "promises/udp_server.rs"]
mod promises;

fn server() -> Command {
    harness::program("udp-server")
}
