//! What is kept of certificates that are ordered, in a directory of its own below the state directory.
//!
//! Each file is written beside its old one and put in its place, so that whoever reads it finds one or the
//! other; nobody but the owner may read it. Whoever orders holds a lock on the directory: after an upgrade
//! two processes would otherwise order the same thing. All of this blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The directory's name in the state directory.
const DIRECTORY: &str = "acme";
/// The file that is locked.
const LOCK: &str = "lock";
/// The longest file that is read.
const FILE_MAX: u64 = 1024 * 1024;

/// The directory.
pub(super) struct Files {
    directory: PathBuf,
    held: Mutex<Weak<File>>,
}

/// As long as one of these lives, no other process orders.
#[derive(Debug)]
pub(super) struct Lock(
    #[expect(dead_code, reason = "closing the file is what unlocks it")] Arc<File>,
);

impl Files {
    /// Those in this state directory. Nothing is made before it is needed.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.join(DIRECTORY),
            held: Mutex::default(),
        }
    }

    /// The lock, unless another process has it. Several in this process may have it at once.
    ///
    /// # Errors
    /// The directory or the file cannot be made.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = held.upgrade() {
            return Ok(Some(Lock(file)));
        }
        let directory = &self.directory;
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(|error| named(directory, &error))?;
        let path = directory.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| named(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {
                let file = Arc::new(file);
                *held = Arc::downgrade(&file);
                Ok(Some(Lock(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(named(&path, &error)),
        }
    }

    /// What a file holds; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is too long to be one of ours.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| named(&path, &error))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(named(&path, &"it is too long"));
        }
        Ok(Some(bytes))
    }

    /// Replaces a file as a whole.
    ///
    /// # Errors
    /// The operating system's; the old file is still there then.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.directory.join(name);
        let draft = self.directory.join(format!(".{name}.new"));
        self.replace(&path, &draft, bytes).map_err(|error| {
            // A draft that stays behind is clutter; the error that is told is the one that matters.
            let _ = fs::remove_file(&draft);
            named(&path, &error)
        })
    }

    fn replace(&self, path: &Path, draft: &Path, bytes: &[u8]) -> io::Result<()> {
        // One that a process has left behind when it was killed. Whoever writes holds the lock.
        let _ = fs::remove_file(draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Takes a file out of the way that is of no use, and keeps it for a person to look at.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn set_aside(&self, name: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        fs::rename(&path, self.directory.join(format!("{name}.unknown")))
    }
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::TempDir::new().unwrap();
        let files = Files::new(dir.path());
        (dir, files)
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_the_owners() {
        let (dir, files) = files();
        assert_eq!(files.read("a").unwrap(), None);
        let _lock = files.lock().unwrap().unwrap();
        for text in ["a long text", "short"] {
            files.write("a", text.as_bytes()).unwrap();
            assert_eq!(files.read("a").unwrap().unwrap(), text.as_bytes());
        }
        let mode = |name: &str| {
            let facts = fs::metadata(dir.path().join(DIRECTORY).join(name)).unwrap();
            facts.permissions().mode() & 0o777
        };
        assert_eq!((mode("a"), mode(LOCK), mode(".")), (0o600, 0o600, 0o700));
        let left = fs::read_dir(dir.path().join(DIRECTORY)).unwrap();
        assert_eq!(left.count(), 2, "no draft is left");
    }

    #[test]
    fn whoever_orders_keeps_others_from_it() {
        let (dir, files) = files();
        let other = Files::new(dir.path());
        let one = files.lock().unwrap().unwrap();
        let again = files.lock().unwrap().unwrap();
        assert!(other.lock().unwrap().is_none());
        drop(one);
        assert!(other.lock().unwrap().is_none(), "it is held twice");
        drop(again);
        assert!(other.lock().unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_file() {
        let (_dir, files) = files();
        let error = files.write("a", b"x").unwrap_err().to_string();
        assert!(error.contains("/acme/a: "), "{error}");
    }

    #[test]
    fn what_is_set_aside_is_not_found_any_more() {
        let (dir, files) = files();
        let _lock = files.lock().unwrap();
        files.write("a", b"x").unwrap();
        files.set_aside("a").unwrap();
        assert_eq!(files.read("a").unwrap(), None);
        assert!(dir.path().join(DIRECTORY).join("a.unknown").exists());
    }
}
