//! What every TCP server promises, beside what every server of streams does.

use std::iter;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Server, try_run};

use crate::catalog::{TCP_CLIENT, UDP_CLIENT, UDP_SERVER};
use crate::{Broken, Kept, Ours, Said, Subject};

promises! {
    anybody: [
        small_writes_are_echoed_without_waiting_for_acknowledgements,
        ipv6_is_served_as_well,
    ],
    ours: [
        #[cfg(target_os = "linux")] it_asks_the_kernel_not_to_hold_up_small_segments,
        a_thousand_clients_at_once_are_each_served,
        #[cfg(unix)] it_starts_again_on_the_same_port_while_an_old_connection_is_open,
        both_servers_run_side_by_side_on_one_port_number,
    ],
}

/// Returns the time within which a quarter of the exchanges are done. On a busy machine, the other times say
/// more about the machine.
fn lower_quartile(exchange: impl Fn() -> Kept) -> Result<Duration, Broken> {
    let time = |_| {
        let started = Instant::now();
        exchange().map(|()| started.elapsed())
    };
    let mut times = (0..31).map(time).collect::<Result<Vec<_>, _>>()?;
    times.sort();
    Ok(times[7])
}

/// The client's kernel acknowledges a small segment late (on Linux after 40 ms). Without
/// TCP_NODELAY the server would wait for this before it sends the next small segment.
pub fn small_writes_are_echoed_without_waiting_for_acknowledgements(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let stream = server.connect()?;
    stream.set_nodelay()?;
    let write_apart = || -> Kept {
        stream.send(b"x")?;
        thread::sleep(Duration::from_micros(200)); // The server answers each byte separately.
        Ok(())
    };
    let one_by_one = lower_quartile(|| {
        (0..3).try_for_each(|_| {
            write_apart()?;
            stream.receive(1).map(drop)
        })
    })?;
    let in_a_row = lower_quartile(|| {
        (0..3).try_for_each(|_| write_apart())?;
        stream.receive(3).map(drop)
    })?;
    let short = lower_quartile(|| stream.echo(b"abc"))?;
    // A slow server is slow with short and long ones, and does not wait for another kernel.
    let waits = Duration::from_millis(20);
    ensure!(
        in_a_row < waits || in_a_row < 10 * one_by_one,
        "three in a row took {in_a_row:?}, one by one {one_by_one:?}"
    );
    // The server echoes a message in parts, if it is longer than its buffer. A last part that is small is
    // what waits: so these are a little longer than usual buffers.
    for len in [1025, 4097, 8193, 16_385, 32_769, 49_153, 65_537, 100_000] {
        let message = vec![b'x'; len];
        let long = lower_quartile(|| stream.echo(&message))?;
        ensure!(
            long < waits || long < 20 * short,
            "a message of {len} bytes took {long:?}, and one of 3 bytes {short:?}"
        );
    }
    Ok(())
}

/// The effect of TCP_NODELAY is visible only if a message is a little longer than the server's
/// buffer. So this test checks whether the server asks the kernel for it.
#[cfg(target_os = "linux")]
pub fn it_asks_the_kernel_not_to_hold_up_small_segments(ours: &Ours) -> Kept {
    let folder = harness::folder();
    let log = folder.path().join("calls");
    let server = ours.start_traced(&log, &[])?;
    (0..3).try_for_each(|_| server.serves())?;
    drop(server);
    let calls = std::fs::read_to_string(log)?;
    ensure_eq!(calls.matches("TCP_NODELAY, [1]").count(), 3, "{calls}");
    Ok(())
}

pub fn a_thousand_clients_at_once_are_each_served(ours: &Ours) -> Kept {
    const CLIENTS: usize = 1000;
    let _descriptors =
        harness::enough_descriptors(CLIENTS as u64 + 100).map_err(Broken::NotAsked)?;
    let server = ours.start_with(&["-q", "--max-connections", &CLIENTS.to_string()])?;
    let clients = server.connect_times(CLIENTS)?;
    for (number, client) in clients.iter().enumerate() {
        client.send(&number.to_be_bytes())?;
    }
    for (number, client) in clients.iter().enumerate() {
        ensure_eq!(client.receive(8)?, number.to_be_bytes());
    }
    Ok(())
}

#[cfg(unix)]
pub fn it_starts_again_on_the_same_port_while_an_old_connection_is_open(ours: &Ours) -> Kept {
    let first = ours.start()?;
    let addr = first.addr.clone();
    let old = first.connect()?;
    old.echo(b"before")?;
    drop(first);
    let second = ours.start_at(&addr)?;
    ensure_eq!(second.addr, addr);
    second.serves()
}

pub fn ipv6_is_served_as_well(subject: &Subject) -> Kept {
    harness::ipv6().map_err(Broken::NotAsked)?;
    subject.start_on_host("[::1]")?.serves()
}

pub fn both_servers_run_side_by_side_on_one_port_number(ours: &Ours) -> Kept {
    // Another test may have a UDP socket with the number that the kernel chose.
    for tcp in iter::repeat_with(|| ours.start()).take(10) {
        let tcp = tcp?;
        if UdpSocket::bind(tcp.ip()?).is_err() {
            continue;
        }
        let udp = Server::start(&mut UDP_SERVER.at(&tcp.addr));
        ensure_eq!(udp.addr, tcp.ip()?);
        for client in [&TCP_CLIENT, &UDP_CLIENT] {
            try_run(client.at(&tcp.addr).arg("hello"), b"")?.printed(b"hello\n")?;
        }
        return Ok(());
    }
    Err(Broken::Means(
        "no number is free for UDP as well".to_owned(),
    ))
}
