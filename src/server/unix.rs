//! Unix sockets to accept on: made with their permissions, and taken over from who left them.
//!
//! The file stays behind when its process ends, since a successor may have inherited the socket; the
//! next process that wants it puts its own in its place.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Listens on a file of this mode. It has its mode before anybody can connect, and its name from one
/// moment to the next, so that whoever connects finds the old process or the new one.
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
        Ok(_) | Err(_) => {}
    }
    let draft = Draft::beside(path)?;
    let listener = UnixListener::bind(&draft.socket)?;
    listener.set_nonblocking(true)?;
    permit(&draft.socket, mode)?;
    fs::rename(&draft.socket, path)?;
    Ok(listener)
}

/// Gives the file of a socket this mode.
pub(super) fn permit(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A directory of our own beside the place where the socket is to be, in which nobody else can find it.
struct Draft {
    directory: PathBuf,
    socket: PathBuf,
}

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        let parent = path.parent().unwrap_or_else(|| Path::new("/"));
        // Short, because the path of a socket may have 107 bytes.
        let directory = parent.join(format!(".{:x}", fastrand::u32(..)));
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self {
            socket: directory.join("s"),
            directory,
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already, if all went well.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir(&self.directory);
    }
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
