//! A span of time over which many things end, each at a moment of its own.
//!
//! Streams that all end at once are opened again all at once, by every client, at whoever is left.
//! Spread over a while they are nothing to notice.

use std::time::{Duration, Instant};

/// When things end that were told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// The first moment.
    pub from: Instant,
    /// How long it lasts from there; the last thing ends before it is over.
    pub length: Duration,
}

impl Parting {
    /// The moment for whoever has drawn `lot`, a random number of any kind. The same lot has the same
    /// moment, so nothing need be remembered.
    pub fn at(self, lot: u64) -> Instant {
        // The upper half of the lot is enough of it for a time, and leaves room to multiply.
        let share = u128::from(lot >> 32);
        let nanos = (self.length.as_nanos() * share) >> 32;
        self.from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When it is over.
    pub fn end(self) -> Instant {
        self.from + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_lie_in_the_window_and_are_spread_over_it() {
        let window = Parting {
            from: Instant::now(),
            length: Duration::from_secs(10),
        };
        assert_eq!(window.at(0), window.from);
        assert!(window.at(u64::MAX) < window.end());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let after = window.at(rng.u64(..)) - window.from;
            tenths[after.as_secs() as usize] += 1;
        }
        for count in tenths {
            assert!((850..1150).contains(&count), "{tenths:?}");
        }
    }

    #[test]
    fn without_length_everything_ends_at_once() {
        let window = Parting {
            from: Instant::now(),
            length: Duration::ZERO,
        };
        assert_eq!(window.at(u64::MAX), window.from);
    }
}
