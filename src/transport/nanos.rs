//! A length of time in eight bytes, and no more where there may be none.
//!
//! `Option<Duration>` takes sixteen, and what an idle stream holds has several of them: an allocator
//! hands out sizes in steps, and a step costs every stream that is held.

use std::num::NonZeroU64;
use std::time::Duration;

/// A length of time to the nanosecond, of at most 584 years; what is longer is cut to that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(
    /// One more than the nanoseconds.
    NonZeroU64,
);

impl Nanos {
    /// None at all.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The same as a [`Duration`].
    pub const fn get(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }
}

impl Default for Nanos {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Duration> for Nanos {
    fn from(time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl std::fmt::Debug for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

const _: () = assert!(size_of::<Option<Nanos>>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let time = Duration::from_nanos(rng.u64(..) >> rng.u32(1..64));
            assert_eq!(Nanos::from(time).get(), time);
        }
        assert_eq!(Nanos::default().get(), Duration::ZERO);
        let years = Nanos::from(Duration::MAX).get().as_secs() / (365 * 24 * 3600);
        assert_eq!(years, 584);
    }
}
