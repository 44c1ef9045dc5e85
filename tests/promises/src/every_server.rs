//! What every server promises, whatever its sockets are.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use harness::{patience, try_run};

use crate::catalog::UDP_SERVER;
use crate::{Kept, Ours, Promised, Reach, Said, Subject};

promises! {
    anybody: [
        what_is_sent_comes_back,
        #[cfg(target_os = "linux")] while_nothing_happens_it_costs_no_processor_time,
        what_came_while_it_was_suspended_comes_back,
        it_serves_on_when_nobody_reads_its_output_any_more,
        it_serves_when_nobody_reads_even_where_it_listens,
    ],
    ours: [
        a_log_line_is_one_write,
        quiet_logs_nothing_per_message_or_connection,
        a_second_server_on_the_address_is_told_that_it_is_in_use,
    ],
}

pub fn what_is_sent_comes_back(subject: &Subject) -> Kept {
    subject.start()?.exchange(b"hello")
}

#[cfg(target_os = "linux")]
pub fn while_nothing_happens_it_costs_no_processor_time(subject: &Subject) -> Kept {
    let server = subject.start()?;
    server.serves()?;
    server.rests()
}

pub fn what_came_while_it_was_suspended_comes_back(subject: &Subject) -> Kept {
    let server = subject.start()?;
    server.serves()?;
    server.running.suspend();
    server.running.resume_after(Duration::from_millis(200));
    server.exchange(b"are you back?")
}

/// The server has one place, so that a worker that has ended is noticed.
pub fn it_serves_on_when_nobody_reads_its_output_any_more(subject: &Subject) -> Kept {
    let mut server = subject.start_for(1)?;
    server.running.close_output();
    (0..300).try_for_each(|_| server.serves())?;
    ensure!(server.running.is_running(), "it has ended");
    Ok(())
}

pub fn it_serves_when_nobody_reads_even_where_it_listens(subject: &Subject) -> Kept {
    let mut server = subject.start_unread()?;
    server.serves()?;
    ensure!(server.running.is_running(), "it has ended");
    Ok(())
}

/// A pair of datagram sockets keeps the boundaries of writes, where a pipe would join them.
pub fn a_log_line_is_one_write(ours: &Ours) -> Kept {
    let (stderr, log) = UnixDatagram::pair()?;
    log.set_read_timeout(Some(patience()))?;
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
