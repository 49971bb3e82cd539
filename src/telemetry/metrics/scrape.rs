//! What Prometheus reads: the registered families, and those that are made at the scrape.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use prometheus::TextEncoder;

use super::exposition::Exposition;
use super::process::{self, Figures};
use super::views::{Distribution, EndpointView, Observed, PoolView};
use super::{
    CALLS_WAITING, CERTIFICATE_EXPIRY, CONTEXT_SIZE, CertificateView, ENDPOINT_ADMIN,
    ENDPOINT_BREAKER, ENDPOINT_CONNECT, ENDPOINT_EJECTED, ENDPOINT_EJECTIONS, ENDPOINT_FAILURES,
    ENDPOINT_FIRST_BYTE, ENDPOINT_IN_FLIGHT, ENDPOINT_OPENINGS, ENDPOINT_SESSIONS, ENDPOINT_UP,
    Family, METRICS, Metrics, POOL_AVAILABLE, POOL_ENDPOINTS, PROCESS_CPU, PROCESS_MAX_FDS,
    PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_THREADS, RETRY_BUDGET,
    SERVER_HEALTHY, WORKER_LAG,
};
use crate::telemetry::SessionTag;

/// The media type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics in the text format, with what is seen of the current state.
///
/// What is told of pools and endpoints exists only in this text, so one that a reload removed is gone
/// from the next scrape. A server name that several pools use counts as healthy in
/// `mcp_server_healthy` when it is healthy in all of them.
///
/// Reads a few files of `/proc`, which does not block in practice but is not for a request's path.
pub fn render(observed: &Observed<'_>) -> String {
    // A scrape is the edge of the process, where reading the clock is in place.
    #[allow(
        clippy::disallowed_methods,
        reason = "the clock of a scrape decides nothing"
    )]
    let now = Instant::now();
    METRICS.render(now, observed)
}

impl Metrics {
    pub(super) fn render(&self, now: Instant, observed: &Observed<'_>) -> String {
        self.requests_per_second.set(self.sample_rate(now));
        // Calls that never had a server stay.
        let there = observed.endpoints.iter().map(|view| view.endpoint);
        self.forget_servers(&there.chain([""]).collect());
        let mut text = String::with_capacity(32 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            log::error!("metrics could not be written in full: {error}");
        }
        let mut exposition = Exposition { text };
        exposition.endpoints(&observed.endpoints);
        exposition.pools(&observed.pools);
        exposition.workers(&observed.worker_lags);
        if let Some(contexts) = &observed.contexts {
            exposition.contexts(contexts);
        }
        exposition.certificates(
            &self
                .certificates
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        exposition.process(&process::read());
        exposition.text
    }
}

impl Exposition {
    fn endpoints(&mut self, endpoints: &[EndpointView<'_>]) {
        // Sorted, for a stable text; and keyed, because a series may stand in it only once.
        let views: BTreeMap<(&str, &str), &EndpointView<'_>> = endpoints
            .iter()
            .map(|view| ((view.pool, view.endpoint), view))
            .collect();
        let mut healthy: BTreeMap<&str, bool> = BTreeMap::new();
        for view in views.values() {
            *healthy.entry(view.endpoint).or_insert(true) &= view.healthy;
        }

        self.heading(&SERVER_HEALTHY);
        for (server, healthy) in healthy {
            self.sample(&SERVER_HEALTHY, &[server], u8::from(healthy));
        }
        type Row = (&'static Family, fn(&EndpointView<'_>) -> u64);
        let rows: [Row; 8] = [
            (&ENDPOINT_UP, |view| u64::from(view.healthy)),
            (&ENDPOINT_IN_FLIGHT, |view| view.in_flight),
            (&ENDPOINT_SESSIONS, |view| view.sessions),
            (&ENDPOINT_ADMIN, |view| u64::from(view.admin)),
            (&ENDPOINT_EJECTED, |view| u64::from(view.ejected)),
            (&ENDPOINT_EJECTIONS, |view| view.ejections),
            (&ENDPOINT_BREAKER, |view| u64::from(view.breaker)),
            (&ENDPOINT_OPENINGS, |view| view.openings),
        ];
        for (row, value) in rows {
            self.heading(row);
            for view in views.values() {
                self.sample(row, &[view.pool, view.endpoint], value(view));
            }
        }
        type Spread = (
            &'static Family,
            for<'v> fn(&'v EndpointView<'_>) -> &'v Distribution,
        );
        let spreads: [Spread; 2] = [
            (&ENDPOINT_CONNECT, |view| &view.connect),
            (&ENDPOINT_FIRST_BYTE, |view| &view.first_byte),
        ];
        for (row, spread) in spreads {
            self.heading(row);
            for view in views.values() {
                self.histogram(row, &[view.pool, view.endpoint], spread(view));
            }
        }
        self.heading(&ENDPOINT_FAILURES);
        for view in views.values() {
            for (kind, count) in &view.failures {
                let labels = [view.pool, view.endpoint, kind];
                self.sample(&ENDPOINT_FAILURES, &labels, count);
            }
        }
    }

    fn pools(&mut self, views: &[PoolView<'_>]) {
        type Row = (&'static Family, fn(&PoolView<'_>) -> u64);
        let rows: [Row; 4] = [
            (&POOL_ENDPOINTS, |view| view.endpoints),
            (&POOL_AVAILABLE, |view| view.available),
            (&CALLS_WAITING, |view| view.waiting),
            (&RETRY_BUDGET, |view| view.retry_budget),
        ];
        for (row, value) in rows {
            self.heading(row);
            for view in views {
                self.sample(row, &[view.pool], value(view));
            }
        }
    }

    fn workers(&mut self, lags: &[f64]) {
        self.heading(&WORKER_LAG);
        for (worker, lag) in lags.iter().enumerate() {
            self.sample(&WORKER_LAG, &[&worker.to_string()], lag);
        }
    }

    fn contexts(&mut self, all: &[(SessionTag, u64)]) {
        self.heading(&CONTEXT_SIZE);
        for (tag, bytes) in all {
            self.sample(&CONTEXT_SIZE, &[&format!("{:08x}", tag.bits())], bytes);
        }
    }

    fn certificates(&mut self, all: &[CertificateView]) {
        self.heading(&CERTIFICATE_EXPIRY);
        for one in all {
            self.sample(
                &CERTIFICATE_EXPIRY,
                &[&one.listener, &one.certificate],
                one.until,
            );
        }
    }

    fn process(&mut self, figures: &Figures) {
        self.figure(&PROCESS_CPU, figures.cpu_seconds);
        self.figure(&PROCESS_OPEN_FDS, figures.open_fds);
        self.figure(&PROCESS_MAX_FDS, figures.max_fds);
        self.figure(&PROCESS_RESIDENT, figures.resident_bytes);
        self.figure(&PROCESS_THREADS, figures.threads);
        self.figure(&PROCESS_START, figures.start_seconds);
    }
}
