//! What does a line of the access log cost the request that it tells of? Its formatting, as JSON and in
//! the operator's words, and its way into the queue; another thread writes it.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::config::{LogFormat, LogTarget, parse};
use tidegate::telemetry::{AccessLog, Entry, SessionTag, Times};

fn entry<'a>(headers: &'a [Option<&'static [u8]>]) -> Entry<'a> {
    Entry {
        at: SystemTime::now(),
        listener: "edge",
        client: Some(SocketAddr::from(([192, 0, 2, 7], 50_000))),
        local: Some(SocketAddr::from(([192, 0, 2, 1], 443))),
        proved: None,
        tls: Some("1.3"),
        http_version: "1.1",
        host: Some("tools.example.com"),
        method: "POST",
        path: "/mcp",
        mcp_method: Some("tools/call"),
        tool_name: Some("get_tide"),
        era: Some("session"),
        pool: Some("weather"),
        server: Some("w1"),
        server_address: Some(SocketAddr::from(([10, 0, 0, 1], 9001))),
        session: Some(SessionTag::of("3fa85f64-5717-4562-b3fc-2c963f66afa6")),
        status: 200,
        rpc_code: None,
        times: Times {
            duration: Duration::from_micros(12_005),
            queue: Duration::ZERO,
            asked: Some(Duration::from_micros(100)),
            connect: Some(Duration::ZERO),
            header: Some(Duration::from_micros(11_000)),
            first_byte: Some(Duration::from_micros(11_900)),
        },
        retries: 0,
        request_bytes: 120,
        response_bytes: 4096,
        request_id: "11134ec3f46a80bd",
        trace_id: None,
        termination: *b"--",
        end_reason: "complete",
        user_agent: Some(b"client/1.0"),
        headers,
    }
}

/// A format as the configuration reads it.
fn format(text: &str) -> LogFormat {
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a }}]\npools: {{ a: {{ endpoints: [127.0.0.1:1] }} }}\nlog: {{ access: {{ format: {text} }} }}\n"
    );
    let config = parse("bench", &text).expect("a right configuration");
    config.log.access.format
}

fn lines(c: &mut Criterion) {
    let log = AccessLog::start(&LogTarget::File("/dev/null".into())).expect("it is there");
    let mut group = c.benchmark_group("a line");
    let json = format("json");
    group.bench_function("of JSON", |b| b.iter(|| log.log(&json, &entry(&[]))));
    let combined = format("combined");
    let referer: [Option<&'static [u8]>; 1] = [Some(b"https://app.example.com/page")];
    group.bench_function("of nginx's combined", |b| {
        b.iter(|| log.log(&combined, &entry(&referer)));
    });
    let off = AccessLog::default();
    group.bench_function("of a log that is off", |b| {
        b.iter(|| off.log(&json, &entry(&[])));
    });
    group.finish();
    log.flush(Duration::from_secs(5));
}

criterion_group!(benches, lines);
criterion_main!(benches);
