//! The circuit breaker of one endpoint: when too many of its calls fail, none is sent for a while.
//!
//! Ejection keeps new work away from a bad endpoint; the breaker also keeps away the calls of its
//! own sessions, which can go nowhere else. They are answered at once instead of waiting for a
//! server that fails anyway, and the server gets the time to recover that their load denies it.
//!
//! Closed, everything passes. Open, nothing does. After its time a few trials are let through,
//! which is half-open: so many good ones close it, one bad one opens it again.
//!
//! This is the machine alone: whoever counts calls says when there were too many failures, and
//! publishes what [`Breaker::gate`] says for those who only need to know whether to ask.

use std::num::NonZeroU64;
use std::time::Duration;

use super::moment::Moment;
use super::window::Totals;

/// When a breaker opens, for how long, and what closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Percent of the calls in the window that must have failed, 1 to 100.
    pub failure_ratio: u8,
    /// Calls in the window below which nothing is concluded.
    pub min_calls: u32,
    /// How far back calls count.
    pub window: Duration,
    /// How long it stays open before trials.
    pub open_time: Duration,
    /// Trials at once, and good ones that close it; at least 1.
    pub trials: u32,
}

impl Settings {
    /// Do these calls open the breaker?
    pub fn trips(&self, totals: Totals) -> bool {
        let Totals { calls, failures } = totals;
        let enough = calls >= u64::from(self.min_calls) && failures > 0;
        enough && failures * 100 >= calls * u64::from(self.failure_ratio)
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets all through.
    Closed,
    /// Lets a few through, to see.
    HalfOpen,
    /// Lets none through.
    Open,
}

impl State {
    /// The state in the field's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// What came of a call, as far as it says something about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server did its work, whatever the answer.
    Good,
    /// The server failed.
    Bad,
}

/// One trial. No two of a breaker are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrialId(NonZeroU64);

impl TrialId {
    const FIRST: Self = Self(NonZeroU64::MIN);

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Whether a call may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Yes.
    Pass,
    /// As a trial, whose end must be told with [`Breaker::end`].
    Trial(TrialId),
    /// No, and not before this moment unless a trial ends.
    Refuse(Moment),
}

/// The machine. Settings come in with every call that may let something through or open it, because
/// a reload may change them.
#[derive(Debug)]
pub struct Breaker {
    inner: Inner,
    /// The latest there were.
    settings: Settings,
    next: TrialId,
    /// The trials that hold a permit and when they began, oldest first; at most as many as the
    /// settings allowed when the last of them was let through.
    held: Vec<(TrialId, Moment)>,
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    Closed,
    Open {
        until: Moment,
    },
    HalfOpen {
        /// Trials before this one belong to an earlier time and prove nothing.
        first: TrialId,
        good: u32,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            inner: Inner::Closed,
            settings: Settings::default(),
            next: TrialId::FIRST,
            held: Vec::new(),
        }
    }
}

impl Breaker {
    /// May a call pass now? A trial that takes longer than `open_time` loses its permit to the next
    /// one, for else a few calls that hang would keep the breaker half-open; what comes of it still
    /// counts.
    pub fn admit(&mut self, settings: &Settings, now: Moment) -> Admit {
        self.settings = *settings;
        match self.inner {
            Inner::Closed => return Admit::Pass,
            Inner::Open { until } if until > now => return Admit::Refuse(until),
            Inner::Open { .. } => {
                self.held.clear();
                self.inner = Inner::HalfOpen {
                    first: self.next,
                    good: 0,
                };
            }
            Inner::HalfOpen { .. } => {
                let lapsed = |began: Moment| began.after(settings.open_time) <= now;
                self.held.retain(|(_, began)| !lapsed(*began));
            }
        }
        if let Some(lapse) = self.full() {
            return Admit::Refuse(lapse);
        }
        let id = self.next;
        self.next = id.next();
        self.held.push((id, now));
        self.check_invariants();
        Admit::Trial(id)
    }

    /// Opens it, if it is closed. True if that is what happened.
    pub fn trip(&mut self, settings: &Settings, now: Moment) -> bool {
        let closed = matches!(self.inner, Inner::Closed);
        if closed {
            self.settings = *settings;
            self.open(now);
        }
        closed
    }

    /// Lets trials through from now on, if it is open: there is news of the server that is later than
    /// its failures.
    pub fn invite(&mut self, now: Moment) {
        if let Inner::Open { until } = &mut self.inner {
            *until = now.min(*until);
        }
    }

    /// Takes back the permit of a trial and says what came of it; nothing if it told nothing about
    /// the server. The new state, if this changed it.
    pub fn end(&mut self, id: TrialId, outcome: Option<Outcome>, now: Moment) -> Option<State> {
        self.held.retain(|(held, _)| *held != id);
        let Inner::HalfOpen { first, good } = &mut self.inner else {
            return None;
        };
        if id < *first {
            return None;
        }
        match outcome? {
            Outcome::Bad => {
                self.open(now);
                Some(State::Open)
            }
            Outcome::Good => {
                *good += 1;
                let closes = *good >= self.settings.trials.max(1);
                if closes {
                    *self = Self {
                        next: self.next,
                        ..Self::default()
                    };
                }
                self.check_invariants();
                closes.then_some(State::Closed)
            }
        }
    }

    /// What it does with calls at this moment. Open, it is half-open as soon as it would let a trial
    /// through.
    pub fn state(&self, now: Moment) -> State {
        match self.inner {
            Inner::Closed => State::Closed,
            Inner::Open { until } if until > now => State::Open,
            Inner::Open { .. } | Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// The moment before which [`Self::admit`] refuses if nothing changes; `None` if it is closed.
    pub fn gate(&self) -> Option<Moment> {
        match self.inner {
            Inner::Closed => None,
            Inner::Open { until } => Some(until),
            Inner::HalfOpen { .. } => Some(self.full().unwrap_or_default()),
        }
    }

    /// Trials that hold a permit.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Asserts what holds between calls. Costs nothing in release builds.
    pub fn check_invariants(&self) {
        debug_assert!(
            self.held.is_sorted() && self.held.iter().all(|(id, _)| *id < self.next),
            "permits are given out in order: {self:?}"
        );
        if let Inner::HalfOpen { good, .. } = self.inner {
            debug_assert!(
                good < self.settings.trials.max(1),
                "enough good ones must have closed it: {self:?}"
            );
        } else {
            debug_assert!(
                self.held.is_empty(),
                "only half-open are there trials: {self:?}"
            );
        }
    }

    fn open(&mut self, now: Moment) {
        self.held.clear();
        self.inner = Inner::Open {
            until: now.after(self.settings.open_time),
        };
        self.check_invariants();
    }

    /// When the oldest permit lapses, if none is left.
    fn full(&self) -> Option<Moment> {
        let is_full = self.held.len() >= self.settings.trials.max(1) as usize;
        let (_, began) = self.held.first().filter(|_| is_full)?;
        Some(began.after(self.settings.open_time))
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Bad, Good};
    use super::*;

    const SETTINGS: Settings = Settings {
        failure_ratio: 50,
        min_calls: 20,
        window: Duration::from_secs(10),
        open_time: Duration::from_secs(5),
        trials: 3,
    };

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    fn trial(breaker: &mut Breaker, now: u64) -> TrialId {
        match breaker.admit(&SETTINGS, at(now)) {
            Admit::Trial(id) => id,
            other => panic!("not a trial: {other:?}"),
        }
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        assert!(breaker.trip(&SETTINGS, at(10)));
        breaker
    }

    #[test]
    fn news_of_the_server_brings_its_trials_forward_and_nothing_else() {
        let mut breaker = open();
        breaker.invite(at(12));
        assert_eq!(breaker.state(at(12)), State::HalfOpen);
        let first = trial(&mut breaker, 12);
        breaker.invite(at(13));
        assert_eq!(breaker.held(), 1, "a trial goes on");
        assert_eq!(breaker.end(first, Some(Bad), at(13)), Some(State::Open));
        breaker.invite(at(30));
        assert_eq!(breaker.gate(), Some(at(18)), "never later than it was");
        let mut closed = Breaker::default();
        closed.invite(at(1));
        assert_eq!(closed.state(at(1)), State::Closed);
    }

    #[test]
    fn the_ratio_counts_only_with_enough_calls() {
        let trips = |calls, failures| SETTINGS.trips(Totals { calls, failures });
        assert!(!trips(19, 19));
        assert!(trips(20, 20) && trips(20, 10));
        assert!(!trips(20, 9) && !trips(21, 10));
        let eager = Settings {
            min_calls: 1,
            failure_ratio: 1,
            ..SETTINGS
        };
        assert!(!eager.trips(Totals::default()));
    }

    #[test]
    fn open_it_refuses_until_its_time_is_over() {
        let mut breaker = open();
        assert_eq!(breaker.gate(), Some(at(15)));
        for now in [10, 14] {
            assert_eq!(breaker.state(at(now)), State::Open);
            assert_eq!(breaker.admit(&SETTINGS, at(now)), Admit::Refuse(at(15)));
        }
        assert_eq!(breaker.state(at(15)), State::HalfOpen);
        trial(&mut breaker, 15);
        assert!(!breaker.trip(&SETTINGS, at(15)), "only a closed one trips");
    }

    #[test]
    fn half_open_it_lets_so_many_through_and_closes_after_as_many_good_ones() {
        let mut breaker = open();
        let ids: Vec<_> = (0..3).map(|_| trial(&mut breaker, 15)).collect();
        assert_eq!(breaker.admit(&SETTINGS, at(16)), Admit::Refuse(at(20)));
        assert_eq!(breaker.gate(), Some(at(20)));
        assert_eq!(breaker.end(ids[0], Some(Good), at(16)), None);
        assert_eq!(breaker.end(ids[1], None, at(16)), None);
        assert_eq!(breaker.gate(), Some(Moment::default()), "there is room");
        assert_eq!(breaker.end(ids[2], Some(Good), at(16)), None);
        let last = trial(&mut breaker, 17);
        let closed = breaker.end(last, Some(Good), at(17));
        assert_eq!(closed, Some(State::Closed));
        assert_eq!(breaker.gate(), None);
        assert_eq!(breaker.admit(&SETTINGS, at(17)), Admit::Pass);
    }

    #[test]
    fn one_bad_trial_opens_it_again_and_the_others_prove_nothing_later() {
        let mut breaker = open();
        let old: Vec<_> = (0..3).map(|_| trial(&mut breaker, 15)).collect();
        assert_eq!(breaker.end(old[0], Some(Bad), at(16)), Some(State::Open));
        assert_eq!(breaker.gate(), Some(at(21)));
        assert_eq!(breaker.end(old[1], Some(Good), at(17)), None);
        trial(&mut breaker, 21);
        assert_eq!(
            breaker.end(old[2], Some(Bad), at(22)),
            None,
            "of another time"
        );
        assert_eq!(breaker.state(at(22)), State::HalfOpen);
        assert_eq!(breaker.held(), 1);
    }

    #[test]
    fn trials_that_hang_do_not_keep_it_half_open() {
        let mut breaker = open();
        let slow: Vec<_> = (0..3).map(|_| trial(&mut breaker, 15)).collect();
        let next = trial(&mut breaker, 20);
        assert_eq!(breaker.held(), 1, "their permits have lapsed");
        assert_eq!(breaker.end(slow[0], Some(Good), at(21)), None);
        assert_eq!(breaker.end(next, Some(Good), at(21)), None);
        let closed = breaker.end(slow[1], Some(Good), at(22));
        assert_eq!(closed, Some(State::Closed), "what comes of them counts");
    }
}
