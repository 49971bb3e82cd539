//! Whose fault is it that no answer came in time: the server's, or that of a machine which did not
//! let us run?
//!
//! On a machine that is starved of CPU everything is late: the question goes out late, the answer
//! is read late, and the alarm that says "too late" goes off late as well. The last of these can be
//! measured. So a pulse beats beside the checks, and what it comes late by is time that this machine
//! has lost. A check without an answer proves nothing where much of its time was lost; taking it for
//! a failure would lose the sessions of servers that are well.

use std::time::Duration;

/// How often the pulse beats.
pub const BEAT: Duration = Duration::from_millis(50);
/// Lateness of one beat that is normal: timers go by the millisecond, and a thread takes turns.
const GRAIN: Duration = Duration::from_millis(5);
/// A check is excused when at least one in so many parts of its time was lost.
const LOST_SHARE: u32 = 4;

/// How a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server said so.
    Told,
    /// It refused to be asked, or broke off. No lack of CPU makes a server do that.
    Broken,
    /// No answer came in time.
    Silent,
    /// It could not be asked: this host had no port, file or memory for that.
    Unasked,
}

/// The time lost to one beat that came late by so much.
pub fn lost(late: Duration) -> Duration {
    late.saturating_sub(GRAIN)
}

/// Is a failed check to be passed over? `waited` is the time since the question was asked, `lost` as
/// much of it as was lost.
pub fn excuses(failure: Failure, waited: Duration, lost: Duration) -> bool {
    match failure {
        Failure::Told | Failure::Broken => false,
        Failure::Silent => !lost.is_zero() && lost >= waited / LOST_SHARE,
        Failure::Unasked => true,
    }
}

#[cfg(test)]
mod tests {
    use super::Failure::{Broken, Silent, Told, Unasked};
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn timers_that_are_a_little_late_lose_nothing() {
        assert_eq!(lost(ms(5)), Duration::ZERO);
        assert_eq!(lost(ms(45)), ms(40));
    }

    #[test]
    fn silence_on_a_starved_machine_is_excused_and_what_was_never_asked() {
        for (failure, waited, lost, excused) in [
            (Silent, 1000, 0, false),
            (Silent, 1000, 249, false),
            (Silent, 1000, 250, true),
            (Silent, 4000, 3000, true),
            (Told, 1000, 900, false),
            (Broken, 1000, 900, false),
            (Silent, 0, 0, false),
            (Unasked, 0, 0, true),
            (Unasked, 1000, 0, true),
        ] {
            let judged = excuses(failure, ms(waited), ms(lost));
            assert_eq!(judged, excused, "{failure:?} {lost} of {waited} ms");
        }
    }
}
