//! What became of the configuration file when it was read.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{METRICS, Metrics};
use crate::telemetry::labels::ReloadResult;

/// The process begins with a configuration that was read at `now`.
pub fn configured(now: SystemTime) {
    METRICS.in_force(now);
}

/// Counts a configuration that was read again at `now` and is in force.
pub fn reloaded(now: SystemTime) {
    METRICS.reloads[ReloadResult::Ok as usize].inc();
    METRICS.in_force(now);
}

/// Counts a configuration that was read again and left all as it was.
pub fn reload_failed() {
    METRICS.reloads[ReloadResult::Failed as usize].inc();
    METRICS.reload_good.set(0);
}

impl Metrics {
    pub(super) fn in_force(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_at.set(since.as_secs_f64());
        self.reload_good.set(1);
    }
}
