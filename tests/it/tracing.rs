//! Traces: what a collector gets to see of a request, over HTTP and gRPC, and what a collector that is
//! gone does to requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::collector::{Collector, Seen};
use crate::support::tidegate::Builder;
use crate::support::{Client, Endpoint, Mcp, Outgoing, Tidegate, text_of};

mod paths;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The value of `traceparent` with this flag.
fn traceparent(flag: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flag}")
}

/// One that sends its traces to this collector.
fn build(endpoints: &[&Endpoint], collector: &Collector, keys: &str) -> Builder {
    let url = collector.url();
    Tidegate::build(endpoints).config(&format!("tracing: {{ endpoint: \"{url}\"{keys} }}"))
}

fn call(tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {"secret": "of-the-arguments"}});
    Outgoing::stateless(&json!(7), "tools/call", Some(tool), params)
}

/// The one span of this name.
fn one<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found: Vec<_> = spans.iter().filter(|seen| seen.span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// The only value of a field of the last call that arrived.
fn last(endpoint: &Endpoint, field: &str) -> Option<String> {
    let calls = endpoint.calls("tools/call");
    let headers = &calls.last().expect("it arrived").headers;
    let values: Vec<&str> = headers.all(field).collect();
    assert!(values.len() <= 1, "{field}: {values:?}");
    values.first().map(|value| (*value).to_owned())
}

async fn a_call_is_followed_from_its_caller_to_its_server(collector: Collector, keys: &str) {
    let a = Endpoint::start("a").await;
    let keys = format!("{keys}, service_name: edge-1, headers: {{ X-Key: \"k 1\" }}");
    let gate = build(&[&a], &collector, &keys).start().await;
    let client = gate.client().with_header("authorization", "Bearer t0ken");
    let outgoing = call("whoami").with("traceparent", &traceparent("01"));
    let outgoing = outgoing.with("tracestate", "vendor=1");
    assert_eq!(client.send(outgoing).await.status, 200);

    let spans = collector.trace_of("tools/call whoami").await;
    let server = one(&spans, "tools/call whoami");
    assert_eq!(
        (server.trace(), server.parent()),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(server.span.trace_state, "vendor=1");
    assert_eq!(server.service, "edge-1");
    assert_eq!(server.span.kind, 2, "SERVER");
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("mcp.protocol.version", "2026-07-28"),
        ("gen_ai.tool.name", "whoami"),
        ("jsonrpc.request.id", "7"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/mcp"),
        ("url.path", "/mcp"),
        ("server.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("tidegate.era", "stateless"),
        ("tidegate.pool", "main"),
        ("tidegate.endpoint", "a"),
        ("tidegate.retries", "0"),
        ("tidegate.end_reason", "complete"),
    ] {
        assert_eq!(server.says(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(server.says("error.type"), None);
    let upstream = one(&spans, "upstream");
    assert_eq!(upstream.parent(), server.id());
    assert_eq!(upstream.span.kind, 3, "CLIENT");
    let connect = one(&spans, "connect");
    assert_eq!(connect.parent(), upstream.id());
    for below in [upstream, connect] {
        assert!(below.span.start_time_unix_nano >= server.span.start_time_unix_nano);
        assert!(below.span.end_time_unix_nano <= server.span.end_time_unix_nano);
    }
    let told = last(&a, "traceparent");
    let wanted = format!("00-{TRACE}-{}-01", upstream.id());
    assert_eq!(told.as_deref(), Some(wanted.as_str()));
    assert_eq!(last(&a, "tracestate").as_deref(), Some("vendor=1"));

    assert_eq!(collector.fields("x-key"), ["k 1"]);
    let all = format!("{spans:?}");
    for secret in ["of-the-arguments", "t0ken"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let line = gate.logged(|line| line["trace_id"] == TRACE).await;
    assert_eq!(line["tool_name"], "whoami");
    let sent = spans.len() as f64;
    gate.metrics_when(|m| m.sum("tidegate_spans_exported_total") >= sent)
        .await;
}

#[tokio::test]
async fn a_call_is_followed_over_http() {
    a_call_is_followed_from_its_caller_to_its_server(Collector::http().await, "").await;
}

#[tokio::test]
async fn a_call_is_followed_over_grpc() {
    let collector = Collector::grpc().await;
    a_call_is_followed_from_its_caller_to_its_server(collector, ", protocol: grpc").await;
}

#[tokio::test]
async fn whether_a_trace_is_recorded_is_for_its_caller_to_say() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, "").start().await;
    let unsampled = call("whoami").with("traceparent", &traceparent("00"));
    assert_eq!(gate.client().send(unsampled).await.status, 200);
    let told = last(&a, "traceparent");
    assert_eq!(told, Some(traceparent("00")), "it passes as it is");
    gate.logged(|line| line["trace_id"] == TRACE).await;
    // What comes later arrives, and alone.
    gate.client().send(call("fail")).await;
    collector.trace_of("tools/call fail").await;
    assert!(collector.spans().iter().all(|seen| seen.trace() != TRACE));
}

#[tokio::test]
async fn a_trace_that_begins_here_is_recorded_by_lot() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, ", sample: 0").start().await;
    let client = gate.client();
    let stale = call("whoami").with("tracestate", "of=nobody");
    assert_eq!(client.send(stale).await.status, 200);
    let told = last(&a, "traceparent").expect("a trace begins");
    assert!(told.ends_with("-00"), "{told}");
    assert_eq!(last(&a, "tracestate"), None, "it belongs to no trace");
    let sampled = call("fail").with("traceparent", &traceparent("01"));
    client.send(sampled).await;
    collector.trace_of("tools/call fail").await;
    assert!(collector.spans().iter().all(|seen| seen.trace() == TRACE));
}

#[tokio::test]
async fn a_trace_is_found_in_the_message_where_the_head_has_none() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, ", sample: 0").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let params = json!({
        "name": "whoami", "arguments": {},
        "_meta": {"traceparent": traceparent("01")},
    });
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let sent = client.send(Outgoing::in_session(&session, &message));
    assert_eq!(sent.await.status, 200);
    let spans = collector.trace_of("tools/call whoami").await;
    let server = one(&spans, "tools/call whoami");
    assert_eq!(
        (server.trace(), server.parent()),
        (TRACE.into(), PARENT.into())
    );
    let hash = server.says("mcp.session.id").expect("a session");
    assert_eq!(hash.len(), 8, "no id but its hash: {hash}");
    assert!(!format!("{spans:?}").contains(&session.0));
    let told = last(&a, "traceparent").expect("the head tells it");
    assert!(told.contains(&one(&spans, "upstream").id()), "{told}");
}

#[tokio::test]
async fn every_attempt_has_its_span() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let collector = Collector::http().await;
    let gate = build(&[&a, &b], &collector, "").start().await;
    a.refuse_connections().await;
    let client = gate.client();
    // One of them is sure to meet the one that is away.
    let spans = loop {
        assert_eq!(client.send(call("whoami")).await.status, 200);
        let line = gate.logged(|line| line["retries"] == 1);
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(200), line).await {
            break retried(&collector, &line).await;
        }
    };
    let attempts: Vec<_> = spans
        .iter()
        .filter(|seen| seen.span.name == "upstream")
        .collect();
    let shown: Vec<_> = attempts
        .iter()
        .map(|seen| (seen.says("tidegate.endpoint"), seen.says("error.type")))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(shown[0].0, text("a"));
    assert!(shown[0].1.is_some(), "{shown:?}");
    assert_eq!(shown[1], (text("b"), None));
    assert_eq!(attempts[1].says("http.request.resend_count"), text("1"));
    let told = last(&b, "traceparent").expect("it was told");
    assert!(told.contains(&attempts[1].id()), "{told}");
}

/// The spans of the request with this line.
async fn retried(collector: &Collector, line: &Value) -> Vec<Seen> {
    let trace = line["trace_id"].as_str().expect("a trace").to_owned();
    let found = crate::support::eventually_some(crate::support::PATIENCE, async || {
        let spans = collector.spans().into_iter();
        let spans: Vec<_> = spans.filter(|seen| seen.trace() == trace).collect();
        (!spans.is_empty()).then_some(spans)
    });
    found.await.expect("its spans")
}

#[tokio::test]
async fn a_collector_that_is_gone_is_not_felt_and_what_it_misses_is_counted() {
    let a = Endpoint::start("a").await;
    let gone = Collector::http().await;
    let builder = build(&[&a], &gone, ", queue: 16, timeout: 500ms");
    drop(gone);
    let gate = builder.start().await;
    let page = gate.metrics().await;
    for reason in [
        "queue_full",
        "refused",
        "unreachable",
        "timeout",
        "shutdown",
    ] {
        let labels = [("reason", reason)];
        assert_eq!(page.with("tidegate_spans_dropped_total", &labels), 0.0);
    }
    assert_eq!(page.sum("tidegate_spans_exported_total"), 0.0);
    let client = gate.client();
    let begun = Instant::now();
    for _ in 0..50 {
        let answer = client.modern_call("whoami", json!({})).await;
        assert_eq!(text_of(&answer), "a");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for reason in ["queue_full", "unreachable"] {
        let labels = [("reason", reason)];
        gate.metrics_when(|m| m.with("tidegate_spans_dropped_total", &labels) > 0.0)
            .await;
    }
    assert!(
        gate.stderr()
            .contains("the collector of traces does not take spans")
    );
}

#[tokio::test]
async fn what_a_busy_collector_does_not_take_is_sent_again() {
    for collector in [Collector::http().await, Collector::grpc().await] {
        let a = Endpoint::start("a").await;
        let protocol = if collector.is_grpc() { "grpc" } else { "http" };
        let keys = format!(", protocol: {protocol}");
        let gate = build(&[&a], &collector, &keys).start().await;
        collector.is_busy(2);
        gate.client().send(call("whoami")).await;
        collector.trace_of("tools/call whoami").await;
        let dropped = gate.metrics().await.sum("tidegate_spans_dropped_total");
        assert_eq!(dropped, 0.0);
    }
}

#[tokio::test]
async fn a_reload_turns_traces_on_elsewhere_and_off() {
    let (one, other) = (Collector::http().await, Collector::http().await);
    let a = Endpoint::start("a").await;
    let gate = build(&[&a], &one, "").start().await;
    let client = gate.client();
    client.send(call("whoami")).await;
    one.trace_of("tools/call whoami").await;
    let config = gate.config();
    gate.reload(&config.replace(&one.url(), &other.url())).await;
    client.send(call("fail")).await;
    other.trace_of("tools/call fail").await;
    assert!(!one.names().contains(&"tools/call fail".to_owned()));

    let tracing = config.lines().find(|line| line.starts_with("tracing:"));
    gate.reload(&config.replace(tracing.expect("it is there"), "tracing: off"))
        .await;
    let seen = other.spans().len();
    let plain = call("whoami").with("traceparent", &traceparent("01"));
    client.send(plain).await;
    assert_eq!(last(&a, "traceparent"), Some(traceparent("01")));
    gate.reload(&config.replace(&one.url(), &other.url())).await;
    client.send(call("echo")).await;
    other.trace_of("tools/call echo").await;
    let later = other.spans().split_off(seen);
    assert!(later.iter().all(|seen| seen.trace() != TRACE), "{later:#?}");
}

#[tokio::test]
async fn what_waits_is_sent_when_the_process_leaves() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let mut gate = build(&[&a], &collector, "").start().await;
    gate.client().send(call("whoami")).await;
    gate.signal("TERM");
    let status = gate.wait_exit(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    let names = collector.names();
    assert!(names.contains(&"tools/call whoami".to_owned()), "{names:?}");
}

/// A client whose requests belong to this trace.
fn traced(gate: &Tidegate) -> Client {
    gate.client().with_header("traceparent", &traceparent("01"))
}
