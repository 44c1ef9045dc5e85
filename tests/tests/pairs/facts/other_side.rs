//! What a program sees when the other side is killed, suspended, switched off, cut off or shielded, and what
//! stands between two machines. Each host is a network namespace; a host is switched off by taking its interface
//! down. So that nobody waits for minutes, the first host gives up early.

use std::process::Command;

use harness::{Network, Running, foreign, succeed};

/// Makes the calls that it is asked for, one a line, and prints what each returns: the name of the error, or
/// `nothing` if the time limit has passed. The sockets have names.
const CALLS: &str = "
import errno, select, sys
from socket import *

LIMIT = 30
PEER = ('10.77.0.2', 7007)
named = {}

def listen(host, backlog=8):
    named['listener'] = socket()
    named['listener'].setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    named['listener'].bind((host, 7007))
    named['listener'].listen(backlog)
    named['u'] = socket(AF_INET, SOCK_DGRAM)
    named['u'].bind((host, 7007))

def accept(name):
    named[name], _ = named['listener'].accept()

def connect(name, limit=LIMIT):
    named[name] = socket()
    named[name].settimeout(limit)
    return named[name].connect(PEER)

def begin(name):
    named[name] = socket()
    named[name].setblocking(False)
    return errno.errorcode[named[name].connect_ex(PEER)]

def is_connected(name):
    select.select([], [named[name]], [], LIMIT)
    return named[name].getsockopt(SOL_SOCKET, SO_ERROR) == 0

def udp(name):
    named[name] = socket(AF_INET, SOCK_DGRAM)
    named[name].connect(PEER)

def address_of(name):
    return named[name].getsockname()[0]

def write(name, text):
    named[name].settimeout(LIMIT)
    return named[name].send(text.encode())

def read(name, limit=LIMIT):
    named[name].settimeout(limit)
    return named[name].recv(100).decode()

def wait_for_bytes(name):
    named[name].recv(1, MSG_PEEK)

def has_error(name):
    poll = select.poll()
    poll.register(named[name], 0)
    return bool(poll.poll(LIMIT * 1000))

def keep_alive(name, count):
    named[name].setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    named[name].setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 1)
    named[name].setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, 1)
    named[name].setsockopt(IPPROTO_TCP, TCP_KEEPCNT, count)

def fill(name):
    named[name].setblocking(False)
    while True:
        named[name].send(bytes(65536))

def watch():
    named['wire'] = socket(AF_PACKET, SOCK_RAW, htons(3))
    named['wire'].settimeout(LIMIT)

def sees(text):
    while text.encode() not in named['wire'].recv(65536):
        pass
    return True

for call in sys.stdin:
    try:
        print(eval(call), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, 'nothing'), flush=True)
";

/// The hosts 10.77.0.1 (we), 10.77.0.2 (the peer) and 10.77.0.3.
struct Hosts {
    network: Network,
    we: Running,
    peer: Running,
}

impl Hosts {
    /// The peer listens.
    fn listening() -> Option<Hosts> {
        let mut hosts = Hosts::start()?;
        assert_eq!(peer(&mut hosts, "listen('10.77.0.2')"), "None");
        Some(hosts)
    }

    /// We have two connections to the peer, one (`r`) for reading and one (`w`) for writing, and a connected
    /// socket for UDP (`u`).
    fn connected() -> Option<Hosts> {
        let mut hosts = Hosts::listening()?;
        hosts.connect();
        Some(hosts)
    }

    fn start() -> Option<Hosts> {
        foreign("python3")?;
        let network = Network::of(3)?;
        let hosts = Hosts {
            we: Running::start(&mut network.on(1, &python())),
            peer: Running::start(&mut network.on(2, &python())),
            network,
        };
        // The connection is given up after less than a second, and a request for one after three. Where
        // tcp_syn_linear_timeouts is known (Linux 6.5), the first pauses would not grow.
        hosts.run(
            1,
            "cd /proc/sys/net/ipv4 && echo 1 >tcp_retries2 && echo 1 >tcp_syn_retries &&
             if [ -e tcp_syn_linear_timeouts ]; then echo 0 >tcp_syn_linear_timeouts; fi",
        );
        Some(hosts)
    }

    fn connect(&mut self) {
        for name in ["r", "w"] {
            assert_eq!(we(self, &format!("connect('{name}')")), "None");
            assert_eq!(peer(self, &format!("accept('{name}')")), "None");
        }
        assert_eq!(we(self, "udp('u')"), "None");
    }

    /// Kills the peer, and waits until it has ended.
    fn kill_the_peer(&mut self) {
        self.peer.signal(rustix::process::Signal::KILL);
        let peer = &mut self.peer;
        assert!(!peer.becomes_ready(|| false), "it has ended");
    }

    /// Runs shell commands on a host.
    fn run(&self, host: usize, commands: &str) -> String {
        let output = succeed(
            self.network
                .on(host, Command::new("sh").args(["-c", commands])),
        );
        String::from_utf8(output).unwrap().trim().to_owned()
    }

    /// The packets to the peer go over the third host, which forwards them.
    fn route_over_the_third(&self) {
        self.run(
            3,
            "cd /proc/sys/net/ipv4 && echo 1 >ip_forward &&
             echo 0 >conf/all/send_redirects && echo 0 >conf/eth0/send_redirects",
        );
        self.run(1, "ip route add 10.77.0.2 via 10.77.0.3");
    }

    /// Our host goes on sending to the interface of the peer, as a router between the two would do.
    fn remember_the_interface_of_the_peer(&mut self) {
        let address = self.run(2, "ip -br link show eth0 | awk '{print $3}'");
        self.run(
            1,
            &format!("ip neigh replace 10.77.0.2 lladdr {address} nud permanent dev eth0"),
        );
        assert_eq!(call(&mut self.we, "write('r', 'hello')"), "5");
        assert_eq!(call(&mut self.peer, "read('r')"), "hello");
    }
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.args(["-B", "-c", CALLS]);
    python
}

fn call(host: &mut Running, call: &str) -> String {
    host.write(format!("{call}\n").as_bytes());
    host.stdout_line()
}

fn we(hosts: &mut Hosts, what: &str) -> String {
    call(&mut hosts.we, what)
}

fn peer(hosts: &mut Hosts, what: &str) -> String {
    call(&mut hosts.peer, what)
}

/// Two writes succeed. Then the kernel gives up the connection, for this reason.
fn two_writes_and_then(hosts: &mut Hosts, error: &str) {
    assert_eq!(we(hosts, "write('w', 'first')"), "5");
    assert_eq!(we(hosts, "write('w', 'second')"), "6");
    assert_eq!(we(hosts, "has_error('w')"), "True");
    assert_eq!(we(hosts, "read('w')"), error);
}

/// Datagrams are sent, and no answer comes.
fn udp_hears_nothing(hosts: &mut Hosts) {
    assert_eq!(we(hosts, "write('u', 'first')"), "5");
    assert_eq!(we(hosts, "read('u', 0.5)"), "nothing");
    assert_eq!(we(hosts, "write('u', 'second')"), "6");
    assert_eq!(we(hosts, "read('u', 0.5)"), "nothing");
}

/// The first datagram is sent, and what comes back is an error of the next call.
fn udp_learns(hosts: &mut Hosts, error: &str) {
    assert_eq!(we(hosts, "write('u', 'hello')"), "5");
    assert_eq!(we(hosts, "read('u')"), error);
}

#[test]
fn a_killed_peer_is_the_end_for_a_read_and_an_error_for_the_second_write() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    assert_eq!(peer(&mut hosts, "write('r', 'last')"), "4");
    hosts.kill_the_peer();
    assert_eq!(we(&mut hosts, "read('r')"), "last");
    assert_eq!(we(&mut hosts, "read('r')"), "", "the end");
    assert_eq!(we(&mut hosts, "read('w')"), "", "the end is here");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "5");
    assert_eq!(we(&mut hosts, "has_error('w')"), "True");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "EPIPE");
    assert_eq!(we(&mut hosts, "connect('new')"), "ECONNREFUSED");
    udp_learns(&mut hosts, "ECONNREFUSED");
}

#[test]
fn a_peer_that_ends_with_unread_bytes_is_a_reset_for_a_read_and_for_the_first_write() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    for name in ["r", "w"] {
        assert_eq!(we(&mut hosts, &format!("write('{name}', 'unread')")), "6");
        assert_eq!(
            peer(&mut hosts, &format!("wait_for_bytes('{name}')")),
            "None"
        );
    }
    hosts.kill_the_peer();
    assert_eq!(we(&mut hosts, "read('r')"), "ECONNRESET");
    assert_eq!(we(&mut hosts, "has_error('w')"), "True");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "ECONNRESET");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "EPIPE");
    assert_eq!(we(&mut hosts, "connect('new')"), "ECONNREFUSED");
}

/// Its kernel completes connections, takes bytes until its buffer is full, and answers keepalive. UDP waits in its
/// queue.
#[test]
fn the_kernel_of_a_suspended_peer_goes_on() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    hosts.peer.suspend();
    assert_eq!(we(&mut hosts, "connect('new')"), "None");
    assert_eq!(we(&mut hosts, "keep_alive('r', 3)"), "None");
    assert_eq!(we(&mut hosts, "read('r', 6)"), "nothing");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "5");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "6");
    assert_eq!(
        we(&mut hosts, "fill('w')"),
        "EAGAIN",
        "a write would wait now"
    );
    assert_eq!(we(&mut hosts, "write('u', 'hello')"), "5");
    assert_eq!(we(&mut hosts, "read('u', 0.5)"), "nothing");
    hosts.peer.resume();
    assert_eq!(peer(&mut hosts, "read('u')"), "hello");
    assert_eq!(peer(&mut hosts, "accept('new')"), "None");
    assert_eq!(peer(&mut hosts, "write('r', 'awake')"), "5");
    assert_eq!(we(&mut hosts, "read('r')"), "awake");
}

#[test]
fn of_a_peer_without_power_nothing_comes_until_the_kernel_gives_up_what_was_written() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    hosts.remember_the_interface_of_the_peer();
    hosts.run(2, "ip link set eth0 down");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    two_writes_and_then(&mut hosts, "ETIMEDOUT");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    assert_eq!(we(&mut hosts, "connect('new')"), "ETIMEDOUT");
    udp_hears_nothing(&mut hosts);
}

#[test]
fn keepalive_finds_out_that_the_peer_has_no_power() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    hosts.remember_the_interface_of_the_peer();
    hosts.run(2, "ip link set eth0 down");
    assert_eq!(we(&mut hosts, "keep_alive('r', 2)"), "None");
    assert_eq!(we(&mut hosts, "read('r')"), "ETIMEDOUT");
}

/// The kernel asks three times who has the address, a second apart.
#[test]
fn on_the_same_network_an_address_that_nobody_has_is_no_route_to_host() {
    let Some(mut hosts) = Hosts::listening() else {
        return;
    };
    hosts.run(2, "ip link set eth0 down");
    hosts.run(
        1,
        "ip neigh flush dev eth0 && echo 6 >/proc/sys/net/ipv4/tcp_syn_retries",
    );
    assert_eq!(we(&mut hosts, "connect('new')"), "EHOSTUNREACH");
}

#[test]
fn when_the_cable_is_in_again_what_was_written_arrives_and_datagrams_are_lost() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    hosts.remember_the_interface_of_the_peer();
    hosts.run(1, "echo 15 >/proc/sys/net/ipv4/tcp_retries2");
    hosts.run(2, "ip link set eth0 down");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "5");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "6");
    assert_eq!(we(&mut hosts, "write('u', 'lost')"), "4");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    assert_eq!(we(&mut hosts, "connect('new', 1)"), "nothing");
    hosts.run(2, "ip link set eth0 up");
    let mut arrived = String::new();
    while arrived.len() < 11 {
        arrived += &peer(&mut hosts, "read('w')");
    }
    assert_eq!(arrived, "firstsecond");
    assert_eq!(we(&mut hosts, "write('u', 'later')"), "5");
    assert_eq!(peer(&mut hosts, "read('u')"), "later");
    assert_eq!(peer(&mut hosts, "write('r', 'hello')"), "5");
    assert_eq!(we(&mut hosts, "read('r')"), "hello");
}

/// The third host takes the address of the second, also that of its interface, and knows nothing of its
/// connections.
#[test]
fn a_rebooted_peer_says_nothing_and_answers_the_first_write_with_a_reset() {
    let Some(mut hosts) = Hosts::connected() else {
        return;
    };
    hosts.remember_the_interface_of_the_peer();
    let interface = hosts.run(1, "ip neigh show 10.77.0.2 | sed 's/.*lladdr //; s/ .*//'");
    hosts.run(2, "ip link set eth0 down");
    hosts.run(
        3,
        &format!(
            "ip link set eth0 down && ip link set eth0 address {interface} && ip addr flush dev eth0 &&
             ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up"
        ),
    );
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "5");
    assert_eq!(we(&mut hosts, "has_error('w')"), "True");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "ECONNRESET");
    assert_eq!(we(&mut hosts, "connect('new')"), "ECONNREFUSED");
    udp_learns(&mut hosts, "ECONNREFUSED");
    // Now the server is started again.
    let mut rebooted = Running::start(&mut hosts.network.on(3, &python()));
    assert_eq!(call(&mut rebooted, "listen('10.77.0.2')"), "None");
    assert_eq!(we(&mut hosts, "connect('new')"), "None");
    assert_eq!(we(&mut hosts, "write('u', 'hello')"), "5");
    assert_eq!(call(&mut rebooted, "read('u')"), "hello");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
}

/// The third host is a router that drops what goes to the peer.
#[test]
fn a_router_that_drops_is_silence_for_every_call() {
    let Some(mut hosts) = Hosts::listening() else {
        return;
    };
    hosts.route_over_the_third();
    hosts.connect();
    hosts.run(3, "ip route add blackhole 10.77.0.2");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    two_writes_and_then(&mut hosts, "ETIMEDOUT");
    assert_eq!(we(&mut hosts, "connect('new')"), "ETIMEDOUT");
    udp_hears_nothing(&mut hosts);
}

/// The third host is a router that answers with the ICMP message "prohibited".
#[test]
fn a_router_that_rejects_is_an_error_of_connect_and_of_connected_udp_and_a_connection_tries_on() {
    let Some(mut hosts) = Hosts::listening() else {
        return;
    };
    hosts.route_over_the_third();
    hosts.connect();
    hosts.run(
        3,
        "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit && ip route add prohibit 10.77.0.2",
    );
    assert_eq!(we(&mut hosts, "connect('new')"), "EHOSTUNREACH");
    assert_eq!(we(&mut hosts, "read('r', 0.5)"), "nothing");
    udp_learns(&mut hosts, "EHOSTUNREACH");
    two_writes_and_then(&mut hosts, "EHOSTUNREACH");
}

#[test]
fn while_the_backlog_is_full_connect_waits_and_who_is_in_it_can_write() {
    let Some(mut hosts) = Hosts::start() else {
        return;
    };
    assert_eq!(peer(&mut hosts, "listen('10.77.0.2', 0)"), "None");
    assert_eq!(we(&mut hosts, "connect('w')"), "None");
    assert_eq!(we(&mut hosts, "connect('new')"), "ETIMEDOUT");
    assert_eq!(we(&mut hosts, "read('w', 0.5)"), "nothing");
    assert_eq!(we(&mut hosts, "write('w', 'first')"), "5");
    assert_eq!(we(&mut hosts, "write('w', 'second')"), "6");
    assert_eq!(we(&mut hosts, "begin('later')"), "EINPROGRESS");
    assert_eq!(peer(&mut hosts, "accept('w')"), "None");
    assert_eq!(peer(&mut hosts, "read('w')"), "firstsecond");
    assert_eq!(we(&mut hosts, "is_connected('later')"), "True");
}

#[test]
fn a_server_on_127_0_0_1_is_refused_to_other_hosts_and_one_on_0_0_0_0_is_not() {
    let Some(mut hosts) = Hosts::start() else {
        return;
    };
    assert_eq!(peer(&mut hosts, "listen('127.0.0.1')"), "None");
    assert_eq!(we(&mut hosts, "udp('u')"), "None");
    assert_eq!(we(&mut hosts, "connect('r')"), "ECONNREFUSED");
    udp_learns(&mut hosts, "ECONNREFUSED");
    assert_eq!(peer(&mut hosts, "named['listener'].close()"), "None");
    assert_eq!(peer(&mut hosts, "listen('0.0.0.0')"), "None");
    hosts.connect();
    assert_eq!(we(&mut hosts, "write('u', 'hello')"), "5");
    assert_eq!(peer(&mut hosts, "read('u')"), "hello");
}

/// The third host is a router. It has a packet socket (packet(7)), which receives copies of what passes.
#[test]
fn a_router_on_the_way_can_read_every_byte() {
    let Some(mut hosts) = Hosts::listening() else {
        return;
    };
    hosts.route_over_the_third();
    let mut router = Running::start(&mut hosts.network.on(3, &python()));
    assert_eq!(call(&mut router, "watch()"), "None");
    hosts.connect();
    assert_eq!(we(&mut hosts, "write('w', 'password 1234')"), "13");
    assert_eq!(call(&mut router, "sees('password 1234')"), "True");
    assert_eq!(we(&mut hosts, "write('u', 'password 5678')"), "13");
    assert_eq!(call(&mut router, "sees('password 5678')"), "True");
}

/// Proxies between two connections.
mod proxies {
    use std::fs;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use harness::{LIMIT, Running, foreign, has_nginx, on_a_free_port};

    /// Reads until its client half-closes, and only then answers. Serves until the test ends.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || answer(client));
            }
        });
        addr
    }

    fn answer(mut client: TcpStream) {
        let mut request = Vec::new();
        if client.read_to_end(&mut request).is_ok() {
            let _ = client.write_all(format!("{} bytes", request.len()).as_bytes());
        }
    }

    /// Sends five bytes through a proxy, half-closes, and returns what comes back.
    fn comes_back(config: &str, command: impl Fn(&Path) -> Option<Command>) -> Option<String> {
        let folder = harness::folder();
        let start = |addr: SocketAddr| {
            let config = config
                .replace("PROXY", &addr.to_string())
                .replace("SERVER", &server().to_string());
            fs::write(folder.path().join("config"), config).unwrap();
            Some(Running::start(&mut command(folder.path())?))
        };
        let (_proxy, addr) = on_a_free_port(start, |addr| TcpStream::connect(addr).is_ok())?;
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let end = stream
            .read_to_end(&mut answer)
            .map_err(|error| error.kind());
        assert_ne!(end, Err(ErrorKind::WouldBlock), "no end comes");
        Some(String::from_utf8(answer).unwrap())
    }

    #[test]
    fn haproxy_passes_a_half_close_on() {
        let config = "defaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n\
            listen echo\n bind PROXY\n server one SERVER\n";
        let answer = comes_back(config, |folder| {
            let mut haproxy = foreign("haproxy")?;
            haproxy
                .args(["-db", "-dR", "-f"])
                .arg(folder.join("config"));
            Some(haproxy)
        });
        assert!(
            answer.as_deref().is_none_or(|answer| answer == "5 bytes"),
            "{answer:?}"
        );
    }

    /// The second configuration sets the directive `proxy_half_close`.
    #[test]
    fn nginx_makes_a_close_of_a_half_close_unless_told_otherwise() {
        if !has_nginx() {
            return;
        }
        let module = include_str!("../../../peers/conf/nginx.conf");
        let module = module.lines().find(|line| line.starts_with("load_module"));
        for (directive, expected) in [("", ""), ("proxy_half_close on;", "5 bytes")] {
            let config = format!(
                "{}\npid nginx.pid;\nevents {{}}\nstream {{ server {{ listen PROXY; proxy_pass SERVER; {directive} }} }}\n",
                module.unwrap()
            );
            let answer = comes_back(&config, |folder| {
                let mut nginx = foreign("nginx")?;
                nginx
                    .args(["-e", "stderr", "-g", "daemon off; master_process off;"])
                    .arg("-p")
                    .arg(folder)
                    .arg("-c")
                    .arg(folder.join("config"));
                Some(nginx)
            });
            assert_eq!(answer.unwrap(), expected, "{directive}");
        }
    }
}
