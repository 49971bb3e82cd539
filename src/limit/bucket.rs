//! Token buckets as one number each.
//!
//! A bucket holds up to so many tokens and gains one every so often. All there is to know of it is
//! when it will be full again: with `n` tokens missing that is `n` intervals from now (the generic
//! cell rate algorithm of ATM says the same the other way about). So a bucket is a word, taking a
//! token is an addition and a comparison, and nothing has to happen as time passes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds until the next token; at least 1.
    interval: u64,
    /// Nanoseconds from empty to full.
    depth: u64,
}

/// When a bucket is full again, in nanoseconds on the caller's clock. One that was never used is full.
pub type FullAt = u64;

impl Rate {
    /// `count` tokens in every `per`, and at most `burst` at once. Zeros are taken for ones.
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: never faster than was said.
        let interval = per.div_ceil(u64::from(count.max(1))).max(1);
        Self {
            interval,
            depth: interval.saturating_mul(u64::from(burst.max(1))),
        }
    }

    /// Takes `tokens` at `now` from a bucket that is full at `full_at`, or the whole bucket if it does
    /// not hold so many. Returns when it is full again.
    ///
    /// # Errors
    /// How long it takes until they are there. Nothing was taken.
    pub fn take(self, full_at: FullAt, tokens: u32, now: u64) -> Result<FullAt, Duration> {
        let price = self.price(tokens);
        let after = full_at.max(now).saturating_add(price);
        let missing = (after - now).saturating_sub(self.depth);
        match missing {
            0 => Ok(after),
            missing => Err(Duration::from_nanos(missing)),
        }
    }

    /// What a bucket's number becomes when `tokens` come back.
    pub fn give_back(self, full_at: FullAt, tokens: u32) -> FullAt {
        full_at.saturating_sub(self.price(tokens))
    }

    fn price(self, tokens: u32) -> u64 {
        self.interval
            .saturating_mul(u64::from(tokens))
            .min(self.depth)
    }
}

/// A bucket that all threads take from.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    full_at: AtomicU64,
}

impl Bucket {
    /// How fast it is filled.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// A full one.
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes `tokens` at `now`.
    ///
    /// # Errors
    /// As [`Rate::take`].
    pub fn take(&self, tokens: u32, now: u64) -> Result<(), Duration> {
        let mut seen = self.full_at.load(Relaxed);
        loop {
            let after = self.rate.take(seen, tokens, now)?;
            match self
                .full_at
                .compare_exchange_weak(seen, after, Relaxed, Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
    }

    /// Puts `tokens` back that were taken in vain.
    pub fn give_back(&self, tokens: u32) {
        let price = self.rate.price(tokens);
        let back = |full_at: u64| Some(full_at.saturating_sub(price));
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, burst: u32) -> Rate {
        Rate::new(count, Duration::from_secs(1), burst)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let bucket = Bucket::new(rate(10, 3));
        assert!((0..3).all(|_| bucket.take(1, SECOND).is_ok()));
        assert_eq!(bucket.take(1, SECOND), Err(Duration::from_millis(100)));
        let later = SECOND + SECOND / 10;
        assert_eq!(bucket.take(1, later - 1), Err(Duration::from_nanos(1)));
        assert_eq!(bucket.take(1, later), Ok(()));
        assert!(bucket.take(1, later).is_err());
        assert!((0..3).all(|_| bucket.take(1, 100 * SECOND).is_ok()));
        assert!(bucket.take(1, 100 * SECOND).is_err(), "it holds no more");
    }

    #[test]
    fn more_than_a_bucket_holds_takes_all_of_it() {
        let bucket = Bucket::new(rate(10, 5));
        assert_eq!(bucket.take(128, SECOND), Ok(()));
        assert_eq!(bucket.take(1, SECOND), Err(Duration::from_millis(100)));
        bucket.give_back(128);
        assert_eq!(bucket.take(5, SECOND), Ok(()));
    }

    #[test]
    fn what_was_refused_was_not_taken() {
        let bucket = Bucket::new(rate(1, 2));
        assert_eq!(bucket.take(1, SECOND), Ok(()));
        assert!((0..100).all(|_| bucket.take(2, SECOND) == Err(Duration::from_secs(1))));
        assert_eq!(bucket.take(1, SECOND), Ok(()));
    }

    #[test]
    fn odd_numbers_do_not_overflow() {
        let never = Rate::new(1, Duration::MAX, u32::MAX);
        assert_eq!(never.take(u64::MAX, u32::MAX, 0), Ok(u64::MAX));
        assert!(Rate::new(0, Duration::ZERO, 0).take(0, 0, u64::MAX).is_ok());
        assert!(rate(u32::MAX, 1).take(0, 1, 0).is_ok());
    }
}
