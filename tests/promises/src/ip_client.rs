//! What every client promises that asks one server over IP, by an address or a name.

#[cfg(target_os = "linux")]
use std::net::UdpSocket;

use harness::try_run;
#[cfg(target_os = "linux")]
use harness::{Running, patience};

#[cfg(target_os = "linux")]
use crate::{
    Broken, Promised,
    catalog::TCP_SERVER,
    datagram_client::{printed, right_answer},
};
use crate::{Kept, Ours, Reach, Said, uninterrupted};

promises! {
    anybody: [],
    ours: [
        #[cfg(target_os = "linux")] of_a_name_with_two_addresses_the_one_that_answers_is_used,
        #[cfg(target_os = "linux")] it_does_not_take_itself_for_the_server,
        #[cfg(target_os = "linux")] that_no_local_port_is_free_is_not_blamed_on_the_server,
        port_0_is_refused_as_it_is_no_address_of_a_server,
    ],
}

#[cfg(target_os = "linux")]
pub fn of_a_name_with_two_addresses_the_one_that_answers_is_used(ours: &Ours) -> Kept {
    harness::ipv6().map_err(Broken::NotAsked)?;
    for host in ["127.0.0.1", "[::1]"] {
        let client = |port| {
            let client = ours.asking(&format!("twofold:{port}"));
            harness::try_with_twofold_name(&client).map_err(Broken::NotAsked)
        };
        let client = if ours.reach == Reach::Tcp {
            let server = Ours::new(&TCP_SERVER).start_on_host(host)?;
            try_run(&mut client(server.ip()?.port())?, b"")?
        } else {
            let server = UdpSocket::bind(format!("{host}:0"))?;
            server.set_read_timeout(Some(patience()))?;
            let client = Running::start(&mut client(server.local_addr()?.port())?);
            let mut question = [0; 512];
            let (len, peer) =
                uninterrupted(|| server.recv_from(&mut question)).promised("a question")?;
            server.send_to(&right_answer(ours, &question[..len]), peer)?;
            client.try_finish()?
        };
        client.printed(printed(ours).as_bytes())?;
    }
    Ok(())
}

/// If no server has the port that the client asks for, the kernel may give this port to the client.
/// Then UDP and TCP can connect the socket to itself, and also by the addresses that stand for this
/// host. A query is no answer, so `dns` waits for one in vain.
#[cfg(target_os = "linux")]
pub fn it_does_not_take_itself_for_the_server(ours: &Ours) -> Kept {
    let v6 = ["[::1]", "[::]", "[::1%1]", "[::ffff:0.0.0.0]"];
    for host in ["127.0.0.1", "0.0.0.0"].into_iter().chain(v6) {
        if host == v6[0] {
            harness::ipv6().map_err(Broken::NotAsked)?;
        }
        let mut client = ours.asking(&format!("{host}:7007"));
        client.args(["--timeout", "1"]);
        let client = harness::where_7007_is_the_only_free_port(&client);
        let client = try_run(&mut client.map_err(Broken::NotAsked)?, b"")?;
        client.failed("Error: cannot ")?;
        client.says(match &*ours.name {
            "dns" => ":7007 within 1s\n",
            _ => ":7007: nobody listens there; start ",
        })?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
pub fn that_no_local_port_is_free_is_not_blamed_on_the_server(ours: &Ours) -> Kept {
    let client = harness::where_no_port_is_free(&ours.asking("127.0.0.1:7007"));
    let client = try_run(&mut client.map_err(Broken::NotAsked)?, b"")?;
    client.failed(match ours.reach {
        Reach::Tcp => "Error: cannot connect to 127.0.0.1:7007: no local port is free, or no local address",
        _ => "Error: cannot open a UDP socket on a free port\n\nCaused by:\n    Address already in use",
    })
}

/// On Linux, connect(2) of UDP accepts port 0, and send(2) sends.
pub fn port_0_is_refused_as_it_is_no_address_of_a_server(ours: &Ours) -> Kept {
    let client = try_run(&mut ours.asking("127.0.0.1:0"), b"")?;
    client.failed(match ours.reach {
        Reach::Tcp => "Error: cannot connect to 127.0.0.1:0: port 0 stands for no socket; give the server's port\n",
        _ => "Error: cannot send to 127.0.0.1:0: port 0 stands for no socket; give the server's port\n",
    })
}
