//! What Prometheus reads: the registered families, and those that are made at the scrape.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use prometheus::TextEncoder;

use super::process::{self, Figures};
use super::{
    CERTIFICATE_EXPIRY, CertificateView, ENDPOINT_ADMIN, ENDPOINT_BREAKER, ENDPOINT_EJECTED,
    ENDPOINT_EJECTIONS, ENDPOINT_IN_FLIGHT, ENDPOINT_OPENINGS, ENDPOINT_SESSIONS, ENDPOINT_UP,
    Family, METRICS, Metrics, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT,
    PROCESS_START, PROCESS_THREADS, SERVER_HEALTHY,
};

/// The media type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An endpoint as it stands at the moment of the scrape.
#[derive(Clone, Copy, Debug)]
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
}

/// All metrics in the text format, with the endpoints of the current state.
///
/// Gauges of endpoints exist only in this text, so an endpoint that a reload removed is gone from
/// the next scrape. A server name that several pools use counts as healthy in
/// `mcp_server_healthy` when it is healthy in all of them.
///
/// Reads a few files of `/proc`, which does not block in practice but is not for a request's path.
pub fn render<'a>(endpoints: &mut dyn Iterator<Item = EndpointView<'a>>) -> String {
    // A scrape is the edge of the process, where reading the clock is in place.
    #[allow(
        clippy::disallowed_methods,
        reason = "the clock of a scrape decides nothing"
    )]
    let now = Instant::now();
    METRICS.render(now, endpoints)
}

impl Metrics {
    pub(super) fn render<'a>(
        &self,
        now: Instant,
        endpoints: &mut dyn Iterator<Item = EndpointView<'a>>,
    ) -> String {
        self.requests_per_second.set(self.sample_rate(now));
        let mut text = String::with_capacity(32 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            log::error!("metrics could not be written in full: {error}");
        }
        let mut exposition = Exposition { text };
        exposition.endpoints(endpoints);
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

/// Writer of the families that are not in the registry.
struct Exposition {
    text: String,
}

impl Exposition {
    fn endpoints<'a>(&mut self, endpoints: &mut dyn Iterator<Item = EndpointView<'a>>) {
        // Sorted, for a stable text; and keyed, because a series may stand in it only once.
        let views: BTreeMap<(&str, &str), EndpointView<'_>> = endpoints
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

    fn figure(&mut self, row: &Family, value: Option<impl Display>) {
        if let Some(value) = value {
            self.heading(row);
            self.sample(row, &[], value);
        }
    }

    fn heading(&mut self, row: &Family) {
        let Family {
            name, kind, help, ..
        } = row;
        self.write(format_args!(
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.as_str()
        ));
    }

    fn sample(&mut self, row: &Family, values: &[&str], value: impl Display) {
        debug_assert_eq!(row.labels.len(), values.len(), "{}", row.name);
        self.text.push_str(row.name);
        for (n, (label, value)) in row.labels.iter().zip(values).enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.label_value(value);
            self.text.push('"');
        }
        if !values.is_empty() {
            self.text.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    fn label_value(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(arguments)
            .expect("writing into a String does not fail");
    }
}

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
