//! What happened: numbers for Prometheus and one line per request.
//!
//! A gateway that thousands of clients pass through is judged by what can be read off it at three
//! in the morning. Two things make that hard here. Clients choose tool names, and a label whose
//! values a client chooses grows until the monitoring falls over, so every label comes from a
//! closed set or from a bounded catalog ([`labels`]). And both the numbers and the log stand on
//! the path of every request, so recording allocates nothing, takes no process-wide lock and never
//! waits for a disk ([`metrics`], [`access_log`]).
//!
//! Callers pass plain values, and the format of a line as the configuration has read it. This module does not know what a
//! pool, a session or a route is beyond the words it prints, and it is the only place that knows
//! the names of metrics and log fields.

pub mod access_log;
pub mod feed;
pub mod labels;
pub mod messages;
pub mod metrics;
pub mod traces;

pub use access_log::{AccessLog, Entry, Proved, SessionTag, Times, spread};
pub use labels::{
    AcmeResult, HandshakeFailure, HeaderFailure, Limit, RefusedId, Resumed, RetryOutcome,
    SessionEnd, SpanLoss, StreamEnd, StreamKind, ToolLabel, ToolNames, ToolOutcome,
};
pub use metrics::{
    ActiveConnection, CONTENT_TYPE, CertificateView, Distribution, EndpointView, Observed,
    OpenStream, PoolView, RequestRecord, acme_ordered, check_excused, configured,
    context_not_shown, flush, gather, handshake_failed, id_refused, limit_hit, proxy_header_failed,
    queue_waited, record_request, reload_failed, reloaded, render, requests, retried,
    session_ended, session_opened, session_recovered, set_certificates, set_sessions,
    spans_dropped, spans_exported, stream_reestablished, stream_resumed, tick,
};
pub use traces::{Attempt, Record, Traced, Traces};
