//! The simplest TCP echo server that std allows, with a thread for each connection. It is only for
//! comparison with `tcp-server`: it serves any number of clients, it has no time limit, and an
//! error of accept ends it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        thread::spawn(move || {
            let mut buffer = vec![0; 48 * 1024];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
        });
    }
}
