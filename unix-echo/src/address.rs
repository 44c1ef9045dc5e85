//! The address of a Unix socket, and the file that the kernel creates for it.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The longest path or name, in bytes. The field `sun_path` of the address has 108 bytes on Linux
/// (unix(7)), and 104 on macOS and the BSDs. std ends a path with a zero byte, and an abstract
/// name begins with one.
const MAX_LEN: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The address of a socket: a path, an abstract name, or nothing (`unnamed`).
pub struct Address(pub SocketAddr);

impl Address {
    pub fn new(path: &Path) -> Result<Address> {
        let bytes = path.as_os_str().as_bytes();
        let abstract_name = bytes.strip_prefix(b"@");
        let len = abstract_name.unwrap_or(bytes).len();
        let shown = path.display();
        ensure!(len > 0, "cannot use an empty name; give a path to --path");
        ensure!(
            len <= MAX_LEN,
            "cannot use the name {shown}: it has {len} bytes, the limit is {MAX_LEN}"
        );
        let address = match abstract_name {
            #[cfg(target_os = "linux")]
            Some(name) => SocketAddr::from_abstract_name(name),
            #[cfg(not(target_os = "linux"))]
            Some(_) => bail!("cannot use {shown}: only Linux has abstract names"),
            None => SocketAddr::from_pathname(path),
        };
        let address = address.with_context(|| format!("cannot use the name {shown}"))?;
        Ok(Address(address))
    }

    /// Removes the file that a server left when it was killed: bind(2) would find that the address
    /// is in use. Fails if anything else is there.
    ///
    /// If two servers start at the same moment, one can remove the file of the other. A lock on
    /// another file would prevent that (flock(2)). And a live server seems dead if we see its file
    /// through an overlay mount, or if it runs on another machine that shares the disk.
    pub fn remove_dead_socket(&self) -> Result<()> {
        let Some(path) = self.0.as_pathname() else {
            return Ok(());
        };
        // Unlike metadata(), this does not follow a symbolic link, which we do not remove either.
        let Ok(file) = fs::symlink_metadata(path) else {
            return Ok(()); // Nothing is there, or bind will say why we cannot look.
        };
        ensure!(
            file.file_type().is_socket(),
            "cannot listen on {self}: this file is not a socket, and stays as it is"
        );
        // Connecting a datagram socket never waits, and neither type of server notices it.
        let probe = UnixDatagram::unbound().context("cannot open a socket")?;
        match probe.connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
                .with_context(|| format!("cannot remove {self}, where nobody listens")),
            _ => bail!(
                "cannot listen on {self}: already in use, or not yours; choose another --path"
            ),
        }
    }

    /// Lets nobody but the user reach the socket that is bound to this path. Returns its file,
    /// which the kernel leaves there when the socket is closed. An abstract name has none.
    ///
    /// On Linux a client needs permission to write to the file (unix(7)). Until now the umask has
    /// decided who has it; a private directory protects all the time. It must not be another
    /// user's directory: that user can replace the file by a link, which chmod(2) follows, so it
    /// would change another file of ours.
    pub fn protect(&self) -> Result<Option<SocketFile>> {
        let Some(path) = self.0.as_pathname() else {
            return Ok(None);
        };
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path).context("cannot find the file of the socket")?,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot restrict the access to {self}"))?;
        Ok(Some(file))
    }

    /// Adds to an error of a client what it means here.
    pub fn explain(&self, error: io::Error) -> anyhow::Error {
        let file = self
            .0
            .as_pathname()
            .and_then(|path| fs::metadata(path).ok());
        let advice = match error.kind() {
            _ if file.is_some_and(|file| !file.file_type().is_socket()) => {
                ": this file is not a socket"
            }
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                ": nobody listens there; start unix-echo server"
            }
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot reach {self}{advice}"))
    }
}

impl fmt::Display for Address {
    /// Escaped, because a client chooses its own name and can put control characters into it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        #[cfg(target_os = "linux")]
        if let Some(name) = self.0.as_abstract_name() {
            return write!(f, "@{}", String::from_utf8_lossy(name).escape_debug());
        }
        match self.0.as_pathname() {
            Some(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
            None => write!(f, "unnamed"),
        }
    }
}

/// The file of a server's socket. It is removed when this is dropped, if it is still our file,
/// with the same device and inode number.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
