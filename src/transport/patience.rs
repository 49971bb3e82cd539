//! How long a request's body may keep us waiting.
//!
//! A limit on each wait is not enough: a byte now and then would hold a connection, and all that was
//! reserved for its request, for as long as the client likes. So all waits together have a limit as
//! well, which grows with what has come: nobody is cut off who sends at [`RATE_MIN`].

use std::time::Duration;

use super::nanos::Nanos;

/// Bytes per second that are always fast enough.
pub const RATE_MIN: u64 = 1024;
/// Waits of full length that a body may take before its rate counts.
const WAITS: u32 = 6;

/// What is left of it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    each: Nanos,
    waited: Nanos,
    read: u64,
}

impl Patience {
    /// No wait takes longer than `each`.
    pub fn new(each: Duration) -> Self {
        Self {
            each: each.into(),
            waited: Nanos::ZERO,
            read: 0,
        }
    }

    /// Another body begins.
    pub fn renew(&mut self) {
        self.waited = Nanos::ZERO;
        self.read = 0;
    }

    /// How long the next wait may take; zero when there may be none.
    pub fn left(&self) -> Duration {
        let grown = Duration::from_secs(self.read / RATE_MIN);
        let each = self.each.get();
        let all = (each * WAITS).saturating_add(grown);
        each.min(all.saturating_sub(self.waited.get()))
    }

    /// A wait has taken so long.
    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.get().saturating_add(time).into();
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
