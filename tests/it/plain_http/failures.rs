//! What clients of plain routes see when an endpoint fails.

use super::{build, name_of};
use crate::support::{BodyEnd, Client, Endpoint, Fault};

async fn refused(client: &Client, status: u16) {
    let mut answer = client.request("GET", "/plain", &[], b"").await;
    assert_eq!(answer.status, status);
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = answer.text().await;
    assert!(!text.is_empty() && !text.contains('{'), "{text}");
}

#[tokio::test]
async fn failures_are_told_in_plain_text() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .pool("timeouts: { header: 200ms }")
        .start()
        .await;
    let client = gate.client();
    a.fault_next(1, Fault::StallBeforeHead);
    refused(&client, 504).await;
    a.heal();
    a.fault_next(1, Fault::GarbageHead);
    refused(&client, 502).await;
    a.fault_next(2, Fault::CloseBeforeHead);
    refused(&client, 502).await;
    a.heal();
    assert_eq!(
        name_of(&mut client.request("GET", "/plain", &[], b"").await).await,
        "a"
    );
    a.kill().await;
    refused(&client, 502).await;
}

#[tokio::test]
async fn a_pool_that_is_down_is_unavailable() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .health("{ check: tcp, interval: 100ms, timeout: 200ms, fall: 1, rise: 1 }")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    a.kill().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 0.0)
        .await;
    refused(&gate.client(), 503).await;
    a.restart().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    let mut answer = gate.client().request("GET", "/plain", &[], b"").await;
    assert_eq!(name_of(&mut answer).await, "a");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_whatever_the_method() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = build(&[&a, &b]).start().await;
    a.kill().await;
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for _ in 0..4 {
            let mut answer = gate.client().request(method, "/plain", &[], b"body").await;
            assert_eq!(name_of(&mut answer).await, "b", "{method}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_visibly_cut() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    for fault in [Fault::CloseMidEvent(30), Fault::ResetMidEvent(30)] {
        a.fault_next(1, fault);
        let mut answer = gate.client().request("GET", "/plain", &[], b"").await;
        assert_eq!(answer.status, 200);
        let body = answer.read_to_end().await;
        assert!(matches!(body.end, BodyEnd::Truncated | BodyEnd::Reset));
        assert!(body.bytes.len() <= 30);
    }
    gate.logged(|line| line["end_reason"] == "truncated").await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_the_server() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    a.fault(Fault::StallBeforeHead);
    let connection = client.connect().await.expect("a connection");
    let bytes = client.encode("POST", "/plain", &[], b"body");
    connection.raw(&bytes).await.expect("sent");
    a.until("it waits", |e| e.in_flight() == 1).await;
    connection.reset();
    a.until("the end of it", |e| e.disconnects().len() == 1)
        .await;
    let line = gate.logged(|line| line["path"] == "/plain").await;
    assert_eq!(line["end_reason"], "client_gone");
}
