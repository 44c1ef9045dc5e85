//! The simplest TCP echo server with epoll(7) and one thread. The others are compared with it, and
//! it is only for that: it serves any number of clients, it has no time limit, and an error of
//! accept ends it.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    server::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod server {
    use std::collections::HashMap;
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create, modify, wait};

    struct Connection {
        stream: TcpStream,
        /// What we have read and the kernel has not taken back yet. Until then nothing is read.
        unsent: Vec<u8>,
    }

    pub fn run() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        socket2::SockRef::from(&listener).listen(4096)?;
        listener.set_nonblocking(true)?;
        println!("listening on {}", listener.local_addr()?);

        let epoll = create(CreateFlags::CLOEXEC)?;
        let listener_key = listener.as_raw_fd();
        add(&epoll, &listener, key(listener_key), EventFlags::IN)?;
        let mut connections = HashMap::new();
        let mut buffer = vec![0; 48 * 1024];
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                let number = event.data.u64() as i32;
                if number == listener_key {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    add(&epoll, &stream, key(stream.as_raw_fd()), EventFlags::IN)?;
                    connections.insert(
                        stream.as_raw_fd(),
                        Connection {
                            stream,
                            unsent: Vec::new(),
                        },
                    );
                } else if let Some(connection) = connections.get_mut(&number) {
                    let was_full = !connection.unsent.is_empty();
                    match echo(connection, &mut buffer) {
                        Ok(true) => {
                            let is_full = !connection.unsent.is_empty();
                            if is_full != was_full {
                                let flags = if is_full {
                                    EventFlags::OUT
                                } else {
                                    EventFlags::IN
                                };
                                modify(&epoll, &connection.stream, key(number), flags)?;
                            }
                        }
                        // Closing the stream removes it from epoll.
                        _ => drop(connections.remove(&number)),
                    }
                }
            }
        }
    }

    fn key(number: i32) -> EventData {
        EventData::new_u64(number as u64)
    }

    /// Reads and writes once, or writes the rest of an earlier read. Returns `false` at the end
    /// of the stream.
    fn echo(connection: &mut Connection, buffer: &mut [u8]) -> io::Result<bool> {
        if !connection.unsent.is_empty() {
            let written = connection.stream.write(&connection.unsent)?;
            connection.unsent.drain(..written);
            return Ok(true);
        }
        let len = connection.stream.read(buffer)?;
        let written = match connection.stream.write(&buffer[..len]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written?,
        };
        connection.unsent.extend_from_slice(&buffer[written..len]);
        Ok(len > 0)
    }
}
