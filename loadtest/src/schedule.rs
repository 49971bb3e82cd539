//! When each call is due, decided before the first is sent.
//!
//! A client that waits for a reply before it sends the next call slows down together with the
//! server, and so hides every stall: during a pause of one second it measures one slow call
//! instead of the thousand that would have been sent. Here call number `n` is due `n / rate`
//! seconds after the start, and its latency counts from then, even if no connection was free to
//! send it on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Evenly spaced times, as offsets from a start.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Per second; at least one.
    rate: u32,
    /// How many slots there are.
    total: u64,
}

impl Schedule {
    /// All slots that are due before `span` has passed.
    pub(crate) fn new(rate: u32, span: Duration) -> Self {
        debug_assert!(rate > 0);
        let total = (span.as_nanos() * u128::from(rate)).div_ceil(NANOS);
        Self {
            rate,
            total: total as u64,
        }
    }

    /// Exactly `total` slots.
    pub(crate) fn counted(rate: u32, total: u64) -> Self {
        debug_assert!(rate > 0);
        Self { rate, total }
    }

    /// Computed from the slot's number, not by adding up steps: rounding never accumulates.
    pub(crate) fn due(&self, slot: u64) -> Duration {
        Duration::from_nanos((u128::from(slot) * NANOS / u128::from(self.rate)) as u64)
    }
}

const NANOS: u128 = 1_000_000_000;

/// A schedule that many connections, on several threads, work off together: each slot goes to
/// whoever is free first, and to no one else.
pub(crate) struct Slots {
    schedule: Schedule,
    next: AtomicU64,
}

impl Slots {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            next: AtomicU64::new(0),
        }
    }

    /// The next slot and when it is due; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<(u64, Duration)> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        (slot < self.schedule.total).then(|| (slot, self.schedule.due(slot)))
    }

    /// How many nobody has taken.
    pub(crate) fn left(&self) -> u64 {
        self.schedule
            .total
            .saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// When one more slot would be due.
    pub(crate) fn span(&self) -> Duration {
        self.schedule.due(self.schedule.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_evenly_spaced_without_drift() {
        let schedule = Schedule::new(3, Duration::from_secs(1_000));
        assert_eq!(schedule.total, 3_000);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn every_slot_is_due_within_the_span() {
        for (rate, millis) in [(1, 1), (7, 1_500), (999, 10_001), (1_000_000, 60_000)] {
            let span = Duration::from_millis(millis);
            let schedule = Schedule::new(rate, span);
            assert!(schedule.due(schedule.total - 1) < span);
            assert!(schedule.due(schedule.total) >= span - Duration::from_nanos(1));
        }
    }

    #[test]
    fn the_schedule_does_not_wait_for_replies() {
        // Whoever comes late still gets the slots that are overdue, in order, with their due times.
        let slots = Slots::new(Schedule::new(1_000, Duration::from_secs(1)));
        let first: Vec<_> = (0..3).map(|_| slots.take()).collect();
        assert_eq!(first[2], Some((2, Duration::from_millis(2))));
        assert_eq!(slots.left(), 997);
    }

    #[test]
    fn slots_are_given_out_once_over_threads() {
        let slots = Slots::new(Schedule::counted(1_000_000, 10_000));
        let taken: u64 = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        std::iter::from_fn(|| slots.take())
                            .map(|(slot, _)| slot)
                            .sum::<u64>()
                    })
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 10_000 * 9_999 / 2);
        assert_eq!((slots.left(), slots.take()), (0, None));
    }
}
