//! Taking one endpoint out while the others go on.
//!
//! New sessions go elsewhere at once. Those it has go on until a deadline; then what is open on it ends
//! decently, spread over a window, its sessions are deleted on the server, and their next request is
//! answered 404, or goes to another endpoint where the pool begins lost sessions again. The window is
//! long enough for most calls that are under way to end by themselves; none of them is cut before its
//! end.
//!
//! A server of the session era cannot be emptied otherwise, since nobody but the client can move a
//! session. What belongs to no session moves right away: a `subscriptions/listen` is asked for again at
//! another endpoint, and its client does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::drain::{LAST_WORDS, spread};
use crate::pool::{Admin, Endpoint, Parting};
use crate::proxy::state::{Orphan, PoolState, Shared};
use crate::session::NameHash;
use crate::telemetry::feed::{Topic, Weight, tell};
use crate::telemetry::{self, SessionEnd};

/// How often the endpoint is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// What calls that are under way have to end by themselves, if the terms allow it.
const CALL_TIME: Duration = Duration::from_secs(2);

/// How long an endpoint may take to be taken out.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Until its sessions are ended.
    pub timeout: Duration,
    /// The most time over which what is open on it ends, before `timeout` is over.
    pub jitter: Duration,
}

impl Terms {
    /// Everything ends now.
    pub(super) const AT_ONCE: Self = Self {
        timeout: Duration::ZERO,
        jitter: Duration::ZERO,
    };
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// The endpoint is in [`Admin::Maint`], and nothing is left on it. So many sessions had to be ended.
    Out(usize),
    /// The operator wants it back; what was not ended goes on.
    TakenBack,
}

/// One withdrawal, for whoever may want to call it off.
pub(super) struct Withdrawal<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pool: &'a Arc<PoolState>,
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// [`Admin::Drain`], or [`Admin::Maint`] where nothing is waited for.
    pub(super) during: Admin,
    /// Set by whoever calls it off.
    pub(super) off: &'a AtomicBool,
}

/// Takes an endpoint out. Whoever sets its administrative state to another one meanwhile takes it back.
pub async fn withdraw(
    shared: &Shared,
    pool: &Arc<PoolState>,
    endpoint: &Arc<Endpoint>,
    terms: Terms,
) -> Withdrawn {
    let withdrawal = Withdrawal {
        shared,
        pool,
        endpoint,
        during: Admin::Drain,
        off: &AtomicBool::new(false),
    };
    let Some(sessions) = withdrawal.empty(terms).await else {
        return Withdrawn::TakenBack;
    };
    let count = sessions.len();
    delete(shared, sessions).await;
    Withdrawn::Out(count)
}

/// Deletes sessions on their server, each in its turn.
pub(super) async fn delete(shared: &Shared, sessions: Vec<Orphan>) {
    for session in sessions {
        shared.chores.delete_in_turn(session).await;
    }
}

impl Withdrawal<'_> {
    /// Empties the endpoint, which is in [`Admin::Maint`] then. The sessions that are to be deleted on
    /// its server; `None` if it was taken back.
    pub(super) async fn empty(&self, terms: Terms) -> Option<Vec<Orphan>> {
        let endpoint = self.endpoint;
        let (pool_name, name) = (self.pool.pool.name(), endpoint.name());
        log::info!(pool = pool_name, endpoint = name; "draining: {} sessions", endpoint.sessions());
        let text = format!("draining: {} sessions", endpoint.sessions());
        tell(Topic::Drain, Weight::Note, pool_name, name, text);
        endpoint.set_admin(self.during);
        let deadline = Instant::now() + terms.timeout;
        let for_calls = CALL_TIME.min(terms.jitter);
        let length = || spread(endpoint.in_flight() as usize, terms.jitter).max(for_calls);
        let idle = || endpoint.busy() == 0 || Instant::now() + length() >= deadline;
        if !self.until(idle).await {
            return self.taken_back();
        }
        let window = Parting {
            from: Instant::now(),
            length: length(),
        };
        let sessions = self.sessions();
        endpoint.close_over(Some(window));
        self.shared.phases.ring();
        let over = window.end() + LAST_WORDS;
        let quiet = || endpoint.in_flight() == 0 || Instant::now() >= over;
        if !self.until(quiet).await {
            return self.taken_back();
        }
        endpoint.set_admin(Admin::Maint);
        endpoint.close_over(None);
        let hash = NameHash::from_u64(endpoint.id());
        // Those that can be begun again are, as their clients ask for them.
        let ended = self
            .shared
            .sessions
            .close_endpoint(self.pool.hash, hash, |live| live.guard.origin.is_some());
        for _ in &ended {
            telemetry::session_ended(SessionEnd::Drained);
        }
        let count = sessions.len();
        log::info!(pool = pool_name, endpoint = name; "drained: {count} sessions were ended");
        let text = format!("out: {count} sessions were ended");
        tell(Topic::Drain, Weight::Note, pool_name, name, text);
        Some(sessions)
    }

    /// Waits until `at`, unless it is called off; false then.
    pub(super) async fn wait(&self, at: Instant) -> bool {
        self.until(|| Instant::now() >= at).await
    }

    /// Waits for `done`; false if the endpoint was taken back before.
    async fn until(&self, done: impl Fn() -> bool) -> bool {
        while self.endpoint.admin() == self.during && !self.off.load(Relaxed) {
            if done() {
                return true;
            }
            sleep(LOOK).await;
        }
        false
    }

    fn taken_back<T>(&self) -> Option<T> {
        self.endpoint.close_over(None);
        self.shared.phases.ring();
        log::info!(endpoint = self.endpoint.name(); "no longer draining");
        let (pool, endpoint) = (self.pool.pool.name(), self.endpoint.name());
        tell(
            Topic::Drain,
            Weight::Good,
            pool,
            endpoint,
            "no longer draining",
        );
        None
    }

    /// The sessions that the server has now, to be deleted there in the end: by then some of them may
    /// be bound to another endpoint.
    fn sessions(&self) -> Vec<Orphan> {
        let (pool, endpoint) = (self.pool, self.endpoint);
        let hash = NameHash::from_u64(endpoint.id());
        let table = &self.shared.sessions;
        let count = table.endpoint_len(pool.hash, hash);
        let listed = table.list(count, |live| {
            live.pool == pool.hash && live.endpoint == hash
        });
        let orphan = |path: Box<str>, server_id: Arc<str>| Orphan {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            server_id,
            path,
        };
        listed
            .into_iter()
            .filter_map(|live| {
                let path = table.look(live.key, |live| live.guard.path.clone())?;
                Some(orphan(path, live.server_id))
            })
            .collect()
    }
}
