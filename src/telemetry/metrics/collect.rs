//! Making a collector out of a row of the table.
//!
//! What can fail is a row that is not valid or stands twice, which is a property of the table and is
//! covered by a test.

use prometheus::core::Collector;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::{Family, Kind};

const SOUND: &str = "rows of the table are valid and distinct";

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    row: &Family,
    kind: Kind,
    made: prometheus::Result<C>,
) -> C {
    debug_assert_eq!(row.kind, kind, "{}", row.name);
    let collector = made.expect(SOUND);
    registry.register(Box::new(collector.clone())).expect(SOUND);
    collector
}

fn opts(row: &Family) -> Opts {
    Opts::new(row.name, row.help)
}

pub(super) fn counter(registry: &Registry, row: &Family) -> IntCounter {
    registered(
        registry,
        row,
        Kind::Counter,
        IntCounter::with_opts(opts(row)),
    )
}

pub(super) fn counters(registry: &Registry, row: &Family) -> IntCounterVec {
    registered(
        registry,
        row,
        Kind::Counter,
        IntCounterVec::new(opts(row), row.labels),
    )
}

pub(super) fn gauge(registry: &Registry, row: &Family) -> IntGauge {
    registered(registry, row, Kind::Gauge, IntGauge::with_opts(opts(row)))
}

pub(super) fn float_gauge(registry: &Registry, row: &Family) -> Gauge {
    registered(registry, row, Kind::Gauge, Gauge::with_opts(opts(row)))
}

pub(super) fn gauges(registry: &Registry, row: &Family) -> IntGaugeVec {
    registered(
        registry,
        row,
        Kind::Gauge,
        IntGaugeVec::new(opts(row), row.labels),
    )
}

pub(super) fn histograms(registry: &Registry, row: &Family, buckets: &[f64]) -> HistogramVec {
    let opts = HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec());
    registered(
        registry,
        row,
        Kind::Histogram,
        HistogramVec::new(opts, row.labels),
    )
}

/// Registers a family with one closed label, and resolves its children in the order of `values`.
pub(super) fn one_each(
    registry: &Registry,
    row: &Family,
    values: impl Iterator<Item = &'static str>,
) -> Vec<IntCounter> {
    let family = counters(registry, row);
    values
        .map(|value| family.with_label_values(&[value]))
        .collect()
}
