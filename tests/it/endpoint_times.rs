//! How long endpoints take to be connected to and to begin their answers, on every path that a call may
//! take, as Prometheus and the API for operators see it.

use std::time::Duration;

use serde_json::json;

use crate::support::tidegate::Metrics;
use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Fault, Mcp, Tidegate, text_of};

const FIRST_BYTE: &str = "tidegate_endpoint_first_byte_seconds";
const CONNECT: &str = "tidegate_endpoint_connect_seconds";
const A: [(&str, &str); 2] = [("pool", "main"), ("endpoint", "a")];

/// Without checks, which have connections and answers of their own that do not count.
async fn gate(a: &Endpoint, keys: &str) -> Tidegate {
    Tidegate::build(&[a])
        .health("{ check: none }")
        .endpoint("a", keys)
        .config("threads: 1")
        .start()
        .await
}

async fn plain(a: &Endpoint) -> Tidegate {
    Tidegate::build(&[a])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .config("threads: 1")
        .start()
        .await
}

fn count(metrics: &Metrics, family: &str) -> f64 {
    metrics.with(&format!("{family}_count"), &A)
}

/// How many took at most so long.
fn within(metrics: &Metrics, family: &str, bound: &str) -> f64 {
    let labels = [A[0], A[1], ("le", bound)];
    metrics.with(&format!("{family}_bucket"), &labels)
}

#[tokio::test]
async fn nothing_is_counted_before_the_first_call() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let metrics = gate
        .metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    for family in [FIRST_BYTE, CONNECT] {
        assert!(metrics.0.keys().any(|name| name.starts_with(family)));
        assert_eq!(
            count(&metrics, family),
            0.0,
            "checks do not count: {family}"
        );
    }
    let shown = gate.ask(&["status"]).await;
    let shown = &shown["pools"][0]["endpoints"][0];
    assert_eq!(shown["first_byte_p50_seconds"], json!(null));
    assert_eq!(shown["first_byte_p99_seconds"], json!(null));
}

#[tokio::test]
async fn every_call_has_a_first_byte_and_a_kept_connection_is_made_once() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a, "weight: 1").await;
    let client = gate.client();
    for _ in 0..5 {
        text_of(&client.modern_call("whoami", json!({})).await);
    }
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 5.0).await;
    assert_eq!(count(&metrics, CONNECT), 1.0);
    assert_eq!(within(&metrics, FIRST_BYTE, "+Inf"), 5.0);
    let sum = metrics.with(&format!("{FIRST_BYTE}_sum"), &A);
    assert!(sum > 0.0 && sum < 60.0, "{sum}");

    let shown = gate.ask(&["status"]).await;
    let shown = &shown["pools"][0]["endpoints"][0];
    let value = |key: &str| shown[key].as_f64().expect("a number");
    let (half, most) = (
        value("first_byte_p50_seconds"),
        value("first_byte_p99_seconds"),
    );
    assert!(0.0 < half && half <= most && most < 60.0, "{half} {most}");
}

#[tokio::test]
async fn a_slow_answer_is_in_the_bucket_of_its_time() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a, "weight: 1").await;
    gate.client().modern_call("slow", json!({"ms": 600})).await;
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 1.0).await;
    assert_eq!(within(&metrics, FIRST_BYTE, "0.5"), 0.0);
    let shown = gate.ask(&["status"]).await;
    let half = &shown["pools"][0]["endpoints"][0]["first_byte_p50_seconds"];
    assert!(half.as_f64().expect("a number") > 0.5, "{half}");
}

#[tokio::test]
async fn a_reply_stream_counts_to_its_first_byte_and_a_standing_one_not_at_all() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a, "weight: 1").await;
    let client = gate.client();
    let session = client.initialize().await;
    gate.metrics_when(|m| count(m, FIRST_BYTE) == 2.0).await;
    let stream = client.get_stream(&session, None).await;
    assert_eq!(stream.status, 200);
    let ticks = json!({"n": 3, "every_ms": 1000});
    assert_eq!(
        text_of(&client.call(&session, "ticks", ticks).await),
        "3 ticks"
    );
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) >= 3.0).await;
    assert_eq!(count(&metrics, FIRST_BYTE), 3.0, "the standing one is none");
    assert_eq!(within(&metrics, FIRST_BYTE, "2.5"), 3.0);
    assert_eq!(client.delete(&session).await.status, 200);
    gate.metrics_when(|m| count(m, FIRST_BYTE) == 4.0).await;
}

#[tokio::test]
async fn http2_on_either_side_counts_the_same() {
    let a = Endpoint::named("a").http2().start().await;
    let gate = gate(&a, "http2: true").await;
    let client = gate.h2_client().await;
    for _ in 0..4 {
        text_of(&client.modern_call("whoami", json!({})).await);
    }
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 4.0).await;
    assert_eq!(count(&metrics, CONNECT), 1.0);
}

#[tokio::test]
async fn plain_routes_count_from_the_end_of_a_slow_request() {
    let a = Endpoint::start("a").await;
    let gate = plain(&a).await;
    let client = gate.client();
    client.request("GET", "/plain", &[], b"").await.text().await;
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 1.0).await;
    let made = count(&metrics, CONNECT);
    assert!(made >= 1.0);

    let connection = client.connect().await.expect("a connection");
    let bytes = client.encode("POST", "/plain", &[], &[b'x'; 100]);
    let (first, rest) = bytes.split_at(bytes.len() - 50);
    connection.raw(first).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    connection.raw(rest).await.expect("sent");
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 2.0).await;
    assert_eq!(
        within(&metrics, FIRST_BYTE, "1"),
        2.0,
        "the client was slow"
    );
}

#[tokio::test]
async fn a_websocket_counts_its_handshake() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = gate(&a, "weight: 1").await;
    let socket = WebSocket::connect(&gate.client()).await;
    assert!(socket.is_ok());
    let metrics = gate.metrics_when(|m| count(m, FIRST_BYTE) == 1.0).await;
    assert_eq!(count(&metrics, CONNECT), 1.0);
}

#[tokio::test]
async fn an_answer_that_does_not_come_counts_no_time() {
    let a = Endpoint::start("a").await;
    a.fault(Fault::CloseBeforeHead);
    let gate = gate(&a, "weight: 1").await;
    let client = gate.client();
    let params = json!({"name": "whoami", "arguments": {}});
    client.modern("tools/call", Some("whoami"), params).await;
    let metrics = gate
        .metrics_when(|m| m.sum("mcp_requests_total") >= 1.0)
        .await;
    assert_eq!(count(&metrics, FIRST_BYTE), 0.0);
    assert!(count(&metrics, CONNECT) >= 1.0);
}
