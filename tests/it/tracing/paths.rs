//! The same on every way that a request can take.

use serde_json::json;

use super::*;
use crate::support::authority::Authority;
use crate::support::tls_front::{Front, Manners};
use crate::support::ws::WebSocket;

/// What the span of a request says, on whichever way it came.
async fn span_of(collector: &Collector, name: &str) -> Seen {
    let spans = collector.trace_of(name).await;
    one(&spans, name).clone()
}

#[tokio::test]
async fn a_collector_behind_tls_has_to_prove_itself() {
    let (authority, other) = (Authority::new(), Authority::new());
    let issued = authority.issue(&["127.0.0.1"]);
    for (collector, protocol, agrees) in [
        (Collector::http().await, "http", "http/1.1"),
        (Collector::grpc().await, "grpc", "h2"),
    ] {
        let manners = Manners {
            shows: &issued,
            protocols: &[agrees],
            clients: None,
        };
        let front = Front::to(collector.address(), manners).await;
        let a = Endpoint::start("a").await;
        let section = |authority: &Authority| {
            let (address, ca) = (front.address(), authority.file());
            format!(
                "tracing: {{ endpoint: \"https://{address}\", protocol: {protocol}, ca: {ca} }}"
            )
        };
        let gate = Tidegate::build(&[&a])
            .config(&section(&other))
            .start()
            .await;
        gate.client().send(call("whoami")).await;
        let labels = [("reason", "unreachable")];
        gate.metrics_when(|m| m.with("tidegate_spans_dropped_total", &labels) > 0.0)
            .await;
        assert!(collector.spans().is_empty(), "it is not the one to trust");
        let config = gate
            .config()
            .replace(&section(&other), &section(&authority));
        gate.reload(&config).await;
        gate.client().send(call("fail")).await;
        collector.trace_of("tools/call fail").await;
    }
}

#[tokio::test]
async fn answers_of_our_own_have_a_span() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, "").start().await;
    let client = gate.client();
    client.request("GET", "/nowhere", &[], b"").await;
    let span = span_of(&collector, "GET").await;
    let said = |key: &str| span.says(key).unwrap_or_default();
    assert_eq!(said("http.response.status_code"), "404");
    assert_eq!(said("error.type"), "no_route");
    assert!(span.span.status.is_none(), "the client's own doing");
}

#[tokio::test]
async fn a_session_is_followed_from_its_stream_to_its_end() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, "").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    span_of(&collector, "initialize").await;
    let stream = client.get_stream(&session, None).await;
    a.until("it stands", |a| a.streams_open() == 1).await;
    stream.reset();
    let get = span_of(&collector, "GET /mcp").await;
    assert_eq!(
        get.says("tidegate.end_reason").as_deref(),
        Some("client_gone")
    );
    assert_eq!(get.says("url.path").as_deref(), Some("/mcp"));
    assert_eq!(get.span.events[0].name, "first_byte");
    assert!(get.span.events[0].time_unix_nano < get.span.end_time_unix_nano);
    client.delete(&session).await;
    let delete = span_of(&collector, "DELETE /mcp").await;
    assert_eq!(delete.says("tidegate.endpoint").as_deref(), Some("a"));
}

#[tokio::test]
async fn a_stream_that_loses_its_server_is_a_failure() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let gate = build(&[&a], &collector, "").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let running = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 5000})).await })
    };
    a.until("it runs", |a| a.in_flight() == 1).await;
    a.reset_connections().await;
    let answer = running.await.expect("no panic");
    assert!(answer.get("error").is_some(), "{answer}");
    let span = span_of(&collector, "tools/call slow").await;
    assert!(span.says("error.type").is_some());
    assert_eq!(span.span.status.expect("a status").code, 2, "ERROR");
}

#[tokio::test]
async fn http2_is_followed_as_well() {
    let a = Endpoint::named("a").http2().start().await;
    let collector = Collector::http().await;
    let builder = build(&[&a], &collector, "").endpoint("a", "http2: true");
    let gate = builder.start().await;
    let client = gate.h2_client().await;
    let outgoing = call("whoami").with("traceparent", &traceparent("01"));
    assert_eq!(client.send(outgoing).await.status, 200);
    let spans = collector.trace_of("tools/call whoami").await;
    let server = one(&spans, "tools/call whoami");
    assert_eq!(server.parent(), PARENT);
    assert_eq!(
        server.says("network.protocol.version").as_deref(),
        Some("2")
    );
    let told = last(&a, "traceparent").expect("it was told");
    assert!(told.contains(&one(&spans, "upstream").id()), "{told}");
}

#[tokio::test]
async fn plain_routes_are_followed_as_well() {
    let (a, collector) = (Endpoint::start("a").await, Collector::http().await);
    let builder = build(&[&a], &collector, "");
    let builder = builder
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http");
    let gate = builder.start().await;
    let mut got = traced(&gate).request("GET", "/plain/x?q=1", &[], b"").await;
    assert_eq!(got.status, 200);
    got.text().await;
    let spans = collector.trace_of("GET /").await;
    let server = one(&spans, "GET /");
    assert_eq!(server.says("url.path").as_deref(), Some("/plain/x"));
    assert_eq!(server.parent(), PARENT);
    let upstream = one(&spans, "upstream");
    let told = a.requests()[0].header("traceparent").map(str::to_owned);
    assert_eq!(told, Some(format!("00-{TRACE}-{}-01", upstream.id())));
}

#[tokio::test]
async fn a_websocket_is_followed_to_its_end() {
    let a = Endpoint::named("a").websocket().start().await;
    let collector = Collector::http().await;
    let gate = build(&[&a], &collector, "").start().await;
    let socket = WebSocket::connect(&traced(&gate)).await;
    let socket = socket.unwrap_or_else(|head| panic!("{head:?}"));
    let upgrade = a.request(|request| request.method == "GET").await;
    let told = upgrade
        .header("traceparent")
        .expect("it was told")
        .to_owned();
    assert!(collector.spans().is_empty(), "it lasts");
    socket.close(1000).await;
    let spans = collector.trace_of("GET /mcp").await;
    let server = one(&spans, "GET /mcp");
    assert_eq!(
        server.says("http.response.status_code").as_deref(),
        Some("101")
    );
    assert!(told.contains(&one(&spans, "upstream").id()), "{told}");
}
