//! Telling the outside once that this process serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::inherited::Predecessor;
use super::notify;
use super::pid_file;
use crate::proxy::local::readiness;
use crate::proxy::state::Shared;

/// How long the first checks of endpoints may hold up the word. Without them this process serves as
/// well, only not as well as one that knows its endpoints.
const CHECKS: Duration = Duration::from_secs(5);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What it takes.
pub(super) struct Readiness {
    shared: Arc<Shared>,
    started: watch::Receiver<usize>,
    workers: usize,
    pid_file: Option<PathBuf>,
    predecessor: Option<Predecessor>,
}

impl Readiness {
    /// `started` counts the workers that accept.
    pub(super) fn new(
        shared: Arc<Shared>,
        started: watch::Receiver<usize>,
        workers: usize,
    ) -> Self {
        Self {
            pid_file: shared.snapshot.load().config.pid_file.clone(),
            shared,
            started,
            workers,
            predecessor: Predecessor::from_env(),
        }
    }

    /// Waits until every worker accepts and `/ready` says so, and tells whoever reads the file with the
    /// process's id, systemd, and the process that this one replaces.
    pub(super) async fn tell(mut self) {
        let workers = self.workers;
        if self
            .started
            .wait_for(|count| *count >= workers)
            .await
            .is_err()
        {
            return;
        }
        let checked = async {
            while readiness(&self.shared).0 != 200 {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(CHECKS, checked).await;
        if let Some(path) = &self.pid_file
            && let Err(error) = pid_file::write(path)
        {
            log::error!("cannot write {} (pid_file): {error}", path.display());
        }
        notify::ready();
        if let Some(predecessor) = self.predecessor.take()
            && let Err(error) = predecessor.tell()
        {
            log::warn!("the process that this one replaces has gone: {error}");
        }
    }
}
