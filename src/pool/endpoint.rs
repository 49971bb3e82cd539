//! One server address in a pool: its state, its counters, and what was learned about it.
//!
//! Everything that changes is an atomic that many threads read and few write, without ordering
//! between them: each is a hint of its own and no decision needs two of them to agree. An endpoint
//! outlives the configuration that named it, for as long as a call or a session holds on to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::breaker::TrialId;
use super::facts::Facts;
use super::failures::Failures;
use super::guard::Guard;
use super::health::HealthState;
use super::parting::Parting;
use super::places::Places;
use super::queue::Place;
use super::timings::Timings;
use super::verdict::Verdict;

/// Greatest weight; a greater one is taken for this.
pub const WEIGHT_MAX: u32 = 65_535;

/// What the operator wants of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// Takes calls as far as it is healthy.
    Up,
    /// Keeps its sessions and gets no new ones, nor calls that could go elsewhere.
    Drain,
    /// Gets nothing.
    Maint,
}

impl Admin {
    const ALL: [Self; 3] = [Self::Up, Self::Drain, Self::Maint];

    /// The state in the operator's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// What an endpoint is made from.
#[derive(Debug, Clone)]
pub struct EndpointSpec {
    /// The name in the configuration.
    pub name: String,
    /// A stable hash of the name: equal for equal names in every process and version, because
    /// sealed ids and consistent hashing rely on it.
    pub id: u64,
    /// Share of the traffic relative to the others, 0 to [`WEIGHT_MAX`]. At 0 it keeps what it has
    /// and gets nothing new.
    pub weight: u32,
    /// Used only while no primary is usable.
    pub backup: bool,
    /// Where it listens; `None` until its name is resolved.
    pub address: Option<SocketAddr>,
    /// [`HealthState::Unchecked`] if it is going to be checked, [`HealthState::Up`] if not.
    pub health: HealthState,
}

/// One server of a pool.
pub struct Endpoint {
    name: Box<str>,
    id: u64,
    weight: AtomicU32,
    backup: AtomicBool,
    address: ArcSwapOption<SocketAddr>,
    /// Is there an address? For the balancer, which asks every endpoint and needs no more.
    resolved: AtomicBool,
    /// A `HealthState`. Written by whoever runs the checks.
    health: AtomicU8,
    /// An `Admin`. Written by the operator, through the admin socket or a reload.
    admin: AtomicU8,
    /// Its first check has not ended.
    awaits_check: AtomicBool,
    /// Raised by the request path, lowered by whoever runs the checks.
    suspected: AtomicBool,
    /// The last call to it found nobody there.
    unreachable: AtomicBool,
    /// Is there something in `closing`? Streams ask for nothing more, as long as there is not.
    closes: AtomicBool,
    /// When what is open on it ends. Written by whoever drains it.
    closing: Mutex<Option<Parting>>,
    /// What was learned about the server.
    pub facts: Facts,
    /// What calls have shown of it.
    pub guard: Guard,
    /// How many calls it may have in flight.
    pub places: Places,
    /// How long it takes to be connected to, and to answer.
    pub timings: Timings,
    /// How often its calls have failed.
    pub failures: Failures,
    /// What the checks say in words.
    pub verdict: Verdict,
    counters: Counters,
}

/// On a cache line of their own: written with every call, while the rest is only read.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    /// Calls that hold a `CallPermit`.
    in_flight: AtomicU32,
    /// Sessions that hold a `SessionGuard`.
    sessions: AtomicU32,
}

/// Why a call of a session cannot go to the endpoint that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Its checks fail: the session is lost.
    #[error("the endpoint is down")]
    Down,
    /// The operator took it out.
    #[error("the endpoint is in maintenance")]
    Maint,
    /// Its name does not resolve at the moment.
    #[error("the endpoint's address is not resolved")]
    Unresolved,
}

impl Endpoint {
    /// A new endpoint in administrative state up, with no calls and no sessions.
    pub fn new(spec: EndpointSpec) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.into_boxed_str(),
            id: spec.id,
            weight: AtomicU32::new(spec.weight.min(WEIGHT_MAX)),
            backup: AtomicBool::new(spec.backup),
            address: ArcSwapOption::from_pointee(spec.address),
            resolved: AtomicBool::new(spec.address.is_some()),
            health: AtomicU8::new(spec.health as u8),
            admin: AtomicU8::new(Admin::Up as u8),
            awaits_check: AtomicBool::new(spec.health == HealthState::Unchecked),
            suspected: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            closing: Mutex::new(None),
            facts: Facts::default(),
            guard: Guard::default(),
            places: Places::default(),
            timings: Timings::default(),
            failures: Failures::default(),
            verdict: Verdict::default(),
            counters: Counters::default(),
        })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stable hash of the name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Share of the traffic, 0 to [`WEIGHT_MAX`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Sets the weight, at most [`WEIGHT_MAX`].
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.min(WEIGHT_MAX), Relaxed);
    }

    /// Is it used only while no primary is usable?
    pub fn is_backup(&self) -> bool {
        self.backup.load(Relaxed)
    }

    /// Makes it a backup or a primary.
    pub fn set_backup(&self, backup: bool) {
        self.backup.store(backup, Relaxed);
    }

    /// Where it listens, if that is known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.load().as_deref().copied()
    }

    /// Is the address known? A hint that may lag behind [`Self::address`].
    pub fn is_resolved(&self) -> bool {
        self.resolved.load(Relaxed)
    }

    /// Sets the address, and forgets the facts if it is another one. True if it is.
    pub fn set_address(&self, address: Option<SocketAddr>) -> bool {
        let changed = self.address() != address;
        if changed {
            self.address.store(address.map(Arc::new));
            self.resolved.store(address.is_some(), Relaxed);
            self.facts.forget();
        }
        changed
    }

    /// What the checks say.
    pub fn health(&self) -> HealthState {
        HealthState::from_u8(self.health.load(Relaxed))
    }

    /// Is it to be checked, and no check of it has ended yet?
    pub fn awaits_check(&self) -> bool {
        self.awaits_check.load(Relaxed)
    }

    /// Notes that a check has ended, however it did.
    pub fn note_checked(&self) {
        if self.awaits_check() {
            self.awaits_check.store(false, Relaxed);
        }
    }

    /// Has the last call found nobody there? Then it is about to be down, or is being restarted.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    /// Notes whether a call could connect.
    pub fn note_reached(&self, reached: bool) {
        // Written only where it changes: all threads read it.
        if self.is_unreachable() == reached {
            self.unreachable.store(!reached, Relaxed);
        }
    }

    /// Publishes what the checks say. Going down forgets the facts.
    pub fn set_health(&self, health: HealthState) {
        let before = self.health.swap(health as u8, Relaxed);
        if health == HealthState::Down && before != health as u8 {
            self.facts.forget();
        }
    }

    /// What the operator wants.
    pub fn admin(&self) -> Admin {
        let value = usize::from(self.admin.load(Relaxed));
        Admin::ALL.get(value).copied().unwrap_or(Admin::Up)
    }

    /// Sets what the operator wants, and tells what he wanted before.
    pub fn set_admin(&self, admin: Admin) -> Admin {
        let before = usize::from(self.admin.swap(admin as u8, Relaxed));
        Admin::ALL.get(before).copied().unwrap_or(Admin::Up)
    }

    /// When what is open on it ends; `None` while it may go on.
    pub fn closing(&self) -> Option<Parting> {
        if !self.closes.load(Relaxed) {
            return None;
        }
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what is open on it end within a window, or lets it go on.
    pub fn close_over(&self, window: Option<Parting>) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = window;
        self.closes.store(window.is_some(), Relaxed);
    }

    /// Are its sessions lost? So they are when it is down, in maintenance or drained to its deadline.
    pub fn has_lost_sessions(&self) -> bool {
        self.health() == HealthState::Down
            || self.admin() == Admin::Maint
            || self.closing().is_some()
    }

    /// Says that a connection to it has just failed. True for the first to say so since the checks
    /// last looked: that one wakes them.
    pub fn suspect(&self) -> bool {
        !self.suspected.swap(true, Relaxed)
    }

    /// Has anyone said so since the last time this was asked?
    pub fn take_suspicion(&self) -> bool {
        self.suspected.load(Relaxed) && self.suspected.swap(false, Relaxed)
    }

    /// Where to send a call of a session that this endpoint owns. A draining endpoint keeps its
    /// sessions, and one that is not checked yet may well have them.
    pub fn reach(&self) -> Result<SocketAddr, Unreachable> {
        if self.admin() == Admin::Maint {
            return Err(Unreachable::Maint);
        }
        if self.health() == HealthState::Down {
            return Err(Unreachable::Down);
        }
        self.address().ok_or(Unreachable::Unresolved)
    }

    /// Counts a call as in flight until the permit is dropped.
    pub fn call(self: &Arc<Self>) -> CallPermit {
        self.counters.in_flight.fetch_add(1, Relaxed);
        CallPermit {
            endpoint: Arc::clone(self),
            trial: None,
            place: None,
        }
    }

    /// The same for a call that passes as a trial of the breaker.
    pub(super) fn trial(self: &Arc<Self>, id: TrialId) -> CallPermit {
        let mut permit = self.call();
        permit.trial = Some(id);
        permit
    }

    /// Counts a session as live until the guard is dropped.
    pub fn session(self: &Arc<Self>) -> SessionGuard {
        self.counters.sessions.fetch_add(1, Relaxed);
        SessionGuard {
            endpoint: Arc::clone(self),
        }
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.counters.in_flight.load(Relaxed)
    }

    /// Live sessions.
    pub fn sessions(&self) -> u32 {
        self.counters.sessions.load(Relaxed)
    }

    /// Live sessions and calls in flight: what the endpoint is busy with.
    ///
    /// A session counts as much as a call because most of what a session costs its server, memory
    /// and an open stream, lasts as long as the session does.
    pub fn busy(&self) -> u64 {
        u64::from(self.sessions()) + u64::from(self.in_flight())
    }

    /// The load there would be with one more call: `(sessions + in flight + 1) / weight`. Infinite
    /// at weight 0. For people to look at; the balancer compares without dividing.
    pub fn load(&self) -> f64 {
        (self.busy() + 1) as f64 / f64::from(self.weight())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("address", &self.address())
            .field("weight", &self.weight())
            .field("health", &self.health())
            .field("admin", &self.admin())
            .field("in_flight", &self.in_flight())
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

/// One call in flight. Released by `Drop`, so no path can leak it.
#[must_use = "the call is counted only while the permit lives"]
#[derive(Debug)]
pub struct CallPermit {
    endpoint: Arc<Endpoint>,
    /// The permit of the breaker, until it is told what came of the call.
    trial: Option<TrialId>,
    /// One of the endpoint's places, if those are counted and the call takes one.
    place: Option<Place>,
}

impl CallPermit {
    /// The endpoint that the call is sent to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The permit of the breaker, if there is one.
    pub(super) fn take_trial(&mut self) -> Option<TrialId> {
        self.trial.take()
    }

    /// Holds a place for as long as the call is in flight.
    pub fn hold(&mut self, place: Option<Place>) {
        self.place = place;
    }

    /// The place, for a call that goes on without its exchange.
    pub fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(id) = self.take_trial() {
            self.endpoint.guard.give_back(id);
        }
        let before = self.endpoint.counters.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "each permit was counted once");
    }
}

/// One live session. Released by `Drop`.
#[must_use = "the session is counted only while the guard lives"]
#[derive(Debug)]
pub struct SessionGuard {
    endpoint: Arc<Endpoint>,
}

impl SessionGuard {
    /// The endpoint that owns the session.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let before = self.endpoint.counters.sessions.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "each guard was counted once");
    }
}

#[cfg(test)]
mod tests;
