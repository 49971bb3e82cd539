//! The unix socket of the API: made with its permissions, taken over from who left it, and removed.
//!
//! The kernel tells who connects, so nobody has to prove anything: whoever the mode of the file lets in
//! may do what the socket's level says.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::config::{AdminLevel, Config};
use crate::server::inherited::READY_FD;
use crate::server::state_dir_of;

/// The file's name, where the configuration does not say.
const FILE: &str = "admin.sock";

/// A socket that listens, and cannot be found yet.
pub(in crate::server) struct Socket {
    listener: UnixListener,
    pub(super) level: AdminLevel,
    draft: Draft,
    path: PathBuf,
}

/// A file and which one it was, to be removed unless it is somebody else's by then: a successor may have
/// put its own in its place.
pub(super) struct OwnFile {
    path: PathBuf,
    inode: u64,
}

/// What becomes of another process that listens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    /// It keeps the place.
    Stays,
    /// It is about to leave it to this one, which it has started.
    Leaves,
}

/// Where the socket of a process with this configuration is; `None` if it has none.
pub(crate) fn path_of(config: &Config) -> Option<PathBuf> {
    let socket = config.admin.socket.as_ref()?;
    let otherwise = || in_directory(&state_dir_of(config));
    Some(socket.path.clone().unwrap_or_else(otherwise))
}

/// Where the socket is in a state directory.
pub(crate) fn in_directory(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Makes the socket that the configuration asks for. Where it asks for none in particular, and it
/// cannot be made in the state directory, the process does without.
///
/// # Errors
/// The operating system's, or that another process listens there.
pub(in crate::server) fn bind(config: &Config) -> Result<Option<Socket>, (PathBuf, io::Error)> {
    let (Some(settings), Some(path)) = (&config.admin.socket, path_of(config)) else {
        return Ok(None);
    };
    let rival = match std::env::var_os(READY_FD) {
        Some(_) => Rival::Leaves,
        None => Rival::Stays,
    };
    match listen(&path, settings.mode, rival) {
        Ok((listener, draft)) => Ok(Some(Socket {
            listener,
            level: settings.level,
            draft,
            path,
        })),
        Err(error) if settings.path.is_none() => {
            let path = path.display();
            log::warn!("no admin socket at {path}, so commands cannot reach this process: {error}");
            Ok(None)
        }
        Err(error) => Err((path, error)),
    }
}

/// Listens on a file of this mode, where nobody finds it yet.
fn listen(path: &Path, mode: u32, rival: Rival) -> io::Result<(UnixListener, Draft)> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("the file is there and is no socket"));
        }
        Ok(_) if rival == Rival::Stays && UnixStream::connect(path).is_ok() => {
            let why = "another process listens there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        Ok(_) | Err(_) => {}
    }
    let draft = Draft::beside(path)?;
    let listener = UnixListener::bind(&draft.socket)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&draft.socket, Permissions::from_mode(mode))?;
    Ok((listener, draft))
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

impl Socket {
    /// Gives it its name, from one moment to the next: whoever connects finds the old process or the
    /// new one. The file is to be dropped when nobody listens any more.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn open(self) -> io::Result<(UnixListener, OwnFile)> {
        let inode = fs::symlink_metadata(&self.draft.socket)?.ino();
        fs::rename(&self.draft.socket, &self.path)?;
        let file = OwnFile {
            path: self.path,
            inode,
        };
        Ok((self.listener, file))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let is_ours = |found: fs::Metadata| found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // One that stays behind is taken over by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: &Path, mode: u32, rival: Rival) -> io::Result<Socket> {
        let (listener, draft) = listen(path, mode, rival)?;
        Ok(Socket {
            listener,
            level: AdminLevel::Operate,
            draft,
            path: path.to_owned(),
        })
    }

    #[test]
    fn a_socket_has_its_mode_and_takes_the_place_of_one_that_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let draft = socket(&path, 0o620, Rival::Stays).unwrap();
        assert!(!path.exists(), "not before it is opened");
        let (listener, file) = draft.open().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let taken = socket(&path, 0o600, Rival::Stays).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        // As a process does that is killed.
        drop(listener);
        let second = socket(&path, 0o600, Rival::Stays).unwrap();
        let (_listener, second) = second.open().unwrap();
        drop(file);
        assert!(path.exists(), "it is the second one's");
        drop(second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_successor_takes_the_place_of_the_process_that_has_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = socket(&path, 0o600, Rival::Stays).unwrap();
        let (_first, own) = first.open().unwrap();
        drop(socket(&path, 0o600, Rival::Leaves).unwrap());
        assert!(UnixStream::connect(&path).is_ok(), "it did not come so far");
        let second = socket(&path, 0o600, Rival::Leaves).unwrap();
        let (second, _file) = second.open().unwrap();
        drop(own);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(second.accept().is_ok());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(socket(&path, 0o600, Rival::Leaves).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
