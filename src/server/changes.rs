//! Reading the configuration again when its files have changed, where that is wanted (`watch`).
//!
//! The files are looked at now and then. That notices a link that was turned to another directory, as a
//! mounted ConfigMap is, and works on file systems that tell nobody what others write. A file that
//! changes from one look to the next may be half written: it is read once it has come to rest.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::reload::Reloader;
use crate::config::{Certificate, Config, Trust};

/// How often it is looked whether files are to be watched.
const IDLE: Duration = Duration::from_secs(1);

/// Reads the configuration again whenever its files have changed, for as long as it is polled. They are
/// looked at first when this is called, which is before anybody hears that the process is ready: what is
/// written from then on is a change.
pub(super) fn follow(reloader: Arc<Reloader>) -> impl Future<Output = ()> {
    let config = &reloader.snapshot().config;
    let is_wanted = config.watch.is_some();
    let watched = is_wanted.then(|| Watched::new(look(files(config))));
    go_on(reloader, watched)
}

async fn go_on(reloader: Arc<Reloader>, mut watched: Option<Watched>) {
    loop {
        let Some(every) = reloader.snapshot().config.watch else {
            watched = None;
            sleep(IDLE).await;
            continue;
        };
        if watched.is_some() {
            sleep(every).await;
        }
        let files = files(&reloader.snapshot().config);
        let Ok(seen) = spawn_blocking(move || look(files)).await else {
            continue;
        };
        let has_changed = watched
            .get_or_insert_with(|| Watched::new(seen.clone()))
            .notice(seen);
        if has_changed && reloader.is_serving() {
            log::info!("the configuration's files have changed");
            // What is wrong was told.
            let _ = reloader.reload_and_tell().await;
        }
    }
}

/// The files a configuration was read from, with those of certificates, keys and authorities. Where there
/// are several, with their directories: another one there may belong to it.
fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = config.files.clone();
    if files.len() > 1 {
        let directories = config.files.iter().filter_map(|file| file.parent());
        files.extend(directories.map(Path::to_owned));
    }
    for tls in config.listeners.iter().filter_map(|one| one.tls.as_ref()) {
        for Certificate { proof, .. } in &tls.certificates {
            files.extend([proof.cert.clone(), proof.key.clone()]);
        }
        files.extend(tls.clients.iter().map(|clients| clients.ca.clone()));
    }
    files.extend(config.sessions.key_files.iter().cloned());
    let endpoints = config.pools.iter().flat_map(|pool| &pool.endpoints);
    for tls in endpoints.filter_map(|endpoint| endpoint.tls.as_ref()) {
        if let Trust::File(path, _) = &tls.trust {
            files.push(path.clone());
        }
        if let Some(proof) = &tls.proof {
            files.extend([proof.cert.clone(), proof.key.clone()]);
        }
    }
    let collector = config.tracing.as_ref().map(|tracing| &tracing.endpoint);
    if let Some(Some(Trust::File(path, _))) = collector.map(|collector| &collector.trust) {
        files.push(path.clone());
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// A file as it was found: when it was written, its length and its number. `None` if it is not there.
type Found = Option<(i64, i64, u64, u64)>;

/// All of them.
type Seen = Vec<(PathBuf, Found)>;

fn look(files: Vec<PathBuf>) -> Seen {
    let found = |path: &Path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.mtime(), facts.mtime_nsec(), facts.len(), facts.ino()))
    };
    let files = files.into_iter();
    files.map(|path| (path.clone(), found(&path))).collect()
}

/// Tells changes that have come to rest.
struct Watched {
    /// As they were when they were read.
    read: Seen,
    /// As they were at the last look, if that was otherwise.
    changing: Option<Seen>,
}

impl Watched {
    fn new(read: Seen) -> Self {
        let changing = None;
        Self { read, changing }
    }

    /// Are they to be read, now that they look so?
    fn notice(&mut self, seen: Seen) -> bool {
        if seen == self.read {
            self.changing = None;
            return false;
        }
        let is_at_rest = self.changing.as_ref() == Some(&seen);
        match is_at_rest {
            true => {
                self.read = seen;
                self.changing = None;
            }
            false => self.changing = Some(seen),
        }
        is_at_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(length: u64) -> Seen {
        vec![("tidegate.yaml".into(), Some((0, 0, length, 1)))]
    }

    #[test]
    fn a_change_counts_once_it_has_come_to_rest() {
        let mut watched = Watched::new(seen(1));
        for (length, is_read) in [
            (1, false),
            (2, false),
            (3, false),
            (3, true),
            (3, false),
            // Written and taken back meanwhile.
            (4, false),
            (3, false),
            (4, false),
            (4, true),
        ] {
            assert_eq!(watched.notice(seen(length)), is_read, "{length}");
        }
        let gone = vec![("tidegate.yaml".into(), None)];
        assert!(!watched.notice(gone.clone()));
        assert!(watched.notice(gone));
    }

    #[test]
    fn a_link_that_is_turned_and_a_file_that_goes_are_seen() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("1"), "a").unwrap();
        std::fs::write(path("2"), "b").unwrap();
        std::os::unix::fs::symlink(path("1"), path("link")).unwrap();
        let at = || look(vec![path("link")]);
        let before = at();
        assert_eq!(before, at());
        std::fs::remove_file(path("link")).unwrap();
        let gone = at();
        assert_ne!(before, gone);
        std::os::unix::fs::symlink(path("2"), path("link")).unwrap();
        assert_ne!(before, at());
        assert_ne!(gone, at());
    }
}
