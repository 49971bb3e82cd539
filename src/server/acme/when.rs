//! When a certificate is ordered, and when again after that came to nothing. Times are seconds since 1970:
//! that is what stands in certificates.

use std::time::Duration;

/// The shortest pause after a failure.
const RETRY_MIN: Duration = Duration::from_secs(60);
/// The longest pause of our own choice.
const RETRY_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// The longest pause that an authority may ask for.
const ASKED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A certificate that is due within so many seconds of its order is of no use: another one would be due
/// as soon.
const USE_MIN: u64 = 5;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Validity {
    /// When it is to be ordered anew: `before` its end, or when a third of its life is left, whichever
    /// leaves more of its life used. So one that lives for six days is not ordered anew all the time
    /// because 30 days are asked for.
    pub(super) fn due(self, before: Duration) -> u64 {
        let third = self.until.saturating_sub(self.from) / 3;
        self.until.saturating_sub(before.as_secs().min(third))
    }

    /// Whether one that was had at `now` is good for anything. It is not if this machine's clock is far
    /// off.
    pub(super) fn is_of_use(self, before: Duration, now: u64) -> bool {
        self.due(before) >= now.saturating_add(USE_MIN)
    }
}

/// How long to wait after so many failures in a row, at least one. `lot` is drawn from 0 to 1, so that
/// not everybody whom an authority has failed comes back at once. `asked` is what the authority wants; it
/// is kept to, for a week at most.
pub(super) fn pause(failures: u32, lot: f64, asked: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let own = RETRY_MIN.saturating_mul(1 << doublings);
    let own = own.mul_f64(1.0 + lot.clamp(0.0, 1.0) / 2.0).min(RETRY_MAX);
    own.max(asked.unwrap_or_default().min(ASKED_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 60 * 60;
    const DAY: u64 = 24 * HOUR;

    fn due(life: u64, before: u64) -> u64 {
        let validity = Validity {
            from: 1_000_000,
            until: 1_000_000 + life,
        };
        validity.due(Duration::from_secs(before)) - 1_000_000
    }

    #[test]
    fn a_certificate_is_ordered_anew_before_its_end_and_not_all_the_time() {
        for (life, before, expected) in [
            (90 * DAY, 30 * DAY, 60 * DAY),
            (90 * DAY, 10 * DAY, 80 * DAY),
            (45 * DAY, 30 * DAY, 30 * DAY),
            (6 * DAY, 30 * DAY, 4 * DAY),
            (398 * DAY, 30 * DAY, 368 * DAY),
            (0, 30 * DAY, 0),
        ] {
            assert_eq!(due(life, before), expected, "{life} {before}");
        }
    }

    #[test]
    fn a_certificate_that_is_due_at_once_is_of_no_use() {
        let validity = Validity {
            from: 1000,
            until: 1900,
        };
        let before = Duration::from_secs(30 * DAY);
        assert!(validity.is_of_use(before, 1000));
        assert!(validity.is_of_use(before, 1595));
        assert!(!validity.is_of_use(before, 1596));
        assert!(!validity.is_of_use(before, u64::MAX));
    }

    #[test]
    fn pauses_grow_from_a_minute_to_six_hours() {
        let minutes = |failures, lot| pause(failures, lot, None).as_secs() / 60;
        let first: Vec<u64> = (1..6).map(|n| minutes(n, 0.0)).collect();
        assert_eq!(first, [1, 2, 4, 8, 16]);
        assert_eq!(minutes(3, 1.0), 6);
        assert_eq!(minutes(u32::MAX, 0.0), 360);
        assert_eq!(minutes(u32::MAX, 1.0), 360);
    }

    #[test]
    fn an_authority_may_ask_for_more_and_not_for_less() {
        let asked = |seconds| pause(1, 0.0, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!(asked(1), 60);
        assert_eq!(asked(3 * HOUR), 3 * HOUR);
        assert_eq!(asked(u64::MAX), 7 * DAY);
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_never_tried_all_the_time(
            failures: u32, lot: f64, asked: Option<u64>, from: u64, until: u64, before: u64,
        ) {
            let waited = pause(failures, lot, asked.map(Duration::from_secs));
            prop_assert!(waited >= RETRY_MIN && waited <= ASKED_MAX);
            let due = Validity { from, until }.due(Duration::from_secs(before));
            prop_assert!(due <= until && (until < from || due >= from));
        }
    }
}
