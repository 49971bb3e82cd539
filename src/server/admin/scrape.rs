//! From the state of the process to what a scrape is told of it.

use crate::pool::breaker::State;
use crate::pool::timings::{BOUNDS, Counts};
use crate::pool::{Endpoint, FailureKind, HealthState, Moment};
use crate::proxy::state::PoolState;
use crate::telemetry::{Distribution, EndpointView, PoolView};

/// A pool.
pub(super) fn pool(state: &PoolState, now: Moment) -> PoolView<'_> {
    let (endpoints, available) = state.available(now);
    let waiting = state.pool.queue().map_or(0, |queue| queue.waiting());
    PoolView {
        pool: state.pool.name(),
        endpoints: endpoints as u64,
        available: available as u64,
        waiting: waiting as u64,
        retry_budget: state.retries_left(now),
    }
}

/// The endpoints of a pool.
pub(super) fn endpoints(pool: &PoolState, now: Moment) -> impl Iterator<Item = EndpointView<'_>> {
    let endpoints = pool.pool.endpoints().iter();
    endpoints.map(move |one| endpoint(pool.pool.name(), one, now))
}

fn endpoint<'a>(pool: &'a str, one: &'a Endpoint, now: Moment) -> EndpointView<'a> {
    EndpointView {
        pool,
        endpoint: one.name(),
        healthy: one.health() == HealthState::Up,
        in_flight: u64::from(one.in_flight()),
        sessions: u64::from(one.sessions()),
        admin: one.admin() as u8,
        ejected: one.guard.is_ejected(now),
        ejections: one.guard.ejections(),
        breaker: match one.guard.breaker(now) {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        },
        openings: one.guard.openings(),
        connect: spread(&one.timings.connects()),
        first_byte: spread(&one.timings.first_bytes()),
        failures: FailureKind::ALL
            .into_iter()
            .map(|kind| (kind.label(), one.failures.of(kind)))
            .collect(),
    }
}

fn spread(counts: &Counts) -> Distribution {
    Distribution {
        bounds: &BOUNDS,
        counts: counts.ranges.to_vec(),
        sum: counts.nanos as f64 / 1e9,
    }
}
