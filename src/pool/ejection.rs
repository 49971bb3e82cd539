//! Passive ejection: an endpoint that fails one call after the other is set aside for a while.
//!
//! Checks ask a server whether it is well; calls show whether it works. A copy whose disk is full
//! still answers a ping. So failures are counted as they happen, and after so many in a row the
//! endpoint gets no new sessions, nor calls that could go elsewhere. Its sessions stay with it: only
//! it knows them, and it is not down.
//!
//! An ejection is a guess, so everything about it is bounded. It ends by itself. It lasts the longer
//! the more often the endpoint was ejected lately, up to a most; and that is forgotten again as the
//! endpoint serves well. And only a share of the pool may be ejected at once, because when all seem
//! to fail it is likelier that something else is wrong.

use std::time::Duration;

use super::moment::Moment;

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that eject, at least 1.
    pub failures: u32,
    /// How long the first ejection lasts; the n-th lately lasts n times as long.
    pub base_time: Duration,
    /// The longest that one ejection lasts.
    pub max_time: Duration,
    /// Percent of the pool's endpoints that may be ejected at once; see [`Settings::room`].
    pub max_share: u8,
}

impl Settings {
    /// How many of a pool of `endpoints` may be ejected at once: the share of all of them, whatever
    /// state they are in, rounded down; but at least one of two or more. A pool of one never ejects.
    pub fn room(&self, endpoints: usize) -> usize {
        if endpoints < 2 {
            return 0;
        }
        (endpoints * usize::from(self.max_share.min(100)) / 100).max(1)
    }

    /// How long the n-th ejection lately lasts.
    pub fn length(&self, times: u32) -> Duration {
        self.base_time.saturating_mul(times).min(self.max_time)
    }

    /// The count from which on ejections grow no longer.
    fn times_max(&self) -> u32 {
        let base = self.base_time.as_nanos().max(1);
        u32::try_from(self.max_time.as_nanos().div_ceil(base)).unwrap_or(u32::MAX)
    }
}

/// What is remembered of an endpoint's ejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// How many there were lately, as of the end of the last one.
    pub times: u32,
    /// When the last one ends, or has ended.
    pub until: Moment,
}

impl Past {
    /// Is it ejected at this moment?
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.until > now
    }

    /// How many ejections are held against it still. Service for as long as the last ejection took
    /// makes up for that one, then service for as long as the one before took makes up for that one,
    /// and so on.
    pub fn recent(&self, settings: &Settings, now: Moment) -> u32 {
        let mut served = now.since(self.until);
        let mut times = self.times;
        while times > 0 {
            let spell = settings.length(times);
            if served < spell || spell.is_zero() {
                break;
            }
            served -= spell;
            times -= 1;
        }
        times
    }

    /// Ejects it from now on, and tells for how long.
    pub fn eject(&mut self, settings: &Settings, now: Moment) -> Duration {
        debug_assert!(!self.is_ejected(now), "nobody is ejected twice at a time");
        let times = self.recent(settings, now).saturating_add(1);
        self.times = times.min(settings.times_max().max(1));
        let time = settings.length(self.times);
        self.until = now.after(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings {
        failures: 5,
        base_time: Duration::from_secs(10),
        max_time: Duration::from_secs(45),
        max_share: 50,
    };

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_share_is_rounded_down_but_one_of_two_may_always_be_ejected() {
        let room = |endpoints, max_share| {
            Settings {
                max_share,
                ..SETTINGS
            }
            .room(endpoints)
        };
        for (endpoints, share, expected) in [
            (0, 100, 0),
            (1, 50, 0),
            (1, 100, 0),
            (2, 1, 1),
            (2, 50, 1),
            (2, 99, 1),
            (2, 100, 2),
            (3, 50, 1),
            (3, 67, 2),
            (4, 50, 2),
            (5, 50, 2),
            (9, 10, 1),
            (10, 10, 1),
            (19, 10, 1),
            (20, 10, 2),
            (1000, 50, 500),
        ] {
            assert_eq!(room(endpoints, share), expected, "{share} % of {endpoints}");
        }
    }

    #[test]
    fn an_ejection_is_longer_each_time_up_to_a_most() {
        let (mut past, mut now) = (Past::default(), at(100));
        for seconds in [10, 20, 30, 40, 45, 45, 45] {
            let time = past.eject(&SETTINGS, now);
            assert_eq!(time, Duration::from_secs(seconds));
            assert!(past.is_ejected(now) && past.is_ejected(now.after(time / 2)));
            now = now.after(time);
            assert!(!past.is_ejected(now), "it ends by itself");
        }
    }

    #[test]
    fn good_service_makes_up_for_ejections_one_by_one() {
        let mut past = Past::default();
        past.eject(&SETTINGS, at(100));
        past.eject(&SETTINGS, at(110));
        past.eject(&SETTINGS, at(130));
        assert_eq!(past.until, at(160));
        for (now, recent) in [(160, 3), (189, 3), (190, 2), (209, 2), (210, 1), (220, 0)] {
            assert_eq!(past.recent(&SETTINGS, at(now)), recent, "at {now}");
        }
        assert_eq!(past.eject(&SETTINGS, at(215)), Duration::from_secs(20));
    }

    #[test]
    fn the_count_stops_where_the_length_does() {
        let mut past = Past::default();
        let mut now = at(1);
        for _ in 0..1000 {
            now = now.after(past.eject(&SETTINGS, now));
        }
        assert_eq!(past.times, 5);
        assert_eq!(
            past.recent(&SETTINGS, now.after(Duration::from_secs(145))),
            0
        );
    }

    proptest! {
        #[test]
        fn no_ejection_is_longer_than_the_most_and_none_is_shorter_than_the_base(
            base in 1u64..100, extra in 0u64..1000, pauses in proptest::collection::vec(0u64..500, 1..50),
        ) {
            let settings = Settings {
                base_time: Duration::from_secs(base),
                max_time: Duration::from_secs(base + extra),
                ..SETTINGS
            };
            let (mut past, mut now) = (Past::default(), at(1));
            for pause in pauses {
                let before = past.times;
                let time = past.eject(&settings, now);
                prop_assert!((settings.base_time..=settings.max_time).contains(&time));
                prop_assert!(past.times <= before + 1);
                now = past.until.after(Duration::from_secs(pause));
                prop_assert!(past.recent(&settings, now) <= past.times);
            }
        }
    }
}
