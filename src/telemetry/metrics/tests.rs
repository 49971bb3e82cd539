#![allow(clippy::disallowed_methods, reason = "tests read the clock")]

use std::collections::HashSet;
use std::time::Duration;

mod bounds;

use super::record::Cache;
use super::*;
use crate::telemetry::SessionTag;
use crate::telemetry::labels::{ToolLabel, ToolNames};

fn view<'a>(pool: &'a str, endpoint: &'a str, healthy: bool) -> EndpointView<'a> {
    EndpointView {
        pool,
        endpoint,
        healthy,
        in_flight: 3,
        sessions: 5,
        admin: 0,
        ejected: !healthy,
        ejections: 7,
        breaker: 1,
        openings: 2,
        connect: Distribution {
            bounds: &[0.5, 1.0],
            counts: vec![0, 0, 0],
            sum: 0.0,
        },
        first_byte: Distribution {
            bounds: &[0.5, 1.0],
            counts: vec![2, 3, 1],
            sum: 4.25,
        },
        failures: vec![("connect", 1), ("status", 0)],
    }
}

fn scrape(metrics: &Metrics, endpoints: &[EndpointView<'_>]) -> String {
    let observed = Observed {
        endpoints: endpoints.to_vec(),
        pools: vec![PoolView {
            pool: "weather",
            endpoints: 3,
            available: 2,
            waiting: 4,
            retry_budget: 10,
        }],
        worker_lags: vec![0.0, 0.025],
        contexts: Some(vec![(SessionTag::of("a session"), 7)]),
    };
    metrics.render(Instant::now(), &observed)
}

/// Name, labels and value.
type Sample = (String, Vec<(String, String)>, f64);

/// Splits a sample line into its name, labels and value, or panics: a small reader of the format
/// that shares nothing with the writers.
fn parse(line: &str) -> Sample {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name_end = line.find(|c| !is_name(c)).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()),
        "{line}"
    );
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.chars().all(is_name), "{line}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("escape {c} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
            if let Some(after) = rest.strip_prefix(',') {
                rest = after;
                continue;
            }
            rest = rest.strip_prefix('}').unwrap();
            break;
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap())
}

fn samples(text: &str) -> Vec<Sample> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(parse)
        .collect()
}

fn family_of(sample: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|row| {
        row.name == sample
            || (row.kind == Kind::Histogram
                && ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| sample.strip_suffix(suffix) == Some(row.name)))
    })
}

#[test]
fn every_family_has_a_sample_at_zero_traffic() {
    let metrics = Metrics::new();
    metrics.certificates.lock().unwrap().push(CertificateView {
        listener: "edge".to_owned(),
        certificate: "/etc/tidegate/cert.pem".to_owned(),
        until: 1,
    });
    let text = scrape(&metrics, &[view("weather", "w1", true)]);
    let seen: HashSet<&str> = samples(&text)
        .iter()
        .filter_map(|(name, ..)| family_of(name))
        .map(|row| row.name)
        .collect();
    for row in FAMILIES {
        assert!(seen.contains(row.name), "{} is missing", row.name);
    }
    assert!(text.contains("\nmcp_active_connections 0\n"));
    assert!(
        text.contains(
            "\nmcp_requests_total{method=\"initialize\",status=\"200\",tool_name=\"\"} 0\n"
        )
    );
    let none = metrics.render(Instant::now(), &Observed::default());
    assert!(!none.contains("mcp_context_size_bytes"), "nobody wants it");
}

#[test]
fn every_line_parses_and_every_series_stands_once() {
    let metrics = Metrics::new();
    let hostile = view("po\"ol\\", "e\nnd,}point", true);
    let text = scrape(&metrics, &[hostile, view("weather", "w1", false)]);
    let mut series = HashSet::new();
    let mut headings = HashSet::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("# TYPE ") {
            let (name, kind) = heading.split_once(' ').unwrap();
            let row = family_of(name).unwrap();
            assert_eq!(row.kind.as_str(), kind);
            assert!(headings.insert(row.name), "{name} twice");
        }
    }
    for (name, mut labels, _) in samples(&text) {
        let row = family_of(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(headings.contains(row.name));
        labels.sort();
        let mut names: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
        names.retain(|label| *label != "le");
        let mut expected = row.labels.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected, "{name}");
        assert!(series.insert((name, labels)), "series twice");
    }
    let up = (
        "tidegate_endpoint_up".to_owned(),
        vec![
            ("endpoint".to_owned(), "e\nnd,}point".to_owned()),
            ("pool".to_owned(), "po\"ol\\".to_owned()),
        ],
    );
    assert!(series.contains(&up));
}

#[test]
fn the_table_has_no_name_twice_and_units_at_the_end() {
    let names: HashSet<&str> = FAMILIES.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
    for row in FAMILIES {
        assert!(row.help.ends_with('.'), "{}", row.name);
        assert_eq!(
            row.kind == Kind::Counter,
            row.name.ends_with("_total"),
            "{}",
            row.name
        );
        if row.kind == Kind::Histogram {
            assert!(row.name.ends_with("_seconds"), "{}", row.name);
        }
    }
    assert!(REQUEST_BUCKETS.contains(&1.0) && TOOL_BUCKETS.contains(&1.0));
    assert!(REQUEST_BUCKETS.is_sorted() && TOOL_BUCKETS.is_sorted());
}

#[test]
fn a_tool_call_is_counted_in_all_four_families() {
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    let names = ToolNames::new();
    names.learn("weather", ["get_tide"]);
    let record = RequestRecord {
        method: "tools/call",
        tool: names.label("get_tide"),
        status: 200,
        server: "w1",
        first_byte: Some(Duration::from_millis(2)),
        duration: Duration::from_secs(7),
        tool_outcome: Some(ToolOutcome::Error),
    };
    for _ in 0..3 {
        cache.record(&metrics, &record);
    }
    let text = scrape(&metrics, &[view("weather", "w1", true)]);
    let tool = "tool_name=\"get_tide\"";
    for line in [
        format!("mcp_requests_total{{method=\"tools/call\",status=\"200\",{tool}}} 3"),
        format!("mcp_tool_calls_total{{server_name=\"w1\",status=\"error\",{tool}}} 3"),
        // The stream took 7 s, but its first byte 2 ms.
        format!(
            "mcp_request_duration_seconds_bucket{{method=\"tools/call\",{tool},le=\"0.0025\"}} 3"
        ),
        format!(
            "mcp_tool_execution_duration_seconds_bucket{{server_name=\"w1\",{tool},le=\"5\"}} 0"
        ),
        format!(
            "mcp_tool_execution_duration_seconds_bucket{{server_name=\"w1\",{tool},le=\"10\"}} 3"
        ),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
    }
}

#[test]
fn the_cache_never_mixes_up_series() {
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    let names = ToolNames::new();
    let tools: Vec<String> = (0..100).map(|n| format!("tool{n}")).collect();
    names.learn("p", tools.iter().map(String::as_str));
    // Far more combinations than there are places, each a different number of times.
    for round in 0..100usize {
        for (n, tool) in tools.iter().enumerate().skip(round) {
            for server in ["w1", "w2"] {
                let record = RequestRecord {
                    method: "tools/call",
                    tool: names.label(tool),
                    status: if n % 2 == 0 { 200 } else { 503 },
                    server: &String::from(server),
                    first_byte: None,
                    duration: Duration::from_millis(1),
                    tool_outcome: Some(ToolOutcome::Success),
                };
                cache.record(&metrics, &record);
            }
        }
    }
    for (n, tool) in tools.iter().enumerate() {
        let status = if n % 2 == 0 { "200" } else { "503" };
        let requests = metrics
            .requests
            .with_label_values(&["tools/call", tool, status]);
        assert_eq!(requests.get(), 2 * (n as u64 + 1));
        let calls = metrics
            .tool_calls
            .with_label_values(&[tool, "w2", "success"]);
        assert_eq!(calls.get(), n as u64 + 1);
    }
}

#[test]
fn a_request_that_is_no_tool_call_leaves_the_tool_families_alone() {
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    cache.record(
        &metrics,
        &RequestRecord {
            method: "",
            tool: ToolLabel::NONE,
            status: 999,
            server: "",
            first_byte: None,
            duration: Duration::ZERO,
            tool_outcome: None,
        },
    );
    assert_eq!(
        metrics.requests.with_label_values(&["", "", "500"]).get(),
        1
    );
    for outcome in ToolOutcome::ALL {
        assert_eq!(
            metrics
                .tool_calls
                .with_label_values(&["", "", outcome.as_str()])
                .get(),
            0
        );
    }
}

#[test]
fn a_server_of_two_pools_is_healthy_when_it_is_in_both() {
    let both = [
        view("a", "w1", true),
        view("b", "w1", false),
        view("b", "w2", true),
    ];
    let text = scrape(&Metrics::new(), &both);
    assert!(text.contains("\nmcp_server_healthy{server_name=\"w1\"} 0\n"));
    assert!(text.contains("\nmcp_server_healthy{server_name=\"w2\"} 1\n"));
    assert!(text.contains("\ntidegate_endpoint_in_flight{pool=\"b\",endpoint=\"w2\"} 3\n"));
}

#[test]
fn the_times_of_an_endpoint_are_a_histogram_of_its_own() {
    let text = scrape(&Metrics::new(), &[view("a", "w1", true)]);
    let name = "tidegate_endpoint_first_byte_seconds";
    for line in [
        "_bucket{pool=\"a\",endpoint=\"w1\",le=\"0.5\"} 2",
        "_bucket{pool=\"a\",endpoint=\"w1\",le=\"1\"} 5",
        "_bucket{pool=\"a\",endpoint=\"w1\",le=\"+Inf\"} 6",
        "_sum{pool=\"a\",endpoint=\"w1\"} 4.25",
        "_count{pool=\"a\",endpoint=\"w1\"} 6",
    ] {
        assert!(text.contains(&format!("\n{name}{line}\n")), "{line}");
    }
    for line in [
        "tidegate_endpoint_failures_total{pool=\"a\",endpoint=\"w1\",kind=\"connect\"} 1",
        "tidegate_pool_endpoints_available{pool=\"weather\"} 2",
        "tidegate_retry_budget{pool=\"weather\"} 10",
        "tidegate_worker_lag_seconds{worker=\"1\"} 0.025",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
}

#[test]
fn the_last_reload_is_the_one_that_counts() {
    let metrics = Metrics::new();
    let at = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    metrics.in_force(at(1000));
    assert_eq!(
        (metrics.reload_good.get(), metrics.reload_at.get()),
        (1, 1000.0)
    );
    metrics.reload_good.set(0);
    metrics.in_force(at(2000));
    assert_eq!(
        (metrics.reload_good.get(), metrics.reload_at.get()),
        (1, 2000.0)
    );
}

#[test]
fn an_endpoint_that_vanished_is_not_shown() {
    let metrics = Metrics::new();
    assert!(scrape(&metrics, &[view("a", "gone", true)]).contains("\"gone\""));
    assert!(!scrape(&metrics, &[view("a", "new", true)]).contains("\"gone\""));
}

#[test]
fn the_rate_slides_over_a_minute() {
    let (mut window, start) = (RateWindow::default(), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    assert_eq!(window.sample(at(0), 0), 0.0);
    // Ten a second for a minute, ticked twice a second.
    for half in 1..=120 {
        let rate = window.sample(start + Duration::from_millis(500 * half), 5 * half);
        assert!(half < 2 || (rate - 10.0).abs() < 1e-9, "{half}: {rate}");
    }
    // Then silence.
    assert!((window.sample(at(90), 600) - 5.0).abs() < 0.2);
    assert_eq!(window.sample(at(125), 600), 0.0);
}

#[test]
fn a_rate_without_ticks_reaches_back_to_the_scrape_before() {
    let (mut window, start) = (RateWindow::default(), Instant::now());
    window.sample(start, 0);
    let later = start + Duration::from_secs(300);
    assert_eq!(window.sample(later, 3000), 10.0);
    assert_eq!(
        window.sample(start + Duration::from_secs(310), 3000),
        3000.0 / 310.0
    );
}

#[test]
fn guards_count_while_they_live() {
    let metrics: &'static Metrics = Box::leak(Box::new(Metrics::new()));
    let kind = StreamKind::Listen;
    let open = || metrics.streams[kind as usize].get();
    let ended = |end: StreamEnd| metrics.streams_ended[kind as usize][end as usize].get();
    let stream = OpenStream::enter_in(metrics, kind);
    let lost = OpenStream::enter_in(metrics, kind);
    assert_eq!(open(), 2);
    stream.end(StreamEnd::SlowReader);
    drop(lost);
    assert_eq!(
        (
            open(),
            ended(StreamEnd::SlowReader),
            ended(StreamEnd::Aborted)
        ),
        (0, 1, 1)
    );

    let connection = ActiveConnection::enter_in(metrics);
    assert_eq!(metrics.active_connections.get(), 1);
    drop(connection);
    assert_eq!(metrics.active_connections.get(), 0);
}

/// The registry of the process is shared with all other tests, so only what rises can be checked.
#[test]
fn events_reach_the_exposition() {
    let sample = |line: &str| {
        let text = render(&Observed::default());
        let line = text
            .lines()
            .find(|found| found.starts_with(&format!("{line} ")))
            .unwrap();
        parse(line).2
    };
    let cases: [(&str, fn()); 9] = [
        ("tidegate_reloads_total{result=\"failed\"}", reload_failed),
        ("tidegate_queue_wait_seconds_count{pool=\"\"}", || {
            queue_waited("", Duration::from_millis(3));
        }),
        ("tidegate_checks_excused_total", check_excused),
        ("tidegate_sessions_opened_total", session_opened),
        (
            "tidegate_sessions_ended_total{reason=\"forgotten\"}",
            || {
                session_ended(SessionEnd::Forgotten);
            },
        ),
        ("tidegate_refused_ids_total{reason=\"principal\"}", || {
            id_refused(RefusedId::Principal);
        }),
        ("tidegate_limits_hit_total{limit=\"queue_timeout\"}", || {
            limit_hit(Limit::QueueTimeout);
        }),
        (
            "tidegate_retries_total{outcome=\"over_budget\",pool=\"\"}",
            || {
                retried("", RetryOutcome::OverBudget);
            },
        ),
        ("tidegate_log_lines_dropped_total", || log_lines_dropped(1)),
    ];
    for (line, event) in cases {
        let before = sample(line);
        event();
        assert!(sample(line) >= before + 1.0, "{line}");
    }
    tick(Instant::now());
}
