//! The test's own end of a connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::{Broken, Kept, Promised, came_back};

/// A connection of the test itself.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Does the same for both kinds of streams.
macro_rules! each {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($inner) => $do,
            #[cfg(unix)]
            Stream::Unix($inner) => $do,
        }
    };
}

impl Stream {
    /// Sets the limit of a read.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        each!(self, stream => stream.set_read_timeout(limit))
    }

    /// Sets the limit of a write.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        each!(self, stream => stream.set_write_timeout(limit))
    }

    /// Makes reads and writes return at once.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        each!(self, stream => stream.set_nonblocking(nonblocking))
    }

    /// Closes the sending half.
    pub fn half_close(&self) -> io::Result<()> {
        each!(self, stream => stream.shutdown(Shutdown::Write))
    }

    /// Makes TCP send small segments at once.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Closes the connection with a reset instead of a FIN. A Unix socket has no resets: there
    /// it is closed with unread bytes, which is an error for the peer as well.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self {
            // This cannot fail, and the connection is closed in any case.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Returns the name of this client in the server's log.
    pub fn name_in_logs(&self) -> io::Result<String> {
        match self {
            Stream::Tcp(stream) => Ok(stream.local_addr()?.to_string()),
            #[cfg(unix)]
            Stream::Unix(_) => Ok("unnamed".to_owned()),
        }
    }

    /// Sends a few bytes to an echo server and waits for them to come back.
    pub fn echo(&self, bytes: &[u8]) -> Kept {
        self.send(bytes)?;
        came_back(&self.receive(bytes.len())?, bytes)
    }

    /// Sends bytes.
    pub fn send(&self, bytes: &[u8]) -> Kept {
        (&mut &*self)
            .write_all(bytes)
            .promised("it takes what is sent")
    }

    /// Returns the next bytes, exactly this many.
    pub fn receive(&self, count: usize) -> Result<Vec<u8>, Broken> {
        let mut bytes = vec![0; count];
        (&mut &*self).read_exact(&mut bytes).promised("an answer")?;
        Ok(bytes)
    }

    /// Returns all bytes up to the end.
    pub fn receive_all(&self) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        (&mut &*self).read_to_end(&mut bytes).promised("the end")?;
        Ok(bytes)
    }

    /// Sends bytes and half-closes, and meanwhile returns all that comes back.
    pub fn echo_all(&self, bytes: &[u8]) -> Result<Vec<u8>, Broken> {
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                self.send(bytes)?;
                self.half_close().promised("it can half-close")
            });
            let back = self.receive_all();
            match sent.join() {
                Ok(sent) => sent.and(back),
                Err(_) => Err(Broken::Means("the sending thread".to_owned())),
            }
        })
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => { let mut stream = stream; stream.read(buffer) })
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => { let mut stream = stream; stream.write(bytes) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// More than the buffers of a kernel hold. A server that takes so much without sending anything back keeps
/// it in its own memory.
const TOO_MUCH: usize = 128 << 20;

/// Sends without reading, until nothing more can be sent. Returns how many bytes were sent.
pub fn send_until_stuck(mut stream: &Stream) -> Result<usize, Broken> {
    stream.set_nonblocking(true)?;
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 40 {
        ensure!(
            sent < TOO_MUCH,
            "it took {sent} bytes from a client that reads nothing: its memory is the only limit"
        );
        match stream.write(&[b'x'; 64 * 1024]) {
            Ok(len) => (sent, stuck) = (sent + len, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(Broken::Promise(format!("after {sent} bytes: {error}"))),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(sent)
}
