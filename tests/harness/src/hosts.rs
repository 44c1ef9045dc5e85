//! Several hosts on one network. Each host is a network namespace with its own interface, and a bridge
//! joins them.

use std::process::{Command, Stdio};

use crate::{Running, inside, not_run, try_unshared};

/// The hosts 10.77.0.1, fd77::1, 10.77.0.2, fd77::2 and so on. They end when this is dropped.
pub struct Network {
    hosts: Vec<Running>,
    _bridge: Running,
}

/// Starts a process that keeps a namespace alive: a namespace ends with its last process.
fn hold(command: &mut Command) -> Running {
    let mut holder = Running::start(command);
    assert_eq!(holder.stdout_line(), "ready");
    holder
}

impl Network {
    /// Creates a network of this many hosts. If a test may not create namespaces, this prints
    /// `NOT RUN` and returns `None`.
    pub fn of(count: usize) -> Option<Network> {
        Network::try_of(count).map_err(|why| not_run(&why)).ok()
    }

    /// Does the same, and returns why this is not possible here.
    pub fn try_of(count: usize) -> Result<Network, String> {
        let bridge =
            "ip link set lo up && ip link add bridge0 type bridge && ip link set bridge0 up";
        let mut ready = Command::new("sh");
        ready.args(["-c", "echo ready; exec cat"]);
        let bridge = hold(&mut try_unshared("-rnm", bridge, &ready)?);
        let hosts = (1..=count)
            .map(|number| Network::host(&bridge, number, &ready))
            .collect();
        Ok(Network {
            hosts,
            _bridge: bridge,
        })
    }

    fn host(bridge: &Running, number: usize, ready: &Command) -> Running {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-nm", "--"])
            .arg(ready.get_program())
            .args(ready.get_args());
        let host = hold(&mut inside(bridge, &unshare));
        let id = host.id();
        let link = format!(
            "ip link add host{number} type veth peer name eth0 netns {id} && ip link set host{number} master bridge0 up"
        );
        succeed(inside(bridge, Command::new("sh").args(["-c", &link])));
        let set_up = format!(
            "ip link set lo up && ip addr add 10.77.0.{number}/24 broadcast + dev eth0 &&
             ip addr add fd77::{number}/64 dev eth0 nodad && ip link set eth0 up && ip route add 224.0.0.0/4 dev eth0"
        );
        succeed(inside(&host, Command::new("sh").args(["-c", &set_up])));
        host
    }

    /// Returns the command on the host with this number. The first is 1.
    pub fn on(&self, number: usize, command: &Command) -> Command {
        inside(&self.hosts[number - 1], command)
    }

    /// Returns the process that keeps this host alive.
    pub fn process(&self, number: usize) -> u32 {
        self.hosts[number - 1].id()
    }

    /// Starts a server on a host, and waits until it listens.
    pub fn server(&self, number: usize, command: &Command) -> Running {
        let mut server = Running::start(&mut self.on(number, command));
        server.announced();
        server
    }
}

/// Runs a command that must succeed, and returns what it printed.
pub fn succeed(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
