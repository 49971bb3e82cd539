//! How often a call is tried again, and which calls are.

mod hedge;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tidegate::Builder;
use crate::support::{Client, Endpoint, Fault, Mcp, Outgoing, Tidegate, text_of};

/// A budget that no test uses up.
const PLENTY: &str = "{ ratio: 100%, floor: 100 }";

/// Without what else takes a failing endpoint out of the way.
fn build(endpoints: &[&Endpoint], retries: &str) -> Builder {
    Tidegate::build(endpoints)
        .pool("ejection: off\nbreaker: off\nbalance: round_robin")
        .pool(&format!("retries: {retries}"))
}

async fn two() -> (Endpoint, Endpoint) {
    (
        Endpoint::named("a").stateless_only().start().await,
        Endpoint::named("b").stateless_only().start().await,
    )
}

async fn list(client: &Client) -> u16 {
    let list = Outgoing::stateless(&json!(1), "tools/list", None, Value::Null);
    client.send(list).await.status
}

async fn retried(gate: &Tidegate, outcome: &str) -> f64 {
    let labels = [("pool", "main"), ("outcome", outcome)];
    let metrics = gate.metrics().await;
    metrics.with("tidegate_retries_total", &labels)
}

#[tokio::test]
async fn second_attempts_keep_within_their_budget() {
    let (a, b) = two().await;
    let gate = build(&[&a, &b], "{ ratio: 10%, floor: 1 }").start().await;
    let client = gate.client();
    a.fault(Fault::CloseBeforeHead);
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(list(&client).await == 502);
    }
    // One per second of the ten, and a tenth of the hundred calls; half of them met the endpoint
    // that fails.
    let good = retried(&gate, "success").await;
    assert!((10.0..=21.0).contains(&good), "{good}");
    assert_eq!(failed as f64, retried(&gate, "over_budget").await);
    assert_eq!(failed + good as usize, 50);
}

#[tokio::test]
async fn without_retries_only_what_reached_no_server_is_tried_again() {
    let (a, b) = two().await;
    let gate = build(&[&a, &b], "off").start().await;
    let client = gate.client();
    a.fault(Fault::CloseBeforeHead);
    let statuses = [list(&client).await, list(&client).await];
    assert!(
        statuses.contains(&502) && statuses.contains(&200),
        "{statuses:?}"
    );
    a.heal();
    a.refuse_connections().await;
    for _ in 0..4 {
        assert_eq!(list(&client).await, 200, "no connection was made");
    }
}

#[tokio::test]
async fn stale_connections_cost_no_budget() {
    let (a, b) = two().await;
    let gate = build(&[&a, &b], "{ ratio: 0%, floor: 0 }").start().await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        endpoint.fault(Fault::CloseIdleAfter(Duration::from_millis(1)));
    }
    for _ in 0..200 {
        assert_eq!(list(&client).await, 200);
    }
    assert_eq!(retried(&gate, "over_budget").await, 0.0);
}

#[tokio::test]
async fn a_tool_that_says_it_only_reads_is_called_again_where_that_is_believed() {
    const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 50 }";
    for trust in [true, false] {
        let (a, b) = two().await;
        let retries = format!("{{ trust_annotations: {trust} }}");
        let gate = build(&[&a, &b], &retries).health(QUICK).start().await;
        gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
            .await;
        for endpoint in [&a, &b] {
            endpoint
                .until("its tools are known", |e| !e.calls("tools/list").is_empty())
                .await;
        }
        a.fault_when(Fault::CloseBeforeHead, |r| {
            r.rpc_method() == Some("tools/call")
        });
        let client = gate.client();
        let mut failed = [0, 0];
        for (tool, failed) in ["whoami", "counter"].into_iter().zip(&mut failed) {
            for _ in 0..10 {
                let params = json!({"name": tool, "arguments": {}});
                let mut answer = client.modern("tools/call", Some(tool), params).await;
                match answer.status {
                    200 if tool == "whoami" => assert_eq!(text_of(&answer.json().await), "b"),
                    200 => {}
                    status => {
                        assert_eq!(status, 502);
                        *failed += 1;
                    }
                }
            }
        }
        assert_eq!(failed[0] == 0, trust, "{failed:?}");
        assert!(
            failed[1] > 0,
            "a tool that counts is never called again: {failed:?}"
        );
    }
}

#[tokio::test]
async fn a_list_that_takes_its_time_is_asked_for_elsewhere_too() {
    let (a, b) = two().await;
    let gate = build(&[&a, &b], "{ hedge_after: 100ms }").start().await;
    let client = gate.client();
    a.fault_when(Fault::StallBeforeHead, |r| {
        r.rpc_method() == Some("tools/list")
    });
    for _ in 0..6 {
        let began = Instant::now();
        assert_eq!(list(&client).await, 200);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let asked = a.calls("tools/list").len();
    assert!(asked >= 2, "{asked}");
    assert_eq!(retried(&gate, "success").await, asked as f64);
    // Those that lost are let go.
    a.until("nobody waits", |a| a.in_flight() == 0).await;
    let busy = [("endpoint", "a")];
    gate.metrics_when(|m| m.with("tidegate_endpoint_in_flight", &busy) == 0.0)
        .await;
}

/// What gives the same state when the same server hears it twice is said once more, also where the
/// connection had served nobody before.
#[tokio::test]
async fn what_gives_the_same_state_is_sent_once_more() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = build(&[&a], PLENTY).start().await;
    // No connection serves twice, so none is stale.
    a.fault(Fault::ExtraHeader("connection".into(), "close".into()));
    let client = gate.client();
    let session = client.initialize().await;
    let calls = [
        ("resources/subscribe", json!({"uri": "note:1"})),
        ("logging/setLevel", json!({"level": "info"})),
        ("tasks/cancel", json!({"taskId": "t"})),
    ];
    for (method, params) in calls {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let sent = |count: usize| {
            a.fault_next_when(count, Fault::CloseBeforeHead, move |r| {
                r.rpc_method() == Some(method)
            });
            client.post(&session, &request)
        };
        assert_ne!(sent(1).await.status, 502, "{method}");
        assert_eq!(a.calls(method).len(), 2, "{method}");
        assert_eq!(sent(2).await.status, 502, "{method}");
        assert_eq!(a.calls(method).len(), 4, "{method}: never more than twice");
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_sent_once_more() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = build(&[&a], PLENTY).start().await;
    a.fault(Fault::ExtraHeader("connection".into(), "close".into()));
    let client = gate.client();
    let session = client.initialize().await;
    a.fault_next_when(1, Fault::CloseBeforeHead, |r| r.method == "DELETE");
    assert_eq!(client.delete(&session).await.status, 200);
    assert!(a.sessions().is_empty());
    let deletes = a.requests().into_iter().filter(|r| r.method == "DELETE");
    assert_eq!(deletes.count(), 2);
}

#[tokio::test]
async fn what_one_server_may_have_done_is_not_said_to_another() {
    let (a, b) = two().await;
    let gate = build(&[&a, &b], PLENTY).start().await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        endpoint.fault(Fault::ExtraHeader("connection".into(), "close".into()));
        endpoint.fault_next_when(2, Fault::CloseBeforeHead, |r| {
            r.rpc_method() == Some("tasks/cancel")
        });
    }
    let cancel = Outgoing::stateless(&json!(1), "tasks/cancel", Some("t"), json!({"taskId": "t"}));
    assert_eq!(client.send(cancel).await.status, 502);
    let seen = [&a, &b].map(|endpoint| endpoint.calls("tasks/cancel").len());
    assert!(seen == [2, 0] || seen == [0, 2], "{seen:?}");
}
