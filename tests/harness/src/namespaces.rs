//! Commands in their own Linux namespaces: networks and files that nobody else sees.

use std::process::Command;

use crate::{Running, not_run};

/// Returns the same command in its own namespaces, after shell commands that set them up. If
/// this is not possible here, prints `NOT RUN` and returns `None`.
pub fn unshared(flags: &str, set_up: &str, command: &Command) -> Option<Command> {
    let unshared = try_unshared(flags, set_up, command);
    unshared.map_err(|why| not_run(&why)).ok()
}

/// Does the same, and returns why this is not possible here.
pub fn try_unshared(flags: &str, set_up: &str, command: &Command) -> Result<Command, String> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(flags.split(' '));
        unshare.args(["sh", "-c", &format!("{set_up} && exec \"$@\""), "sh"]);
        unshare
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE");
        unshare
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("unshare {flags}: {}", stderr.trim()));
        }
        Err(error) => return Err(format!("cannot start unshare: {error}")),
    }
    let mut unshared = unshare();
    unshared.arg(command.get_program()).args(command.get_args());
    Ok(unshared)
}

/// Returns the command inside the namespaces (user, network, mounts) of another process.
pub fn inside(holder: &Running, command: &Command) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.args([
        "-t",
        &holder.id().to_string(),
        "--preserve-credentials",
        "-U",
        "-n",
        "-m",
    ]);
    nsenter.arg(command.get_program()).args(command.get_args());
    nsenter
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    nsenter
}

/// Returns the same command where the name `twofold` has an IPv6 and an IPv4 address. If this is not
/// possible here, prints `NOT RUN` and returns `None`.
pub fn with_twofold_name(command: &Command) -> Option<Command> {
    let twofold = try_with_twofold_name(command);
    twofold.map_err(|why| not_run(&why)).ok()
}

/// Does the same, and returns why this is not possible here.
pub fn try_with_twofold_name(command: &Command) -> Result<Command, String> {
    try_with_hosts(r"127.0.0.1 twofold\n::1 twofold\n", command)
}

/// Returns the same command where /etc/hosts has these lines, in the form of printf(1). If this is
/// not possible here, prints `NOT RUN` and returns `None`.
pub fn with_hosts(lines: &str, command: &Command) -> Option<Command> {
    let with_hosts = try_with_hosts(lines, command);
    with_hosts.map_err(|why| not_run(&why)).ok()
}

fn try_with_hosts(lines: &str, command: &Command) -> Result<Command, String> {
    let set_up = format!(
        "hosts=$(mktemp) && printf '{lines}' > $hosts && mount --bind $hosts /etc/hosts && rm $hosts"
    );
    try_unshared("-rm", &set_up, command)
}

/// Returns the same command in a network namespace where 7007 is the only port that the kernel
/// can choose for a socket, or why this is not possible here.
pub fn where_7007_is_the_only_free_port(command: &Command) -> Result<Command, String> {
    let set_up = "ip link set lo up && echo 7007 7007 >/proc/sys/net/ipv4/ip_local_port_range";
    try_unshared("-rn", set_up, command)
}

/// Returns the same command in a network namespace where the kernel can choose no port for a socket,
/// or why this is not possible here.
pub fn where_no_port_is_free(command: &Command) -> Result<Command, String> {
    let set_up = r#"ip link set lo up && echo 7008 7008 >/proc/sys/net/ipv4/ip_local_port_range &&
        echo 7008 >/proc/sys/net/ipv4/ip_local_reserved_ports"#;
    try_unshared("-rn", set_up, command)
}

/// Returns the command that runs one ignored test of this program, by its whole name: one that needs a network, or a user,
/// of its own.
pub fn ignored_test(name: &str) -> Command {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--ignored", "--exact", name]);
    test.env_remove("RUST_BACKTRACE");
    test
}

/// Runs such a command.
///
/// # Panics
///
/// The test does not pass.
pub fn assert_test_passes(test: &mut Command) {
    let test = crate::run(test, b"");
    let output = String::from_utf8_lossy(&test.stdout);
    assert!(output.contains("1 passed"), "{output} {}", test.stderr);
}

/// Runs an ignored test in namespaces of its own, as [`unshared`] makes them. If that is not possible, prints
/// `NOT RUN`.
///
/// # Panics
///
/// The test does not pass.
pub fn assert_passes_unshared(flags: &str, set_up: &str, name: &str) {
    if let Some(mut test) = unshared(flags, set_up, &ignored_test(name)) {
        assert_test_passes(&mut test);
    }
}
