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
//! A server that answers that it is not well lives, and does not want more: it gets nothing new and
//! keeps the sessions that it has, as one that is drained. Only one that does not answer is down, since
//! that loses its sessions.
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
    /// While the endpoint is down or unwell.
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
    /// Takes those of the sessions that it has.
    Unwell,
}

/// What one check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Well,
    /// It answers, and not as it should.
    Unwell,
    /// It does not answer, or serves nobody.
    Gone,
}

impl HealthState {
    /// The state in the operator's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unwell => "unwell",
        }
    }

    pub(super) const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Up,
            2 => Self::Down,
            3 => Self::Unwell,
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
    /// Latest checks in a row that found it gone, also before it was unwell; at most `fall`.
    gone: u32,
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
            gone: 0,
            suspected: false,
        }
    }

    /// What the checks say so far.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Records what one check has found. Returns the change of state, if this made one.
    ///
    /// After `fall` bad checks in a row it is down if all of them found it gone, and otherwise unwell;
    /// it is then down once `fall` in a row find it gone.
    pub fn record(&mut self, finding: Finding) -> Option<Transition> {
        let ok = finding == Finding::Well;
        if ok {
            self.suspected = false;
        }
        self.gone = match finding {
            Finding::Gone => (self.gone + 1).min(self.fall.get()),
            Finding::Well | Finding::Unwell => 0,
        };
        let worse = match self.gone >= self.fall.get() {
            true => HealthState::Down,
            false => HealthState::Unwell,
        };
        let (against_state, needed, next) = match self.state {
            HealthState::Unchecked if ok => (true, 1, HealthState::Up),
            HealthState::Unchecked | HealthState::Up => (!ok, self.fall.get(), worse),
            HealthState::Unwell if worse == HealthState::Down => (true, 1, worse),
            HealthState::Down | HealthState::Unwell => (ok, self.rise.get(), HealthState::Up),
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
    /// that is down while it is, or unwell, otherwise the usual one. Give or take 10 %.
    pub fn next_check_in(&self, intervals: &Intervals, jitter_unit: f64) -> Duration {
        let base = match self.state {
            _ if self.is_unsettled() => intervals.fast,
            HealthState::Down | HealthState::Unwell => intervals.down,
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
            HealthState::Down | HealthState::Unwell => self.rise.get(),
        };
        debug_assert!(
            self.against < bound,
            "a full count must have changed the state: {self:?}"
        );
        debug_assert!(
            self.gone < self.fall.get() || self.state == HealthState::Down,
            "one that is gone is down: {self:?}"
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
        let is_going = self.gone > 0 && self.state != HealthState::Down;
        self.suspected || self.against > 0 || is_going || self.state == HealthState::Unchecked
    }
}

#[cfg(test)]
mod tests {
    use super::Finding::{Gone, Well};
    use super::HealthState::{Down, Unchecked, Unwell, Up};
    use super::*;

    fn record_all(health: &mut Health, findings: &[Finding]) -> Vec<Option<HealthState>> {
        findings
            .iter()
            .map(|finding| health.record(*finding).map(|t| t.to))
            .collect()
    }

    #[test]
    fn a_new_endpoint_is_up_with_its_first_good_check() {
        let mut health = Health::new(3, 2, Unchecked);
        let transition = health.record(Well);
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
            record_all(&mut health, &[Gone; 3]),
            [None, None, Some(Down)]
        );
    }

    #[test]
    fn only_checks_in_a_row_count() {
        let mut health = Health::new(2, 3, Up);
        let findings = [Gone, Gone, Well, Gone, Gone, Well, Gone, Gone, Gone];
        let changes = record_all(&mut health, &findings);
        assert_eq!(changes.iter().position(|c| *c == Some(Down)), Some(8));
        assert_eq!(
            record_all(&mut health, &[Well, Gone, Well, Well]),
            [None, None, None, Some(Up)]
        );
    }

    #[test]
    fn a_count_of_zero_is_a_count_of_one() {
        let mut health = Health::new(0, 0, Up);
        assert_eq!(
            record_all(&mut health, &[Gone, Well]),
            [Some(Down), Some(Up)]
        );
    }

    #[test]
    fn one_that_answers_is_unwell_and_down_only_once_it_is_gone() {
        let bad = Finding::Unwell;
        let cases: [(&[Finding], &[HealthState]); 8] = [
            (&[bad, bad, bad], &[Unwell]),
            (&[Gone, Gone, Gone], &[Down]),
            (&[Gone, Gone, bad], &[Unwell]),
            (&[bad, Gone, Gone, Gone], &[Unwell, Down]),
            (&[bad, bad, bad, Gone, Gone, bad, Gone, Gone], &[Unwell]),
            (&[bad, bad, bad, Gone, Gone, Gone, bad], &[Unwell, Down]),
            (&[bad, bad, bad, Well, Gone, Well, Well], &[Unwell, Up]),
            (&[Gone, Gone, Gone, bad, Well, bad, Well, Well], &[Down, Up]),
        ];
        for initial in [Up, Unchecked] {
            for (findings, changes) in cases {
                let mut health = Health::new(2, 3, initial);
                let made = record_all(&mut health, findings);
                let made: Vec<_> = made.into_iter().flatten().collect();
                assert_eq!(made, changes, "{findings:?}");
            }
        }
    }

    #[test]
    fn checks_are_fast_only_while_something_is_open() {
        let interval = Duration::from_secs(2);
        let (slow, fast) = (interval, interval / 4);
        let wait = |health: &Health| health.next_check_in(&Intervals::of(interval), 0.5);

        let mut health = Health::new(2, 2, Unchecked);
        assert_eq!(wait(&health), fast, "undecided");
        health.record(Well);
        assert_eq!(wait(&health), slow, "up");
        health.suspect();
        assert_eq!(wait(&health), fast, "suspected");
        health.record(Well);
        assert_eq!(wait(&health), slow, "cleared");
        health.record(Gone);
        assert_eq!(wait(&health), fast, "falling");
        health.record(Gone);
        assert_eq!(wait(&health), slow, "down");
        health.suspect();
        assert_eq!(wait(&health), slow, "down and known to be");
        health.record(Well);
        assert_eq!(wait(&health), fast, "rising");

        let mut health = Health::new(2, 2, Up);
        health.record(Finding::Unwell);
        health.record(Finding::Unwell);
        assert_eq!(wait(&health), slow, "unwell");
        health.record(Gone);
        assert_eq!(wait(&health), fast, "perhaps gone");
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
        for finding in [Well, Gone, Well, Well] {
            health.record(finding);
            waits.push(health.next_check_in(&intervals, 0.5));
        }
        // Unchecked, up, down, rising, up.
        assert_eq!(waits, [1, 5, 30, 1, 5].map(seconds));
    }
}
