//! Past one machine: three servers behind a balancer, of which one dies or gets stuck.
//!
//! The configurations are `peers/haproxy.cfg` and `peers/nginx.conf`, with the ports that are free here.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Finished, LIMIT, Running, Server, foreign, not_run, on_a_free_port, program, run};
use tempfile::TempDir;

/// The addresses of the servers and of the balancer in the configurations.
const SERVERS: [&str; 3] = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
const BALANCER: &str = "127.0.0.1:7007";

/// How many echoes are asked for: enough that each of three servers has its turn several times.
const MANY: usize = 12;

/// A balancer that answers.
struct Balancer {
    running: Running,
    addr: String,
    /// Its configuration, and what else it writes.
    _folder: TempDir,
}

impl Balancer {
    /// Starts it with a configuration that names its address, and waits until an echo comes through.
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

    /// Waits until it says this on stderr.
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

/// A text in which something is replaced that must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

fn three(name: &str) -> [Server; 3] {
    [(); 3].map(|()| Server::start(program(name).args(["--addr", "127.0.0.1:0"])))
}

/// A configuration of `peers` with the real addresses of the servers.
fn config_for(servers: &[Server; 3], file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(file);
    let config = fs::read_to_string(path).unwrap();
    SERVERS
        .iter()
        .zip(servers)
        .fold(config, |config, (placeholder, server)| {
            replaced(&config, placeholder, &server.addr.to_string())
        })
}

/// HAProxy in front of three servers. It takes one for stuck that needs longer than this for a check.
fn haproxy(servers: &[Server; 3], check_limit: &str) -> Option<Balancer> {
    let config = config_for(servers, "haproxy.cfg");
    let config = replaced(
        &config,
        "timeout check 2s",
        &format!("timeout check {check_limit}"),
    );
    Balancer::start(&config, "tcp-client", |folder| {
        let mut haproxy = foreign("haproxy")?;
        // In the foreground, and not with SO_REUSEPORT: a port that another has is not to be shared.
        haproxy
            .args(["-db", "-dR", "-f"])
            .arg(folder.join("config"));
        Some(haproxy)
    })
}

/// nginx in front of three servers. It waits so long for an answer.
fn nginx(servers: &[Server; 3], answer_limit: &str) -> Option<Balancer> {
    let config = config_for(servers, "nginx.conf");
    let config = replaced(
        &config,
        "proxy_timeout 500ms",
        &format!("proxy_timeout {answer_limit}"),
    );
    let module = config
        .lines()
        .find_map(|line| line.strip_prefix("load_module ")?.strip_suffix(';'));
    if !Path::new(module.unwrap()).exists() {
        not_run(
            "nginx or its stream module is not installed (on Debian: package libnginx-mod-stream)",
        );
        return None;
    }
    Balancer::start(&config, "udp-client", |folder| {
        let mut nginx = foreign("nginx")?;
        // One process, so that nothing of it is left when that is killed.
        nginx
            .args(["-e", "stderr", "-g", "master_process off;", "-p"])
            .arg(folder);
        nginx.arg("-c").arg(folder.join("config"));
        Some(nginx)
    })
}

/// Asks with a connection of its own.
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
    // On a slow machine no check may fail: the balancer finds the dead server only by its refusal.
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
    // The servers log lengths, with the newline.
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
    // In turn, so each server gets one.
    let mut clients = Vec::new();
    for _ in SERVERS {
        let mut client = Running::start(&mut balancer.client("tcp-client"));
        assert_line_comes_back(&mut client, "hello");
        clients.push(client);
    }
    drop(killed);
    let told = first_to_end(&mut clients).finish();
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr.contains("6 of 6 bytes came back"),
        "{}",
        told.stderr
    );
    for client in &mut clients {
        assert_line_comes_back(client, "still here");
    }
}

/// Waits for the end of one of them, and takes it out.
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

/// The kernel goes on connecting in the name of a suspended server: only a check that asks for an echo
/// finds it out.
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
    // On a slow machine no answer may be late: nginx finds the dead server only by its refusal.
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
    // The datagram that the dead server was given is lost, and nginx does not send it again.
    assert!(
        client.stderr.contains("no answer to attempt 1 of 20"),
        "{}",
        client.stderr
    );
    balancer.wait_for("Connection refused");
    balancer.wait_for("upstream server temporarily disabled");
    assert_logged(&killed, "\"before\"");
    for other in others.map(|other| other.running.kill()) {
        assert_logged(&other, "\"before\"");
        assert_logged(&other, "\"after\"");
    }
}

/// Nobody refuses here, so nginx has to give up waiting before the client does.
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
