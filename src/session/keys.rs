//! Session keys on disk: reading the operator's files, or making one key once.
//!
//! A host that was given no key must still keep its sessions over a restart, so the first start
//! writes one into the state directory and every later start reads it. Several processes may start
//! at once (an upgrade does): the key is written to a file of its own and then linked to its name,
//! which succeeds for exactly one of them, and the others read the winner's.
//!
//! Everything here runs at start-up and reload, never under a request, except [`fresh_nonce`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::OsRng;
use chacha20poly1305::aead::rand_core::RngCore as _;

use super::id::{Keyring, KeyringError, NONCE_LEN, SealingKey};

/// The name of the key that is made when none is configured, inside the state directory.
pub const KEY_FILE: &str = "session.key";

/// A key file is 65 bytes; more than this is not one, and is not read to its end.
const FILE_MAX: u64 = 256;
/// Write permission for anyone but the owner.
const OTHERS_WRITE: u32 = 0o022;
/// Read permission for everyone. A group may read: `root:tidegate 0640` is a usual way to give a
/// secret to a service.
const EVERYONE_READS: u32 = 0o004;

/// A keyring and what the operator should hear about it.
#[derive(Debug)]
pub struct Loaded {
    /// The keys, ready for use.
    pub keyring: Keyring,
    /// Full sentences for the log, such as a key file that everyone can read. Usually none.
    pub warnings: Vec<String>,
}

/// Why there are no keys. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be opened or read.
    #[error(
        "cannot read session key {}: {source}; check that the file exists and that the user \
         tidegate runs as may read it",
        path.display()
    )]
    Unreadable {
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not 64 hex digits and a newline.
    #[error(
        "session key {} {problem}; a key file holds 64 hex digits and a newline, make one with \
         `openssl rand -hex 32`",
        path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it, such as "is empty". Never a part of the key.
        problem: &'static str,
    },
    /// Others than the owner can write to the file, so anyone among them could forge sessions.
    #[error(
        "session key {} can be written by others (mode {mode:04o}); run `chmod go-w {}`, and make \
         a new key if you do not trust them",
        path.display(),
        path.display()
    )]
    Writable {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No key is configured and one cannot be made.
    #[error(
        "cannot create session key {}: {source}; make the directory writable for the user \
         tidegate runs as, or name a key in `sessions.key_files`",
        path.display()
    )]
    NotCreated {
        /// The key file that was to be made.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The keys are readable but do not make a ring.
    #[error("{0}; check `sessions.key_files`")]
    Ring(#[from] KeyringError),
}

/// Reads the keys in `files`, in order, the first of which seals. If there are none, reads
/// `session.key` in `state_dir`, making it (and the directory) first if it is not there yet.
pub fn load_or_create(files: &[PathBuf], state_dir: &Path) -> Result<Loaded, KeyError> {
    let mut warnings = Vec::new();
    let mut keys = Vec::with_capacity(files.len().max(1));
    for path in files {
        keys.push(read_key(path, &mut warnings)?);
    }
    if files.is_empty() {
        let path = state_dir.join(KEY_FILE);
        create_if_missing(&path, state_dir).map_err(|source| KeyError::NotCreated {
            path: path.clone(),
            source,
        })?;
        keys.push(read_key(&path, &mut warnings)?);
        warn_of_open_directory(state_dir, &mut warnings);
    }
    Ok(Loaded {
        keyring: Keyring::new(keys)?,
        warnings,
    })
}

/// A nonce for one sealed id, from the operating system.
///
/// # Panics
///
/// If the operating system has no randomness to give, which Linux never says after it has booted.
pub fn fresh_nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

fn read_key(path: &Path, warnings: &mut Vec<String>) -> Result<SealingKey, KeyError> {
    let unreadable = |source| KeyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let malformed = |problem| KeyError::Malformed {
        path: path.to_owned(),
        problem,
    };

    // Asked before opening, because opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(malformed("is not a regular file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(KeyError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    if mode & EVERYONE_READS != 0 {
        let path = path.display();
        warnings.push(format!(
            "session key {path} can be read by everyone on this host (mode {mode:04o}): run \
             `chmod o-r {path}`"
        ));
    }
    let mut text = Vec::new();
    file.take(FILE_MAX)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    parse_key(&text).map_err(malformed)
}

fn parse_key(text: &[u8]) -> Result<SealingKey, &'static str> {
    let text = text.trim_ascii_end();
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() < 64 {
        return Err("is too short");
    }
    if text.len() > 64 {
        return Err("is too long");
    }
    // A placeholder from a template would let everyone who knows the template forge sessions.
    if text.iter().all(|digit| *digit == text[0]) {
        return Err("is one digit repeated");
    }
    SealingKey::from_hex(text).ok_or("holds something else than hex digits")
}

/// Makes the key file unless it is there. Never replaces one: `link` fails if the name is taken.
fn create_if_missing(path: &Path, state_dir: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    if !state_dir.as_os_str().is_empty() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)?;
    }
    let draft = Draft::write(state_dir)?;
    match fs::hard_link(&draft.path, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Without this a crash could take the name away again, and with it every session.
    File::open(draft.directory())?.sync_all()
}

/// A new key under a name that nobody else uses; the name is gone when this is dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(directory: &Path) -> io::Result<Self> {
        let mut random = [0; 40];
        OsRng
            .try_fill_bytes(&mut random)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let (key, suffix) = random.split_first_chunk::<32>().expect("40 bytes hold 32");
        let suffix = suffix
            .iter()
            .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        let path = directory.join(format!(".{KEY_FILE}.{suffix:016x}"));

        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let draft = Self { path };
        let line = SealingKey::from_bytes(*key).to_hex() + "\n";
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A draft that stays behind is clutter, not a fault: it holds a key that nobody uses, or a
        // second name of the one in use, in the same directory and with the same mode.
        let _ = fs::remove_file(&self.path);
    }
}

fn warn_of_open_directory(directory: &Path, warnings: &mut Vec<String>) {
    let Ok(metadata) = fs::metadata(directory) else {
        return;
    };
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let directory = directory.display();
        warnings.push(format!(
            "state directory {directory} can be written by others (mode {mode:04o}), who could \
             replace the session key: run `chmod go-w {directory}`"
        ));
    }
}

#[cfg(test)]
mod tests;
