//! How long does it take to show the metrics of 300 endpoints with 500 tools, all of which were called?
//! That must stay under 100 ms, and so must the first scrape of a process.

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, reason = "says how much it shows")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::pool::timings::{BOUNDS, RANGES};
use tidegate::telemetry::{
    self, Distribution, EndpointView, Observed, PoolView, RequestRecord, ToolNames, ToolOutcome,
    record_request, render,
};

const SERVERS: usize = 300;
const TOOLS: usize = 500;

/// Every tool is called once at every server, and well, so that every series there can be is there.
fn call_all(servers: &[String]) {
    let tools: Vec<String> = (0..TOOLS).map(|n| format!("tool_{n}")).collect();
    let names = ToolNames::new();
    names.learn("weather", tools.iter().map(String::as_str));
    telemetry::gather();
    for server in servers {
        for tool in &tools {
            record_request(&RequestRecord {
                method: "tools/call",
                tool: names.label(tool),
                status: 200,
                server,
                first_byte: None,
                duration: Duration::from_millis(3),
                tool_outcome: Some(ToolOutcome::Success),
            });
        }
    }
    telemetry::flush();
}

fn times() -> Distribution {
    Distribution {
        bounds: &BOUNDS,
        counts: vec![12_345; RANGES],
        sum: 1234.567,
    }
}

fn observed(servers: &[String]) -> Observed<'_> {
    let endpoint = |server| EndpointView {
        pool: "weather",
        endpoint: server,
        healthy: true,
        in_flight: 3,
        sessions: 12,
        admin: 0,
        ejected: false,
        ejections: 1,
        breaker: 0,
        openings: 1,
        connect: times(),
        first_byte: times(),
        failures: vec![("connect", 3); 7],
    };
    Observed {
        endpoints: servers.iter().map(|server| endpoint(server)).collect(),
        pools: vec![PoolView {
            pool: "weather",
            endpoints: SERVERS as u64,
            available: SERVERS as u64,
            waiting: 0,
            retry_budget: 10,
        }],
        worker_lags: vec![0.0; 4],
        contexts: None,
    }
}

fn scrape(criterion: &mut Criterion) {
    let servers: Vec<String> = (0..SERVERS).map(|n| format!("server-{n}")).collect();
    call_all(&servers);
    let text = render(&observed(&servers));
    println!(
        "{SERVERS} endpoints x {TOOLS} tools: {} lines, {} KiB",
        text.lines().count(),
        text.len() / 1024
    );
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    group.bench_function("300_endpoints_500_tools", |bencher| {
        bencher.iter(|| render(black_box(&observed(&servers))));
    });
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
