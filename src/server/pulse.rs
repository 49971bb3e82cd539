//! A pulse beside the checks: it measures how much time this machine takes from us.
//!
//! It shares its thread with the checks, so whatever keeps them from running, too few CPUs or a
//! thread that is busy with something else, keeps the pulse from beating on time as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::pool::lateness::{BEAT, lost};

/// The time lost so far.
pub(super) struct Pulse {
    start: Instant,
    /// When the next beat is due, and the time lost before, in nanoseconds since `start` and in all.
    due: AtomicU64,
    lost: AtomicU64,
}

/// A point from which lost time is counted.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    at: Instant,
    lost: Duration,
}

impl Pulse {
    /// A pulse that does not beat yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            due: AtomicU64::new(u64::MAX),
            lost: AtomicU64::new(0),
        })
    }

    /// Beats for ever.
    pub(super) async fn beat(&self) {
        loop {
            let due = Instant::now() + BEAT;
            self.due.store(nanos(due - self.start), Relaxed);
            tokio::time::sleep_until(due.into()).await;
            let late = Instant::now().saturating_duration_since(due);
            // Nobody else writes it.
            let before = self.lost.load(Relaxed);
            self.lost.store(before + nanos(lost(late)), Relaxed);
        }
    }

    /// Here and now.
    pub(super) fn mark(&self) -> Mark {
        let at = Instant::now();
        // A beat that should have come may not have had its turn yet.
        let due = Duration::from_nanos(self.due.load(Relaxed));
        let overdue = (at - self.start).saturating_sub(due);
        let lost = Duration::from_nanos(self.lost.load(Relaxed)) + lost(overdue);
        Mark { at, lost }
    }
}

impl Mark {
    /// The time that has passed up to `now`, and how much of it was lost.
    pub(super) fn until(self, now: Self) -> (Duration, Duration) {
        let passed = now.at.saturating_duration_since(self.at);
        (passed, now.lost.saturating_sub(self.lost))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::lateness::{Failure, excuses};

    #[tokio::test]
    async fn time_in_which_the_thread_does_not_run_is_lost() {
        let pulse = Pulse::new();
        let beating = Arc::clone(&pulse);
        let task = tokio::spawn(async move { beating.beat().await });
        tokio::time::sleep(BEAT / 2).await;
        let mark = pulse.mark();
        // As a machine without a free CPU does it.
        std::thread::sleep(Duration::from_millis(300));
        let (passed, lost) = mark.until(pulse.mark());
        assert!(passed >= Duration::from_millis(300));
        assert!(
            lost >= Duration::from_millis(200),
            "{lost:?}, seen before it beats"
        );
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (passed, again) = mark.until(pulse.mark());
        assert!(again >= lost, "{again:?} once it has beaten");
        assert!(excuses(Failure::Silent, passed, again));
        task.abort();
    }

    #[tokio::test]
    async fn before_the_first_beat_nothing_is_lost() {
        let pulse = Pulse::new();
        let mark = pulse.mark();
        let (_, lost) = mark.until(pulse.mark());
        assert_eq!(lost, Duration::ZERO);
    }
}
