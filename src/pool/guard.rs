//! What the calls to one endpoint have shown of it, for all threads.
//!
//! As long as all goes well, a call that ends well reads one flag here and writes nothing. The
//! breaker's machine stands behind a lock that is taken only when the breaker is not closed and a
//! call may pass as a trial; everybody else reads a word that says from when on it is worth asking.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::breaker::{Breaker, State, TrialId};
use super::ejection::Past;
use super::latency::Latency;
use super::moment::Moment;
use super::ramp;
use super::window::Window;

/// The record of one endpoint. Outlives a reload with its endpoint.
#[derive(Debug, Default)]
pub struct Guard {
    /// Some failure is not forgotten yet, or the breaker is not closed. A hint: where two threads
    /// disagree, the next failure sets it again.
    troubled: AtomicBool,
    /// Failures in a row.
    pub(super) streak: AtomicU32,
    /// A [`Past`] in two words. It begins under the pool's lock, and may be cut short without.
    ejected_until: AtomicU64,
    ejected_times: AtomicU32,
    /// There was an ejection whose end nobody was told of yet.
    ejections_untold: AtomicBool,
    ejections: AtomicU64,
    pub(super) window: Window,
    /// A moment before which the breaker lets nothing through; 0 if it is closed.
    gate: AtomicU64,
    breaker: Mutex<Breaker>,
    openings: AtomicU64,
    /// When it came back; 0 if it never was away.
    back_at: AtomicU64,
    /// Until when it may be ejected, behind a breaker, or rising to its share, so that one look is
    /// enough for an endpoint of which nothing is the matter. Only ever moves on.
    unsettled_until: AtomicU64,
    /// How slow it has been.
    pub latency: Latency,
}

impl Guard {
    /// Is it ejected at this moment?
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.ejected_until.load(Relaxed) > now.nanos()
    }

    /// How often it was ejected since it is known.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// True once after an ejection has ended.
    pub fn take_return(&self, now: Moment) -> bool {
        self.ejections_untold.load(Relaxed)
            && !self.is_ejected(now)
            && self.ejections_untold.swap(false, Relaxed)
    }

    /// What the breaker does with calls at this moment.
    pub fn breaker(&self, now: Moment) -> State {
        if self.is_closed() {
            return State::Closed;
        }
        self.machine().state(now)
    }

    /// How often the breaker has opened since it is known.
    pub fn openings(&self) -> u64 {
        self.openings.load(Relaxed)
    }

    /// Failures in a row, as far as is known.
    pub fn streak(&self) -> u32 {
        self.streak.load(Relaxed)
    }

    /// It is back from having been away: its weight counts for less for a while.
    pub fn came_back(&self, now: Moment) {
        self.back_at.store(now.nanos().max(1), Relaxed);
        self.unsettle(now);
    }

    /// Has it looked at more closely for as long as a slow start may last from `from` on.
    fn unsettle(&self, from: Moment) {
        let until = from.after(ramp::LENGTH_MAX);
        self.unsettled_until.fetch_max(until.nanos(), Relaxed);
    }

    /// May it be ejected, behind a breaker or rising at this moment?
    pub(super) fn is_unsettled(&self, now: Moment) -> bool {
        self.unsettled_until.load(Relaxed) > now.nanos()
    }

    /// It is up again after it was down: what calls have shown before is of another life. How often it
    /// was ejected is not forgotten, and a breaker that is open has its trials first.
    pub fn recovered(&self, now: Moment) {
        self.streak.store(0, Relaxed);
        self.latency.forget();
        // Never later than it was; one that is over stays as long ago as it is.
        self.ejected_until.fetch_min(now.nanos(), Relaxed);
        self.reached(now);
        self.came_back(now);
    }

    /// A check has reached it that calls could not reach: a breaker that is open for that lets its
    /// trials through now and need not wait.
    pub fn reached(&self, now: Moment) {
        if !self.is_closed() {
            let mut machine = self.machine();
            machine.invite(now);
            self.set_gate(machine.gate());
        }
    }

    /// The share of its weight that counts, in thousandths.
    pub(super) fn share(&self, slow_start: Duration, now: Moment) -> u32 {
        match self.back_at.load(Relaxed) {
            0 => ramp::FULL,
            from => ramp::share(Moment::from_nanos(from), slow_start, now),
        }
    }

    /// Is the breaker closed, as far as is known?
    pub(super) fn is_closed(&self) -> bool {
        self.gate.load(Relaxed) == 0
    }

    /// Would the breaker let nothing through at this moment?
    pub(super) fn refuses(&self, now: Moment) -> bool {
        self.gate.load(Relaxed) > now.nanos()
    }

    /// How long it is until the breaker may let something through.
    pub(super) fn refuses_for(&self, now: Moment) -> Duration {
        Moment::from_nanos(self.gate.load(Relaxed)).since(now)
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Relaxed)
    }

    pub(super) fn set_troubled(&self, troubled: bool) {
        self.troubled.store(troubled, Relaxed);
    }

    pub(super) fn past(&self) -> Past {
        Past {
            times: self.ejected_times.load(Relaxed),
            until: Moment::from_nanos(self.ejected_until.load(Relaxed)),
        }
    }

    /// Publishes an ejection. The pool's lock is held.
    pub(super) fn set_past(&self, past: Past) {
        self.ejected_times.store(past.times, Relaxed);
        self.ejected_until.store(past.until.nanos(), Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        self.ejections_untold.store(true, Relaxed);
        self.streak.store(0, Relaxed);
        self.came_back(past.until);
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what the machine says, while it is locked.
    pub(super) fn set_gate(&self, gate: Option<Moment>) {
        let nanos = gate.map_or(0, |gate| gate.nanos().max(1));
        self.gate.store(nanos, Relaxed);
        if let Some(gate) = gate {
            self.unsettle(gate);
        }
    }

    /// Takes back the permit of a trial that told nothing.
    pub(super) fn give_back(&self, id: TrialId) {
        let mut machine = self.machine();
        machine.end(id, None, Moment::default());
        self.set_gate(machine.gate());
    }

    pub(super) fn opened(&self) {
        self.openings.fetch_add(1, Relaxed);
    }
}
