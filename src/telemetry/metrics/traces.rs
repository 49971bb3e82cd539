//! What is counted of spans.

use super::METRICS;
use crate::telemetry::labels::SpanLoss;

/// Counts spans that the collector has taken.
pub fn spans_exported(spans: usize) {
    METRICS.spans_exported.inc_by(spans as u64);
}

/// Counts spans that nobody will see.
pub fn spans_dropped(why: SpanLoss, spans: usize) {
    METRICS.spans_dropped[why as usize].inc_by(spans as u64);
}
