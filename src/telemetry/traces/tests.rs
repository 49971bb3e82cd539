//! What records become, and how many of them wait.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::*;
use crate::telemetry::access_log::{Entry, Times};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn entry() -> Entry<'static> {
    Entry {
        at: std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        listener: "edge",
        client: Some(([192, 0, 2, 7], 40_000).into()),
        local: None,
        tls: None,
        proved: None,
        http_version: "1.1",
        host: Some("[2001:db8::1]:8080"),
        method: "POST",
        path: "/mcp?token=secret",
        mcp_method: Some("tools/call"),
        tool_name: Some("echo"),
        era: Some("session"),
        pool: Some("tools"),
        server: Some("b"),
        server_address: None,
        session: None,
        status: 200,
        rpc_code: None,
        times: Times {
            duration: millis(100),
            queue: millis(20),
            first_byte: Some(millis(90)),
            ..Times::default()
        },
        retries: 1,
        request_bytes: 10,
        response_bytes: 20,
        request_id: "a1",
        trace_id: None,
        termination: *b"--",
        end_reason: "complete",
        user_agent: None,
        headers: &[],
    }
}

fn record() -> Record {
    let failed = Attempt {
        span: [8; 8],
        asked: millis(20),
        until: millis(30),
        endpoint: Some("a".into()),
        error: Some("connect".into()),
        ..Attempt::default()
    };
    let good = Attempt {
        span: [9; 8],
        number: 1,
        asked: millis(30),
        connect: Some(millis(5)),
        header: Some(millis(50)),
        until: millis(100),
        endpoint: Some("b".into()),
        status: Some(200),
        ..Attempt::default()
    };
    let traced = Traced {
        trace: [1; 16],
        span: [7; 8],
        parent: Some([2; 8]),
        attempts: vec![failed, good],
        retries: 1,
        ..Traced::default()
    };
    Record::new(&entry(), traced)
}

fn took(span: &Span) -> (u64, u64) {
    let began = 1_800_000_000_000 - 100;
    let millis = |nanos: u64| nanos / 1_000_000 - began;
    (
        millis(span.start_time_unix_nano),
        millis(span.end_time_unix_nano),
    )
}

#[test]
fn a_request_is_a_tree_of_spans_with_their_times() {
    let record = record();
    let spans = spans::spans(&record);
    assert_eq!(spans.len(), record.spans());
    let shown: Vec<_> = spans
        .iter()
        .map(|span| (&*span.name, took(span), span.parent_span_id[0]))
        .collect();
    assert_eq!(
        shown,
        [
            ("tools/call echo", (0, 100), 2),
            ("queue", (0, 20), 7),
            ("upstream", (20, 30), 7),
            ("upstream", (30, 100), 7),
            ("connect", (30, 35), 9),
        ]
    );
    assert_eq!(spans[0].kind, SpanKind::Server as i32);
    assert_eq!(spans[0].events[0].name, "first_byte");
    assert!(spans.iter().all(|span| span.trace_id == [1; 16]));
    assert!(spans[2].status.is_some() && spans[3].status.is_none());
}

#[test]
fn a_query_is_not_recorded_and_an_address_has_no_brackets() {
    let spans = spans::spans(&record());
    let text = format!("{:?}", spans[0].attributes);
    assert!(!text.contains("secret"), "{text}");
    assert!(text.contains("\"2001:db8::1\""), "{text}");
    assert!(text.contains("IntValue(8080)"), "{text}");
}

#[test]
fn no_more_wait_than_may_and_what_is_put_back_comes_first() {
    let traces = Traces::default();
    let each = record().spans();
    for _ in 0..3 {
        traces.push(Box::new(record()), 2 * each);
    }
    assert_eq!(traces.len(), 2 * each, "the third is dropped");
    let taken = traces.take();
    assert_eq!((taken.len(), traces.len()), (2, 0));
    traces.push(Box::new(record()), 2 * each);
    traces.put_back(taken);
    assert_eq!(traces.take().len(), 3);
    assert!(traces.is_empty());
}

#[test]
fn a_batch_is_bounded() {
    let traces = Traces::default();
    let each = record().spans();
    for _ in 0..BATCH_MAX {
        traces.push(Box::new(record()), usize::MAX);
    }
    let spans: usize = traces.take().iter().map(|record| record.spans()).sum();
    assert!((BATCH_MAX..BATCH_MAX + each).contains(&spans), "{spans}");
}
