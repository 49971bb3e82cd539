//! A server that answers its checks and says that it is not well lives: it gets nothing new and keeps
//! the sessions that it has, for as long as it serves them.

use serde_json::json;

use super::{QUICK, until_health};
use crate::support::{Client, Endpoint, Fault, Mcp, SessionId, Tidegate};

const HTTP: &str =
    "{ check: http, path: /plain/health, interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }";

async fn two() -> (Endpoint, Endpoint) {
    (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    )
}

async fn both_up(gate: &Tidegate) {
    until_health(gate, "a", true).await;
    until_health(gate, "b", true).await;
}

async fn status(client: &Client, session: &SessionId, method: &str) -> u16 {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method});
    client.post(session, &request).await.status
}

async fn new_sessions_go_to(gate: &Tidegate, name: &str) {
    let client = gate.client();
    for _ in 0..5 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, name);
    }
}

#[tokio::test]
async fn a_server_whose_check_is_answered_503_keeps_its_sessions_and_gets_no_new_ones() {
    let (a, b) = two().await;
    let gate = Tidegate::build(&[&a, &b]).health(HTTP).start().await;
    both_up(&gate).await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    a.fault_when(Fault::Status(503, String::new()), |r| {
        r.path == "/plain/health"
    });
    until_health(&gate, "a", false).await;

    assert_eq!(status(&client, &session, "ping").await, 200);
    assert_eq!(client.whoami(&session).await, "a");
    new_sessions_go_to(&gate, "b").await;
    assert!(gate.stderr().contains("endpoint is unwell"));
    let told = gate.ask(&["status"]).await;
    let told = &told["pools"][0]["endpoints"][0];
    assert_eq!(told["health"]["state"], "unwell", "{told}");
    assert_eq!(told["state"], "unwell", "{told}");

    // It is well again, and nobody has lost anything.
    a.heal();
    until_health(&gate, "a", true).await;
    assert_eq!(client.whoami(&session).await, "a");

    // And when it leaves, as it had announced, its sessions are lost.
    a.fault_when(Fault::Status(503, String::new()), |r| {
        r.path == "/plain/health"
    });
    until_health(&gate, "a", false).await;
    a.kill().await;
    let lost = [("reason", "lost")];
    gate.metrics_when(|m| m.with("tidegate_sessions_ended_total", &lost) >= 1.0)
        .await;
    assert_eq!(status(&client, &session, "ping").await, 404);
}

#[tokio::test]
async fn a_server_whose_check_is_answered_with_an_error_keeps_its_sessions() {
    let (a, b) = two().await;
    let gate = Tidegate::build(&[&a, &b]).health(QUICK).start().await;
    both_up(&gate).await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    let error = json!({"jsonrpc": "2.0", "id": "tidegate-probe", "error": {"code": -32603, "message": "x"}});
    a.fault_when(Fault::Status(500, error.to_string()), |r| {
        r.rpc_method() == Some("ping")
    });
    until_health(&gate, "a", false).await;
    assert_eq!(client.whoami(&session).await, "a");
    new_sessions_go_to(&gate, "b").await;
}

/// As what stands before a dead server does.
#[tokio::test]
async fn a_server_that_answers_checks_and_calls_badly_loses_its_sessions() {
    let (a, b) = two().await;
    let gate = Tidegate::build(&[&a, &b])
        .health(HTTP)
        .pool("ejection: { failures: 3, base_time: 5m }")
        .start()
        .await;
    both_up(&gate).await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    a.fault(Fault::Status(503, "{}".into()));
    until_health(&gate, "a", false).await;
    for _ in 0..3 {
        assert_eq!(status(&client, &session, "ping").await, 503);
    }
    let lost = [("reason", "lost")];
    gate.metrics_when(|m| m.with("tidegate_sessions_ended_total", &lost) >= 1.0)
        .await;
    assert_eq!(status(&client, &session, "ping").await, 404);
    new_sessions_go_to(&gate, "b").await;
}
