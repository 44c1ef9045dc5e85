//! The address of `unix-echo`: a file that may remain after its server, an abstract name
//! without a file, and who may use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::process::Stdio;

use harness::{Finished, Running, not_run, program, run};
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Type};

/// The options for both types of sockets.
const TYPES: [&[&str]; 2] = [&[], &["--datagram"]];

fn unix_echo(role: &str, path: &Path, options: &[&str]) -> Command {
    let mut command = program("unix-echo");
    command.arg(role).args(options).arg("--path").arg(path);
    command
}

/// Starts a server that listens at a path.
fn start(path: &Path, options: &[&str]) -> Running {
    let mut server = Running::start(&mut unix_echo("server", path, options));
    assert_eq!(Path::new(&server.announced()), path);
    server
}

fn ask(path: &Path, options: &[&str]) -> Finished {
    run(unix_echo("client", path, options).arg("hello"), b"")
}

fn assert_serves(path: &Path, options: &[&str]) {
    let client = ask(path, options);
    client.assert_printed(b"hello\n");
}

fn assert_fails(finished: &Finished, error: &str) {
    finished.assert_failed(&format!("Error: {error}"));
}

#[test]
fn the_file_is_a_socket_for_nobody_but_its_owner() {
    let folder = harness::folder();
    for options in TYPES {
        let path = folder.path().join("s");
        let server = start(&path, options);
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        server.signal(Signal::TERM);
        assert_eq!(server.finish().code, Some(0));
    }
}

#[test]
fn the_file_goes_when_a_signal_ends_the_server() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    for options in TYPES {
        for signal in [Signal::INT, Signal::TERM] {
            let server = start(&path, options);
            assert_serves(&path, options);
            server.signal(signal);
            assert_eq!(server.finish().code, Some(0));
            assert!(!path.exists(), "{signal:?}");
        }
    }
}

/// The signal is ignored when the server starts, as SIGHUP after nohup(1), and SIGINT in the
/// background of a script.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_that_is_ignored_when_the_server_starts_stays_ignored() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    for options in TYPES {
        for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("trap '' {name}; exec \"$@\""), "sh"]);
            let server = unix_echo("server", &path, options);
            let mut server =
                Running::start(shell.arg(server.get_program()).args(server.get_args()));
            server.announced();
            server.signal(signal);
            assert_serves(&path, options);
            server.signal(Signal::TERM);
            assert_eq!(server.finish().code, Some(0));
            assert!(!path.exists());
        }
    }
}

/// The kernel sends SIGXFSZ to who writes beyond the limit of a file.
#[test]
#[cfg(target_os = "linux")]
fn a_log_that_may_not_grow_ends_no_server() {
    let folder = harness::folder();
    let (path, log) = (folder.path().join("s"), folder.path().join("log"));
    for options in TYPES {
        let mut server = harness::limited("--fsize=100", &unix_echo("server", &path, options));
        let stderr = fs::File::create(&log).unwrap().into();
        let mut server = Running::start_with(&mut server, Stdio::piped(), stderr);
        server.announced();
        for _ in 0..10 {
            assert_serves(&path, options);
        }
        assert_eq!(fs::metadata(&log).unwrap().len(), 100);
        server.signal(Signal::TERM);
        assert_eq!(server.finish().code, Some(0));
    }
}

/// Starts a server with a limit. Asserts that if it cannot start, it has not said that it listens and
/// leaves no file. Returns whether it could start.
///
/// With the last of the memory, std or glibc may end it anywhere, for want of a few bytes. But it must
/// not lack memory for a buffer or a thread after it has said that it listens.
#[cfg(target_os = "linux")]
fn starts(limit: &str, options: &[&str]) -> bool {
    let folder = harness::folder();
    let (path, output) = (folder.path().join("s"), folder.path().join("output"));
    let mut server = harness::limited(limit, &unix_echo("server", &path, options));
    let stdout = fs::File::create(&output).unwrap().into();
    // Otherwise glibc reserves 64 MiB for each of the first threads, as far as there is room.
    server.env("MALLOC_ARENA_MAX", "1");
    let mut server = Running::start_with(&mut server, stdout, Stdio::piped());
    let has_announced = || !fs::read(&output).unwrap().is_empty();
    let is_ready = server.becomes_ready(has_announced);
    if is_ready {
        server.signal(Signal::TERM);
    }
    let finished = server.finish();
    // Two threads can say so at the same time.
    let failed = finished.stderr.rsplit_once("memory allocation of ");
    let wanted = failed.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    // std gives each new thread a second stack, for the handler of a stack overflow.
    let second_stack = "failed to allocate an alternative stack";
    let is_killed = finished.stderr.starts_with("Fatal glibc error")
        || finished.stderr.contains(second_stack)
        || matches!(wanted, Some(..4096));
    let is_right = match is_ready {
        true => finished.code == Some(0) && !path.exists(),
        false => !has_announced() && !path.exists(),
    };
    assert!(is_right || is_killed, "{limit} {options:?}: {finished:?}");
    is_ready
}

/// It has bound its socket, and then lacks memory for all threads, or a descriptor.
#[test]
#[cfg(target_os = "linux")]
fn a_server_that_cannot_start_leaves_no_file() {
    assert!(!starts("--as=100000000", TYPES[0]));
    for options in TYPES {
        let count = (3..12).filter(|count| starts(&format!("--nofile={count}"), options));
        assert!((2..9).contains(&count.count()));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_listens_only_when_it_has_its_memory() {
    let starts = |mib: f64, options: &[&str]| {
        starts(&format!("--as={}", (mib * 1024.0 * 1024.0) as u64), options)
    };
    let limits = (8..60).map(|step| f64::from(step) / 4.0);
    let count = limits.filter(|mib| starts(*mib, &["--datagram"])).count();
    assert!((1..52).contains(&count), "{count}");
    let limits = (10..70).map(|step| f64::from(step) * 5.0);
    let count = limits.filter(|mib| starts(*mib, TYPES[0])).count();
    assert!((1..60).contains(&count), "{count}");
}

#[test]
fn the_file_of_a_later_server_stays_when_a_signal_ends_the_earlier() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let earlier = start(&path, &[]);
    fs::remove_file(&path).unwrap();
    let _later = start(&path, &[]);
    earlier.signal(Signal::TERM);
    assert_eq!(earlier.finish().code, Some(0));
    assert_serves(&path, &[]);
}

#[test]
fn the_file_of_a_server_that_died_is_replaced() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    for died in TYPES {
        for options in TYPES {
            drop(start(&path, died)); // It gets SIGKILL.
            assert!(path.exists());
            let server = start(&path, options);
            assert_serves(&path, options);
            drop(server);
        }
    }
}

#[test]
fn a_live_server_is_not_robbed_of_its_name() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    for live in TYPES {
        let _server = start(&path, live);
        for options in TYPES {
            let second = run(&mut unix_echo("server", &path, options), b"");
            assert_fails(
                &second,
                &format!("cannot listen on {}: already in use", path.display()),
            );
            assert_serves(&path, live);
        }
    }
}

#[test]
fn what_is_no_socket_is_refused_and_stays() {
    let folder = harness::folder();
    let [file, link, dangling] = ["file", "link", "dangling"].map(|name| folder.path().join(name));
    let target = folder.path().join("target");
    drop(start(&target, &[])); // A link leads to this dead socket.
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    for options in TYPES {
        for path in [&file, &link, &dangling, &folder.path().to_owned()] {
            let server = run(&mut unix_echo("server", path, options), b"");
            assert_fails(
                &server,
                &format!(
                    "cannot listen on {}: this file is not a socket, and stays as it is",
                    path.display()
                ),
            );
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_link(&link).unwrap(), target);
    assert_eq!(fs::read_link(&dangling).unwrap(), Path::new("nowhere"));
    assert!(
        fs::symlink_metadata(&target)
            .unwrap()
            .file_type()
            .is_socket()
    );
}

#[test]
fn a_client_says_of_a_file_that_it_is_not_a_socket() {
    let folder = harness::folder();
    let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for options in TYPES {
        for path in [&file, &link, &folder.path().to_owned()] {
            let error = format!(
                "cannot reach {}: this file is not a socket\n",
                path.display()
            );
            assert_fails(&ask(path, options), &error);
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_path_may_be_as_long_as_the_address_allows() {
    let folder = harness::folder();
    let limit = if cfg!(target_os = "linux") { 107 } else { 103 };
    let path_of = |len: usize| {
        folder
            .path()
            .join("p".repeat(len - folder.path().as_os_str().len() - 1))
    };
    for options in TYPES {
        let server = start(&path_of(limit), options);
        assert_serves(&path_of(limit), options);
        drop(server);
        for role in ["server", "client"] {
            let refused = run(&mut unix_echo(role, &path_of(limit + 1), options), b"");
            let error = format!(" it has {} bytes, the limit is {limit}\n", limit + 1);
            assert_fails(&refused, "cannot use the name ");
            assert!(refused.stderr.ends_with(&error), "{}", refused.stderr);
        }
    }
}

#[test]
fn errors_tell_apart_why_nobody_answers() {
    let folder = harness::folder();
    let path = folder.path().join("s");
    let shown = path.display();
    for options in TYPES {
        let missing = ask(&path, options);
        assert_fails(
            &missing,
            &format!("cannot reach {shown}: nobody listens there; start unix-echo server\n"),
        );
        missing.assert_stderr("    No such file or directory");
    }
    // The socket is of the other type, or of one that unix-echo does not have.
    let wrong_type = |client: &[&str]| {
        let client = ask(&path, client);
        assert_fails(&client, &format!("cannot reach {shown}\n\nCaused by:\n"));
        client.assert_stderr("rotocol wrong type for socket");
    };
    for (server, client) in [(TYPES[0], TYPES[1]), (TYPES[1], TYPES[0])] {
        let _server = start(&path, server);
        wrong_type(client);
    }
    fs::remove_file(&path).unwrap();
    let messages = socket2::Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    messages.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    messages.listen(1).unwrap();
    TYPES.into_iter().for_each(wrong_type);

    // One has no directory, and the other a file system that takes no new file from anybody.
    for path in [folder.path().join("no/dir"), "/proc/unix-echo".into()] {
        let server = run(&mut unix_echo("server", &path, &[]), b"");
        let error = format!("cannot listen on {}\n\nCaused by:\n", path.display());
        assert_fails(&server, &error);
    }
    assert_fails(&ask(Path::new("@"), &[]), "cannot use an empty name");
}

#[test]
fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can ask as another user");
    }
    // Everybody may enter the folder, so only the file keeps others out.
    let (folder, copy) = harness::copy_for_everybody("unix-echo");
    let path = folder.path().join("s");
    for options in TYPES {
        let _server = start(&path, options);
        let mut client = Command::new(&copy);
        client
            .arg("client")
            .args(options)
            .arg("--path")
            .arg(&path)
            .arg("hello")
            .env_remove("RUST_BACKTRACE");
        let client = run(harness::as_nobody(&mut client), b"");
        assert_fails(
            &client,
            &format!(
                "cannot reach {}\n\nCaused by:\n    Permission denied",
                path.display()
            ),
        );
        assert_serves(&path, options);
    }
}

#[test]
fn server_and_client_agree_on_the_default_path() {
    let folder = harness::folder();
    for variable in ["XDG_RUNTIME_DIR", "TMPDIR"] {
        let with_default = |role: &str| {
            let mut command = program("unix-echo");
            command
                .arg(role)
                .env_remove("XDG_RUNTIME_DIR")
                .env(variable, folder.path());
            command
        };
        let mut server = Running::start(&mut with_default("server"));
        assert_eq!(
            Path::new(&server.announced()),
            folder.path().join("unix-echo.sock"),
            "{variable}"
        );
        let client = run(with_default("client").arg("hello"), b"");
        client.assert_printed(b"hello\n");
        server.signal(Signal::TERM);
        assert_eq!(server.finish().code, Some(0));
    }
    for not_absolute in ["", "relative"] {
        let mut command = program("unix-echo");
        command
            .args(["client", "x"])
            .env("XDG_RUNTIME_DIR", not_absolute)
            .env("TMPDIR", folder.path());
        let error = format!(
            "cannot reach {}/unix-echo.sock: nobody listens there",
            folder.path().display()
        );
        assert_fails(&run(&mut command, b""), &error);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_has_no_file() {
    let name = format!("@unix-echo test {}", std::process::id());
    let path = Path::new(&name);
    let folder = harness::folder();
    for options in TYPES {
        let mut server = unix_echo("server", path, options);
        let mut server = Running::start(server.current_dir(folder.path()));
        assert_eq!(server.announced(), name);
        assert_serves(path, options);
        let second = run(&mut unix_echo("server", path, options), b"");
        assert_fails(
            &second,
            &format!("cannot listen on {name}\n\nCaused by:\n    Address already in use"),
        );
        assert_serves(path, options);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(server);
        assert_fails(
            &ask(path, options),
            &format!("cannot reach {name}: nobody listens there"),
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_may_have_107_bytes_after_its_sign() {
    let name = |len: usize| format!("@{:x<len$}", std::process::id());
    let (longest, longer) = (name(107), name(108));
    let _server = start(Path::new(&longest), &[]);
    assert_serves(Path::new(&longest), &[]);
    let refused = run(&mut unix_echo("server", Path::new(&longer), &[]), b"");
    assert_fails(&refused, "cannot use the name @");
    let error = "it has 108 bytes, the limit is 107\n";
    assert!(refused.stderr.ends_with(error), "{}", refused.stderr);
}
