//! What becomes of outcomes: ejections, breakers, permits.
//!
//! A call enters with [`Pool::enter`], which a breaker may refuse, and tells with [`Pool::record`]
//! what came of it. Both take the usual way through a word or two; everything else happens when a
//! call has failed, and not too often even then.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::breaker::{self, Admit, Outcome, State, TrialId};
use super::ejection;
use super::endpoint::{CallPermit, Endpoint};
use super::moment::Moment;
use super::window::Totals;
use super::{Balance, Pool};

/// How long a call that has failed counts for when a pool balances by latency: a server that fails
/// at once would be the fastest of all.
const FAILED: Duration = Duration::from_secs(1);

/// How a pool is protected from its endpoints. Everything is off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// When endpoints are ejected; `None` is never.
    pub ejection: Option<ejection::Settings>,
    /// When their breakers open; `None` is never.
    pub breaker: Option<breaker::Settings>,
    /// How long an endpoint that comes back takes to its full weight; zero is at once.
    pub slow_start: Duration,
}

/// The breaker lets nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tripped {
    /// When it may be worth trying again.
    pub retry_in: Duration,
}

/// What an outcome has changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// About ejection.
    pub ejection: Option<Ejection>,
    /// About the breaker.
    pub breaker: Option<Switched>,
}

/// What became of an endpoint that has failed too often in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// It was ejected.
    Done {
        /// Failures in a row.
        failures: u32,
        /// The n-th time lately.
        times: u32,
        /// For so long.
        time: Duration,
    },
    /// As much of the pool is ejected as may be, so it goes on.
    NoRoom {
        /// Failures in a row.
        failures: u32,
    },
}

/// A breaker's change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// Too many calls have failed.
    Opened(Totals),
    /// A trial has failed.
    Reopened,
    /// Enough trials were good.
    Closed,
}

/// Serialises ejections in a pool, so that their number is right. Taken when an endpoint has failed
/// so often that it is to be ejected.
#[derive(Debug, Default)]
pub(super) struct Ejecting(Mutex<()>);

impl Pool {
    /// The same pool with this protection.
    #[must_use]
    pub fn with_protection(mut self, protection: Protection) -> Self {
        self.protection = protection;
        self
    }

    /// How it is protected.
    pub fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Counts a call as in flight on an endpoint of this pool until the permit is dropped.
    ///
    /// # Errors
    /// The endpoint's breaker lets nothing through at this moment.
    pub fn enter(&self, endpoint: &Arc<Endpoint>, now: Moment) -> Result<CallPermit, Tripped> {
        let guard = &endpoint.guard;
        let Some(settings) = self.protection.breaker.filter(|_| !guard.is_closed()) else {
            return Ok(endpoint.call());
        };
        if !guard.refuses(now) {
            let mut machine = guard.machine();
            let admit = machine.admit(&settings, now);
            guard.set_gate(machine.gate());
            drop(machine);
            match admit {
                Admit::Pass => return Ok(endpoint.call()),
                Admit::Trial(id) => return Ok(endpoint.trial(id)),
                Admit::Refuse(_) => {}
            }
        }
        Err(Tripped {
            retry_in: guard.refuses_for(now),
        })
    }

    /// Records what came of a call, as far as it says something about the endpoint. A call that says
    /// nothing is not recorded.
    ///
    /// Failures in a row are exact but for calls that end at the same moment. Calls for the breaker
    /// are counted from the first failure on: before it there is nothing to judge, and a server
    /// that was good for the whole window until it broke would be given the window to go on.
    pub fn record(
        &self,
        permit: &mut CallPermit,
        outcome: Outcome,
        now: impl FnOnce() -> Moment,
    ) -> Changes {
        let trial = permit.take_trial();
        if outcome == Outcome::Good && trial.is_none() && !permit.endpoint().guard.is_troubled() {
            return Changes::default();
        }
        let now = now();
        let endpoint = permit.endpoint();
        if outcome == Outcome::Bad && self.balance() == Balance::PeakEwma {
            endpoint.guard.latency.observe(FAILED, now);
        }
        let ejection = self.strike(endpoint, outcome, now);
        let breaker = self.judge(endpoint, trial, outcome, now);
        Changes { ejection, breaker }
    }

    /// Counts failures in a row, and ejects.
    fn strike(&self, endpoint: &Endpoint, outcome: Outcome, now: Moment) -> Option<Ejection> {
        let guard = &endpoint.guard;
        if outcome == Outcome::Good {
            guard.streak.store(0, Relaxed);
            return None;
        }
        guard.set_troubled(true);
        let settings = self.protection.ejection?;
        let failures = guard.streak.fetch_add(1, Relaxed).saturating_add(1);
        if failures < settings.failures || self.endpoints.len() < 2 || guard.is_ejected(now) {
            return None;
        }
        let lock = self.ejecting.0.lock();
        let _lock = lock.unwrap_or_else(PoisonError::into_inner);
        let mut past = guard.past();
        if past.is_ejected(now) {
            return None; // Another thread was here first.
        }
        let ejected = self.endpoints.iter();
        let ejected = ejected.filter(|other| other.guard.is_ejected(now)).count();
        if ejected >= settings.room(self.endpoints.len()) {
            // Counted anew, so that neither the lock nor the log is busy with every failure.
            guard.streak.store(0, Relaxed);
            return Some(Ejection::NoRoom { failures });
        }
        let time = past.eject(&settings, now);
        guard.set_past(past);
        Some(Ejection::Done {
            failures,
            times: past.times,
            time,
        })
    }

    /// Counts for the breaker, and moves it.
    fn judge(
        &self,
        endpoint: &Endpoint,
        trial: Option<TrialId>,
        outcome: Outcome,
        now: Moment,
    ) -> Option<Switched> {
        let guard = &endpoint.guard;
        if let Some(id) = trial {
            return end_trial(endpoint, id, outcome, now);
        }
        let Some(settings) = self.protection.breaker else {
            calm(endpoint, outcome, Totals::default());
            return None;
        };
        guard
            .window
            .record(outcome == Outcome::Bad, settings.window, now);
        let totals = guard.window.totals(settings.window, now);
        calm(endpoint, outcome, totals);
        if outcome == Outcome::Good || !settings.trips(totals) || !guard.is_closed() {
            return None;
        }
        let mut machine = guard.machine();
        let tripped = machine.trip(&settings, now);
        guard.set_gate(machine.gate());
        drop(machine);
        if !tripped {
            return None; // Another thread was here first.
        }
        guard.opened();
        Some(Switched::Opened(totals))
    }
}

/// After a good call: if nothing is held against the endpoint any more, good calls need not be
/// counted.
fn calm(endpoint: &Endpoint, outcome: Outcome, totals: Totals) {
    let guard = &endpoint.guard;
    let calm = totals.failures == 0 && guard.streak() == 0 && guard.is_closed();
    if outcome == Outcome::Good && calm {
        guard.set_troubled(false);
    }
}

/// Takes back the permit of a trial that told something.
fn end_trial(endpoint: &Endpoint, id: TrialId, outcome: Outcome, now: Moment) -> Option<Switched> {
    let guard = &endpoint.guard;
    let mut machine = guard.machine();
    let state = machine.end(id, Some(outcome), now);
    if state == Some(State::Closed) {
        // What it was opened for would open it again with the next failure.
        guard.window.clear();
        guard.streak.store(0, Relaxed);
        guard.came_back(now);
    }
    guard.set_gate(machine.gate());
    match state? {
        State::Closed => {
            guard.set_troubled(false);
            Some(Switched::Closed)
        }
        State::Open => {
            guard.opened();
            Some(Switched::Reopened)
        }
        State::HalfOpen => None,
    }
}

#[cfg(test)]
mod tests;
