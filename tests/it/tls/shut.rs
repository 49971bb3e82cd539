//! Connections that never become TLS, and how those that are end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{HTTP_11, build, door};
use crate::support::tls::{Certificate, End, TlsDoor};
use crate::support::{BodyEnd, Client, Endpoint, Mcp, NoAnswer, Tidegate, eventually, text_of};

const FAILED: &str = "tidegate_tls_handshakes_failed_total";

async fn failed(gate: &Tidegate, reason: &str) {
    gate.metrics_when(|metrics| metrics.with(FAILED, &[("reason", reason)]) == 1.0)
        .await;
}

/// The first bytes of a handshake record, of which nothing follows.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1];

#[tokio::test]
async fn plain_http_is_answered_in_plain_text() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let plain = gate.client();
    let mut answer = plain.request("POST", "/mcp", &[], b"{}").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("connection"), Some("close"));
    let said = answer.json().await["error"]["message"].to_string();
    assert!(said.contains("HTTPS"), "{said}");
    let (rest, end) = answer.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    failed(&gate, "plain_http").await;
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_slow_handshake_is_cut_at_the_time_of_a_head() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let started = Instant::now();
    let connection = gate.client().connect().await.expect("a connection");
    connection.raw(HALF_A_HELLO).await.expect("sent");
    let (rest, _) = connection.rest().await;
    assert!(rest.is_empty(), "{rest:?}");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(250), "{waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    failed(&gate, "timeout").await;
}

#[tokio::test]
async fn a_silent_client_is_cut_at_the_time_of_a_head_behind_its_handshake_as_well() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    for protocols in [HTTP_11, &["h2"]] {
        let door = TlsDoor::open(gate.address(), &certificate, protocols).await;
        let started = Instant::now();
        let connection = door.client().connect().await.expect("a connection");
        connection.rest().await;
        assert!(started.elapsed() < Duration::from_secs(3));
        assert_eq!(door.carried()[0].end, Some(End::Notified));
    }
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let connection = gate.client().connect().await.expect("a connection");
    let _ = connection.raw(&[0x99; 4000]).await;
    let (alert, _) = connection.rest().await;
    assert!(alert.is_empty() || alert[0] == 0x15, "{alert:?}");
    failed(&gate, "protocol").await;
    // A check of the port alone.
    drop(gate.client().connect().await.expect("a connection"));
    failed(&gate, "closed").await;
    let door = door(&gate, &certificate).await;
    assert_eq!(
        text_of(&door.client().modern_call("whoami", json!({})).await),
        "a"
    );
}

#[tokio::test]
async fn a_client_of_another_protocol_is_told_in_the_handshake() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = TlsDoor::open(gate.address(), &certificate, &["spdy/3"]).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let refused = door
        .client()
        .try_send(crate::support::Outgoing::post(&call))
        .await;
    assert!(matches!(refused, Err(NoAnswer::Head(_))), "{refused:?}");
    assert!(door.carried().is_empty());
    failed(&gate, "protocol").await;
}

#[tokio::test]
async fn a_connection_that_is_closed_is_said_to_end() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .config("limits: { idle_timeout: 1s }")
        .start()
        .await;
    let ended = async |door: &TlsDoor| {
        let over = || door.carried()[0].end.is_some();
        assert!(eventually(Duration::from_secs(5), over).await);
        assert_eq!(door.carried()[0].end, Some(End::Notified));
    };
    // By the client's wish, by a refusal, and for want of requests.
    for headers in [&[("connection", "close")][..], &[("te", "\u{1}")], &[]] {
        let door = door(&gate, &certificate).await;
        let mut answer = door.client().request("GET", "/health", headers, b"").await;
        answer.read_to_end().await;
        ended(&door).await;
    }
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_closes_what_is_idle() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let mut gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let session = client.initialize().await;
    let mut idle = client.request("GET", "/health", &[], b"").await;
    idle.read_to_end().await;
    let mut stream = client.get_stream(&session, None).await;
    let shaking = Client::new(gate.address())
        .connect()
        .await
        .expect("a connection");
    shaking.raw(HALF_A_HELLO).await.expect("sent");
    let running = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 700})).await })
    };
    a.until("it runs", |e| e.in_flight() == 2).await;
    gate.signal("TERM");
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    let (events, end) = stream.events().rest().await;
    assert_eq!((events.len(), end), (0, BodyEnd::Complete));
    let (rest, end) = idle.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    let status = gate.wait_exit(Duration::from_secs(4)).await;
    assert!(status.success(), "{status}");
    let ends: Vec<_> = door.carried().iter().map(|one| one.end).collect();
    assert!(!ends.contains(&Some(End::Cut)), "{ends:?}");
}
