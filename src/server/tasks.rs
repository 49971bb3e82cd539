//! What runs beside the requests, on a thread of its own: health checks, name resolution, the
//! sweep over idle sessions, deletions that requests leave behind.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora_load_balancing::Backend;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::checks::{Checker, check_for, why};
use super::pulse::{Mark, Pulse};
use crate::config::HostPort;
use crate::pool::lateness::excuses;
use crate::pool::{Endpoint, Health, HealthState};
use crate::proxy::ask::{NotWell, delete_session};
use crate::proxy::state::{Orphan, Phase, Phases, PoolState, Shared, Waiting};
use crate::session::NameHash;
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

/// Wakes the check of an endpoint, by the endpoint's place in memory, which is unique while it lives.
type Alarms = HashMap<usize, Arc<Notify>>;

/// The background of the process.
pub(super) struct Tasks {
    shared: Arc<Shared>,
    tools: Arc<ToolNames>,
    waiting: Mutex<Option<Waiting>>,
}

impl Tasks {
    /// Takes the receiving end of the chores.
    pub(super) fn new(shared: Arc<Shared>, tools: Arc<ToolNames>, waiting: Waiting) -> Self {
        Self {
            shared,
            tools,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    async fn run(&self) {
        let Some(waiting) = self.waiting.lock().await.take() else {
            return;
        };
        let errand = self.shared.flight.errand();
        let dialer = Dialer::new();
        let snapshot = self.shared.snapshot.load_full();
        let mut running = JoinSet::new();
        let mut checks = JoinSet::new();
        let mut alarms = Alarms::new();
        let pulse = Pulse::new();
        for pool in &snapshot.pools {
            for (endpoint, config) in pool.pool.endpoints().iter().zip(&pool.config.endpoints) {
                if config.address.ip().is_none() {
                    let every = pool.config.resolve_every;
                    running.spawn(resolve(Arc::clone(endpoint), config.address.clone(), every));
                }
                if let Some(checker) = check_for(pool, endpoint, &dialer, &self.tools) {
                    let shared = Arc::clone(&self.shared);
                    let alarm = Arc::new(Notify::new());
                    alarms.insert(Arc::as_ptr(endpoint).addr(), Arc::clone(&alarm));
                    checks.spawn(watch_endpoint(
                        shared,
                        Arc::clone(pool),
                        Arc::clone(endpoint),
                        (checker, Arc::clone(&pulse)),
                        alarm,
                        config
                            .address
                            .ip()
                            .is_none()
                            .then(|| config.address.clone()),
                    ));
                }
            }
        }
        if !alarms.is_empty() {
            running.spawn(async move { pulse.beat().await });
        }
        running.spawn(sweep(Arc::clone(&self.shared)));
        let phases = || self.shared.phases.clone();
        running.spawn(hear_suspicions(waiting.suspects, alarms, phases()));
        let room = delete_orphans(waiting.orphans, dialer, phases()).await;
        // The checks end with the phase and delete their sessions; deletions that were begun end too.
        let _ = tokio::time::timeout(LEAVE_TIME, async {
            while checks.join_next().await.is_some() {}
            let _ = room.acquire_many(DELETIONS_MAX as u32).await;
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

/// Checks one endpoint for as long as the process serves.
async fn watch_endpoint(
    shared: Arc<Shared>,
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
    (checker, pulse): (Checker, Arc<Pulse>),
    alarm: Arc<Notify>,
    name: Option<HostPort>,
) {
    let mut phases = shared.phases.clone();
    let config = &pool.config.health;
    let mut health = Health::new(config.rise, config.fall, HealthState::Unchecked);
    let mut lateness = Lateness::new(&pulse);
    loop {
        // This check is the answer to any suspicion that was not heard.
        endpoint.take_suspicion();
        lateness.begin();
        let outcome = check(&checker, &endpoint).await;
        let outcome_failed = outcome.is_err();
        let excused = lateness.excuses(&pool, &endpoint, outcome.as_ref().err());
        let change = (!excused).then(|| health.record(outcome.is_ok())).flatten();
        if let Some(change) = change {
            endpoint.set_health(health.state());
            match (change.from, change.to) {
                (_, HealthState::Down) => lose_sessions(&shared, &pool, &endpoint),
                (HealthState::Down, HealthState::Up) => {
                    endpoint.guard.recovered(shared.moment(Instant::now()));
                }
                _ => {}
            }
            let (pool, endpoint) = (pool.pool.name(), endpoint.name());
            match outcome {
                Ok(()) => {
                    log::info!(pool = pool, endpoint = endpoint; "endpoint is {}", change.to.label())
                }
                Err(NotWell { why, .. }) => {
                    log::warn!(pool = pool, endpoint = endpoint; "endpoint is {}: {why}", change.to.label())
                }
            }
        }
        endpoint.note_checked();
        if outcome_failed
            && !excused
            && health.state() != HealthState::Up
            && let Some(name) = &name
        {
            next_address(&endpoint, name).await;
        }
        let next = Instant::now() + health.next_check_in(config.interval, fastrand::f64());
        tokio::select! {
            () = wait(&endpoint, &mut health, &alarm, config.interval, next) => {}
            () = phases.reached(Phase::Ending) => break,
        }
    }
    checker.close().await;
}

/// Tells checks that came to nothing because this machine did not let us run.
struct Lateness<'a> {
    pulse: &'a Pulse,
    /// When the question was asked that is not answered yet.
    asked: Mark,
    /// The last check was passed over, so its question is still the one that counts.
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
        self.excused = wrong.is_some_and(|wrong| excuses(wrong.failure, waited, lost));
        if self.excused {
            telemetry::check_excused();
        }
        if self.excused && !before {
            log::warn!(pool = pool.pool.name(), endpoint = endpoint.name(); "a check without an answer is passed over: in {waited:?} this machine has not let us run for {lost:?}");
        }
        self.excused
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
        log::warn!(pool = pool.pool.name(), endpoint = endpoint.name(); "{} sessions were lost", lost.len());
    }
}

/// Waits for the next check; a suspicion of the request path brings it forward.
async fn wait(
    endpoint: &Endpoint,
    health: &mut Health,
    alarm: &Notify,
    interval: Duration,
    next: Instant,
) {
    let mut next = tokio::time::Instant::from_std(next);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => return,
            () = alarm.notified() => {
                if endpoint.take_suspicion() {
                    health.suspect();
                    let soon = tokio::time::Instant::now() + health.next_check_in(interval, fastrand::f64());
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
    checked.map_err(|error| why(&error))
}

/// Keeps an endpoint's address up with its name. An answer that still holds the address in use
/// changes nothing; a failed look-up keeps the last address.
async fn resolve(endpoint: Arc<Endpoint>, name: HostPort, every: Duration) {
    loop {
        tokio::time::sleep(every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        resolve_once(&endpoint, &name).await;
    }
}

/// One look-up. An answer that still holds the address in use changes nothing.
pub(super) async fn resolve_once(endpoint: &Endpoint, name: &HostPort) {
    let found = look_up(endpoint, name).await;
    let current = endpoint.address();
    if !current.is_some_and(|address| found.contains(&address)) {
        move_to(endpoint, name, found.first());
    }
}

/// Goes on to the name's next address, for an endpoint that does not answer at the present one: a
/// name often stands for an IPv6 and an IPv4 address of which the server has only one.
async fn next_address(endpoint: &Endpoint, name: &HostPort) {
    let found = look_up(endpoint, name).await;
    let current = endpoint.address();
    let at = found.iter().position(|address| Some(*address) == current);
    let next = at.map_or(0, |at| (at + 1) % found.len());
    move_to(endpoint, name, found.get(next));
}

async fn look_up(endpoint: &Endpoint, name: &HostPort) -> Vec<SocketAddr> {
    match tokio::net::lookup_host((name.host.as_str(), name.port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            log::warn!(endpoint = endpoint.name(); "cannot resolve {}: {error}", name.host);
            Vec::new()
        }
    }
}

fn move_to(endpoint: &Endpoint, name: &HostPort, address: Option<&SocketAddr>) {
    if let Some(address) = address
        && endpoint.address() != Some(*address)
    {
        endpoint.set_address(Some(*address));
        log::info!(endpoint = endpoint.name(); "{} is at {address}", name.host);
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
        shared.rings.sweep(now);
        let idle = shared.snapshot.load().config.sessions.idle_ttl;
        for live in shared.sessions.reap(now, idle, REAP_MAX) {
            telemetry::session_ended(SessionEnd::Idle);
            shared.chores.delete(Orphan {
                pool: live.guard.pool,
                endpoint: live.guard.endpoint,
                server_id: live.server_id.into_string(),
                path: live.guard.path,
            });
        }
    }
}

/// Says which endpoints are no longer ejected.
fn tell_returns(shared: &Shared, now: Instant) {
    let now = shared.moment(now);
    for pool in &shared.snapshot.load().pools {
        for endpoint in pool.pool.endpoints() {
            if endpoint.guard.take_return(now) {
                log::info!(pool = pool.pool.name(), endpoint = endpoint.name(); "endpoint is no longer ejected");
            }
        }
    }
}

/// Brings checks forward, whatever else is waiting to be done.
async fn hear_suspicions(
    mut suspects: mpsc::Receiver<Arc<Endpoint>>,
    alarms: Alarms,
    mut phases: Phases,
) {
    loop {
        let suspect = tokio::select! {
            suspect = suspects.recv() => suspect,
            () = phases.reached(Phase::Ending) => return,
        };
        let Some(endpoint) = suspect else { return };
        if let Some(alarm) = alarms.get(&Arc::as_ptr(&endpoint).addr()) {
            alarm.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::EndpointSpec;

    async fn resolved(name: &str, current: Option<&str>) -> Option<SocketAddr> {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: current.map(|address| address.parse().unwrap()),
            health: HealthState::Up,
        });
        let name = HostPort {
            host: name.to_owned(),
            port: 9,
        };
        resolve_once(&endpoint, &name).await;
        endpoint.address()
    }

    #[tokio::test]
    async fn an_address_follows_its_name() {
        let found = resolved("localhost", None).await.unwrap();
        assert!(found.ip().is_loopback() && found.port() == 9);
        let moved = resolved("localhost", Some("192.0.2.1:9")).await.unwrap();
        assert!(
            moved.ip().is_loopback(),
            "the old address is not among the answers"
        );
    }

    #[tokio::test]
    async fn another_address_is_tried_where_one_does_not_answer() {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: "192.0.2.1:9".parse().ok(),
            health: HealthState::Unchecked,
        });
        let name = HostPort {
            host: "localhost".to_owned(),
            port: 9,
        };
        let found = look_up(&endpoint, &name).await;
        let mut tried = Vec::new();
        for _ in &found {
            next_address(&endpoint, &name).await;
            tried.extend(endpoint.address());
        }
        assert_eq!(tried, found, "each in turn");
    }

    #[tokio::test]
    async fn an_address_stays_while_its_name_still_has_it_or_cannot_be_looked_up() {
        assert_eq!(
            resolved("localhost", Some("127.0.0.1:9")).await,
            "127.0.0.1:9".parse().ok()
        );
        let lost = resolved("no-such-name.invalid", Some("192.0.2.1:9")).await;
        assert_eq!(lost, "192.0.2.1:9".parse().ok());
    }
}
