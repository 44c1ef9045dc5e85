//! Three servers behind a load balancer, one of which is killed or suspended.
//!
//! The configurations are `peers/haproxy.cfg` and `peers/nginx.conf`, with ports that are free
//! here.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, LIMIT, Running, Server, foreign, on_a_free_port, program, run};
use tempfile::TempDir;

/// The addresses of the servers and of the balancer in the configurations.
const SERVERS: [&str; 3] = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
const BALANCER: &str = "127.0.0.1:7007";

/// How many echoes to ask for: enough for several from each of the three servers.
const MANY: usize = 12;

/// A balancer that answers.
struct Balancer {
    running: Running,
    addr: String,
    /// Contains its configuration and the files that it writes.
    _folder: TempDir,
}

impl Balancer {
    /// Starts the balancer with a configuration that names its address, and waits for an echo.
    fn start(
        config: &str,
        client: &str,
        command: impl Fn(&Path) -> Option<Command>,
    ) -> Option<Balancer> {
        let folder = harness::folder();
        let start = |addr: SocketAddr| {
            let config = replaced(config, BALANCER, &addr.to_string());
            fs::write(folder.path().join("config"), config).unwrap();
            Some(Running::start(&mut command(folder.path())?))
        };
        let answers = |addr: SocketAddr| {
            run(
                program(client).args(["--addr", &addr.to_string(), "ready?"]),
                b"",
            )
            .code
                == Some(0)
        };
        let (running, addr) = on_a_free_port(start, answers)?;
        Some(Balancer {
            running,
            addr: addr.to_string(),
            _folder: folder,
        })
    }

    fn client(&self, name: &str) -> Command {
        let mut client = program(name);
        client.args(["--addr", &self.addr]);
        client
    }

    /// Waits until the balancer prints this on stderr.
    fn wait_for(&mut self, what: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.running.stderr_line().contains(what) {
            assert!(
                Instant::now() < deadline,
                "the balancer does not say {what:?}"
            );
        }
    }
}

/// Replaces a part of a text. The part must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

fn three(name: &str) -> [Server; 3] {
    [(); 3].map(|()| Server::start(program(name).args(["--addr", "127.0.0.1:0"])))
}

/// Reads a configuration of `peers`, with the real addresses of the servers.
fn config_for(servers: &[Server; 3], file: &str) -> String {
    let path = harness::root().join("tests/peers/conf").join(file);
    let config = fs::read_to_string(path).unwrap();
    SERVERS
        .iter()
        .zip(servers)
        .fold(config, |config, (placeholder, server)| {
            replaced(&config, placeholder, &server.addr.to_string())
        })
}

/// Starts HAProxy in front of three servers. If a check of a server takes longer than this,
/// HAProxy stops using the server.
fn haproxy(servers: &[Server; 3], check_limit: &str) -> Option<Balancer> {
    let config = config_for(servers, "haproxy.cfg");
    let config = replaced(
        &config,
        "timeout check 2s",
        &format!("timeout check {check_limit}"),
    );
    Balancer::start(&config, "tcp-client", |folder| {
        let mut haproxy = foreign("haproxy")?;
        // HAProxy runs in the foreground (-db) and without SO_REUSEPORT (-dR), so that it does
        // not share a port that another program has.
        haproxy
            .args(["-db", "-dR", "-f"])
            .arg(folder.join("config"));
        Some(haproxy)
    })
}

/// Starts nginx in front of three servers. It waits for an answer for this long.
fn nginx(servers: &[Server; 3], answer_limit: &str) -> Option<Balancer> {
    let config = config_for(servers, "nginx.conf");
    let config = replaced(
        &config,
        "proxy_timeout 500ms",
        &format!("proxy_timeout {answer_limit}"),
    );
    if !harness::has_nginx() {
        return None;
    }
    Balancer::start(&config, "udp-client", |folder| {
        let mut nginx = foreign("nginx")?;
        // nginx runs as one process, so that nothing is left when this process is killed.
        nginx
            .args(["-e", "stderr", "-g", "master_process off;", "-p"])
            .arg(folder);
        nginx.arg("-c").arg(folder.join("config"));
        Some(nginx)
    })
}

/// Asks over a new connection.
fn assert_tcp_echo(balancer: &Balancer, message: &str) {
    let client = run(balancer.client("tcp-client").arg(message), b"");
    let echo = format!("{message}\n");
    assert_eq!(
        (client.code, &client.stdout[..]),
        (Some(0), echo.as_bytes()),
        "{}",
        client.stderr
    );
}

/// Asks with a client that goes on reading its stdin.
fn assert_line_comes_back(client: &mut Running, line: &str) {
    client.write(format!("{line}\n").as_bytes());
    assert_eq!(client.stdout_line(), line);
}

fn assert_logged(server: &Finished, what: &str) {
    assert!(
        server.stderr.contains(what),
        "no {what:?} in {}",
        server.stderr
    );
}

#[test]
fn every_tcp_echo_arrives_also_after_one_of_three_servers_is_killed() {
    let servers = three("tcp-server");
    // No check may fail on a slow machine: the balancer finds the dead server only because its
    // machine refuses the connection.
    let Some(balancer) = haproxy(&servers, "60s") else {
        return;
    };
    let [killed, others @ ..] = servers;
    for _ in 0..MANY {
        assert_tcp_echo(&balancer, "before");
    }
    let killed = killed.running.kill();
    for _ in 0..MANY {
        assert_tcp_echo(&balancer, "after");
    }
    // The servers log lengths, which include the newline.
    assert_logged(&killed, "bytes echoed: 7\n");
    for other in others.map(|other| other.running.kill()) {
        assert_logged(&other, "bytes echoed: 7\n");
        assert_logged(&other, "bytes echoed: 6\n");
    }
}

#[test]
fn a_tcp_connection_ends_with_its_server_and_the_others_go_on() {
    let servers = three("tcp-server");
    let Some(balancer) = haproxy(&servers, "60s") else {
        return;
    };
    let [killed, _others @ ..] = servers;
    // The servers take turns, so each gets one client.
    let mut clients = Vec::new();
    for _ in SERVERS {
        let mut client = Running::start(&mut balancer.client("tcp-client"));
        assert_line_comes_back(&mut client, "hello");
        clients.push(client);
    }
    drop(killed);
    let told = first_to_end(&mut clients).finish();
    assert_eq!(told.code, Some(1));
    told.assert_stderr("6 of 6 bytes came back");
    for client in &mut clients {
        assert_line_comes_back(client, "still here");
    }
}

/// Waits until one of the clients ends, and removes it from the list.
fn first_to_end(clients: &mut Vec<Running>) -> Running {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(ended) = clients.iter_mut().position(|client| !client.is_running()) {
            return clients.remove(ended);
        }
        assert!(Instant::now() < deadline, "no client has ended");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The kernel still completes connections for a suspended server. Only a check that asks for
/// an echo notices it.
#[test]
#[cfg(unix)]
fn a_suspended_tcp_server_gets_no_more_connections_until_it_wakes() {
    let servers = three("tcp-server");
    let Some(mut balancer) = haproxy(&servers, "2s") else {
        return;
    };
    servers[0].running.suspend();
    balancer.wait_for("Server echo/first is DOWN");
    for _ in 0..MANY {
        assert_tcp_echo(&balancer, "hello");
    }
    servers[0].running.resume();
    balancer.wait_for("Server echo/first is UP");
}

#[test]
fn every_udp_echo_arrives_also_after_one_of_three_servers_is_killed() {
    let servers = three("udp-server");
    // No answer may be late on a slow machine: nginx finds the dead server only because its
    // machine refuses the datagram.
    let Some(mut balancer) = nginx(&servers, "60s") else {
        return;
    };
    let [killed, others @ ..] = servers;
    let mut client = Running::start(balancer.client("udp-client").args(["--attempts", "20"]));
    for _ in 0..MANY {
        assert_line_comes_back(&mut client, "before");
    }
    let killed = killed.running.kill();
    for _ in 0..MANY {
        assert_line_comes_back(&mut client, "after");
    }
    let client = client.finish();
    assert_eq!(client.code, Some(0));
    // The datagram that went to the dead server is lost, and nginx does not send it again.
    client.assert_stderr("no answer to attempt 1 of 20");
    balancer.wait_for("Connection refused");
    balancer.wait_for("upstream server temporarily disabled");
    assert_logged(&killed, "\"before\"");
    for other in others.map(|other| other.running.kill()) {
        assert_logged(&other, "\"before\"");
        assert_logged(&other, "\"after\"");
    }
}

/// Nobody refuses the datagram here, so nginx must stop waiting before the client does.
#[test]
#[cfg(unix)]
fn every_udp_echo_arrives_also_after_one_of_three_servers_is_suspended() {
    let servers = three("udp-server");
    let Some(mut balancer) = nginx(&servers, "500ms") else {
        return;
    };
    servers[0].running.suspend();
    let mut client = Running::start(balancer.client("udp-client").args(["--attempts", "20"]));
    for _ in 0..MANY {
        assert_line_comes_back(&mut client, "hello");
    }
    balancer.wait_for("upstream timed out");
    balancer.wait_for("upstream server temporarily disabled");
    assert_eq!(client.finish().code, Some(0));
}
