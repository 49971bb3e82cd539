//! How many calls may be tried again: a share of all calls, and a few besides.
//!
//! When servers are in trouble, every call that is tried again makes it worse. So the second attempts
//! of the last ten seconds may be no more than a share of the calls in that time; and a floor lets
//! those few through that a quiet pool needs (as in Finagle and Linkerd).
//!
//! Each thread counts in a place of its own, so counting a call costs nothing that is shared; whoever
//! wants to try again, which is rare, looks at all of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::moment::Moment;

/// How far back calls count, in seconds.
const WINDOW: u64 = 10;
/// Places to count in; threads beyond this many share them.
pub const SHARDS: usize = 16;

/// What may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In per cent of the calls, 0 to 100.
    pub ratio: u8,
    /// Besides, so many per second.
    pub floor: u32,
}

/// The calls of a pool in the last ten seconds.
#[derive(Debug, Default)]
pub struct Budget {
    shards: Box<[Shard; SHARDS]>,
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([Slot; WINDOW as usize]);

/// One second.
#[derive(Debug, Default)]
struct Slot {
    second: AtomicU64,
    calls: AtomicU32,
    retries: AtomicU32,
}

impl Slot {
    /// The slot of this second, emptied if it held another one.
    fn of(&self, second: u64) -> &Self {
        if self.second.load(Relaxed) != second {
            self.calls.store(0, Relaxed);
            self.retries.store(0, Relaxed);
            self.second.store(second, Relaxed);
        }
        self
    }
}

const fn second(now: Moment) -> u64 {
    now.nanos() / 1_000_000_000
}

impl Budget {
    /// Counts a call, in the thread's own place.
    pub fn call(&self, shard: usize, now: Moment) {
        self.slot(shard, now).calls.fetch_add(1, Relaxed);
    }

    /// May a call be tried again? If so, it is counted. Threads that ask at the same moment may each
    /// get the last one there is.
    pub fn retry(&self, shard: usize, allowance: Allowance, now: Moment) -> bool {
        if self.left(allowance, now) == 0 {
            return false;
        }
        self.slot(shard, now).retries.fetch_add(1, Relaxed);
        true
    }

    /// How many calls may be tried again at this moment.
    pub fn left(&self, allowance: Allowance, now: Moment) -> u64 {
        let (calls, retries) = self.totals(now);
        let share = calls * u64::from(allowance.ratio) / 100;
        let floor = WINDOW * u64::from(allowance.floor);
        (share + floor).saturating_sub(retries)
    }

    /// Calls and second attempts in the window.
    fn totals(&self, now: Moment) -> (u64, u64) {
        let now = second(now);
        let slots = self.shards.iter().flat_map(|shard| &shard.0);
        slots
            .filter(|slot| now.saturating_sub(slot.second.load(Relaxed)) < WINDOW)
            .fold((0, 0), |(calls, retries), slot| {
                (
                    calls + u64::from(slot.calls.load(Relaxed)),
                    retries + u64::from(slot.retries.load(Relaxed)),
                )
            })
    }

    fn slot(&self, shard: usize, now: Moment) -> &Slot {
        let second = second(now);
        self.shards[shard % SHARDS].0[(second % WINDOW) as usize].of(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        ratio: 20,
        floor: 1,
    };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000_000_000_000 + millis * 1_000_000)
    }

    fn retries(budget: &Budget, now: Moment) -> usize {
        (0..1000)
            .take_while(|n| budget.retry(n % SHARDS, ALLOWANCE, now))
            .count()
    }

    #[test]
    fn a_quiet_pool_has_its_floor_and_a_busy_one_its_share() {
        let budget = Budget::default();
        assert_eq!(budget.left(ALLOWANCE, at(0)), 10);
        assert_eq!(retries(&budget, at(0)), 10, "one per second of the window");
        assert_eq!(budget.left(ALLOWANCE, at(0)), 0);
        assert_eq!(retries(&budget, at(500)), 0);
        for n in 0..100 {
            budget.call(n, at(600));
        }
        assert_eq!(retries(&budget, at(700)), 20, "a fifth, over all threads");
    }

    #[test]
    fn what_was_ten_seconds_ago_counts_no_more() {
        let budget = Budget::default();
        (0..100).for_each(|n| budget.call(n, at(0)));
        assert_eq!(retries(&budget, at(9_900)), 30);
        assert_eq!(retries(&budget, at(10_000)), 0, "the retries still count");
        assert_eq!(retries(&budget, at(19_900)), 10, "and now they do not");
    }

    #[test]
    fn nothing_is_allowed_beyond_the_allowance_whatever_the_history() {
        let mut rng = fastrand::Rng::with_seed(3);
        let budget = Budget::default();
        let (mut now, mut history) = (0, Vec::<(u64, bool)>::new());
        for _ in 0..20_000 {
            now += rng.u64(0..40);
            let shard = rng.usize(..SHARDS);
            if rng.bool() {
                budget.call(shard, at(now));
                history.push((now, false));
            } else if budget.retry(shard, ALLOWANCE, at(now)) {
                history.push((now, true));
                let from = (now / 1000).saturating_sub(WINDOW - 1) * 1000;
                let recent = history.iter().rev().take_while(|(then, _)| *then >= from);
                let retries = recent.clone().filter(|(_, retry)| *retry).count();
                let calls = recent.filter(|(_, retry)| !*retry).count();
                assert!(retries <= calls / 5 + 10, "{now}");
            }
        }
    }
}
