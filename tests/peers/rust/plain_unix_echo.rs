//! The simplest Unix echo servers that std allows. The first argument is the path. They serve
//! streams, with a thread for each connection, or with `--datagram` datagrams, with one socket.
//! They are only for comparison with `unix-echo`.

#[cfg(unix)]
fn main() -> std::io::Result<()> {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    let mut args = std::env::args().skip(1);
    let (path, datagram) = (args.next().unwrap_or_default(), args.next().is_some());
    if datagram {
        let socket = UnixDatagram::bind(&path)?;
        println!("listening on {path}");
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer)?;
            socket.send_to_addr(&buffer[..len], &peer)?;
        }
    }
    let listener = UnixListener::bind(&path)?;
    println!("listening on {path}");
    loop {
        let (mut stream, _) = listener.accept()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 32 * 1024];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
        });
    }
}

#[cfg(not(unix))]
fn main() {}
