//! Every metric there is, in one table, and the few calls that move them.
//!
//! The registry is the one global of the process: a number is recorded from any thread, and
//! passing a handle through every signature would say nothing that the name of the call does not.
//!
//! The `mcp_` families have names, types and labels that dashboards and alert rules for MCP
//! gateways already use; they are an interface and do not change. Our own start with `tidegate_`,
//! and the figures of the process have the names that every Prometheus client library gives them.
//!
//! **Zero traffic.** Scripts grep the exposition for a family right after the start, and a series
//! that appears with its first increment hides that increment from `rate()`. So every family has a
//! sample from the beginning. Where the labels are closed sets, all combinations are there at 0.
//! Where they are not, one stands in: `method="initialize"`, `status="200"`, and an empty
//! `tool_name`, `server_name` or `pool`. The exception is what is known only per endpoint
//! (`mcp_server_healthy`, `tidegate_endpoint_*`): a stand-in at 0 would raise the alert for an
//! unhealthy server and one at 1 would be a lie, so without endpoints there is a heading only. The
//! same holds for the ends of certificates.
//!
//! `mcp_context_size_bytes` is there only where it is asked for: its label is a session, and those have
//! no bound but the one that is configured.
//!
//! **Requests and streams.** See [`RequestRecord`] for what counts as the duration of a request.

mod certificates;
mod collect;
mod doors;
mod exposition;
mod family;
mod look;
mod open;
mod pairs;
mod process;
mod rate;
mod record;
mod reload;
mod scrape;
#[cfg(test)]
mod tests;
mod traces;
mod views;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;
use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

pub use self::certificates::{CertificateView, acme_ordered, set_certificates};
use self::collect::{counter, counters, float_gauge, gauge, gauges, histograms, one_each};
pub use self::doors::{handshake_failed, proxy_header_failed};
pub use self::family::{Family, Kind};
pub use self::look::{Buckets, Ending, Load, Tool, load, sessions_ended, streams_ended, tools};
pub use self::open::{ActiveConnection, OpenStream};
use self::pairs::Pairs;
pub use self::pairs::{PAIRS_MAX, SERVERS_MAX};
use self::rate::RateWindow;
pub use self::record::{RequestRecord, flush, gather, record_request};
pub use self::reload::{configured, reload_failed, reloaded};
pub use self::scrape::{CONTENT_TYPE, render};
pub use self::traces::{spans_dropped, spans_exported};
pub use self::views::{Distribution, EndpointView, Observed, PoolView};
use super::labels::{
    AcmeResult, HandshakeFailure, HeaderFailure, Limit, RecoveryOutcome, RefusedId, ReloadResult,
    Resumed, RetryOutcome, SessionEnd, SpanLoss, StreamEnd, StreamKind, ToolOutcome,
};

/// Writes the table once, and from it both the named rows and the list of all of them.
macro_rules! table {
    ($($row:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(crate) static $row: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// Every family this process can expose.
        pub static FAMILIES: &[&Family] = &[$(&$row),+];
    };
}

table! {
    REQUESTS = Counter "mcp_requests_total" ["method", "tool_name", "status"]
        "Requests answered, by MCP method (empty: not MCP), tool and HTTP status.";
    TOOL_CALLS = Counter "mcp_tool_calls_total" ["tool_name", "server_name", "status"]
        "Tool calls, by tool, endpoint and outcome (success or error).";
    REQUEST_DURATION = Histogram "mcp_request_duration_seconds" ["method", "tool_name"]
        "Seconds to the whole reply, or to the first byte of it when it is a stream.";
    TOOL_DURATION = Histogram "mcp_tool_execution_duration_seconds" ["tool_name", "server_name"]
        "Seconds from a tool call to the end of its reply.";
    ACTIVE_CONNECTIONS = Gauge "mcp_active_connections" []
        "Client connections open now.";
    SERVER_HEALTHY = Gauge "mcp_server_healthy" ["server_name"]
        "1 when the endpoint's checks find it up, 0 when they do not.";
    REQUESTS_PER_SECOND = Gauge "mcp_requests_per_second" []
        "Requests answered per second, over the last minute.";

    SESSIONS = Gauge "tidegate_sessions" []
        "Sessions in the table of live sessions.";
    CONTEXT_SIZE = Gauge "mcp_context_size_bytes" ["session_id"]
        "Bytes of request and response bodies that have passed in a session so far, by its hash in the log.";
    CONTEXTS_NOT_SHOWN = Counter "tidegate_context_sizes_overflow_total" []
        "Sessions without a series of their size, because as many as may have one do.";
    SESSIONS_OPENED = Counter "tidegate_sessions_opened_total" []
        "Sessions opened by an initialize that succeeded.";
    SESSIONS_ENDED = Counter "tidegate_sessions_ended_total" ["reason"]
        "Sessions that left the table of live sessions.";
    STREAMS = Gauge "tidegate_streams" ["kind"]
        "Streams open now.";
    STREAMS_ENDED = Counter "tidegate_streams_ended_total" ["kind", "reason"]
        "Streams ended, by what carried them and why they ended.";
    STREAMS_REESTABLISHED = Counter "tidegate_streams_reestablished_total" ["kind"]
        "Streams whose server was lost and that went on with another, or the same, behind the client's.";
    STREAMS_RESUMED = Counter "tidegate_streams_resumed_total" ["found"]
        "Streams that a client came back to with an event id of ours, by what it found.";
    REFUSED_IDS = Counter "tidegate_refused_ids_total" ["reason"]
        "Session ids that were answered as unknown.";
    LIMITS_HIT = Counter "tidegate_limits_hit_total" ["limit"]
        "Times a limit refused or cut something.";
    QUEUE_WAIT = Histogram "tidegate_queue_wait_seconds" ["pool"]
        "Seconds that calls waited for a place at an endpoint, for each that had to, whatever came of it.";
    RELOADS = Counter "tidegate_reloads_total" ["result"]
        "Times the configuration was read again, by whether it is in force (ok) or all stayed as it was (failed).";
    RELOAD_GOOD = Gauge "tidegate_config_last_reload_successful" []
        "1 when the configuration that was read last is in force, 0 when it is not.";
    RELOAD_AT = Gauge "tidegate_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was read, in seconds since the epoch.";
    RECOVERIES = Counter "tidegate_session_recoveries_total" ["pool", "outcome"]
        "Sessions that were begun again after their endpoint was lost.";
    HANDSHAKES_FAILED = Counter "tidegate_tls_handshakes_failed_total" ["reason"]
        "TLS handshakes with clients that came to nothing.";
    ACME_ORDERS = Counter "tidegate_acme_orders_total" ["result"]
        "Orders of certificates from authorities, by what came of them.";
    SPANS_EXPORTED = Counter "tidegate_spans_exported_total" []
        "Spans that the collector of traces has taken.";
    SPANS_DROPPED = Counter "tidegate_spans_dropped_total" ["reason"]
        "Spans that were recorded and not sent, by why.";
    CERTIFICATE_EXPIRY = Gauge "tidegate_certificate_expiry_seconds" ["listener", "certificate"]
        "When a listener's certificate expires, in seconds since the epoch.";
    PROXY_HEADERS_FAILED = Counter "tidegate_proxy_headers_failed_total" ["reason"]
        "Connections closed because their header of the PROXY protocol came to nothing.";
    RETRIES = Counter "tidegate_retries_total" ["pool", "outcome"]
        "Times a call failed in a way that made a second attempt worth considering.";
    LABEL_OVERFLOW = Counter "tidegate_label_overflow_total" []
        "Tool calls labelled other, because no catalog names the tool or as many are told apart as may be.";
    LOG_LINES_DROPPED = Counter "tidegate_log_lines_dropped_total" []
        "Access log lines lost to a full queue or to a file that could not be written.";
    BUILD_INFO = Gauge "tidegate_build_info" ["version"]
        "Always 1; the label tells the version.";

    POOL_ENDPOINTS = Gauge "tidegate_pool_endpoints" ["pool"]
        "Endpoints in the configuration of the pool.";
    POOL_AVAILABLE = Gauge "tidegate_pool_endpoints_available" ["pool"]
        "Endpoints of the pool that get new calls now.";
    CALLS_WAITING = Gauge "tidegate_calls_waiting" ["pool"]
        "Calls that wait for a place at an endpoint with a max_in_flight.";
    RETRY_BUDGET = Gauge "tidegate_retry_budget" ["pool"]
        "Calls that the retry budget of the pool would allow to be tried again now.";
    WORKER_LAG = Gauge "tidegate_worker_lag_seconds" ["worker"]
        "How late a worker thread has taken a turn: the most since the scrape before.";

    ENDPOINT_UP = Gauge "tidegate_endpoint_up" ["pool", "endpoint"]
        "1 when the endpoint's checks find it up, 0 when they do not.";
    ENDPOINT_IN_FLIGHT = Gauge "tidegate_endpoint_in_flight" ["pool", "endpoint"]
        "Calls in flight on the endpoint.";
    ENDPOINT_SESSIONS = Gauge "tidegate_endpoint_sessions" ["pool", "endpoint"]
        "Live sessions on the endpoint.";

    ENDPOINT_ADMIN = Gauge "tidegate_endpoint_admin_state" ["pool", "endpoint"]
        "What the operator wants of the endpoint: 0 up, 1 drain, 2 maint.";
    ENDPOINT_EJECTED = Gauge "tidegate_endpoint_ejected" ["pool", "endpoint"]
        "1 while the endpoint is ejected because of failures in a row, else 0.";
    ENDPOINT_EJECTIONS = Counter "tidegate_endpoint_ejections_total" ["pool", "endpoint"]
        "Times the endpoint was ejected.";
    ENDPOINT_BREAKER = Gauge "tidegate_endpoint_breaker_state" ["pool", "endpoint"]
        "What the endpoint's breaker does: 0 closed, 1 half-open, 2 open.";
    ENDPOINT_OPENINGS = Counter "tidegate_endpoint_breaker_opened_total" ["pool", "endpoint"]
        "Times the endpoint's breaker has opened.";
    ENDPOINT_CONNECT = Histogram "tidegate_endpoint_connect_seconds" ["pool", "endpoint"]
        "Seconds to a connection to the endpoint, for each that was made for a call.";
    ENDPOINT_FIRST_BYTE = Histogram "tidegate_endpoint_first_byte_seconds" ["pool", "endpoint"]
        "Seconds from a call that was sent to the endpoint to the first byte of its answer.";
    ENDPOINT_FAILURES = Counter "tidegate_endpoint_failures_total" ["pool", "endpoint", "kind"]
        "Calls that failed by the endpoint's own fault, by how they did.";
    CHECKS_EXCUSED = Counter "tidegate_checks_excused_total" []
        "Checks that were passed over, because this machine was short of CPU, ports, files or memory.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "CPU seconds spent in user and kernel mode.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Soft limit of open file descriptors.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Resident memory in bytes.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "Start of the process in seconds since the epoch.";
}

/// Upper bounds in seconds. 0.01 is what a proxy is expected to stay under, and 1 is the threshold
/// of the usual latency alert, which can only be exact at a bound.
const REQUEST_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Upper bounds in seconds. Tools may work for minutes.
const TOOL_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// The registered families. Children of closed sets are resolved here once, and found by index.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    tool_calls: IntCounterVec,
    /// Which tools are told apart at which servers.
    pairs: Pairs,
    /// Moves on when series were taken out, so that whoever holds handles gets them anew.
    generation: AtomicU64,
    tool_duration: HistogramVec,
    active_connections: IntGauge,
    requests_per_second: Gauge,
    sessions: IntGauge,
    sessions_opened: IntCounter,
    sessions_ended: Vec<IntCounter>,
    streams: Vec<IntGauge>,
    /// By kind, then by reason.
    streams_ended: Vec<Vec<IntCounter>>,
    streams_reestablished: Vec<IntCounter>,
    streams_resumed: Vec<IntCounter>,
    refused_ids: Vec<IntCounter>,
    limits_hit: Vec<IntCounter>,
    recoveries: IntCounterVec,
    handshakes_failed: Vec<IntCounter>,
    proxy_headers_failed: Vec<IntCounter>,
    acme_orders: Vec<IntCounter>,
    spans_exported: IntCounter,
    spans_dropped: Vec<IntCounter>,
    /// Locked when a configuration or a certificate changes, and by a scrape.
    certificates: Mutex<Vec<CertificateView>>,
    retries: IntCounterVec,
    queue_wait: HistogramVec,
    /// By whether it went well.
    reloads: Vec<IntCounter>,
    reload_good: IntGauge,
    reload_at: Gauge,
    contexts_not_shown: IntCounter,
    label_overflow: IntCounter,
    log_lines_dropped: IntCounter,
    checks_excused: IntCounter,
    /// All requests, whatever their labels; the numerator of `mcp_requests_per_second`.
    answered: AtomicU64,
    /// Locked by `tick` and by a scrape, never by a request.
    rate: Mutex<RateWindow>,
}

static METRICS: Lazy<Metrics> = Lazy::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let requests = counters(&registry, &REQUESTS);
        let request_duration = histograms(&registry, &REQUEST_DURATION, REQUEST_BUCKETS);
        let tool_calls = counters(&registry, &TOOL_CALLS);
        let tool_duration = histograms(&registry, &TOOL_DURATION, TOOL_BUCKETS);
        let recoveries = counters(&registry, &RECOVERIES);
        let retries = counters(&registry, &RETRIES);
        let queue_wait = histograms(&registry, &QUEUE_WAIT, REQUEST_BUCKETS);
        queue_wait.with_label_values(&[""]);
        let streams = gauges(&registry, &STREAMS);
        let streams_ended = counters(&registry, &STREAMS_ENDED);

        requests.with_label_values(&["initialize", "", "200"]);
        request_duration.with_label_values(&["initialize", ""]);
        tool_duration.with_label_values(&["", ""]);
        for outcome in ToolOutcome::ALL {
            tool_calls.with_label_values(&["", "", outcome.as_str()]);
        }
        for outcome in RecoveryOutcome::ALL {
            recoveries.with_label_values(&["", outcome.as_str()]);
        }
        for outcome in RetryOutcome::ALL {
            retries.with_label_values(&["", outcome.as_str()]);
        }
        gauges(&registry, &BUILD_INFO)
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);

        let ended = |kind: &StreamKind| {
            let child =
                |end: &StreamEnd| streams_ended.with_label_values(&[kind.as_str(), end.as_str()]);
            StreamEnd::ALL.iter().map(child).collect()
        };
        Self {
            requests,
            request_duration,
            tool_calls,
            pairs: Pairs::default(),
            generation: AtomicU64::new(0),
            tool_duration,
            active_connections: gauge(&registry, &ACTIVE_CONNECTIONS),
            requests_per_second: float_gauge(&registry, &REQUESTS_PER_SECOND),
            sessions: gauge(&registry, &SESSIONS),
            sessions_opened: counter(&registry, &SESSIONS_OPENED),
            sessions_ended: one_each(
                &registry,
                &SESSIONS_ENDED,
                SessionEnd::ALL.iter().map(|end| end.as_str()),
            ),
            streams: StreamKind::ALL
                .iter()
                .map(|kind| streams.with_label_values(&[kind.as_str()]))
                .collect(),
            streams_ended: StreamKind::ALL.iter().map(ended).collect(),
            streams_reestablished: one_each(
                &registry,
                &STREAMS_REESTABLISHED,
                StreamKind::ALL.iter().map(|kind| kind.as_str()),
            ),
            streams_resumed: one_each(
                &registry,
                &STREAMS_RESUMED,
                Resumed::ALL.iter().map(|found| found.as_str()),
            ),
            refused_ids: one_each(
                &registry,
                &REFUSED_IDS,
                RefusedId::ALL.iter().map(|reason| reason.as_str()),
            ),
            limits_hit: one_each(
                &registry,
                &LIMITS_HIT,
                Limit::ALL.iter().map(|limit| limit.as_str()),
            ),
            recoveries,
            handshakes_failed: one_each(
                &registry,
                &HANDSHAKES_FAILED,
                HandshakeFailure::ALL.iter().map(|why| why.as_str()),
            ),
            proxy_headers_failed: one_each(
                &registry,
                &PROXY_HEADERS_FAILED,
                HeaderFailure::ALL.iter().map(|why| why.as_str()),
            ),
            acme_orders: one_each(
                &registry,
                &ACME_ORDERS,
                AcmeResult::ALL.iter().map(|result| result.as_str()),
            ),
            spans_exported: counter(&registry, &SPANS_EXPORTED),
            spans_dropped: one_each(
                &registry,
                &SPANS_DROPPED,
                SpanLoss::ALL.iter().map(|why| why.as_str()),
            ),
            certificates: Mutex::default(),
            retries,
            queue_wait,
            reloads: one_each(
                &registry,
                &RELOADS,
                ReloadResult::ALL.iter().map(|result| result.as_str()),
            ),
            reload_good: gauge(&registry, &RELOAD_GOOD),
            reload_at: float_gauge(&registry, &RELOAD_AT),
            contexts_not_shown: counter(&registry, &CONTEXTS_NOT_SHOWN),
            label_overflow: counter(&registry, &LABEL_OVERFLOW),
            log_lines_dropped: counter(&registry, &LOG_LINES_DROPPED),
            checks_excused: counter(&registry, &CHECKS_EXCUSED),
            answered: AtomicU64::new(0),
            rate: Mutex::new(RateWindow::default()),
            registry,
        }
    }
}

/// Counts a session opened by an `initialize` that a server accepted.
pub fn session_opened() {
    METRICS.sessions_opened.inc();
}

/// Counts a session that left the table of live sessions.
pub fn session_ended(reason: SessionEnd) {
    METRICS.sessions_ended[reason as usize].inc();
}

/// Sets the number of live sessions to the length of the table.
///
/// It is not derived from openings and endings: a session sealed before a restart enters the table
/// without being opened here.
pub fn set_sessions(live: usize) {
    METRICS
        .sessions
        .set(i64::try_from(live).unwrap_or(i64::MAX));
}

/// Notes how long a call has waited for a place. `pool` is a name from the configuration.
pub fn queue_waited(pool: &str, waited: Duration) {
    METRICS
        .queue_wait
        .with_label_values(&[pool])
        .observe(waited.as_secs_f64());
}

/// Counts a stream that goes on after its server was lost.
pub fn stream_reestablished(kind: StreamKind) {
    METRICS.streams_reestablished[kind as usize].inc();
}

/// Counts a client that came back to a stream.
pub fn stream_resumed(found: Resumed) {
    METRICS.streams_resumed[found as usize].inc();
}

/// Counts a session id that was answered as unknown.
pub fn id_refused(reason: RefusedId) {
    METRICS.refused_ids[reason as usize].inc();
}

/// Counts a limit that refused or cut something.
pub fn limit_hit(limit: Limit) {
    METRICS.limits_hit[limit as usize].inc();
}

/// Counts a session that was, or was not, begun again elsewhere. `pool` is a name from the
/// configuration.
pub fn session_recovered(pool: &str, success: bool) {
    let outcome = if success {
        RecoveryOutcome::Success
    } else {
        RecoveryOutcome::Failed
    };
    METRICS
        .recoveries
        .with_label_values(&[pool, outcome.as_str()])
        .inc();
}

/// Counts what came of a call for which a second attempt was considered. `pool` is a name from the
/// configuration.
pub fn retried(pool: &str, outcome: RetryOutcome) {
    METRICS
        .retries
        .with_label_values(&[pool, outcome.as_str()])
        .inc();
}

/// Counts a check that is not held against its endpoint.
pub fn check_excused() {
    METRICS.checks_excused.inc();
}

/// Counts a session that has no series of its own.
pub fn context_not_shown() {
    METRICS.contexts_not_shown.inc();
}

/// Counts a tool call whose name became `other`.
pub(super) fn label_overflowed() {
    METRICS.label_overflow.inc();
}

/// Counts access log lines that will not be written.
pub(super) fn log_lines_dropped(lines: u64) {
    METRICS.log_lines_dropped.inc_by(lines);
}

/// Moves the window of `mcp_requests_per_second`.
///
/// To be called about once a second by a background task; calls closer than a second together are
/// ignored. Without it the window reaches back to the last scrape that is a minute old.
pub fn tick(now: Instant) {
    METRICS.sample_rate(now);
}

/// Requests answered since the start, of all kinds; what a thread has counted in its last tick may be missing.
pub fn requests() -> u64 {
    METRICS.answered.load(Ordering::Relaxed)
}

impl Metrics {
    /// Takes a sample of the number of requests and returns their rate per second.
    fn sample_rate(&self, now: Instant) -> f64 {
        let answered = self.answered.load(Ordering::Relaxed);
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.sample(now, answered)
    }
}
