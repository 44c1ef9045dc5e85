//! What every server of streams promises to good clients, even if others are bad.

use std::io::{Read, Write};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(target_os = "linux")]
use std::path::Path;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
#[cfg(unix)]
use std::time::Instant;

use harness::{noise, patience};
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process};

use crate::{Kept, Ours, Reach, Subject, send_until_stuck};
#[cfg(unix)]
use crate::{Listening, Stream};

promises! {
    anybody: [
        who_half_closes_gets_everything_back_and_then_the_end,
        clients_come_one_after_the_other,
        a_hundred_clients_at_once_are_each_served,
        who_is_silent_makes_nobody_wait,
        who_does_not_read_makes_nobody_wait,
        who_drips_makes_nobody_wait,
        who_sends_all_before_reading_is_stuck_until_it_reads,
        who_half_closes_and_reads_late_still_gets_everything,
        #[cfg(unix)] being_suspended_while_it_waits_to_read_ends_no_connection,
        #[cfg(unix)] being_suspended_while_it_waits_to_write_loses_nothing,
        clients_that_reset_or_leave_harm_nobody,
        #[cfg(target_os = "linux")] out_of_descriptors_it_waits_and_then_serves_again,
        #[cfg(target_os = "linux")] who_waits_or_does_not_read_costs_no_processor_time,
        #[cfg(target_os = "linux")] clients_that_have_gone_leave_nothing_behind,
    ],
    ours: [
        each_connection_is_logged_when_it_begins_and_when_it_ends,
        #[cfg(target_os = "linux")] a_connection_that_the_kernel_gives_up_is_not_logged_as_idle,
        #[cfg(target_os = "linux")] a_write_that_takes_nothing_ends_the_connection,
        #[cfg(target_os = "linux")] out_of_descriptors_it_logs_the_error_and_pauses,
        #[cfg(unix)] a_log_that_is_not_read_makes_it_wait_unless_it_is_quiet,
        #[cfg(target_os = "linux")] idle_workers_do_not_use_up_the_descriptors,
    ],
    anybody_with_a_limit: [
        the_third_of_two_waits_and_is_then_served,
    ],
    ours_with_limits: [
        who_never_writes_is_closed_after_the_idle_timeout,
        who_never_reads_is_closed_after_the_idle_timeout,
        #[cfg(unix)] what_came_while_it_was_suspended_is_echoed_before_it_counts_who_is_idle,
        #[cfg(unix)] to_be_suspended_does_not_prolong_the_time_of_who_never_writes,
        #[cfg(unix)] to_be_suspended_does_not_prolong_the_time_of_who_never_reads,
        who_drips_a_byte_within_the_idle_timeout_is_served_on,
        wrong_usage_is_refused_with_what_is_right,
    ],
}

pub fn who_half_closes_gets_everything_back_and_then_the_end(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let bytes = noise(1_000_003);
    let back = server.connect()?.echo_all(&bytes)?;
    ensure!(back == bytes, "{} bytes came back", back.len());
    Ok(())
}

pub fn clients_come_one_after_the_other(subject: &Subject) -> Kept {
    let server = subject.start()?;
    (0..100).try_for_each(|_| server.serves())
}

pub fn a_hundred_clients_at_once_are_each_served(subject: &Subject) -> Kept {
    let server = subject.start_for(100)?;
    let clients = server.connect_times(100)?;
    for (number, client) in (0_u64..).zip(&clients) {
        client.send(&number.to_be_bytes())?;
    }
    for (number, client) in (0_u64..).zip(&clients) {
        ensure_eq!(client.receive(8)?, number.to_be_bytes());
    }
    Ok(())
}

pub fn who_is_silent_makes_nobody_wait(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let _silent = server.connect_times(10)?;
    server.serves()
}

pub fn who_does_not_read_makes_nobody_wait(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let deaf = server.connect()?;
    send_until_stuck(&deaf)?;
    server.serves()
}

pub fn who_drips_makes_nobody_wait(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let dripping = server.connect()?;
    for _ in 0..5 {
        dripping.send(b".")?;
        server.serves()?;
        thread::sleep(Duration::from_millis(20));
    }
    dripping.receive(5).map(drop)
}

pub fn each_connection_is_logged_when_it_begins_and_when_it_ends(ours: &Ours) -> Kept {
    let mut server = ours.start()?;
    let stream = server.connect()?;
    let peer = stream.name_in_logs()?;
    stream.echo_all(&noise(1_000_003))?;
    ensure_eq!(server.log_line()?, format!("{peer}: connected"));
    ensure_eq!(
        server.log_line()?,
        format!("{peer}: closed, bytes echoed: 1000003")
    );
    Ok(())
}

pub fn who_half_closes_and_reads_late_still_gets_everything(subject: &Subject) -> Kept {
    let server = subject.start_for(1)?;
    let late = server.connect()?;
    late.send(&[7; 200_000])?;
    late.half_close()?;
    server.serves()?; // If there is one place, the first client has been served, but has read nothing yet.
    let back = late.receive_all()?;
    ensure!(back == [7; 200_000], "{} bytes came back", back.len());
    Ok(())
}

/// The buffers on the way hold some megabytes. A client that sends more before it reads waits
/// for the server, which waits for the client to read. When the client reads, both go on.
pub fn who_sends_all_before_reading_is_stuck_until_it_reads(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let stream = server.connect()?;
    let sent = send_until_stuck(&stream)?;
    let more = vec![b'x'; 8 << 20];
    ensure_eq!(stream.echo_all(&more)?.len(), sent + more.len());
    Ok(())
}

/// A read with a time limit is interrupted, and has read nothing.
#[cfg(unix)]
pub fn being_suspended_while_it_waits_to_read_ends_no_connection(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let stream = server.connect()?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(100)); // It must have come to the read.
        server.running.suspend();
        server.running.resume();
    }
    stream.echo(b"are you back?")
}

/// If a write with a time limit waits and is interrupted, it has written only a part.
#[cfg(unix)]
pub fn being_suspended_while_it_waits_to_write_loses_nothing(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let stream = server.connect()?;
    let sent = send_until_stuck(&stream)?;
    for _ in 0..3 {
        server.running.suspend();
        server.running.resume();
    }
    stream.half_close()?;
    ensure_eq!(stream.receive_all()?.len(), sent);
    Ok(())
}

/// If a peer no longer acknowledges, the kernel gives up the connection after a quarter of an
/// hour. strace makes the first read fail with the same error, at once.
#[cfg(target_os = "linux")]
pub fn a_connection_that_the_kernel_gives_up_is_not_logged_as_idle(ours: &Ours) -> Kept {
    let options = ["-e", "inject=recvfrom:error=ETIMEDOUT:when=1"];
    let mut server = ours.start_traced(Path::new("/dev/null"), &options)?;
    let stream = server.connect()?;
    let peer = stream.name_in_logs()?;
    // The event loop reads only when there is something. The others may have closed already.
    let _ = stream.send(b"hello");
    ensure_eq!(server.log_line()?, format!("{peer}: connected"));
    ensure_eq!(
        server.log_line()?,
        format!("{peer}: closed, Connection timed out (os error 110)")
    );
    Ok(())
}

/// strace lets send(2) return 0. A loop that writes until everything is taken would spin.
#[cfg(target_os = "linux")]
pub fn a_write_that_takes_nothing_ends_the_connection(ours: &Ours) -> Kept {
    let options = ["-e", "inject=sendto:retval=0"];
    let mut server = ours.start_traced(Path::new("/dev/null"), &options)?;
    let client = server.connect()?;
    let peer = client.name_in_logs()?;
    client.send(b"hello")?;
    let why = match ours.reach {
        Reach::Tcp => "write zero",
        _ => "failed to write whole buffer", // This is how write_all says it.
    };
    ensure_eq!(server.log_line()?, format!("{peer}: connected"));
    ensure_eq!(server.log_line()?, format!("{peer}: closed, {why}"));
    Ok(())
}

pub fn clients_that_reset_or_leave_harm_nobody(subject: &Subject) -> Kept {
    let server = subject.start_for(2)?;
    let good = server.connect()?;
    good.echo(b"hello")?;
    for _ in 0..120 {
        let bad = server.connect()?;
        bad.send(&[b'x'; 100_000])?;
        bad.reset();
        drop(server.connect()?);
        good.echo(b"undisturbed")?;
    }
    drop(good);
    server.serves()
}

pub fn who_never_writes_is_closed_after_the_idle_timeout(ours: &Ours) -> Kept {
    let mut server = ours.start_with(&["--idle-timeout", "0.3", "--max-connections", "1"])?;
    let silent = server.connect()?;
    let peer = silent.name_in_logs()?;
    ensure_eq!(silent.receive_all()?, b"");
    ensure_eq!(server.log_line()?, format!("{peer}: connected"));
    ensure_eq!(
        server.log_line()?,
        format!("{peer}: closed, no read or write for 300ms")
    );
    server.serves()
}

pub fn who_never_reads_is_closed_after_the_idle_timeout(ours: &Ours) -> Kept {
    let mut server = ours.start_with(&["--idle-timeout", "0.3", "--max-connections", "1"])?;
    let deaf = server.connect()?;
    let peer = deaf.name_in_logs()?;
    // Another client waits in the backlog for the place of this one.
    let waiting = server.connect()?;
    deaf.set_write_timeout(Some(Duration::from_secs(10)))?;
    while (&deaf).write(&[b'x'; 64 * 1024]).is_ok() {}
    ensure_eq!(server.log_line()?, format!("{peer}: connected"));
    ensure_eq!(
        server.log_line()?,
        format!("{peer}: closed, no read or write for 300ms")
    );
    waiting.echo(b"my turn")
}

#[cfg(unix)]
pub fn what_came_while_it_was_suspended_is_echoed_before_it_counts_who_is_idle(
    ours: &Ours,
) -> Kept {
    let server = ours.start_with(&["--idle-timeout", "1"])?;
    let clients = server.connect_times(5)?;
    for client in &clients {
        client.echo(b"hello")?;
    }
    server.running.suspend();
    for client in &clients {
        client.send(b"are you back?")?;
    }
    thread::sleep(Duration::from_millis(1200));
    server.running.resume();
    for client in &clients {
        ensure_eq!(client.receive(13)?, b"are you back?");
    }
    Ok(())
}

/// Suspends a server again and again, until a line of its log says that it has closed a connection
/// as idle. Linux interrupts a call with a time limit each time. If the call then began anew, the
/// limit would never pass here.
#[cfg(unix)]
fn closes_while_suspended_again_and_again(mut server: Listening, client: &Stream) -> Kept {
    let peer = client.name_in_logs()?;
    let is_over = AtomicBool::new(false);
    let lines = thread::scope(|scope| {
        let (id, is_over) = (server.running.id(), &is_over);
        scope.spawn(move || {
            let Some(id) = Pid::from_raw(id as i32) else {
                return;
            };
            let deadline = Instant::now() + patience();
            while !is_over.load(SeqCst) && Instant::now() < deadline {
                for signal in [Signal::STOP, Signal::CONT] {
                    let _ = kill_process(id, signal);
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let lines = [server.log_line(), server.log_line()];
        is_over.store(true, SeqCst);
        lines
    });
    let [_, line] = lines;
    ensure_eq!(line?, format!("{peer}: closed, no read or write for 1s"));
    Ok(())
}

#[cfg(unix)]
pub fn to_be_suspended_does_not_prolong_the_time_of_who_never_writes(ours: &Ours) -> Kept {
    let server = ours.start_with(&["--idle-timeout", "1"])?;
    let silent = server.connect()?;
    closes_while_suspended_again_and_again(server, &silent)
}

#[cfg(unix)]
pub fn to_be_suspended_does_not_prolong_the_time_of_who_never_reads(ours: &Ours) -> Kept {
    let server = ours.start_with(&["--idle-timeout", "1"])?;
    let deaf = server.connect()?;
    send_until_stuck(&deaf)?;
    closes_while_suspended_again_and_again(server, &deaf)
}

pub fn who_drips_a_byte_within_the_idle_timeout_is_served_on(ours: &Ours) -> Kept {
    let server = ours.start_with(&["--idle-timeout", "2"])?;
    let stream = server.connect()?;
    for _ in 0..4 {
        thread::sleep(Duration::from_secs(1));
        stream.echo(b".")?;
    }
    Ok(())
}

pub fn the_third_of_two_waits_and_is_then_served(subject: &Subject) -> Kept {
    let server = subject.start_at_most(2)?;
    let [first, second] = [server.connect()?, server.connect()?];
    first.echo(b"first")?;
    second.echo(b"second")?;
    let third = server.connect()?;
    third.send(b"third")?;
    third.set_read_timeout(Some(Duration::from_millis(200)))?;
    ensure!(
        (&third).read(&mut [0; 8]).is_err(),
        "it is served beside two others"
    );
    drop(first);
    third.set_read_timeout(Some(patience()))?;
    ensure_eq!(third.receive(5)?, b"third");
    Ok(())
}

#[cfg(target_os = "linux")]
fn uses_up_the_descriptors(server: &Listening) -> Kept {
    let mut clients = server.connect_times(60)?;
    clients[0].echo(b"served")?;
    // The server must not try again at once for clients in the backlog, nor for new ones.
    server.rests_while(|| {
        clients.push(server.connect()?);
        Ok(())
    })?;
    // The waiting clients are served as soon as others leave.
    for client in clients {
        client.echo(b"at last")?;
    }
    server.serves()
}

#[cfg(target_os = "linux")]
pub fn out_of_descriptors_it_waits_and_then_serves_again(subject: &Subject) -> Kept {
    uses_up_the_descriptors(&subject.start_limited("--nofile=24")?)
}

#[cfg(target_os = "linux")]
pub fn out_of_descriptors_it_logs_the_error_and_pauses(ours: &Ours) -> Kept {
    let started = Instant::now();
    let server = ours.start_limited("--nofile=24")?;
    uses_up_the_descriptors(&server)?;
    let log = server.running.kill().stderr;
    let is_error = |line: &&str| line.starts_with("cannot accept: ");
    let errors = log.lines().filter(is_error).count();
    let most = started.elapsed().as_millis() as usize / 100 + 1;
    ensure!(
        (1..=most).contains(&errors),
        "{errors} failures, with a pause of 100 ms after each: {most}"
    );
    Ok(())
}

#[cfg(target_os = "linux")]
pub fn who_waits_or_does_not_read_costs_no_processor_time(subject: &Subject) -> Kept {
    let server = subject.start_for(1)?;
    let deaf = server.connect()?;
    send_until_stuck(&deaf)?;
    let waiting = server.connect()?;
    waiting.send(b"my turn?")?;
    server.rests()
}

#[cfg(target_os = "linux")]
pub fn clients_that_have_gone_leave_nothing_behind(subject: &Subject) -> Kept {
    subject.start()?.forgets()
}

#[cfg(unix)]
pub fn a_log_that_is_not_read_makes_it_wait_unless_it_is_quiet(ours: &Ours) -> Kept {
    for args in [&[][..], &["-q"]] {
        let (stderr, reader) = UnixStream::pair()?;
        stderr.set_nonblocking(true)?;
        let page = b"like a pager that shows a full page\n";
        while (&stderr).write(page).is_ok() {}
        stderr.set_nonblocking(false)?;
        let server = ours.start_with_stderr(stderr, args)?;
        let client = server.connect()?;
        client.send(b"hello")?;
        let is_logging = args.is_empty();
        if is_logging {
            client.set_read_timeout(Some(Duration::from_millis(200)))?;
            ensure!((&client).read(&mut [0; 8]).is_err(), "it does not wait");
            client.set_read_timeout(Some(patience()))?;
            thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
        }
        client.receive(5)?;
    }
    Ok(())
}

pub fn wrong_usage_is_refused_with_what_is_right(ours: &Ours) -> Kept {
    ours.refuses(&[
        (["--max-connections", "0"], "0 is not in 1.."),
        (["--max-connections", "-1"], "unexpected argument '-1'"),
    ])?;
    ours.refuses_seconds("--idle-timeout")
}

#[cfg(target_os = "linux")]
pub fn idle_workers_do_not_use_up_the_descriptors(ours: &Ours) -> Kept {
    let server = ours.start_limited("--nofile=24")?;
    (0..5).try_for_each(|_| server.serves())?;
    let log = server.running.kill().stderr;
    let is_usual = |line: &str| line.ends_with(": connected") || line.contains(": closed, ");
    ensure!(log.lines().all(is_usual), "{log}");
    Ok(())
}
