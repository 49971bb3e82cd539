//! What an operator does to endpoints while the process runs, and what becomes of it.
//!
//! Operations follow one another; looking at what they have done waits for nobody. An endpoint that is
//! taken out is taken out by a task on the thread of the checks, which is told here when it is called
//! off. What was set is kept in a file ([`kept`]), and given to the endpoints again by
//! [`Operator::apply`] after a restart or a reload.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::withdraw::{Terms, Withdrawal, delete};
use crate::config;
use crate::pool::{Admin, Endpoint};
use crate::proxy::state::{Held, Orphan, Phase, PoolState, Shared, Snapshot};
use crate::session::{Key, Live};
use crate::telemetry::{self, SessionEnd};

mod kept;

use kept::{FILE, Kept, Set, State};

/// The longest that a drain may be given.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a drain without a limit waits: for as long as it takes.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The greatest weight that may be set, as in the configuration.
pub(super) const WEIGHT_MAX: u16 = 256;
/// The greatest `max_in_flight` that may be set, as in the configuration.
pub(super) const IN_FLIGHT_MAX: u32 = 1_000_000;

/// What can be done to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// No new sessions; when all it has is over, or after this time, it is in maintenance.
    Drain(Option<Duration>),
    /// It takes what comes.
    Ready,
    /// It gets nothing, and what is open on it ends.
    Maint,
    /// Its share; `None` is what the configuration says.
    Weight(Option<u16>),
    /// Its calls in flight, 0 for any number; `None` is what the configuration says.
    MaxInFlight(Option<u32>),
}

impl Action {
    /// The action in the operator's word.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Ready => "ready",
            Self::Maint => "maint",
            Self::Weight(_) => "weight",
            Self::MaxInFlight(_) => "max_in_flight",
        }
    }
}

/// Which sessions: those of a pool, of endpoints of a name, of both; all, where neither is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) pool: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// A session that was taken out, to be deleted on its server.
fn orphan(live: Live<Held>) -> Orphan {
    Orphan {
        pool: live.guard.pool,
        endpoint: live.guard.endpoint,
        server_id: live.server_id,
        path: live.guard.path,
    }
}

/// An endpoint with what is said of it.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) pool: Arc<PoolState>,
    pub(super) endpoint: Arc<Endpoint>,
    /// Its place in the pool.
    pub(super) at: usize,
}

impl Found {
    /// What the configuration says of it; nothing, if it is there no more.
    pub(super) fn config(&self) -> Option<&config::Endpoint> {
        self.pool.config.endpoints.get(self.at)
    }

    fn name(&self) -> Name {
        (self.pool.hash.get(), self.endpoint.id())
    }
}

/// A pool and an endpoint, by the hashes of their names.
type Name = (u64, u64);

/// An endpoint that is being taken out.
struct UnderWay {
    off: Arc<AtomicBool>,
    /// Closed when the endpoint is out, or the task has seen that it is called off.
    ended: oneshot::Receiver<()>,
    until: Option<Instant>,
}

/// Whether what was done will outlive the process.
pub(super) type Saved = Result<(), String>;

/// The operator's hand.
pub(super) struct Operator {
    pub(super) shared: Arc<Shared>,
    file: PathBuf,
    /// Where tasks run, once that is known.
    runtime: OnceLock<Handle>,
    kept: Mutex<Kept>,
    under_way: Mutex<HashMap<Name, UnderWay>>,
    /// Whose turn it is to change something.
    turn: tokio::sync::Mutex<()>,
}

impl Operator {
    /// Reads what was set before, and gives it to the endpoints.
    pub(super) fn new(shared: Arc<Shared>, state_dir: &Path) -> Arc<Self> {
        let file = state_dir.join(FILE);
        let kept = Kept::read(&file).unwrap_or_else(|wrong| {
            log::error!(
                "{} is passed over, and endpoints are as configured: {wrong}",
                file.display()
            );
            Kept::default()
        });
        let operator = Self {
            shared,
            file,
            runtime: OnceLock::new(),
            kept: Mutex::new(kept),
            under_way: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        };
        operator.apply(&operator.shared.snapshot.load(), None);
        Arc::new(operator)
    }

    /// Gives the endpoints of a compiled configuration what was set at them. To be called before
    /// requests see it. What the configuration says otherwise than the one in force was written later
    /// than what was set, which is forgotten.
    pub(super) fn apply(&self, snapshot: &Snapshot, in_force: Option<&Snapshot>) {
        let mut kept = self.kept();
        let before = kept.clone();
        if let Some(in_force) = in_force {
            kept.yield_to(&in_force.config, &snapshot.config);
        }
        kept.apply(snapshot, unix_now());
        if *kept != before
            && let Err(error) = self.save(&kept)
        {
            log::warn!("{error}");
        }
    }

    /// Has tasks run where this is called, and goes on with drains that a restart has interrupted.
    pub(super) fn begin(self: &Arc<Self>) {
        if self.runtime.set(Handle::current()).is_err() {
            return;
        }
        let draining = self.kept().draining();
        for (pool, endpoint, until) in draining {
            let Some(found) = self.find(&pool, &endpoint) else {
                continue;
            };
            // The table of sessions begins empty, so that it is idle says nothing: it has its time.
            let left = Duration::from_secs(until.saturating_sub(unix_now()));
            let (until, terms) = (Instant::now() + left, self.terms(left));
            let from = until - terms.jitter;
            let terms = Terms {
                timeout: terms.jitter,
                ..terms
            };
            self.take_out(&found, Admin::Drain, Some(from), terms, Some(until));
        }
    }

    /// An endpoint by the names of its pool and its own.
    pub(super) fn find(&self, pool: &str, endpoint: &str) -> Option<Found> {
        let snapshot = self.shared.snapshot.load();
        let mut pools = snapshot.all_pools();
        let pool = pools.find(|other| other.pool.name() == pool)?;
        let endpoints = pool.pool.endpoints();
        let at = endpoints
            .iter()
            .position(|other| other.name() == endpoint)?;
        Some(Found {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(&endpoints[at]),
            at,
        })
    }

    /// Does something to an endpoint, and tells whether it will outlive the process.
    pub(super) async fn act(self: &Arc<Self>, found: &Found, action: Action) -> Saved {
        let _turn = self.turn.lock().await;
        match action {
            Action::Drain(timeout) => self.drain(found, timeout).await,
            Action::Ready => self.ready(found).await,
            Action::Maint => {
                self.call_off(found).await;
                found.endpoint.set_admin(Admin::Maint);
                let saved = self.keep(found, |set| set.set_state(Some(State::Maint)));
                self.take_out(found, Admin::Maint, None, Terms::AT_ONCE, None);
                saved
            }
            Action::Weight(weight) => {
                let configured = found.config().map(|config| config.weight);
                if let Some(weight) = weight.or(configured) {
                    found.endpoint.set_weight(weight.into());
                }
                self.keep(found, |set| set.weight = weight)
            }
            Action::MaxInFlight(max) => {
                let wanted = max.or_else(|| found.config()?.max_in_flight);
                let wanted = wanted.filter(|max| *max > 0);
                found.pool.pool.limit(&found.endpoint, wanted);
                self.keep(found, |set| set.max_in_flight = max)
            }
        }
    }

    async fn drain(self: &Arc<Self>, found: &Found, timeout: Option<Duration>) -> Saved {
        self.call_off(found).await;
        found.endpoint.set_admin(Admin::Drain);
        let terms = self.terms(timeout.unwrap_or(FOREVER));
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let drain_until = timeout.map(|timeout| unix_now() + timeout.as_secs());
        // Before it begins, for it may be over at once.
        let saved = self.keep(found, |set| {
            set.set_state(Some(State::Drain));
            set.drain_until = drain_until;
        });
        self.take_out(found, Admin::Drain, None, terms, until);
        saved
    }

    async fn ready(&self, found: &Found) -> Saved {
        self.call_off(found).await;
        if found.endpoint.set_admin(Admin::Up) != Admin::Up {
            // It has less than its share, and is not to be flooded to make up for that.
            let now = self.shared.moment(Instant::now());
            found.endpoint.guard.came_back(now);
        }
        let is_up = |config: &config::Endpoint| config.state == config::State::Up;
        let is_default = found.config().is_some_and(is_up);
        self.keep(found, |set| {
            set.set_state((!is_default).then_some(State::Up))
        })
    }

    /// When an endpoint that is being taken out is out at the latest; `None` if it is not, or that has
    /// no limit.
    pub(super) fn out_by(&self, found: &Found) -> Option<Instant> {
        self.under_way().get(&found.name())?.until
    }

    /// Has an operator set the endpoint's administrative state, as far as is known?
    pub(super) fn has_set(&self, found: &Found) -> bool {
        let kept = self.kept();
        let set = kept.at(found.pool.pool.name(), found.endpoint.name());
        set.is_some_and(|set| set.state.is_some())
    }

    /// Ends a session here and on its server; false if it is not known.
    pub(super) fn end_session(&self, key: Key) -> bool {
        let Some(live) = self.shared.sessions.end(key) else {
            return false;
        };
        telemetry::session_ended(SessionEnd::Operator);
        self.shared.chores.delete(orphan(live));
        true
    }

    /// Ends sessions here and on their servers, where they are deleted one after the other, also after this
    /// has returned; how many.
    pub(super) fn end_sessions(&self, which: &Which) -> usize {
        let sessions = &self.shared.sessions;
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        let keys = sessions.page(None, usize::MAX, |live| {
            let held = &live.guard;
            let is_meant =
                is(&which.pool, held.pool.pool.name()) && is(&which.endpoint, held.endpoint.name());
            is_meant.then_some(live.key)
        });
        let ended = keys.into_iter().filter_map(|key| sessions.end(key));
        let orphans: Vec<Orphan> = ended.map(orphan).collect();
        for _ in &orphans {
            telemetry::session_ended(SessionEnd::Operator);
        }
        let count = orphans.len();
        let shared = Arc::clone(&self.shared);
        let runtime = self.runtime.get().cloned();
        let task = async move { delete(&shared, orphans).await };
        runtime.unwrap_or_else(Handle::current).spawn(task);
        count
    }

    /// Pool and endpoint of connections that were dialed with this group and address.
    pub(super) fn dialed(&self, group: u64, address: SocketAddr) -> Option<(String, String)> {
        let snapshot = self.shared.snapshot.load();
        let find = |is_it: &dyn Fn(&PoolState, &Endpoint) -> bool| {
            snapshot.all_pools().find_map(|pool| {
                let mut endpoints = pool.pool.endpoints().iter();
                let found = endpoints.find(|endpoint| is_it(pool, endpoint))?;
                Some((pool.pool.name().to_owned(), found.name().to_owned()))
            })
        };
        let by_group = |pool: &PoolState, endpoint: &Endpoint| {
            let facts = pool.dial.get(&endpoint.id());
            facts.is_some_and(|facts| facts.group == group)
        };
        // Connections that are made for one client have a group that is theirs.
        find(&by_group).or_else(|| find(&|_, endpoint| endpoint.address() == Some(address)))
    }

    /// Takes an endpoint out, in a task, from `from` on.
    fn take_out(
        self: &Arc<Self>,
        found: &Found,
        during: Admin,
        from: Option<Instant>,
        terms: Terms,
        until: Option<Instant>,
    ) {
        let off = Arc::new(AtomicBool::new(false));
        let (over, ended) = oneshot::channel::<()>();
        let under_way = UnderWay {
            off: Arc::clone(&off),
            ended,
            until,
        };
        self.under_way().insert(found.name(), under_way);
        let (operator, found) = (Arc::clone(self), found.clone());
        let runtime = self.runtime.get().cloned();
        let task = async move {
            let withdrawal = Withdrawal {
                shared: &operator.shared,
                pool: &found.pool,
                endpoint: &found.endpoint,
                during,
                off: &off,
            };
            let emptied = match from {
                Some(at) if !withdrawal.wait(at).await => None,
                _ => withdrawal.empty(terms).await,
            };
            if emptied.is_some() {
                operator.is_out(&found);
            }
            operator.under_way().remove(&found.name());
            drop(over);
            if let Some(sessions) = emptied {
                delete(&operator.shared, sessions).await;
            }
        };
        runtime.unwrap_or_else(Handle::current).spawn(task);
    }

    /// Calls off whatever is taking an endpoint out, and waits until that has let go of it.
    async fn call_off(&self, found: &Found) {
        let under_way = self.under_way().remove(&found.name());
        if let Some(under_way) = under_way {
            under_way.off.store(true, Relaxed);
            // An error is what is waited for: the other end is dropped.
            let _ = under_way.ended.await;
        }
    }

    /// An endpoint has drained, which a restart is not to begin again.
    fn is_out(&self, found: &Found) {
        let saved = self.keep(found, |set| set.set_state(Some(State::Maint)));
        if let Err(error) = saved {
            log::warn!("{error}");
        }
    }

    fn terms(&self, timeout: Duration) -> Terms {
        let jitter = self.shared.snapshot.load().config.drain_jitter;
        Terms {
            timeout,
            jitter: jitter.min(timeout / 3),
        }
    }

    fn keep(&self, found: &Found, change: impl FnOnce(&mut Set)) -> Saved {
        let mut kept = self.kept();
        kept.change(found.pool.pool.name(), found.endpoint.name(), change);
        self.save(&kept)
    }

    fn save(&self, kept: &Kept) -> Saved {
        // A process that leaves may have a successor, whose file it is then.
        if self.shared.phase() != Phase::Running {
            return Err("it is not kept: this process is leaving".to_owned());
        }
        if kept.is_empty() && !self.file.exists() {
            return Ok(());
        }
        let written = kept.write(&self.file);
        written.map_err(|error| {
            let file = self.file.display();
            format!("it is lost with this process: cannot write {file}: {error}")
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Name, UnderWay>> {
        let under_way = self.under_way.lock();
        under_way.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn set_state(&mut self, state: Option<State>) {
        self.state = state;
        self.drain_until = None;
    }
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
