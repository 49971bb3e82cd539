//! How long an endpoint takes to be connected to and to begin its answers: counts per range of time.
//!
//! A call writes two numbers, in a place that is its thread's own, so that threads which serve the same
//! endpoint do not wait for one another's cache lines. Whoever wants to see them, which is rare, adds all
//! places up. Connections are made seldom beside that, and have one place for all threads.
//!
//! What the last minute was like is told from the same counts: a few times a minute somebody has what
//! they are now remembered ([`Timings::turn`]), and what was remembered a minute ago is taken off.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::moment::Moment;

/// Upper bounds of the ranges, in seconds; what takes longer than the last is in a range without bound.
/// From a tenth of a millisecond, which a neighbour takes, to the minute of a slow tool.
pub const BOUNDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// Ranges, with the one without bound.
pub const RANGES: usize = BOUNDS.len() + 1;
/// Places to count in; threads beyond this many share them.
pub const SHARDS: usize = 16;
/// How often the counts are remembered.
const TURN: Duration = Duration::from_secs(10);
/// How many are: the oldest is between 50 seconds and a minute old.
const TURNS: usize = 6;

const NANOS: [u64; BOUNDS.len()] = {
    let mut nanos = [0; BOUNDS.len()];
    let mut at = 0;
    while at < nanos.len() {
        nanos[at] = (BOUNDS[at] * 1e9 + 0.5) as u64;
        at += 1;
    }
    nanos
};

/// What was counted up to some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many there are of each range, in the order of [`BOUNDS`].
    pub ranges: [u64; RANGES],
    /// All times together, in nanoseconds.
    pub nanos: u64,
}

impl Counts {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.ranges.iter().sum()
    }

    /// The time in seconds that a share of them, 0 to 1, did not exceed: as good as the ranges are, within
    /// which they are taken to lie evenly. The last bound for what lies beyond it; `None` if there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = share * total as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (count, to) in self.ranges.iter().zip(BOUNDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(from + (to - from) * (rank - below).max(0.0) / count);
            }
            (below, from) = (below + count, to);
        }
        Some(from)
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.ranges.iter_mut().zip(earlier.ranges) {
            *count = count.saturating_sub(before);
        }
        since.nanos = since.nanos.saturating_sub(earlier.nanos);
        since
    }
}

/// Counts that any thread may add to.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    ranges: [AtomicU64; RANGES],
    nanos: AtomicU64,
}

impl Shard {
    fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let range = NANOS.partition_point(|bound| *bound < nanos);
        self.ranges[range].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    fn add_to(&self, counts: &mut Counts) {
        for (count, own) in counts.ranges.iter_mut().zip(&self.ranges) {
            *count += own.load(Relaxed);
        }
        counts.nanos = counts.nanos.wrapping_add(self.nanos.load(Relaxed));
    }
}

/// What was remembered of the last minute.
#[derive(Debug, Default)]
struct Recent {
    /// The counts, of which `next` is the oldest. Zeros are those of before the first call.
    turns: [Counts; TURNS],
    next: usize,
    turned: Moment,
}

/// The times of one endpoint. About 5 KiB.
#[derive(Debug, Default)]
pub struct Timings {
    connect: Shard,
    first_byte: Box<[Shard; SHARDS]>,
    /// Taken a few times a minute, and by operators that look.
    recent: Mutex<Recent>,
}

impl Timings {
    /// Takes in how long it took to make a connection.
    pub fn connected(&self, took: Duration) {
        self.connect.observe(took);
    }

    /// Takes in how long it took from a request that was sent to the first byte of its answer, in the
    /// thread's own place.
    pub fn answered(&self, shard: usize, took: Duration) {
        self.first_byte[shard % SHARDS].observe(took);
    }

    /// Times to connections, since the endpoint is known.
    pub fn connects(&self) -> Counts {
        let mut counts = Counts::default();
        self.connect.add_to(&mut counts);
        counts
    }

    /// Times to first bytes, since the endpoint is known.
    pub fn first_bytes(&self) -> Counts {
        let mut counts = Counts::default();
        for shard in self.first_byte.iter() {
            shard.add_to(&mut counts);
        }
        counts
    }

    /// Remembers the counts, if it is time to. To be called about once a second.
    pub fn turn(&self, now: Moment) {
        let mut recent = self.recent();
        if now.since(recent.turned) < TURN {
            return;
        }
        let at = recent.next;
        recent.turns[at] = self.first_bytes();
        recent.next = (at + 1) % TURNS;
        recent.turned = now;
    }

    /// Times to first bytes, of about the last minute.
    pub fn lately(&self) -> Counts {
        let recent = self.recent();
        self.first_bytes().since(&recent.turns[recent.next])
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(1_000_000_000_000).after(Duration::from_secs(seconds))
    }

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_time_is_in_the_range_that_it_does_not_exceed() {
        for (at, bound) in BOUNDS.into_iter().enumerate() {
            let exactly = Duration::from_secs_f64(bound);
            let timings = Timings::default();
            timings.connected(exactly);
            timings.connected(exactly + Duration::from_nanos(1));
            let counts = timings.connects();
            assert_eq!(counts.ranges[at], 1, "{bound}");
            assert_eq!(counts.ranges[at + 1], 1, "{bound}");
            assert_eq!(u128::from(counts.nanos), 2 * exactly.as_nanos() + 1);
        }
        let timings = Timings::default();
        timings.connected(Duration::MAX);
        assert_eq!(timings.connects().ranges[RANGES - 1], 1);
    }

    #[test]
    fn threads_count_apart_and_are_added_up() {
        let timings = Timings::default();
        for shard in 0..3 * SHARDS {
            timings.answered(shard, micros(200));
        }
        let counts = timings.first_bytes();
        assert_eq!(counts.ranges[1], 3 * SHARDS as u64);
        assert_eq!(counts.total(), 3 * SHARDS as u64);
        assert_eq!(counts.nanos, 3 * SHARDS as u64 * 200_000);
        assert_eq!(
            timings.connects(),
            Counts::default(),
            "that is another matter"
        );
    }

    #[test]
    fn a_quantile_lies_in_the_range_where_it_is() {
        let timings = Timings::default();
        assert_eq!(
            timings.lately().quantile(0.5),
            None,
            "of nothing there is none"
        );
        (0..90).for_each(|_| timings.answered(0, micros(3_000)));
        (0..10).for_each(|_| timings.answered(0, micros(700_000)));
        let counts = timings.lately();
        let within = |share, from, to| {
            let found = counts.quantile(share).unwrap();
            assert!(found > from && found <= to, "{share}: {found}");
        };
        within(0.5, 0.0025, 0.005);
        within(0.9, 0.0025, 0.005);
        within(0.99, 0.5, 1.0);
        timings.answered(0, Duration::from_secs(600));
        assert_eq!(
            timings.lately().quantile(1.0),
            Some(60.0),
            "no more is known"
        );
    }

    #[test]
    fn a_quantile_is_within_its_range_of_what_sorting_finds() {
        let mut rng = fastrand::Rng::with_seed(11);
        let timings = Timings::default();
        let mut all: Vec<u64> = (0..5000).map(|_| 1 << rng.u32(15..36)).collect();
        for nanos in &all {
            timings.answered(rng.usize(..), Duration::from_nanos(*nanos));
        }
        all.sort_unstable();
        let range = |nanos: u64| NANOS.partition_point(|bound| *bound < nanos);
        for share in [0.01, 0.25, 0.5, 0.9, 0.99] {
            let exact = all[(share * all.len() as f64).ceil() as usize - 1];
            let found = timings.lately().quantile(share).unwrap();
            let found = range((found * 1e9) as u64);
            assert!(found.abs_diff(range(exact)) <= 1, "{share}");
        }
    }

    #[test]
    fn what_was_more_than_a_minute_ago_counts_no_more() {
        let timings = Timings::default();
        timings.answered(0, micros(200));
        for second in 0..=49 {
            timings.turn(at(second));
            assert_eq!(timings.lately().total(), 1, "{second}");
        }
        timings.answered(0, micros(200));
        for second in 50..=60 {
            timings.turn(at(second));
        }
        assert_eq!(timings.lately().total(), 1, "the first one is forgotten");
        (61..=130).for_each(|second| timings.turn(at(second)));
        assert_eq!(timings.lately().total(), 0);
        assert_eq!(timings.first_bytes().total(), 2, "all there were");
    }
}
