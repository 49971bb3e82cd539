//! How slow an endpoint has been lately: an average that believes bad news at once and good news
//! slowly.
//!
//! This is Finagle's peak EWMA, which Linkerd took over. A time above the average becomes the
//! average; one below it moves it by a weight that grows with the time since the last one, so that
//! it does not matter how often somebody looks; and while nobody looks the average fades, so that an
//! endpoint which was slow once is tried again (twitter/finagle, `PeakEwma.scala`).
//!
//! Average and time are one word, so that threads need no lock: the average as a 32-bit float, since
//! two endpoints that differ by less are equal, and the time in milliseconds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::Moment;

/// How long a peak is remembered: after so much time 37 % of it are left.
const DECAY: Duration = Duration::from_secs(10);

/// The peak-sensitive average of one endpoint. On a cache line of its own: where it is used it is
/// written with every call, and what lies beside it is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Latency(AtomicU64);

/// The average, in nanoseconds, and when it was that.
#[derive(Debug, Clone, Copy)]
struct Peak {
    nanos: f32,
    /// Milliseconds, which overflow after seven weeks. An endpoint that nobody asked for so long
    /// may seem as slow as it was then, for one call.
    at: u32,
}

impl Peak {
    fn unpack(word: u64) -> Self {
        Self {
            nanos: f32::from_bits((word >> 32) as u32),
            at: word as u32,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.nanos.to_bits()) << 32 | u64::from(self.at)
    }

    /// How much of it is left at this moment.
    fn left(self, at: u32) -> f32 {
        let age = at.wrapping_sub(self.at);
        // A thread whose clock was read a moment earlier.
        let age = if age > u32::MAX / 2 { 0 } else { age };
        (-(age as f32) / DECAY.as_millis() as f32).exp()
    }
}

fn millis(now: Moment) -> u32 {
    (now.nanos() / 1_000_000) as u32
}

impl Latency {
    /// Takes in how long a call took to its response head.
    pub fn observe(&self, took: Duration, now: Moment) {
        // Zero stands for "never seen".
        let nanos = (took.as_nanos() as f32).max(1.0);
        let at = millis(now);
        let next = |word| {
            let peak = Peak::unpack(word);
            let left = peak.left(at);
            let nanos = if nanos > peak.nanos {
                nanos
            } else {
                peak.nanos * left + nanos * (1.0 - left)
            };
            Some(Peak { nanos, at }.pack())
        };
        // It always has something to store.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// What is left of the average at this moment, in nanoseconds; 0 before the first call.
    pub fn now(&self, now: Moment) -> f32 {
        let peak = Peak::unpack(self.0.load(Relaxed));
        peak.nanos * peak.left(millis(now))
    }

    /// Forgets everything, for a server that may be another.
    pub fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000_000_000).after(Duration::from_millis(millis))
    }

    fn is(latency: &Latency, now: Moment, millis: f32) -> bool {
        (latency.now(now) / 1e6 - millis).abs() < millis * 0.01
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.now(at(0)), 0.0);
        latency.observe(Duration::from_millis(10), at(0));
        assert!(is(&latency, at(0), 10.0));
        latency.observe(Duration::from_millis(200), at(100));
        assert!(is(&latency, at(100), 200.0));
        latency.observe(Duration::from_millis(10), at(100));
        assert!(is(&latency, at(100), 200.0), "no time has passed since");
        latency.observe(Duration::from_millis(10), at(10_100));
        assert!(is(&latency, at(10_100), 200.0 * 0.3679 + 10.0 * 0.6321));
    }

    #[test]
    fn it_does_not_matter_how_often_one_looks() {
        let (often, once) = (Latency::default(), Latency::default());
        for latency in [&often, &once] {
            latency.observe(Duration::from_millis(500), at(0));
        }
        (1..=100).for_each(|n| often.observe(Duration::from_millis(5), at(n * 50)));
        once.observe(Duration::from_millis(5), at(5000));
        assert!(is(&often, at(5000), once.now(at(5000)) / 1e6));
    }

    #[test]
    fn a_clock_that_was_read_earlier_makes_nothing_fade() {
        let latency = Latency::default();
        latency.observe(Duration::from_millis(10), at(100));
        assert!(is(&latency, at(90), 10.0));
        latency.forget();
        assert_eq!(latency.now(at(100)), 0.0);
    }
}
