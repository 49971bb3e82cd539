//! What runs beside the requests, on a thread of its own: health checks, name resolution, the
//! sweep over idle sessions, deletions that requests leave behind, certificates that are ordered, spans that are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::acme::{Certificates, Keepers};
use super::changes;
use super::notify;
use super::operator::Operator;
use super::readiness::Readiness;
use super::reload::Reloader;
use super::traces::Exporter;
use super::vigil::Vigil;
use super::watchers::Watchers;
use crate::proxy::ask::delete_session;
use crate::proxy::state::{Orphan, Phase, Phases, Shared, Waiting};
use crate::telemetry::feed::{Topic, Weight, tell};
use crate::telemetry::{self, SessionEnd, ToolNames};
use crate::transport::dial::Dialer;

/// Deletions at once.
const DELETIONS_MAX: usize = 16;
/// Expired sessions taken in one sweep.
const REAP_MAX: usize = 1000;
/// How long giving back sessions may hold up the end of the process.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// Pause between sweeps.
const SWEEP: Duration = Duration::from_secs(1);

/// The background of the process.
pub(super) struct Tasks {
    shared: Arc<Shared>,
    operator: Arc<Operator>,
    certificates: Arc<Certificates>,
    reloader: Arc<Reloader>,
    tools: Arc<ToolNames>,
    vigil: Arc<Vigil>,
    begin: Mutex<Option<(Waiting, Readiness)>>,
}

impl Tasks {
    /// Takes the receiving end of the chores. `vigil` watches the workers.
    pub(super) fn new(
        (operator, reloader): (Arc<Operator>, Arc<Reloader>),
        certificates: Arc<Certificates>,
        tools: Arc<ToolNames>,
        vigil: Arc<Vigil>,
        waiting: Waiting,
        readiness: Readiness,
    ) -> Self {
        Self {
            shared: Arc::clone(&operator.shared),
            operator,
            certificates,
            reloader,
            tools,
            vigil,
            begin: Mutex::new(Some((waiting, readiness))),
        }
    }

    async fn run(&self) {
        let Some((waiting, readiness)) = self.begin.lock().await.take() else {
            return;
        };
        let Waiting {
            orphans,
            mut suspects,
            reloads,
        } = waiting;
        let errand = self.shared.flight.errand();
        self.operator.begin();
        let dialer = Dialer::new();
        let mut phases = self.shared.phases.clone();
        let watching = changes::follow(Arc::clone(&self.reloader));
        tokio::spawn(readiness.tell());
        let watchdog = tokio::spawn(notify::watchdog(Arc::clone(&self.vigil)));
        let sweeping = tokio::spawn(sweep(Arc::clone(&self.shared)));
        let following = tokio::spawn(Arc::clone(&self.reloader).follow_names());
        let watching = tokio::spawn(watching);
        let exporting = tokio::spawn(Exporter::new(&self.shared).run());
        let deleting = delete_orphans(orphans, Arc::clone(&dialer), phases.clone());
        let deleting = tokio::spawn(deleting);
        let (shared, tools) = (Arc::clone(&self.shared), Arc::clone(&self.tools));
        let mut watchers = Watchers::new(shared, dialer, tools);
        watchers.turn_to(&self.shared.snapshot.load());
        let (certificates, shared) = (Arc::clone(&self.certificates), Arc::clone(&self.shared));
        let mut keepers = Keepers::new(certificates, shared);
        keepers.turn_to(&self.shared.snapshot.load().config);
        loop {
            tokio::select! {
                Some(endpoint) = suspects.recv() => watchers.alarm(&endpoint),
                () = reloads.notified() => {
                    let snapshot = self.shared.snapshot.load_full();
                    watchers.turn_to(&snapshot);
                    keepers.turn_to(&snapshot.config);
                }
                () = phases.reached(Phase::Ending) => break,
            }
        }
        sweeping.abort();
        following.abort();
        watching.abort();
        watchdog.abort();
        // The checks delete their sessions; deletions that were begun end too.
        let _ = tokio::time::timeout(LEAVE_TIME, async {
            let _ = exporting.await;
            watchers.end().await;
            if let Ok(room) = deleting.await {
                let _ = room.acquire_many(DELETIONS_MAX as u32).await;
            }
        })
        .await;
        drop(errand);
    }
}

#[async_trait]
impl BackgroundService for Tasks {
    async fn start(&self, _: ShutdownWatch) {
        self.run().await;
    }
}

/// Ends sessions that nobody used for the idle time, here and on their servers.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        let now = Instant::now();
        telemetry::tick(now);
        telemetry::set_sessions(shared.sessions.len());
        tell_returns(&shared, now);
        turn_timings(&shared, now);
        shared.rings.sweep(now);
        shared.memo.sweep();
        let idle = shared.snapshot.load().config.sessions.idle_ttl;
        for live in shared.sessions.reap(now, idle, REAP_MAX) {
            telemetry::session_ended(SessionEnd::Idle);
            shared.chores.delete(Orphan {
                pool: live.guard.pool,
                endpoint: live.guard.endpoint,
                server_id: live.server_id,
                path: live.guard.path,
            });
        }
    }
}

/// Has every endpoint know what its last minute was like.
fn turn_timings(shared: &Shared, now: Instant) {
    let now = shared.moment(now);
    for pool in shared.snapshot.load().all_pools() {
        for endpoint in pool.pool.endpoints() {
            endpoint.timings.turn(now);
        }
    }
}

/// Says which endpoints are no longer ejected.
fn tell_returns(shared: &Shared, now: Instant) {
    let now = shared.moment(now);
    for pool in shared.snapshot.load().all_pools() {
        for endpoint in pool.pool.endpoints() {
            if endpoint.guard.take_return(now) {
                log::info!(pool = pool.pool.name(), endpoint = endpoint.name(); "endpoint is no longer ejected");
                let (pool, endpoint) = (pool.pool.name(), endpoint.name());
                tell(
                    Topic::Ejection,
                    Weight::Good,
                    pool,
                    endpoint,
                    "no longer ejected",
                );
            }
        }
    }
}

/// Deletes sessions on servers, a few at a time. All places of what is returned are free when those
/// that were begun have ended.
pub(super) async fn delete_orphans(
    mut orphans: mpsc::Receiver<Orphan>,
    dialer: Arc<Dialer>,
    mut phases: Phases,
) -> Arc<Semaphore> {
    let room = Arc::new(Semaphore::new(DELETIONS_MAX));
    loop {
        let orphan = tokio::select! {
            orphan = orphans.recv() => orphan,
            () = phases.reached(Phase::Ending) => return room,
        };
        let Some(orphan) = orphan else { return room };
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return room;
        };
        let dialer = Arc::clone(&dialer);
        tokio::spawn(async move {
            let Orphan {
                pool,
                endpoint,
                server_id,
                path,
            } = orphan;
            delete_session(&pool, &endpoint, &dialer, &path, &server_id).await;
            drop(place);
        });
    }
}
