//! What every server promises, whatever its sockets are.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;

use harness::{LIMIT, Running, try_run};

use crate::catalog::UDP_SERVER;
use crate::{Kept, Ours, Promised, Reach, Said};

promises! {
    anybody: [],
    ours: [
        it_serves_on_when_nobody_reads_its_output_any_more,
        it_serves_when_nobody_reads_even_where_it_listens,
        a_log_line_is_one_write,
        quiet_logs_nothing_per_message_or_connection,
        a_second_server_on_the_address_is_told_that_it_is_in_use,
    ],
}

/// With one place, one worker that has ended is noticed, and the main thread serves alone. `unix-echo`
/// has a hundred places.
pub fn it_serves_on_when_nobody_reads_its_output_any_more(ours: &Ours) -> Kept {
    let mut server = ours.start_with_stderr(UnixStream::pair()?.0, &ours.places("1"))?;
    server.running.close_stdout();
    (0..120).try_for_each(|_| server.serves())?;
    ensure!(server.running.is_running(), "it has ended");
    Ok(())
}

/// Nobody hears where it listens, so the test chooses the address.
pub fn it_serves_when_nobody_reads_even_where_it_listens(ours: &Ours) -> Kept {
    let stdout = OwnedFd::from(UnixStream::pair()?.0);
    let start = |mut command: std::process::Command| {
        let stdout = stdout
            .try_clone()
            .map_or_else(|_| Stdio::null(), Stdio::from);
        Running::start_with(command.args(ours.places("1")), stdout, Stdio::piped())
    };
    ours.that_answers().start_by("127.0.0.1", start)?.serves()
}

/// A pair of datagram sockets keeps the boundaries of writes, where a pipe would join them.
pub fn a_log_line_is_one_write(ours: &Ours) -> Kept {
    let (stderr, log) = UnixDatagram::pair()?;
    log.set_read_timeout(Some(LIMIT))?;
    let server = ours.start_with_stderr(stderr, &[])?;
    // Servers of streams log the begin and the end of a connection.
    let lines = 1 + usize::from(matches!(ours.reach, Reach::Tcp | Reach::UnixStream));
    for bytes in [&b"hello"[..], b"", &[0xff; 9000]] {
        server.exchange(bytes)?;
        for _ in 0..lines {
            let mut write = [0; 4096];
            let len = log.recv(&mut write).promised("a line of log")?;
            let write = String::from_utf8_lossy(&write[..len]);
            let is_whole = write.contains(": ") && write.ends_with('\n');
            ensure!(
                is_whole && write.lines().count() == 1,
                "not a line: {write:?}"
            );
        }
    }
    Ok(())
}

pub fn quiet_logs_nothing_per_message_or_connection(ours: &Ours) -> Kept {
    let server = ours.start_with(&["-q"])?;
    // A server may log after it has answered, so only the first has its line for sure.
    server.serves()?;
    server.serves()?;
    ensure_eq!(server.running.kill().stderr, "");
    Ok(())
}

/// Members of a group share an address with each other, but not with a server that is none.
pub fn a_second_server_on_the_address_is_told_that_it_is_in_use(ours: &Ours) -> Kept {
    let first = match &*ours.name {
        "multicast" => Ours::new(&UDP_SERVER).start()?,
        _ => ours.start()?,
    };
    let verb = match ours.reach {
        Reach::Udp => "bind a UDP socket to",
        _ => "listen on",
    };
    let second = try_run(&mut ours.at(&first.addr), b"")?;
    second.failed(&format!("Error: cannot {verb} {}", first.addr))?;
    second.says("in use")?;
    if matches!(&*ours.name, "udp_server" | "tcp_server") {
        second.says(": another socket uses it; choose another port\n")?;
    }
    first.serves()
}
