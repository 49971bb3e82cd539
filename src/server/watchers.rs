//! The endpoints that are watched: each by a task that checks it, and by one that follows its name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use pingora_load_balancing::Backend;
use tokio::sync::Notify;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::{AbortHandle, JoinSet};

use super::checks::{Checker, check_for, why};
use super::names::{Followed, next_address, resolve};
use super::on_down::{end_open, let_go_on};
use super::pulse::{Mark, Pulse};
use crate::config::OnDown;
use crate::pool::breaker::State;
use crate::pool::lateness::{Failure, excuses};
use crate::pool::{Endpoint, Finding, Health, HealthState, Intervals, Moment};
use crate::proxy::ask::NotWell;
use crate::proxy::state::{PoolState, Shared, Snapshot};
use crate::session::NameHash;
use crate::telemetry::feed::{Topic, Weight, tell};
use crate::telemetry::{self, SessionEnd, ToolNames};
use crate::transport::dial::Dialer;

/// All of them.
pub(super) struct Watchers {
    shared: Arc<Shared>,
    dialer: Arc<Dialer>,
    tools: Arc<ToolNames>,
    pulse: Arc<Pulse>,
    beats: bool,
    /// By the endpoint's place in memory, which is unique while it lives.
    running: HashMap<usize, Watcher>,
    tasks: JoinSet<()>,
}

/// What watches one endpoint.
struct Watcher {
    /// As it was configured when this began.
    pool: Arc<PoolState>,
    /// Keeps its place in memory its own.
    _endpoint: Arc<Endpoint>,
    /// Wakes its check.
    alarm: Arc<Notify>,
    /// Dropped, it ends the check, which leaves nothing behind on the server.
    _checks: oneshot::Sender<()>,
    follows: Option<AbortHandle>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(follows) = &self.follows {
            follows.abort();
        }
    }
}

impl Watchers {
    /// Nobody is watched yet.
    pub(super) fn new(shared: Arc<Shared>, dialer: Arc<Dialer>, tools: Arc<ToolNames>) -> Self {
        Self {
            shared,
            dialer,
            tools,
            pulse: Pulse::new(),
            beats: false,
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Watches the endpoints of this snapshot. Those of pools of which nothing has changed do not
    /// notice; those that are leaving are watched as they were.
    pub(super) fn turn_to(&mut self, snapshot: &Snapshot) {
        let mut wanted = HashSet::new();
        for pool in snapshot.all_pools() {
            for (at, endpoint) in pool.pool.endpoints().iter().enumerate() {
                let place = place(endpoint);
                wanted.insert(place);
                let Some(config) = pool.config.endpoints.get(at) else {
                    continue;
                };
                // Names that stand for several are followed by whoever turns them into endpoints.
                let is_followed = config.address.ip().is_none() && !config.stands_for_several();
                let name = is_followed.then(|| Followed {
                    name: config.address.clone(),
                    servers: pool.config.name_servers.clone(),
                });
                let known = self.running.get(&place);
                if known.is_none_or(|watcher| !Arc::ptr_eq(&watcher.pool, pool)) {
                    // The one that was ends before the next one begins.
                    self.running.remove(&place);
                    let watcher = self.watch(pool, endpoint, name);
                    self.running.insert(place, watcher);
                }
            }
        }
        self.running.retain(|place, _| wanted.contains(place));
        while self.tasks.try_join_next().is_some() {}
    }

    /// Brings the check of an endpoint forward.
    pub(super) fn alarm(&self, endpoint: &Arc<Endpoint>) {
        if let Some(watcher) = self.running.get(&place(endpoint)) {
            watcher.alarm.notify_one();
        }
    }

    /// Ends all checks, which leave nothing behind on the servers.
    pub(super) async fn end(mut self) {
        self.running.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    fn watch(
        &mut self,
        pool: &Arc<PoolState>,
        endpoint: &Arc<Endpoint>,
        name: Option<Followed>,
    ) -> Watcher {
        let (stop, stopped) = oneshot::channel();
        let alarm = Arc::new(Notify::new());
        if let Some(checker) = check_for(pool, endpoint, &self.dialer, &self.tools) {
            if !std::mem::replace(&mut self.beats, true) {
                let pulse = Arc::clone(&self.pulse);
                // Beats as long as the thread lives, and ends with it.
                tokio::spawn(async move { pulse.beat().await });
            }
            self.tasks.spawn(watch_endpoint(
                Arc::clone(&self.shared),
                Arc::clone(pool),
                Arc::clone(endpoint),
                (checker, Arc::clone(&self.pulse)),
                (Arc::clone(&alarm), stopped),
                name.clone(),
            ));
        }
        let (every, hold) = (pool.config.resolve_every, pool.config.resolve_hold);
        let follows = name.map(|name| {
            let follows = tokio::spawn(resolve(Arc::clone(endpoint), name, every, hold));
            follows.abort_handle()
        });
        Watcher {
            pool: Arc::clone(pool),
            _endpoint: Arc::clone(endpoint),
            alarm,
            _checks: stop,
            follows,
        }
    }
}

/// An endpoint's place in memory, which is its own while somebody holds it.
pub(super) fn place(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}

/// Checks one endpoint until it is told to stop.
async fn watch_endpoint(
    shared: Arc<Shared>,
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
    (checker, pulse): (Checker, Arc<Pulse>),
    (alarm, mut stopped): (Arc<Notify>, oneshot::Receiver<()>),
    name: Option<Followed>,
) {
    let config = &pool.config.health;
    let intervals = Intervals {
        usual: config.interval,
        fast: config.interval_fast,
        down: config.interval_down,
    };
    let mut health = Health::new(config.rise, config.fall, endpoint.health());
    let mut lateness = Lateness::new(&pulse);
    let mut ending = None;
    loop {
        // This check is the answer to any suspicion that was not heard.
        endpoint.take_suspicion();
        lateness.begin();
        let outcome = check(&checker, &endpoint).await;
        if !matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
            // Another one watches it by now, and it decides.
            break;
        }
        let outcome_failed = outcome.is_err();
        let excused = lateness.excuses(&pool, &endpoint, outcome.as_ref().err());
        let now = shared.moment(Instant::now());
        let found = finding(&outcome, &endpoint, now);
        let change = (!excused).then(|| health.record(found)).flatten();
        if !excused {
            let wrong = outcome.as_ref().err().map(|wrong| &*wrong.why);
            endpoint.verdict.note(wrong, change.is_some(), now);
        }
        if let Some(change) = change {
            endpoint.set_health(health.state());
            match (change.from, change.to) {
                (_, HealthState::Down) => {
                    lose_sessions(&shared, &pool, &endpoint);
                    if config.on_down == OnDown::End {
                        ending = end_open(&shared, &endpoint);
                    }
                }
                (HealthState::Down | HealthState::Unwell, HealthState::Up) => {
                    if let Some(window) = ending.take() {
                        let_go_on(&shared, &endpoint, window);
                    }
                    endpoint.guard.recovered(now);
                }
                _ => {}
            }
            let (pool, endpoint) = (pool.pool.name(), endpoint.name());
            match outcome {
                Ok(()) => {
                    log::info!(pool = pool, endpoint = endpoint; "endpoint is {}", change.to.label());
                    tell(
                        Topic::Health,
                        Weight::Good,
                        pool,
                        endpoint,
                        change.to.label(),
                    );
                }
                Err(NotWell { why, .. }) => {
                    log::warn!(pool = pool, endpoint = endpoint; "endpoint is {}: {why}", change.to.label());
                    let text = format!("{}: {why}", change.to.label());
                    tell(Topic::Health, Weight::Bad, pool, endpoint, text);
                }
            }
        }
        endpoint.note_checked();
        if !outcome_failed && endpoint.is_unreachable() {
            endpoint.guard.reached(shared.moment(Instant::now()));
        }
        if outcome_failed
            && !excused
            && !has_sessions(&endpoint)
            && let Some(name) = &name
        {
            next_address(&endpoint, name).await;
        }
        let next = Instant::now() + health.next_check_in(&intervals, fastrand::f64());
        tokio::select! {
            () = wait(&endpoint, &mut health, &alarm, &intervals, next) => {}
            _ = &mut stopped => break,
        }
    }
    checker.close().await;
}

/// What came of a check. A server that says that it is not well, and whose calls fail too, serves nobody:
/// its sessions are better off elsewhere.
fn finding(outcome: &Result<(), NotWell>, endpoint: &Endpoint, now: Moment) -> Finding {
    let guard = &endpoint.guard;
    match outcome {
        Ok(()) => Finding::Well,
        Err(wrong) if wrong.failure != Failure::Told => Finding::Gone,
        Err(_) if guard.is_ejected(now) || guard.breaker(now) != State::Closed => Finding::Gone,
        Err(_) => Finding::Unwell,
    }
}

/// Has it sessions that another address of its name would not know?
fn has_sessions(endpoint: &Endpoint) -> bool {
    match endpoint.health() {
        HealthState::Up => true,
        HealthState::Unwell => endpoint.busy() > 0,
        HealthState::Unchecked | HealthState::Down => false,
    }
}

/// Tells checks that came to nothing because this machine did not let us run, or could not ask.
struct Lateness<'a> {
    pulse: &'a Pulse,
    /// When the question was asked that is not answered yet.
    asked: Mark,
    /// The last check was passed over for want of an answer, so its question is still the one that counts.
    excused: bool,
}

impl<'a> Lateness<'a> {
    fn new(pulse: &'a Pulse) -> Self {
        Self {
            pulse,
            asked: pulse.mark(),
            excused: false,
        }
    }

    fn begin(&mut self) {
        if !self.excused {
            self.asked = self.pulse.mark();
        }
    }

    fn excuses(&mut self, pool: &PoolState, endpoint: &Endpoint, wrong: Option<&NotWell>) -> bool {
        let (waited, lost) = self.asked.until(self.pulse.mark());
        let before = self.excused;
        let wrong = wrong.filter(|wrong| excuses(wrong.failure, waited, lost));
        self.excused = wrong.is_some_and(|wrong| wrong.failure == Failure::Silent);
        if wrong.is_some() {
            telemetry::check_excused();
        }
        if self.excused && !before {
            log::warn!(pool = pool.pool.name(), endpoint = endpoint.name(); "a check without an answer is passed over: in {waited:?} this machine has not let us run for {lost:?}");
        }
        wrong.is_some()
    }
}

/// The sessions of an endpoint that is down are lost; their clients are told as they ask.
fn lose_sessions(shared: &Shared, pool: &PoolState, endpoint: &Endpoint) {
    let name = NameHash::from_u64(endpoint.id());
    // Those that can be begun again are, as their clients ask for them.
    let lost = shared
        .sessions
        .close_endpoint(pool.hash, name, |live| live.guard.origin.is_some());
    for _ in &lost {
        telemetry::session_ended(SessionEnd::Lost);
    }
    if !lost.is_empty() {
        let (pool, endpoint) = (pool.pool.name(), endpoint.name());
        log::warn!(pool = pool, endpoint = endpoint; "{} sessions were lost", lost.len());
        let text = format!("{} sessions were lost", lost.len());
        tell(Topic::Sessions, Weight::Bad, pool, endpoint, text);
    }
}

/// Waits for the next check; a suspicion of the request path brings it forward.
async fn wait(
    endpoint: &Endpoint,
    health: &mut Health,
    alarm: &Notify,
    intervals: &Intervals,
    next: Instant,
) {
    let mut next = tokio::time::Instant::from_std(next);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => return,
            () = alarm.notified() => {
                if endpoint.take_suspicion() {
                    health.suspect();
                    let soon = tokio::time::Instant::now() + health.next_check_in(intervals, fastrand::f64());
                    next = next.min(soon);
                }
            }
        }
    }
}

async fn check(checker: &Checker, endpoint: &Endpoint) -> Result<(), NotWell> {
    let address = endpoint
        .address()
        .ok_or_else(|| "its name does not resolve".to_owned())?;
    let backend = Backend::new(&address.to_string()).map_err(|error| error.to_string())?;
    let checked = checker.as_check().check(&backend).await;
    checked.map_err(|error| why(&error, address))
}
