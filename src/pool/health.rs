//! Active checks: when is an endpoint up, and when to look again.
//!
//! One good or bad answer says little, so a state changes only after `rise` good or `fall` bad ones
//! in a row. That costs time just when time matters, so checks come faster while a change is under
//! way or the request path has seen something, and may come at another pace while an endpoint is down.
//! This is what HAProxy does with `fastinter` and `downinter`.
//!
//! A new endpoint is neither up nor down. It becomes up with its first good check, since nothing
//! speaks against it, and until then gets traffic only if there is nobody else.
//!
//! This module sends nothing and has no clock: whoever runs the checks records their outcomes and
//! asks how long to wait.

use std::num::NonZeroU32;
use std::time::Duration;

/// Fast checks come no faster than this, unless the interval itself is shorter.
pub const FAST_MIN: Duration = Duration::from_millis(100);
/// How much of the interval passes between fast checks.
const FAST_SHARE: u32 = 4;
/// The part of an interval by which a check comes earlier or later, so that many balancers that
/// were started together do not check together.
const JITTER: f64 = 0.1;

/// Pauses between two checks of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// While all is as it was.
    pub usual: Duration,
    /// While something is about to change.
    pub fast: Duration,
    /// While the endpoint is down.
    pub down: Duration,
}

impl Intervals {
    /// Fast is a quarter of the usual one, at least [`FAST_MIN`] unless that is shorter; down is as usual.
    pub fn of(usual: Duration) -> Self {
        Self {
            usual,
            fast: (usual / FAST_SHARE).max(FAST_MIN.min(usual)),
            down: usual,
        }
    }
}

/// What the checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// Checks have not decided yet.
    Unchecked,
    /// Takes calls.
    Up,
    /// Takes none.
    Down,
}

impl HealthState {
    /// The state in the operator's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    pub(super) const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Up,
            2 => Self::Down,
            _ => Self::Unchecked,
        }
    }
}

/// A change of state, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: HealthState,
    /// The state now.
    pub to: HealthState,
}

/// Rise and fall counts of one endpoint.
#[derive(Debug, Clone)]
pub struct Health {
    rise: NonZeroU32,
    fall: NonZeroU32,
    state: HealthState,
    /// Latest checks in a row that speak against `state`. Less than the count that would end it.
    against: u32,
    /// Has the request path seen a failure that no good check has answered yet?
    suspected: bool,
}

impl Health {
    /// Starts in `initial`, with nothing recorded. A `rise` or `fall` of 0 is taken for 1.
    pub fn new(rise: u32, fall: u32, initial: HealthState) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            rise: at_least_one(rise),
            fall: at_least_one(fall),
            state: initial,
            against: 0,
            suspected: false,
        }
    }

    /// What the checks say so far.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Records the outcome of one check. Returns the change of state, if this made one.
    pub fn record(&mut self, ok: bool) -> Option<Transition> {
        if ok {
            self.suspected = false;
        }
        let (against_state, needed, next) = match self.state {
            HealthState::Unchecked if ok => (true, 1, HealthState::Up),
            HealthState::Unchecked | HealthState::Up => (!ok, self.fall.get(), HealthState::Down),
            HealthState::Down => (ok, self.rise.get(), HealthState::Up),
        };
        self.against = if against_state { self.against + 1 } else { 0 };
        let transition = (self.against >= needed).then(|| self.enter(next));
        self.check_invariants();
        transition
    }

    /// Notes that the request path saw the endpoint refuse a connection: no verdict, but a reason
    /// to look soon. Holds until a good check or until the endpoint is down.
    pub fn suspect(&mut self) {
        self.suspected = self.state != HealthState::Down;
        self.check_invariants();
    }

    /// How long to wait for the next check. `jitter_unit` is a random number from 0 to 1.
    ///
    /// The fast interval while the state is undecided, about to change or doubted, that of an endpoint
    /// that is down while it is, otherwise the usual one. Give or take 10 %.
    pub fn next_check_in(&self, intervals: &Intervals, jitter_unit: f64) -> Duration {
        let base = match self.state {
            _ if self.is_unsettled() => intervals.fast,
            HealthState::Down => intervals.down,
            HealthState::Up | HealthState::Unchecked => intervals.usual,
        };
        let floor = FAST_MIN.min(base);
        let unit = if jitter_unit.is_nan() {
            0.0
        } else {
            jitter_unit.clamp(0.0, 1.0)
        };
        base.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit).max(floor)
    }

    /// Asserts what holds between calls. Costs nothing in release builds.
    pub fn check_invariants(&self) {
        let bound = match self.state {
            HealthState::Up | HealthState::Unchecked => self.fall.get(),
            HealthState::Down => self.rise.get(),
        };
        debug_assert!(
            self.against < bound,
            "a full count must have changed the state: {self:?}"
        );
        debug_assert!(
            !(self.suspected && self.state == HealthState::Down),
            "there is nothing to suspect of an endpoint that is down: {self:?}"
        );
    }

    fn enter(&mut self, next: HealthState) -> Transition {
        let from = std::mem::replace(&mut self.state, next);
        self.against = 0;
        self.suspected = false;
        Transition { from, to: next }
    }

    fn is_unsettled(&self) -> bool {
        self.suspected || self.against > 0 || self.state == HealthState::Unchecked
    }
}

#[cfg(test)]
mod tests {
    use super::HealthState::{Down, Unchecked, Up};
    use super::*;

    fn record_all(health: &mut Health, outcomes: &[bool]) -> Vec<Option<HealthState>> {
        outcomes
            .iter()
            .map(|ok| health.record(*ok).map(|t| t.to))
            .collect()
    }

    #[test]
    fn a_new_endpoint_is_up_with_its_first_good_check() {
        let mut health = Health::new(3, 2, Unchecked);
        let transition = health.record(true);
        assert_eq!(
            transition,
            Some(Transition {
                from: Unchecked,
                to: Up
            })
        );
    }

    #[test]
    fn a_new_endpoint_is_down_after_fall_bad_checks() {
        let mut health = Health::new(2, 3, Unchecked);
        assert_eq!(
            record_all(&mut health, &[false; 3]),
            [None, None, Some(Down)]
        );
    }

    #[test]
    fn only_checks_in_a_row_count() {
        let mut health = Health::new(2, 3, Up);
        let outcomes = [false, false, true, false, false, true, false, false, false];
        let changes = record_all(&mut health, &outcomes);
        assert_eq!(changes.iter().position(|c| *c == Some(Down)), Some(8));
        assert_eq!(
            record_all(&mut health, &[true, false, true, true]),
            [None, None, None, Some(Up)]
        );
    }

    #[test]
    fn a_count_of_zero_is_a_count_of_one() {
        let mut health = Health::new(0, 0, Up);
        assert_eq!(
            record_all(&mut health, &[false, true]),
            [Some(Down), Some(Up)]
        );
    }

    #[test]
    fn checks_are_fast_only_while_something_is_open() {
        let interval = Duration::from_secs(2);
        let (slow, fast) = (interval, interval / 4);
        let wait = |health: &Health| health.next_check_in(&Intervals::of(interval), 0.5);

        let mut health = Health::new(2, 2, Unchecked);
        assert_eq!(wait(&health), fast, "undecided");
        health.record(true);
        assert_eq!(wait(&health), slow, "up");
        health.suspect();
        assert_eq!(wait(&health), fast, "suspected");
        health.record(true);
        assert_eq!(wait(&health), slow, "cleared");
        health.record(false);
        assert_eq!(wait(&health), fast, "falling");
        health.record(false);
        assert_eq!(wait(&health), slow, "down");
        health.suspect();
        assert_eq!(wait(&health), slow, "down and known to be");
        health.record(true);
        assert_eq!(wait(&health), fast, "rising");
    }

    #[test]
    fn jitter_stays_within_a_tenth_and_fast_checks_have_a_floor() {
        let health = Health::new(1, 1, Up);
        let of = |millis| Intervals::of(Duration::from_millis(millis));
        let wait = |millis, unit| health.next_check_in(&of(millis), unit);
        assert_eq!(wait(1000, 0.0), Duration::from_millis(900));
        assert_eq!(wait(1000, 1.0), Duration::from_millis(1100));
        assert_eq!(wait(1000, -7.0), Duration::from_millis(900));
        assert_eq!(wait(1000, f64::NAN), Duration::from_millis(900));

        let open = Health::new(1, 1, Unchecked);
        let wait = |millis| open.next_check_in(&of(millis), 0.0);
        assert_eq!(
            wait(200),
            FAST_MIN,
            "a quarter would be less than the floor"
        );
        assert_eq!(
            wait(40),
            Duration::from_millis(40),
            "an interval shorter than the floor"
        );
    }

    #[test]
    fn each_state_has_an_interval_of_its_own() {
        let seconds = Duration::from_secs;
        let intervals = Intervals {
            usual: seconds(5),
            fast: seconds(1),
            down: seconds(30),
        };
        let mut health = Health::new(2, 1, Unchecked);
        let mut waits = vec![health.next_check_in(&intervals, 0.5)];
        for ok in [true, false, true, true] {
            health.record(ok);
            waits.push(health.next_check_in(&intervals, 0.5));
        }
        // Unchecked, up, down, rising, up.
        assert_eq!(waits, [1, 5, 30, 1, 5].map(seconds));
    }
}
