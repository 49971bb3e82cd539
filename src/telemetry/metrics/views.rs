//! What a scrape is told of the state of the process, in plain values.

use crate::telemetry::SessionTag;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Observed<'a> {
    /// Every endpoint of every pool.
    pub endpoints: Vec<EndpointView<'a>>,
    /// The pools of the configuration.
    pub pools: Vec<PoolView<'a>>,
    /// How late each worker thread has taken a turn, in seconds: the most since the scrape before. In
    /// the order of their numbers.
    pub worker_lags: Vec<f64>,
    /// Bytes that have passed in sessions, by their hash; `None` where nobody wants to know.
    pub contexts: Option<Vec<(SessionTag, u64)>>,
}

/// A pool as it stands at the moment of the scrape.
#[derive(Clone, Copy, Debug)]
pub struct PoolView<'a> {
    /// Its name.
    pub pool: &'a str,
    /// Its endpoints.
    pub endpoints: u64,
    /// Those of them that get new calls.
    pub available: u64,
    /// Calls that wait for a place.
    pub waiting: u64,
    /// Calls that may be tried again.
    pub retry_budget: u64,
}

/// An endpoint as it stands at the moment of the scrape.
#[derive(Clone, Debug)]
pub struct EndpointView<'a> {
    /// Name of the pool.
    pub pool: &'a str,
    /// Name of the endpoint, unique in its pool.
    pub endpoint: &'a str,
    /// Whether its checks find it up.
    pub healthy: bool,
    /// Calls in flight.
    pub in_flight: u64,
    /// Live sessions.
    pub sessions: u64,
    /// 0 if the operator wants it up, 1 draining, 2 in maintenance.
    pub admin: u8,
    /// Whether it is ejected.
    pub ejected: bool,
    /// How often it was ejected.
    pub ejections: u64,
    /// 0 if its breaker is closed, 1 half-open, 2 open.
    pub breaker: u8,
    /// How often its breaker has opened.
    pub openings: u64,
    /// Seconds to connections that were made for its calls.
    pub connect: Distribution,
    /// Seconds from its calls to the first bytes of its answers.
    pub first_byte: Distribution,
    /// How often its calls failed, by kind: a word of a closed set, and all of them.
    pub failures: Vec<(&'static str, u64)>,
}

/// How values are spread, as a histogram shows it.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    /// Upper bounds of the buckets, rising; behind them stands one without bound.
    pub bounds: &'static [f64],
    /// Values of each bucket alone: one more than there are bounds.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: f64,
}
