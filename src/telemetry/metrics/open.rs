//! What is counted as long as it is open.

use super::{METRICS, Metrics};
use crate::telemetry::labels::{StreamEnd, StreamKind};

/// One client connection, counted in `mcp_active_connections` until dropped.
#[derive(Debug)]
#[must_use = "the connection is counted only as long as the guard lives"]
pub struct ActiveConnection(&'static Metrics);

impl ActiveConnection {
    /// Counts a connection that was accepted.
    pub fn enter() -> Self {
        Self::enter_in(&METRICS)
    }

    pub(super) fn enter_in(metrics: &'static Metrics) -> Self {
        metrics.active_connections.inc();
        Self(metrics)
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.active_connections.dec();
    }
}

/// One open stream, counted in `tidegate_streams` until it ends.
///
/// Dropped without [`end`](Self::end) it counts as [`StreamEnd::Aborted`].
#[derive(Debug)]
#[must_use = "the stream is counted only as long as the guard lives"]
pub struct OpenStream {
    kind: StreamKind,
    reason: StreamEnd,
    metrics: &'static Metrics,
}

impl OpenStream {
    /// Counts a stream whose head went out to the client.
    pub fn enter(kind: StreamKind) -> Self {
        Self::enter_in(&METRICS, kind)
    }

    pub(super) fn enter_in(metrics: &'static Metrics, kind: StreamKind) -> Self {
        metrics.streams[kind as usize].inc();
        Self {
            kind,
            reason: StreamEnd::Aborted,
            metrics,
        }
    }

    /// What carries the stream.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Counts the end of the stream.
    pub fn end(mut self, reason: StreamEnd) {
        self.reason = reason;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let kind = self.kind as usize;
        self.metrics.streams[kind].dec();
        self.metrics.streams_ended[kind][self.reason as usize].inc();
    }
}
