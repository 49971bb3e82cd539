//! How long a request's body may keep us waiting.
//!
//! A limit on each wait is not enough: a byte now and then would hold a connection, and all that was
//! reserved for its request, for as long as the client likes. So all waits together have a limit as
//! well, which grows with what has come: nobody is cut off who sends at [`RATE_MIN`].

use std::time::Duration;

/// Bytes per second that are always fast enough.
pub const RATE_MIN: u64 = 1024;
/// Waits of full length that a body may take before its rate counts.
const WAITS: u32 = 6;

/// What is left of it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    each: Duration,
    waited: Duration,
    read: u64,
}

impl Patience {
    /// No wait takes longer than `each`.
    pub const fn new(each: Duration) -> Self {
        Self {
            each,
            waited: Duration::ZERO,
            read: 0,
        }
    }

    /// Another body begins.
    pub fn renew(&mut self) {
        *self = Self::new(self.each);
    }

    /// How long the next wait may take; zero when there may be none.
    pub fn left(&self) -> Duration {
        let grown = Duration::from_secs(self.read / RATE_MIN);
        let all = (self.each * WAITS).saturating_add(grown);
        self.each.min(all.saturating_sub(self.waited))
    }

    /// A wait has taken so long.
    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// So many bytes have come.
    pub fn read(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits of this length with so many bytes behind each, until there is no more patience.
    fn waits(time: Duration, bytes: usize) -> u32 {
        let mut patience = Patience::new(10 * SECOND);
        for count in 0..1000 {
            if patience.left() < time {
                return count;
            }
            patience.waited(time);
            patience.read(bytes);
        }
        1000
    }

    #[test]
    fn a_trickle_comes_to_an_end_and_a_steady_stream_does_not() {
        assert_eq!(waits(9 * SECOND, 1), 6);
        assert_eq!(waits(SECOND, 1), 60);
        assert_eq!(waits(SECOND, 512), 119);
        assert_eq!(waits(SECOND, 1024), 1000);
        assert_eq!(waits(9 * SECOND, 100_000), 1000);
        assert_eq!(waits(11 * SECOND, 100_000), 0);
    }

    #[test]
    fn the_next_body_is_waited_for_anew() {
        let mut patience = Patience::new(SECOND);
        patience.waited(100 * SECOND);
        assert_eq!(patience.left(), Duration::ZERO);
        patience.renew();
        assert_eq!(patience.left(), SECOND);
    }
}
