//! What changes from second to second: figures of the last minutes, and a frame of them for whoever
//! follows the events.
//!
//! One task looks once a second, whether anybody listens or not, so that a page that opens has a past to
//! show. What it keeps is bounded by [`POINTS`] and by the tools that are told apart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{look, view};
use crate::config::AdminLevel;
use crate::server::operator::Operator;
use crate::telemetry::feed::rfc3339;
use crate::telemetry::metrics::{self, Buckets, Load};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Points that are kept: five minutes.
const POINTS: usize = 300;
/// Over how many points a latency is taken.
const LATENCY_OVER: usize = 10;
/// How many points lie between two looks at tools.
const TOOLS_EVERY: usize = 10;
/// Looks at tools that are kept: a minute.
const TOOLS_KEPT: usize = 7;

/// What of an endpoint is in a frame; the rest hardly changes.
const OF_ENDPOINT: &[&str] = &[
    "name",
    "address",
    "state",
    "health",
    "admin",
    "weight",
    "sessions",
    "in_flight",
    "failures_in_row",
    "ejections",
    "failures",
    "first_byte_p50_seconds",
    "first_byte_p99_seconds",
];

/// The figures of one second.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    /// When, in seconds since the epoch.
    time: u64,
    requests_per_second: f64,
    failed_per_second: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// What was seen at one moment, to be compared with what is seen later.
struct Seen {
    at: Instant,
    requests: u64,
    failed: u64,
    times: Buckets,
}

#[derive(Default)]
struct Past {
    points: VecDeque<Point>,
    seen: VecDeque<Seen>,
    tools: VecDeque<(Instant, Load)>,
    looks: usize,
    newest: Load,
}

/// The figures of the last minutes.
pub(super) struct Live {
    past: Mutex<Past>,
    /// Each second another one, as the text of an event.
    frames: watch::Sender<Arc<str>>,
}

impl Live {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            past: Mutex::default(),
            frames: watch::Sender::new("".into()),
        })
    }

    /// Looks once a second, for as long as it is polled.
    pub(super) async fn run(self: Arc<Self>, operator: Arc<Operator>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.note(Instant::now(), SystemTime::now(), metrics::load());
            if self.frames.receiver_count() > 0 {
                self.frames.send_replace(self.now(&operator));
            }
        }
    }

    /// The frames from now on, and one that is new.
    pub(super) fn follow(&self, operator: &Operator) -> (Arc<str>, watch::Receiver<Arc<str>>) {
        let mut frames = self.frames.subscribe();
        frames.mark_unchanged();
        (self.now(operator), frames)
    }

    /// How things stand at this moment, as the text of an event.
    pub(super) fn now(&self, operator: &Operator) -> Arc<str> {
        self.frame(operator).to_string().into()
    }

    fn note(&self, now: Instant, time: SystemTime, load: Load) {
        let mut past = self.past();
        let seen = Seen {
            at: now,
            requests: load.requests,
            failed: load.failed,
            times: load.times.clone(),
        };
        if let Some(last) = past.seen.back() {
            let seconds = now.saturating_duration_since(last.at).as_secs_f64();
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(0.001);
            let oldest = past.seen.front().unwrap_or(last);
            let times = seen.times.since(&oldest.times);
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let point = Point {
                time: time.as_secs(),
                requests_per_second: rate(seen.requests, last.requests),
                failed_per_second: rate(seen.failed, last.failed),
                p50: times.quantile(0.5),
                p99: times.quantile(0.99),
            };
            keep(&mut past.points, point, POINTS);
        }
        keep(&mut past.seen, seen, LATENCY_OVER);
        if past.looks.is_multiple_of(TOOLS_EVERY) {
            keep(&mut past.tools, (now, load.clone()), TOOLS_KEPT);
        }
        past.looks += 1;
        past.newest = load;
    }

    /// What is sent each second.
    fn frame(&self, operator: &Operator) -> Value {
        let mut pools = serde_json::to_value(look::pools(operator).pools).unwrap_or_default();
        let endpoints = pools.as_array_mut().into_iter().flatten();
        let endpoints = endpoints.filter_map(|pool| pool["endpoints"].as_array_mut());
        for endpoint in endpoints.flatten().filter_map(Value::as_object_mut) {
            endpoint.retain(|key, _| OF_ENDPOINT.contains(&key.as_str()));
        }
        let (process, totals) = (
            look::info(operator, AdminLevel::Read),
            look::totals(operator),
        );
        let past = self.past();
        let point = past.points.back().copied().unwrap_or_default();
        json!({
            "time": rfc3339(SystemTime::now()),
            "phase": process.phase,
            "ready": process.ready,
            "uptime_seconds": process.uptime_seconds,
            "totals": {
                "sessions": totals.sessions,
                "streams": totals.streams,
                "calls": totals.calls,
                "connections": past.newest.connections,
                "requests": past.newest.requests,
                "requests_per_second": round(point.requests_per_second),
                "failed_per_second": round(point.failed_per_second),
                "p50_seconds": point.p50.map(round),
                "p99_seconds": point.p99.map(round),
            },
            "pools": pools,
        })
    }

    /// The last minutes, oldest first.
    pub(super) fn history(&self) -> view::History {
        let past = self.past();
        let column = |value: fn(&Point) -> f64| past.points.iter().map(value).map(round).collect();
        let time = |value: fn(&Point) -> Option<f64>| {
            let points = past.points.iter().map(value);
            points.map(|value| value.map(round)).collect()
        };
        view::History {
            time: past.points.iter().map(|point| point.time).collect(),
            requests_per_second: column(|point| point.requests_per_second),
            failed_per_second: column(|point| point.failed_per_second),
            p50_seconds: time(|point| point.p50),
            p99_seconds: time(|point| point.p99),
        }
    }

    /// The tools that were called most in the last minute, then those that were ever.
    pub(super) fn tools(&self, max: usize) -> view::Tools {
        let counts = metrics::tools();
        let now = Instant::now();
        let past = self.past();
        let before = past.tools.front();
        let seconds = before.map_or(1.0, |(at, _)| {
            now.saturating_duration_since(*at).as_secs_f64().max(1.0)
        });
        let none = Buckets::default();
        let total = counts.len();
        let mut tools: Vec<view::Tool> = counts
            .into_iter()
            .map(|(name, counts)| {
                let of = |load: &'_ Load| load.tools.get(&name).cloned().unwrap_or_default();
                let then = before.map_or_else(|| none.clone(), |(_, load)| of(load));
                let lately = of(&past.newest).since(&then);
                view::Tool {
                    calls: counts.calls,
                    errors: counts.errors,
                    calls_per_second: round(lately.count() as f64 / seconds),
                    p50_seconds: lately.quantile(0.5).map(round),
                    p99_seconds: lately.quantile(0.99).map(round),
                    name,
                }
            })
            .collect();
        tools.sort_by(|a, b| {
            let by = |tool: &view::Tool| (tool.calls_per_second, tool.calls as f64);
            by(b)
                .partial_cmp(&by(a))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        tools.truncate(max);
        view::Tools { total, tools }
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(kept: &mut VecDeque<T>, one: T, max: usize) {
    if kept.len() == max {
        kept.pop_front();
    }
    kept.push_back(one);
}

/// To the microsecond, or the millionth of whatever it is.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_added_and_the_past_is_bounded() {
        let live = Live::new();
        let begun = Instant::now();
        for second in 0..POINTS as u64 + 20 {
            let load = Load {
                requests: second * 30,
                failed: second * 3,
                ..Load::default()
            };
            let at = Duration::from_secs(second);
            live.note(begun + at, UNIX_EPOCH + at, load);
        }
        let history = live.history();
        assert_eq!(history.time.len(), POINTS);
        assert_eq!(history.time.last(), Some(&(POINTS as u64 + 19)));
        assert!(history.requests_per_second.iter().all(|rate| *rate == 30.0));
        assert!(history.failed_per_second.iter().all(|rate| *rate == 3.0));
        assert!(history.p99_seconds.iter().all(Option::is_none));
        let past = live.past();
        assert_eq!(
            (past.seen.len(), past.tools.len()),
            (LATENCY_OVER, TOOLS_KEPT)
        );
    }
}
