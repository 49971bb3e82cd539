//! Traces: what is recorded of requests, and where it is sent, as checked.

use std::fmt;
use std::time::Duration;

use super::log::Share;
use super::secure::Trust;

/// Spans for requests, sent to a collector (OpenTelemetry, OTLP 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Where the collector listens.
    pub endpoint: Collector,
    /// How it is spoken to (default http).
    pub protocol: TraceProtocol,
    /// Fields that go with every batch. At most 32.
    pub headers: TraceHeaders,
    /// How long one batch may take to be sent and answered (default 10s).
    pub timeout: Duration,
    /// Of the traces that begin here, so many are recorded (default all). Others follow their parent.
    pub sample: Share,
    /// What this process is called in traces: 1 to 128 characters (default tidegate).
    pub service_name: String,
    /// The most spans that wait to be sent (default 2048); one over it is dropped and counted.
    pub queue: usize,
}

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// DNS name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Host and port as they are asked for.
    pub authority: String,
    /// The path that batches are posted to over HTTP (default /v1/traces).
    pub path: String,
    /// Who vouches for it; `None`: TLS is not spoken.
    pub trust: Option<Trust>,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TraceProtocol {
    /// Protobuf in POST requests.
    Http,
    /// gRPC, on HTTP/2.
    Grpc,
}

/// Names and values of fields. Values are not shown: most of them are keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TraceHeaders(pub Vec<(String, String)>);

impl fmt::Debug for TraceHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}
