//! What `udp-server` promises.

use std::process::Command;

#[path = "promises/udp_server.rs"]
mod promises;

fn server(addr: &str) -> Command {
    let mut command = harness::program("udp-server");
    command.args(["--addr", addr]);
    command
}
