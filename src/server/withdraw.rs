//! Taking one endpoint out while the others go on.
//!
//! New sessions go elsewhere at once. Those it has go on until a deadline; then what is open on it ends
//! decently, spread over a window, its sessions are deleted on the server, and their next request is
//! answered 404, or goes to another endpoint where the pool begins lost sessions again.
//!
//! A server of the session era cannot be emptied otherwise, since nobody but the client can move a
//! session. What belongs to no session moves right away: a `subscriptions/listen` is asked for again at
//! another endpoint, and its client does not know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::drain::{LAST_WORDS, spread};
use crate::pool::{Admin, Endpoint, Parting};
use crate::proxy::state::{Orphan, PoolState, Shared};
use crate::session::NameHash;
use crate::telemetry::{self, SessionEnd};

/// How often the endpoint is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// How long an endpoint may take to be taken out.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Until its sessions are ended.
    pub timeout: Duration,
    /// The most time over which what is open on it ends, before `timeout` is over.
    pub jitter: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// The endpoint is in [`Admin::Maint`], and nothing is left on it. So many sessions had to be ended.
    Out(usize),
    /// The operator wants it back; what was not ended goes on.
    TakenBack,
}

/// Takes an endpoint out. Whoever sets its administrative state to another one meanwhile takes it back.
pub async fn withdraw(
    shared: &Shared,
    pool: &Arc<PoolState>,
    endpoint: &Arc<Endpoint>,
    terms: Terms,
) -> Withdrawn {
    let (pool_name, name) = (pool.pool.name(), endpoint.name());
    log::info!(pool = pool_name, endpoint = name; "draining: {} sessions", endpoint.sessions());
    endpoint.set_admin(Admin::Drain);
    let deadline = Instant::now() + terms.timeout;
    let length = || spread(endpoint.in_flight() as usize, terms.jitter);
    let idle = || endpoint.busy() == 0 || Instant::now() + length() >= deadline;
    if !until(endpoint, idle).await {
        return taken_back(shared, endpoint);
    }
    let window = Parting {
        from: Instant::now(),
        length: length(),
    };
    let sessions = sessions_of(shared, pool, endpoint);
    endpoint.close_over(Some(window));
    shared.phases.ring();
    let over = window.end() + LAST_WORDS;
    let quiet = || endpoint.in_flight() == 0 || Instant::now() >= over;
    if !until(endpoint, quiet).await {
        return taken_back(shared, endpoint);
    }
    endpoint.set_admin(Admin::Maint);
    endpoint.close_over(None);
    let hash = NameHash::from_u64(endpoint.id());
    // Those that can be begun again are, as their clients ask for them.
    let ended = shared
        .sessions
        .close_endpoint(pool.hash, hash, |live| live.guard.origin.is_some());
    for _ in &ended {
        telemetry::session_ended(SessionEnd::Drained);
    }
    let count = sessions.len();
    log::info!(pool = pool_name, endpoint = name; "drained: {count} sessions were ended");
    for session in sessions {
        shared.chores.delete_in_turn(session).await;
    }
    Withdrawn::Out(count)
}

/// Waits for `done`; false if the endpoint was taken back before.
async fn until(endpoint: &Endpoint, done: impl Fn() -> bool) -> bool {
    while endpoint.admin() == Admin::Drain {
        if done() {
            return true;
        }
        sleep(LOOK).await;
    }
    false
}

fn taken_back(shared: &Shared, endpoint: &Endpoint) -> Withdrawn {
    endpoint.close_over(None);
    shared.phases.ring();
    log::info!(endpoint = endpoint.name(); "no longer draining");
    Withdrawn::TakenBack
}

/// The sessions that the server has now, to be deleted there in the end: by then some of them may be
/// bound to another endpoint.
fn sessions_of(shared: &Shared, pool: &Arc<PoolState>, endpoint: &Arc<Endpoint>) -> Vec<Orphan> {
    let hash = NameHash::from_u64(endpoint.id());
    let count = shared.sessions.endpoint_len(pool.hash, hash);
    let listed = shared.sessions.list(count, |live| {
        live.pool == pool.hash && live.endpoint == hash
    });
    let orphan = |path: Box<str>, server_id: Box<str>| Orphan {
        pool: Arc::clone(pool),
        endpoint: Arc::clone(endpoint),
        server_id: server_id.into_string(),
        path,
    };
    listed
        .into_iter()
        .filter_map(|live| {
            let path = shared
                .sessions
                .look(live.key, |live| live.guard.path.clone())?;
            Some(orphan(path, live.server_id))
        })
        .collect()
}
