//! The same figures that a scrape has, for an operator who looks at them without Prometheus.
//!
//! Read from the families themselves, a few times a minute or once a second: nothing of it is on the way
//! of a request.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, Metric};

use super::{METRICS, Metrics, REQUEST_BUCKETS};
use crate::telemetry::labels::{SessionEnd, StreamEnd, StreamKind, ToolOutcome};

/// How many took how long, as a histogram of `mcp_request_duration_seconds` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets {
    /// How many were at or under each bound, and the last of them any time at all.
    counts: Vec<u64>,
}

impl Buckets {
    fn add(&mut self, metric: &Metric) {
        let histogram = metric.get_histogram();
        self.counts.resize(REQUEST_BUCKETS.len() + 1, 0);
        for (sum, bucket) in self.counts.iter_mut().zip(histogram.get_bucket()) {
            *sum += bucket.get_cumulative_count();
        }
        self.counts[REQUEST_BUCKETS.len()] += histogram.get_sample_count();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.last().copied().unwrap_or_default()
    }

    /// Those that have come since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let before = before.counts.iter().chain(std::iter::repeat(&0));
        let counts = self.counts.iter().zip(before);
        Self {
            counts: counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }

    /// The time in seconds that a share of them kept within, as `histogram_quantile` estimates it: as if
    /// those of a bucket were spread evenly over it, and no more than the last bound. `None` if there are
    /// none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = share * total as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (count, bound) in self.counts.iter().zip(REQUEST_BUCKETS) {
            let count = *count as f64;
            if count >= rank && count > below {
                return Some(from + (bound - from) * (rank - below) / (count - below));
            }
            (below, from) = (count, *bound);
        }
        REQUEST_BUCKETS.last().copied()
    }
}

/// What the process has done so far, over all there is.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Those of them that were answered with a status from 500 on.
    pub failed: u64,
    /// How long they took.
    pub times: Buckets,
    /// The same for calls of each tool that is told apart, by its name. Those that are told apart are
    /// bounded.
    pub tools: BTreeMap<String, Buckets>,
    /// Connections of clients that are open.
    pub connections: u64,
}

/// What the process has done so far.
pub fn load() -> Load {
    METRICS.load()
}

/// How often a tool was called so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tool {
    /// Calls.
    pub calls: u64,
    /// Those of them that came to nothing.
    pub errors: u64,
}

/// How often each tool was called, by its name, over all endpoints.
pub fn tools() -> BTreeMap<String, Tool> {
    METRICS.tools()
}

/// How often something ended for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What: the kind of a stream; empty for a session.
    pub kind: &'static str,
    /// Why, as the label of the family.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Why streams ended so far; the reasons that there were.
pub fn streams_ended() -> Vec<Ending> {
    METRICS.streams_have_ended()
}

/// Why sessions ended so far; the reasons that there were.
pub fn sessions_ended() -> Vec<Ending> {
    let all = SessionEnd::ALL.iter().zip(&METRICS.sessions_ended);
    let all = all.map(|(reason, count)| Ending {
        kind: "",
        reason: reason.as_str(),
        count: count.get(),
    });
    all.filter(|ending| ending.count > 0).collect()
}

impl Metrics {
    pub(super) fn load(&self) -> Load {
        let mut load = Load {
            requests: self.answered.load(Ordering::Relaxed),
            connections: u64::try_from(self.active_connections.get()).unwrap_or_default(),
            ..Load::default()
        };
        for family in self.requests.collect() {
            let failed = family.get_metric().iter().filter(|metric| {
                let status = label(metric.get_label(), "status");
                status.starts_with('5')
            });
            let counts = failed.map(|metric| metric.get_counter().get_value() as u64);
            load.failed += counts.sum::<u64>();
        }
        for family in self.request_duration.collect() {
            for metric in family.get_metric() {
                load.times.add(metric);
                let tool = label(metric.get_label(), "tool_name");
                if !tool.is_empty() {
                    load.tools.entry(tool.to_owned()).or_default().add(metric);
                }
            }
        }
        load
    }

    pub(super) fn tools(&self) -> BTreeMap<String, Tool> {
        let mut tools: BTreeMap<String, Tool> = BTreeMap::new();
        for family in self.tool_calls.collect() {
            for metric in family.get_metric() {
                let name = label(metric.get_label(), "tool_name");
                let count = metric.get_counter().get_value() as u64;
                if name.is_empty() || count == 0 {
                    continue;
                }
                let tool = tools.entry(name.to_owned()).or_default();
                tool.calls += count;
                if label(metric.get_label(), "status") == ToolOutcome::Error.as_str() {
                    tool.errors += count;
                }
            }
        }
        tools
    }

    fn streams_have_ended(&self) -> Vec<Ending> {
        let kinds = StreamKind::ALL.iter().zip(&self.streams_ended);
        let all = kinds.flat_map(|(kind, counts)| {
            let reasons = StreamEnd::ALL.iter().zip(counts);
            reasons.map(|(reason, count)| Ending {
                kind: kind.as_str(),
                reason: reason.as_str(),
                count: count.get(),
            })
        });
        all.filter(|ending| ending.count > 0).collect()
    }
}

fn label<'a>(labels: &'a [LabelPair], name: &str) -> &'a str {
    let found = labels.iter().find(|pair| pair.get_name() == name);
    found.map_or("", LabelPair::get_value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::RequestRecord;
    use super::super::record::Cache;
    use super::*;
    use crate::telemetry::labels::{ToolLabel, ToolNames};

    fn call(metrics: &Metrics, tool: ToolLabel, millis: u64, outcome: ToolOutcome) {
        Cache::default().record(
            metrics,
            &RequestRecord {
                method: "tools/call",
                tool,
                status: 200,
                server: "a",
                first_byte: None,
                duration: Duration::from_millis(millis),
                tool_outcome: Some(outcome),
            },
        );
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_it_falls_into() {
        let metrics = Metrics::new();
        assert_eq!(metrics.load().times.quantile(0.5), None);
        for n in 0..100 {
            let millis = if n < 90 { 7 } else { 70 };
            call(&metrics, ToolLabel::OTHER, millis, ToolOutcome::Success);
        }
        let before = metrics.load();
        assert_eq!((before.requests, before.times.count()), (100, 100));
        let (half, most) = (before.times.quantile(0.5), before.times.quantile(0.99));
        assert!((0.005..=0.01).contains(&half.unwrap()), "{half:?}");
        assert!((0.05..=0.1).contains(&most.unwrap()), "{most:?}");
        call(&metrics, ToolLabel::OTHER, 600_000, ToolOutcome::Success);
        let since = metrics.load().times.since(&before.times);
        assert_eq!(since.count(), 1);
        assert_eq!(since.quantile(0.5), Some(60.0), "the last bound");
    }

    #[test]
    fn tools_are_told_apart_and_their_failures_counted() {
        let metrics = Metrics::new();
        let names = ToolNames::new();
        names.learn("main", ["add"]);
        let add = names.label("add");
        call(&metrics, add, 1, ToolOutcome::Success);
        call(&metrics, add, 1, ToolOutcome::Error);
        call(&metrics, ToolLabel::OTHER, 1, ToolOutcome::Error);
        let tool = |calls, errors| Tool { calls, errors };
        let expected = BTreeMap::from([
            ("add".to_owned(), tool(2, 1)),
            ("other".to_owned(), tool(1, 1)),
        ]);
        assert_eq!(metrics.tools(), expected);
        assert_eq!(metrics.load().tools["add"].count(), 2);
    }
}
