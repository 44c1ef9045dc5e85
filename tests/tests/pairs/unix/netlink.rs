//! The example `netlink` of `unix-echo`: it lists the network interfaces as `ip` does.

#[cfg(target_os = "linux")]
mod linux {
    use std::process::Command;

    use harness::{example_of, not_run, run, unshared};

    fn netlink() -> Command {
        example_of("unix-echo", "netlink")
    }

    fn stdout(command: &mut Command) -> String {
        let finished = run(command, b"");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        String::from_utf8(finished.stdout).unwrap()
    }

    /// The kernel takes any bytes but `/` and white space for a name. `ip` prints them as they are.
    #[test]
    fn a_name_of_any_bytes_is_escaped_and_hides_no_other() {
        let set_up = "for name in plain $(printf 'a\\377') $(printf 'b\\033[2J'); do
            ip link add \"$name\" type veth peer name \"peer$((i += 1))\" ||
            ip link add \"$name\" type dummy; done";
        let Some(mut links) = unshared("-rn", set_up, &netlink()) else {
            return;
        };
        let finished = run(&mut links, b"");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let lines = String::from_utf8(finished.stdout).unwrap();
        for name in ["lo ", "plain", "a\\xff", "b\\x1b[2J"] {
            let is_listed = lines.lines().any(|line| line.starts_with(name));
            assert!(is_listed, "{name:?} is not in {lines:?}");
        }
    }

    /// A program with CAP_NET_ADMIN may send to the sockets of others, as long as they are not connected.
    #[test]
    fn a_connected_socket_receives_from_the_kernel_alone() {
        let script = "import socket
def netlink():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
free, connected, other = netlink(), netlink(), netlink()
free.bind((0, 0))
connected.connect((0, 0))
other.sendto(b'hello', free.getsockname())
assert free.recv(8) == b'hello'
try:
    other.sendto(b'hello', connected.getsockname())
except ConnectionRefusedError:
    print('refused')
";
        if let Err(error) = Command::new("python3").arg("--version").output() {
            return not_run(&format!("cannot start python3: {error}"));
        }
        let mut python = Command::new("python3");
        if let Some(mut python) = unshared("-rn", "true", python.args(["-c", script])) {
            assert_eq!(stdout(&mut python), "refused\n");
        }
    }

    /// Asserts that the example lists the interfaces as `ip` does, and returns its list. If
    /// this cannot be seen here, prints `NOT RUN` and returns `None`.
    fn links_as_ip_shows_them(set_up: Option<&str>) -> Option<String> {
        match Command::new("ip").args(["-brief", "link"]).output() {
            Ok(output) if output.status.success() => {}
            other => {
                not_run(&format!("ip -brief link: {other:?}"));
                return None;
            }
        }
        let script = "ip -brief link && echo -- && \"$0\" && echo -- && ip -brief link";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(netlink().get_program());
        if let Some(set_up) = set_up {
            command = unshared("-rn", set_up, &command)?;
        }
        // An interface may change between the calls, so we compare only if none has changed.
        for _ in 0..10 {
            let output = stdout(&mut command);
            let [before, ours, after] =
                output.split("--\n").collect::<Vec<_>>().try_into().unwrap();
            if before == after {
                assert_eq!(columns(ours), columns(before));
                return Some(ours.to_owned());
            }
        }
        not_run("the interfaces here never stay as they are");
        None
    }

    /// Returns the name, the state and the hardware address of each interface. `ip` puts `@` and
    /// the other end of a tunnel or a veth behind the name.
    fn columns(links: &str) -> Vec<Vec<&str>> {
        let words = links.lines().map(|line| line.split_whitespace().take(3));
        words
            .map(|words| {
                words
                    .map(|word| word.split('@').next().unwrap_or_default())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn links_are_listed_as_ip_does() {
        links_as_ip_shows_them(None);
    }

    #[test]
    fn links_of_a_new_network_namespace_are_listed_as_ip_does() {
        let set_up = "{ ip link add up7 address 02:00:00:00:00:07 type veth peer name down7 ||
            { ip link add up7 address 02:00:00:00:00:07 type dummy && ip link add down7 type dummy; }; } &&
            ip link set up7 up";
        let Some(links) = links_as_ip_shows_them(Some(set_up)) else {
            return;
        };
        let columns = columns(&links);
        let is_down = |name| columns.iter().any(|link| link[..2] == [name, "DOWN"]);
        assert_eq!(
            ["lo", "up7", "down7"].map(is_down),
            [true, false, true],
            "{links}"
        );
        assert!(links.contains("02:00:00:00:00:07"), "{links}");
    }

    /// One datagram (at most 32 KiB) cannot hold all of them, so the answer has several parts.
    #[test]
    fn a_hundred_links_are_listed_as_ip_does() {
        let set_up =
            "for i in $(seq 50); do ip link add a$i type veth peer name b$i || exit 1; done";
        let Some(links) = links_as_ip_shows_them(Some(set_up)) else {
            return;
        };
        assert_eq!(columns(&links).len(), 101, "and lo");
    }
}
