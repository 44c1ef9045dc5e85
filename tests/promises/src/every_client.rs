//! What every client promises, whatever its sockets are.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
#[cfg(unix)]
use std::path::Path;

use harness::{try_run, udp_socket};
use socket2::{Domain, Socket, Type};

use crate::{Kept, Ours, Reach, Said};

promises! {
    anybody: [],
    ours: [
        that_nobody_listens_is_told,
        a_time_limit_that_is_none_is_refused_with_what_is_right,
    ],
}

/// Returns two sockets that keep their ports, where nobody listens: the one is connected elsewhere, so it
/// takes nothing from a client, and the other does not listen.
pub fn sockets_that_take_nothing() -> io::Result<(UdpSocket, TcpStream)> {
    let udp = udp_socket("127.0.0.1");
    udp.connect(udp_socket("127.0.0.1").local_addr()?)?;
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    tcp.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok((udp, tcp.into()))
}

/// Who asks one server is told at once, long before its time limit. Of many servers, nobody is told.
pub fn that_nobody_listens_is_told(ours: &Ours) -> Kept {
    let error = match &*ours.name {
        "tcp_client" => "connect to ADDR: nobody listens there; start tcp-server",
        "udp_client" => "reach ADDR: nobody listens there; start udp-server",
        "dns" => "ask ADDR",
        "one_to_many" => "get an answer from ADDR within 100ms",
        _ => "reach ADDR: nobody listens there; start unix-echo server",
    };
    let (udp, tcp) = sockets_that_take_nothing()?;
    let folder = harness::folder();
    let path = folder.path().join("s");
    let addr = match ours.reach {
        Reach::Udp => udp.local_addr()?.to_string(),
        Reach::Tcp => tcp.local_addr()?.to_string(),
        _ => {
            #[cfg(unix)]
            leave_a_file(&path)?;
            path.to_string_lossy().into_owned()
        }
    };
    let (addr, limit) = match &*ours.name {
        "one_to_many" => (addr.replace("127.0.0.1", "127.255.255.255"), "0.1"),
        _ => (addr, "3600"),
    };
    let client = try_run(ours.asking(&addr).args(["--timeout", limit]), b"")?;
    client.failed(&format!("Error: cannot {}\n", error.replace("ADDR", &addr)))
}

/// Leaves the file of a Unix socket that is closed.
#[cfg(unix)]
fn leave_a_file(path: &Path) -> io::Result<()> {
    use std::os::unix::net::UnixDatagram;
    UnixDatagram::bind(path)?;
    let client = UnixDatagram::unbound()?;
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    harness::wait_until(|| client.connect(path).is_err_and(is_refused));
    Ok(())
}

pub fn a_time_limit_that_is_none_is_refused_with_what_is_right(ours: &Ours) -> Kept {
    ours.refuses_seconds("--timeout")
}
