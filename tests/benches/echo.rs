//! How fast echo servers are, each beside the others: ours, the plainest that std allows, and those that
//! other people write. Groups are questions, functions are servers.
//!
//! ```console
//! $ cargo bench -p tests                        # all; about ten minutes
//! $ cargo bench -p tests -- --quick             # roughly
//! $ cargo bench -p tests -- tcp_bulk            # one question
//! $ cargo bench -p tests -- /tcp-server         # one server
//! ```
//!
//! The report is `target/criterion/report/index.html`. Client and server share the processors of one
//! machine and there is no network between them: only what one run says can be compared.

#[cfg(unix)]
mod servers {
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::LazyLock;

    use harness::{Running, example, example_of, program, python};

    /// A server to be measured.
    #[derive(Clone, Copy)]
    pub struct Peer {
        pub name: &'static str,
        /// What must be installed for it.
        pub needs: Option<&'static str>,
        /// Starts it. A server of Unix sockets listens at this path.
        pub start: fn(&Path) -> Started,
    }

    /// A server that listens. It is killed when this is dropped. The children that socat and ncat start
    /// for their clients end with these.
    pub struct Started {
        _running: Running,
        pub addr: String,
    }

    const fn peer(name: &'static str, start: fn(&Path) -> Started) -> Peer {
        Peer { name, needs: None, start }
    }

    const fn foreign_peer(name: &'static str, needs: &'static str, start: fn(&Path) -> Started) -> Peer {
        Peer { name, needs: Some(needs), start }
    }

    pub const OUR_TCP: [Peer; 2] = [
        peer("tcp-server", |_| ours(&mut program("tcp-server"))),
        peer("event_loop", |_| ours(&mut example_of("tcp-server", "event_loop"))),
    ];

    /// The same for a thousand clients at once. By default `tcp-server` serves a hundred at a time.
    pub const OUR_TCP_FOR_1000: [Peer; 2] = [
        peer("tcp-server", |_| ours(program("tcp-server").args(["--max-connections", "1000"]))),
        peer("event_loop", |_| {
            ours(example_of("tcp-server", "event_loop").args(["--max-connections", "1000"]))
        }),
    ];

    pub const OTHER_TCP: [Peer; 9] = [
        peer("plain", |_| announcing(&mut example("plain_tcp_echo"))),
        peer("epoll", |_| announcing(&mut example("epoll_echo"))),
        peer("tokio", |_| announcing(example("tokio_echo").arg("tcp"))),
        peer("smol", |_| announcing(&mut example("smol_echo"))),
        foreign_peer("c_threads", "cc", |_| announcing(&mut Command::new(&*C_THREADS))),
        foreign_peer("go", "go", |_| announcing(Command::new(&*GO).arg("tcp"))),
        foreign_peer("python", "python3", |_| {
            announcing(python("tcp_server.py").unwrap().args(["--addr", "127.0.0.1:0"]))
        }),
        foreign_peer("socat", "socat", |_| socat("TCP-LISTEN:0,bind=127.0.0.1,fork,nodelay")),
        foreign_peer("ncat", "ncat", |_| ncat()),
    ];

    pub const UDP: [Peer; 6] = [
        peer("udp-server", |_| ours(&mut program("udp-server"))),
        peer("plain", |_| announcing(&mut example("plain_udp_echo"))),
        peer("tokio", |_| announcing(example("tokio_echo").arg("udp"))),
        foreign_peer("c_loop", "cc", |_| announcing(&mut Command::new(&*C_LOOP))),
        foreign_peer("go", "go", |_| announcing(Command::new(&*GO).arg("udp"))),
        foreign_peer("python", "python3", |_| {
            announcing(python("udp_server.py").unwrap().args(["--addr", "127.0.0.1:0"]))
        }),
    ];

    pub const UNIX_STREAM: [Peer; 6] = [
        peer("unix-echo", |path| {
            announcing(program("unix-echo").args(["server", "--quiet", "--path"]).arg(path))
        }),
        peer("plain", |path| announcing(example("plain_unix_echo").arg(path))),
        peer("tokio", |path| announcing(example("tokio_echo").arg("unix").arg(path))),
        foreign_peer("go", "go", |path| announcing(Command::new(&*GO).arg("unix").arg(path))),
        foreign_peer("python", "python3", |path| {
            announcing(python("unix_echo.py").unwrap().args(["server", "--path"]).arg(path))
        }),
        foreign_peer("socat", "socat", |path| socat(&format!("UNIX-LISTEN:{},fork", path.display()))),
    ];

    pub const UNIX_DATAGRAM: [Peer; 3] = [
        peer("unix-echo", |path| {
            announcing(program("unix-echo").args(["server", "--quiet", "--datagram", "--path"]).arg(path))
        }),
        peer("plain", |path| announcing(example("plain_unix_echo").arg(path).arg("--datagram"))),
        foreign_peer("python", "python3", |path| {
            announcing(python("unix_echo.py").unwrap().args(["server", "--datagram", "--path"]).arg(path))
        }),
    ];

    static C_THREADS: LazyLock<PathBuf> = LazyLock::new(|| compiled_c("thread_echo"));
    static C_LOOP: LazyLock<PathBuf> = LazyLock::new(|| compiled_c("udp_loop"));
    static GO: LazyLock<PathBuf> = LazyLock::new(|| {
        let go = Path::new(env!("CARGO_TARGET_TMPDIR")).join("echo_go");
        compile(Command::new("go").args(["build", "-o"]).arg(&go).arg(source("echo.go")));
        go
    });

    fn compiled_c(name: &str) -> PathBuf {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = source(&format!("{name}.c"));
        compile(Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(source));
        program
    }

    fn source(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name)
    }

    fn compile(command: &mut Command) {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ours(command: &mut Command) -> Started {
        announcing(command.args(["--quiet", "--addr", "127.0.0.1:0"]))
    }

    fn announcing(command: &mut Command) -> Started {
        let mut running = Running::start(command);
        let addr = running.announced();
        Started { _running: running, addr }
    }

    /// With -d -d it says where it listens: `... N listening on AF=2 127.0.0.1:41234`.
    fn socat(listen: &str) -> Started {
        let mut running = Running::start(Command::new("socat").args(["-d", "-d", listen, "PIPE"]));
        let line = running.stderr_line();
        let addr = line.rsplit([' ', '=']).next().unwrap().trim_matches('"').to_owned();
        Started { _running: running, addr }
    }

    /// It must be told a port, and says when it listens, in a line after its version.
    fn ncat() -> Started {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut ncat = Command::new("ncat");
        ncat.args(["-v", "--listen", "--keep-open", "--exec", "/bin/cat", "127.0.0.1"]);
        let mut running = Running::start(ncat.arg(addr.port().to_string()));
        while !running.stderr_line().contains("Listening on") {}
        Started { _running: running, addr: addr.to_string() }
    }
}

#[cfg(unix)]
mod questions {
    use std::cell::{Cell, LazyCell};
    use std::net::{SocketAddr, TcpStream};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use criterion::measurement::WallTime;
    use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
    use harness::{foreign, loads, not_run};

    use crate::servers::{OTHER_TCP, OUR_TCP, OUR_TCP_FOR_1000, Peer, UDP, UNIX_DATAGRAM, UNIX_STREAM};

    /// The MiB of one stream.
    const BULK: u64 = 64;

    /// The connects of one burst.
    const BURST: usize = 1000;

    /// Why these are left out where there is much on its way at once.
    const NCAT_STALLS: &str = "it waits for the network and two pipes in turn, and may come to a halt";
    const SOCAT_STALLS: &str = "it writes to a pipe that only it reads, and may wait for itself";

    pub fn ask(criterion: &mut Criterion) {
        tcp_one_connection(criterion);
        tcp_50_connections(criterion);
        tcp_16k_messages(criterion);
        tcp_bulk(criterion);
        tcp_short_connections(criterion);
        tcp_1000_connects(criterion);
        tcp_first_echo(criterion);
        udp_stop_and_wait(criterion);
        udp_128_on_their_way(criterion);
        unix_one_connection(criterion);
        unix_bulk(criterion);
        unix_datagrams(criterion);
    }

    fn tcp_one_connection(criterion: &mut Criterion) {
        let mut group = question(
            criterion,
            "tcp_one_connection",
            "messages of 512 bytes on one connection, one after the other",
        );
        group.throughput(Throughput::Elements(1));
        measure(&mut group, &tcp(), |addr, count| loads::one_connection(socket_addr(addr), count));
    }

    fn tcp_50_connections(criterion: &mut Criterion) {
        let mut group = question(criterion, "tcp_50_connections", "messages of 512 bytes on 50 connections");
        group.throughput(Throughput::Elements(loads::CONNECTIONS as u64));
        measure(&mut group, &tcp(), |addr, count| loads::many_connections(socket_addr(addr), count));
    }

    fn tcp_16k_messages(criterion: &mut Criterion) {
        let mut group = question(criterion, "tcp_16k_messages", "messages of 16 KiB on 8 connections");
        group.throughput(Throughput::Bytes((loads::LONG_CONNECTIONS * loads::LONG_MESSAGE) as u64));
        let peers = without("ncat", NCAT_STALLS, tcp());
        measure(&mut group, &peers, |addr, count| loads::long_messages(socket_addr(addr), count));
    }

    fn tcp_bulk(criterion: &mut Criterion) {
        let mut group = question(criterion, "tcp_bulk", "one stream of 64 MiB");
        group.throughput(Throughput::Bytes(BULK << 20)).sampling_mode(SamplingMode::Flat);
        let peers = without("socat", SOCAT_STALLS, without("ncat", NCAT_STALLS, tcp()));
        measure(&mut group, &peers, |addr, count| loads::bulk(socket_addr(addr), count * BULK));
    }

    fn tcp_short_connections(criterion: &mut Criterion) {
        let mut group =
            question(criterion, "tcp_short_connections", "connect, echo, close, by four clients at once");
        group.throughput(Throughput::Elements(loads::CLIENTS as u64));
        measure(&mut group, &tcp(), |addr, count| {
            loads::short_connections(socket_addr(addr), count * loads::CLIENTS as u64)
        });
    }

    fn tcp_1000_connects(criterion: &mut Criterion) {
        if harness::allow_descriptors(BURST as u64 + 100).is_none() {
            return not_run("tcp_1000_connects: no right to so many descriptors");
        }
        let mut group =
            question(criterion, "tcp_1000_connects", "a thousand connects at once, and an echo on each");
        group.throughput(Throughput::Elements(BURST as u64)).sampling_mode(SamplingMode::Flat);
        let mut peers = [&OUR_TCP_FOR_1000[..], &OTHER_TCP].concat();
        peers = without("python", "it serves a hundred clients at a time", peers);
        peers = without("socat", "it would start a process for each", peers);
        peers = without("ncat", "it would start a process for each", peers);
        measure(&mut group, &peers, |addr, count| {
            (0..count).map(|_| loads::burst(socket_addr(addr), BURST)).sum()
        });
    }

    fn tcp_first_echo(criterion: &mut Criterion) {
        let mut group =
            question(criterion, "tcp_first_echo", "from the start of the process to the first echo");
        group.sampling_mode(SamplingMode::Flat);
        let path = Path::new("");
        for peer in installed(&tcp()) {
            let once = |_| {
                let begin = Instant::now();
                let started = (peer.start)(path);
                harness::echo(TcpStream::connect(&started.addr).unwrap(), b"hello");
                begin.elapsed()
            };
            // The first start may have to build it.
            let built = LazyCell::new(|| drop((peer.start)(path)));
            group.bench_function(peer.name, |bencher| {
                LazyCell::force(&built);
                bencher.iter_custom(|count| (0..count).map(once).sum());
            });
        }
    }

    fn udp_stop_and_wait(criterion: &mut Criterion) {
        let mut group =
            question(criterion, "udp_stop_and_wait", "datagrams of 64 bytes, one after the other");
        group.throughput(Throughput::Elements(1));
        measure(&mut group, &UDP, |addr, count| loads::udp_stop_and_wait(socket_addr(addr), count));
    }

    /// The client does as many system calls as the plainest server, so a faster server can show only so
    /// much of it.
    fn udp_128_on_their_way(criterion: &mut Criterion) {
        let mut group =
            question(criterion, "udp_128_on_their_way", "datagrams of 64 bytes, 128 on their way at once");
        const ROUND: u64 = 1000;
        group.throughput(Throughput::Elements(ROUND));
        let lost = Cell::new(0);
        measure(&mut group, &UDP, |addr, count| {
            let (took, sent_again) = loads::udp_window(socket_addr(addr), count * ROUND);
            lost.set(lost.get() + sent_again);
            took
        });
        println!("udp_128_on_their_way: datagrams that were sent again: {}", lost.get());
    }

    fn unix_one_connection(criterion: &mut Criterion) {
        let mut group = question(
            criterion,
            "unix_one_connection",
            "messages of 512 bytes on one connection, one after the other",
        );
        group.throughput(Throughput::Elements(1));
        measure(&mut group, &UNIX_STREAM, |path, count| loads::unix::one_connection(Path::new(path), count));
    }

    fn unix_bulk(criterion: &mut Criterion) {
        let mut group = question(criterion, "unix_bulk", "one stream of 64 MiB");
        group.throughput(Throughput::Bytes(BULK << 20)).sampling_mode(SamplingMode::Flat);
        let peers = without("socat", SOCAT_STALLS, UNIX_STREAM.to_vec());
        measure(&mut group, &peers, |path, count| loads::unix::bulk(Path::new(path), count * BULK));
    }

    fn unix_datagrams(criterion: &mut Criterion) {
        let mut group = question(criterion, "unix_datagrams", "datagrams of 512 bytes, one after the other");
        group.throughput(Throughput::Elements(1));
        measure(&mut group, &UNIX_DATAGRAM, |path, count| loads::unix::datagrams(Path::new(path), count));
    }

    /// The name is also that of a folder in `target/criterion`.
    fn question<'a>(criterion: &'a mut Criterion, name: &str, title: &str) -> BenchmarkGroup<'a, WallTime> {
        println!("\n{name}: {title}");
        criterion.benchmark_group(name)
    }

    fn tcp() -> Vec<Peer> {
        [&OUR_TCP[..], &OTHER_TCP].concat()
    }

    fn socket_addr(addr: &str) -> SocketAddr {
        addr.parse().unwrap_or_else(|error| panic!("{addr:?}: {error}"))
    }

    /// All but one, which the question does not fit.
    fn without(name: &str, why: &str, peers: Vec<Peer>) -> Vec<Peer> {
        not_run(&format!("{name} is left out here: {why}"));
        peers.into_iter().filter(|peer| peer.name != name).collect()
    }

    fn installed(peers: &[Peer]) -> impl Iterator<Item = &Peer> {
        peers.iter().filter(|peer| peer.needs.is_none_or(|tool| foreign(tool).is_some()))
    }

    /// Puts the same load on each server in turn.
    fn measure(group: &mut BenchmarkGroup<WallTime>, peers: &[Peer], load: impl Fn(&str, u64) -> Duration) {
        for peer in installed(peers) {
            let folder = tempfile::Builder::new().prefix("ux").tempdir_in("/tmp").unwrap();
            // Not before it is needed: the command line may have left it out.
            let server = LazyCell::new(|| (peer.start)(&folder.path().join("s")));
            group.bench_function(peer.name, |bencher| bencher.iter_custom(|count| load(&server.addr, count)));
        }
    }
}

#[cfg(unix)]
fn main() {
    use std::time::Duration;
    let mut criterion = criterion::Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .nresamples(10_000);
    // With this option criterion measures until two samples agree, or for so long. Drawing takes longer.
    if std::env::args().any(|arg| arg == "--quick") {
        criterion = criterion.measurement_time(Duration::from_secs(1)).without_plots();
    }
    let mut criterion = criterion.configure_from_args();
    questions::ask(&mut criterion);
    criterion.final_summary();
}

#[cfg(not(unix))]
fn main() {}
