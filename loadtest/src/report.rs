//! Tables for people and JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::{CallStats, Failures};
use crate::hist::Summary;

/// The head of the columns that [`row`] fills.
pub(crate) fn columns() -> String {
    format!(
        "{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}   (ms)",
        "", "p50", "p90", "p99", "p99.9", "max"
    )
}

/// Percentiles of a histogram of microseconds.
pub(crate) fn row(name: &str, summary: Summary) -> String {
    if summary.count == 0 {
        return format!("{name:<16}{:>10}", "none");
    }
    let mut line = format!("{name:<16}");
    for micros in [
        summary.p50,
        summary.p90,
        summary.p99,
        summary.p999,
        summary.max,
    ] {
        line.push_str(&format!("{:>10.3}", micros as f64 / 1_000.0));
    }
    line
}

pub(crate) fn percentiles(summary: Summary) -> Value {
    json!({
        "count": summary.count, "p50": summary.p50, "p90": summary.p90, "p99": summary.p99,
        "p999": summary.p999, "max": summary.max,
    })
}

pub(crate) fn failures(failures: &Failures) -> Value {
    failures
        .iter()
        .map(|(failure, count)| (failure.name(), Value::from(*count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// ` (3 timeout, 1 status_503)`, or nothing.
pub(crate) fn listed(failures: &Failures) -> String {
    let parts: Vec<_> = failures
        .iter()
        .map(|(failure, count)| format!("{count} {}", failure.name()))
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

/// The line that tells how many calls there were.
pub(crate) fn calls(stats: &CallStats, unsent: u64) -> String {
    format!(
        "calls           {} sent, {} failed{}, {unsent} not sent in time, {} reconnects",
        stats.sent,
        stats.failed(),
        listed(&stats.failures),
        stats.reconnects
    )
}

/// The line that tells whether the tool itself was the limit.
pub(crate) fn tool(cpu: Duration, wall: Duration, threads: u64) -> String {
    let share = share(cpu, wall, threads);
    let verdict = if share > 80.0 {
        ": THE TOOL MAY BE THE LIMIT, use more --threads"
    } else {
        ""
    };
    format!(
        "tool            cpu {:.2} s, {share:.0}% of its {threads} thread(s){verdict}",
        cpu.as_secs_f64()
    )
}

/// CPU use in per cent of what `threads` could use in `wall`.
pub(crate) fn share(cpu: Duration, wall: Duration, threads: u64) -> f64 {
    100.0 * cpu.as_secs_f64() / (wall.as_secs_f64() * threads as f64).max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Failure;

    #[test]
    fn rows_are_in_milliseconds_and_line_up() {
        let summary = Summary {
            count: 1,
            p50: 1,
            p90: 1_500,
            p99: 2_000,
            p999: 10_000_000,
            max: 10_000_001,
        };
        let row = row("calls", summary);
        assert_eq!(
            row,
            "calls                0.001     1.500     2.000 10000.000 10000.001"
        );
        assert_eq!(row.len() + "   (ms)".len(), columns().len());
    }

    #[test]
    fn failures_are_named() {
        let counted = Failures::from([(Failure::Status(503), 2), (Failure::Timeout, 1)]);
        assert_eq!(listed(&counted), " (1 timeout, 2 status_503)");
        assert_eq!(failures(&counted), json!({"status_503": 2, "timeout": 1}));
        assert_eq!(listed(&Failures::new()), "");
    }
}
