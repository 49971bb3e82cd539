//! Unix sockets to accept on: made with their permissions, and taken over from who left them.
//!
//! The file stays behind when its process ends, since a successor may have been handed the socket; the
//! next process that wants it puts its own in its place.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections waiting to be accepted; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Listens on a file of this mode, which it has before anybody can connect.
///
/// # Errors
/// The operating system's, or that another process listens there, or that the file is no socket.
pub(super) fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("the file is there and is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            let why = "another process listens there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        Ok(_) => fs::remove_file(path)?,
        // Whatever else is the matter, the next step tells.
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    permit(path, mode)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// Gives the file of a socket this mode.
///
/// # Errors
/// The operating system's.
pub(super) fn permit(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_takes_the_place_of_one_that_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = listen(&path, 0o620).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let taken = listen(&path, 0o600).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let _listener = listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path, 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
