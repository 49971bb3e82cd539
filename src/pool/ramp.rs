//! Slow start: an endpoint that comes back gets its share of the traffic little by little.
//!
//! Its caches are cold and its sessions are few, so every way of balancing would send it more than
//! its share just when it can take less. For a while its weight counts for less, from a tenth to the
//! whole in a straight line. Weights are relative, so endpoints that come back together share evenly.

use std::time::Duration;

use super::moment::Moment;

/// The longest slow start; a longer one is cut off there.
pub const LENGTH_MAX: Duration = Duration::from_secs(3600);
/// The share of its weight that counts for an endpoint that does not ramp, in thousandths.
pub const FULL: u32 = 1000;
/// The share that it begins with.
const LEAST: u32 = 100;

/// The share of the weight that counts, in thousandths, for an endpoint that came back at `from`
/// (zero: it never was away) and takes `length` until it is as before.
pub fn share(from: Moment, length: Duration, now: Moment) -> u32 {
    if from == Moment::default() || length.is_zero() {
        return FULL;
    }
    let part = now.since(from).as_nanos() * u128::from(FULL - LEAST) / length.as_nanos();
    LEAST + part.min(u128::from(FULL - LEAST)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_rises_in_a_straight_line() {
        let from = Moment::from_nanos(5);
        let length = Duration::from_secs(10);
        for (millis, expected) in [
            (0, 100),
            (1000, 190),
            (5000, 550),
            (9999, 999),
            (10_000, 1000),
            (u64::MAX / 2_000_000, 1000),
        ] {
            let now = from.after(Duration::from_millis(millis));
            assert_eq!(share(from, length, now), expected, "after {millis} ms");
        }
        assert_eq!(share(from, length, Moment::default()), 100, "not back yet");
        assert_eq!(share(from, Duration::ZERO, from), FULL, "switched off");
        assert_eq!(share(Moment::default(), length, from), FULL, "never away");
    }
}
