//! What becomes of endpoints whose calls fail, as the program sees it.

use std::time::Duration;

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row that eject (default 5).
    pub failures: u32,
    /// How long the first ejection lasts (default 10s); the n-th lately lasts n times as long.
    pub base_time: Duration,
    /// The longest that one ejection lasts, never below `base_time` (default 5m).
    pub max_time: Duration,
    /// Percent of the pool that may be ejected at once, 1 to 100 (default 50).
    pub max_share: u8,
}

/// When calls are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Percent of the calls of the last 10 s that may be second attempts, 0 to 100 (default 20).
    pub ratio: u8,
    /// Second attempts per second besides (default 10).
    pub floor: u32,
    /// Believe what tools say of themselves: those that only read, or do the same when called twice,
    /// are called again (default false).
    pub trust_annotations: bool,
    /// Ask a second endpoint for a list when the first has not answered for so long.
    pub hedge_after: Option<Duration>,
}

/// When nothing is sent to an endpoint, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Percent of the calls in the window that must have failed, 1 to 100 (default 50).
    pub failure_ratio: u8,
    /// Calls in the window below which nothing is concluded (default 20).
    pub min_calls: u32,
    /// How far back calls count (default 10s).
    pub window: Duration,
    /// How long it stays open (default 5s).
    pub open_time: Duration,
    /// Calls at once that are let through then, and good ones after which all are (default 3).
    pub trials: u32,
}
