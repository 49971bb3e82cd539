//! What comes from outside makes no more series than it may.

use super::*;

/// Resident memory of this process in KiB. Other tests run in it too, so it is printed and not judged.
fn resident() -> u64 {
    process::read().resident_bytes.unwrap_or(0) / 1024
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

fn call(tool: ToolLabel, server: &str) -> RequestRecord<'_> {
    RequestRecord {
        method: "tools/call",
        tool,
        status: 200,
        server,
        first_byte: None,
        duration: Duration::from_millis(3),
        tool_outcome: Some(ToolOutcome::Success),
    }
}

#[test]
fn a_hundred_thousand_tool_names_make_as_many_series_as_may_be() {
    const NAMES: usize = 100_000;
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    let names = ToolNames::new();
    let there = [view("weather", "w1", true)];
    let (idle, before) = (series(&scrape(&metrics, &there)), resident());
    let mut refused = 0;
    cache.gather();
    for n in 0..NAMES {
        // Half of them are advertised, by servers that are no better than these clients.
        let name = format!("tool-{n}-{}", "x".repeat(n % 64));
        if n % 2 == 0 {
            refused += names.learn("weather", [&*name]);
        }
        cache.record(&metrics, &call(names.label(&name), "w1"));
    }
    cache.flush(&metrics);
    let text = scrape(&metrics, &there);
    let made = series(&text) - idle;
    println!(
        "{NAMES} tool names: {} told apart, {refused} refused, {made} series more, {} KiB of text, \
         resident {before} KiB before and {} KiB after",
        names.len(),
        text.len() / 1024,
        resident()
    );
    assert_eq!(names.len(), 500);
    assert_eq!(refused, NAMES / 2 - 500);
    // Of each name, and of `other`: a counter and a histogram of requests, and the same of calls.
    let each = 2 + REQUEST_BUCKETS.len() + TOOL_BUCKETS.len() + 2 * 3;
    assert!(made <= 501 * each, "{made}");
    let label = "tool_name=\"other\"";
    let rest = NAMES - 500;
    let line = format!("mcp_requests_total{{method=\"tools/call\",status=\"200\",{label}}} {rest}");
    assert!(text.contains(&line), "{line}");
}

#[test]
fn three_hundred_endpoints_with_five_hundred_tools_are_shown_within_bounds() {
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    let names = ToolNames::new();
    let tools: Vec<String> = (0..500).map(|n| format!("tool_{n}")).collect();
    names.learn("weather", tools.iter().map(String::as_str));
    let servers: Vec<String> = (0..300).map(|n| format!("server-{n}")).collect();
    let there: Vec<EndpointView<'_>> = servers.iter().map(|s| view("weather", s, true)).collect();
    let before = resident();
    cache.gather();
    for server in &servers {
        for tool in &tools {
            cache.record(&metrics, &call(names.label(tool), server));
        }
    }
    cache.flush(&metrics);
    let began = Instant::now();
    let text = scrape(&metrics, &there);
    println!(
        "{} calls: {} series, {} KiB of text in {:?}, resident {before} KiB before and {} KiB after",
        servers.len() * tools.len(),
        series(&text),
        text.len() / 1024,
        began.elapsed(),
        resident()
    );
    let pairs = |family: &str| {
        let samples = samples(&text).into_iter();
        samples.filter(|(name, ..)| name == family).count()
    };
    let shown = pairs("mcp_tool_execution_duration_seconds_count");
    assert_eq!(shown, 1 + PAIRS_MAX + 300 - PAIRS_MAX / 500);
    let calls: f64 = samples(&text)
        .into_iter()
        .filter(|(name, ..)| name == "mcp_tool_calls_total")
        .map(|(.., value)| value)
        .sum();
    assert_eq!(calls, 150_000.0, "none is lost");
    let others = (150_000 - PAIRS_MAX) as u64;
    assert_eq!(metrics.label_overflow.get(), others, "each is counted");
    assert!(text.len() < 16 << 20, "{}", text.len());
}

#[test]
fn servers_that_come_and_go_leave_nothing_behind() {
    let (metrics, mut cache) = (Metrics::new(), Cache::default());
    let names = ToolNames::new();
    names.learn("weather", ["get_tide"]);
    let tool = names.label("get_tide");
    let mut seen = 0;
    for n in 0..3 * PAIRS_MAX {
        let server = format!("pod-{n}");
        cache.record(&metrics, &call(tool, &server));
        if n % 100 == 99 {
            let text = scrape(&metrics, &[view("weather", &server, true)]);
            seen = seen.max(series(&text));
            assert!(text.contains(&format!("server_name=\"{server}\"")));
        }
    }
    assert!(seen < 2000, "{seen}");
    // One that comes back is counted anew.
    cache.record(&metrics, &call(tool, "pod-1"));
    let text = scrape(&metrics, &[view("weather", "pod-1", true)]);
    let labels = "server_name=\"pod-1\",status=\"success\",tool_name=\"get_tide\"";
    assert!(text.contains(&format!("mcp_tool_calls_total{{{labels}}} 1\n")));
}
