//! Requests per second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate of a counter over a sliding minute, from samples of it.
///
/// Samples closer than a second together are ignored, so at most 62 are kept.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    /// Oldest first. The first may be older than the window, and is then where the window begins.
    samples: VecDeque<(Instant, u64)>,
}

impl RateWindow {
    const LENGTH: Duration = Duration::from_secs(60);
    const SPACING: Duration = Duration::from_secs(1);

    /// Takes in the counter's total at `now` and returns its rate per second since the beginning of
    /// the window; 0 as long as there is nothing to compare with.
    pub(super) fn sample(&mut self, now: Instant, total: u64) -> f64 {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self
            .samples
            .back()
            .is_none_or(|(at, _)| since(*at) >= Self::SPACING)
        {
            self.samples.push_back((now, total));
        }
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| since(*at) >= Self::LENGTH)
        {
            self.samples.pop_front();
        }
        debug_assert!(self.samples.len() <= 62);
        match self.samples.front() {
            Some((at, before)) if since(*at) >= Self::SPACING => {
                total.saturating_sub(*before) as f64 / since(*at).as_secs_f64()
            }
            Some(_) | None => 0.0,
        }
    }
}
