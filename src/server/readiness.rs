//! Telling the outside once that this process serves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::inherited::Predecessor;
use super::notify;
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
            shared,
            started,
            workers,
            predecessor: Predecessor::from_env(),
        }
    }

    /// Waits until every worker accepts and `/ready` says so, and tells systemd and the process that
    /// this one replaces.
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
        notify::ready();
        if let Some(predecessor) = self.predecessor.take()
            && let Err(error) = predecessor.tell()
        {
            log::warn!("the process that this one replaces has gone: {error}");
        }
    }
}
