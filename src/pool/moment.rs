//! A point in time as a number, so that it fits into an atomic.

use std::time::{Duration, Instant};

/// A point in time: nanoseconds since an instant that the process chose when it started. Zero is
/// before all others, and no clock shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// The last one there is, after more than 500 years.
    pub const NEVER: Self = Self(u64::MAX);

    /// `now` on a clock that began to run at `start`.
    pub fn of(start: Instant, now: Instant) -> Self {
        Self(1).after(now.saturating_duration_since(start))
    }

    /// The one with this number.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Its number.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// So much later, [`Self::NEVER`] at the latest.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The time that has passed since `earlier`; none if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_shows_zero_and_time_never_runs_backwards() {
        let start = Instant::now();
        let first = Moment::of(start, start);
        assert!(first > Moment::default());
        let later = first.after(Duration::from_secs(2));
        assert_eq!(later.since(first), Duration::from_secs(2));
        assert_eq!(first.since(later), Duration::ZERO);
        assert_eq!(later.after(Duration::MAX), Moment::NEVER);
    }
}
