//! The file that tells other programs which process serves.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process;

/// Puts this process's id there, from one moment to the next: whoever reads the file finds a whole one,
/// perhaps that of the process that this one replaces.
///
/// # Errors
/// The operating system's.
pub(super) fn write(path: &Path) -> io::Result<()> {
    let id = process::id();
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{id}"));
    let draft = path.with_file_name(name);
    let written = fs::write(&draft, format!("{id}\n")).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // There, or it could not be made.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Removes it, unless it names another process by now, which serves in the place of this one.
pub(super) fn remove(path: &Path) {
    let is_ours = |text: String| text.trim().parse() == Ok(process::id());
    if fs::read_to_string(path).is_ok_and(is_ours) {
        // One that stays behind is written over by the next process.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_removed_by_the_process_that_it_names_and_by_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        fs::write(&path, "1\n").unwrap();
        remove(&path);
        assert!(path.exists(), "it names another");
        write(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", process::id())
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path);
        assert!(!path.exists());
        remove(&path);
        assert!(write(&dir.path().join("none/a.pid")).is_err());
    }
}
