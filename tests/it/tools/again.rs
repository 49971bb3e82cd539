//! Whether a call is sent again that a server may have had.

use serde_json::json;

use crate::support::tidegate::Builder;
use crate::support::{Endpoint, Fault, Mcp, Tidegate};

const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 50 }";

/// A budget that no test uses up.
const PLENTY: &str = "retries: { ratio: 100%, floor: 100 }";

fn build(endpoints: &[&Endpoint], tools: &str) -> Builder {
    Tidegate::build(endpoints)
        .pool("ejection: off\nbreaker: off\nbalance: round_robin")
        .pool(&format!("tools: {tools}"))
        .health(QUICK)
}

fn break_calls(endpoint: &Endpoint) {
    endpoint.fault_when(Fault::CloseBeforeHead, |r| {
        r.rpc_method() == Some("tools/call")
    });
}

/// How many of ten calls of this tool fail.
async fn failed(gate: &Tidegate, tool: &str) -> usize {
    let mut failed = 0;
    for _ in 0..10 {
        let params = json!({"name": tool, "arguments": {}});
        let answer = gate.client().modern("tools/call", Some(tool), params).await;
        failed += usize::from(answer.status == 502);
    }
    failed
}

#[tokio::test]
async fn a_tool_that_may_be_called_twice_goes_elsewhere() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = build(&[&a, &b], "[{ name: \"count*\", retry: always }]")
        .pool(PLENTY)
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    break_calls(&a);
    assert_eq!(failed(&gate, "counter").await, 0);
    assert!(!a.calls("tools/call").is_empty(), "it was asked first");
    assert!(failed(&gate, "echo").await > 0, "of which nothing is said");
    // Within the pool's budget, which is not there any more.
    gate.reload(&gate.config().replace(PLENTY, "retries: off"))
        .await;
    assert!(failed(&gate, "counter").await > 0);
}

/// The owner of its session is asked twice, and nobody else.
#[tokio::test]
async fn within_a_session_it_is_asked_for_again_where_the_session_is() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = build(&[&a, &b], "[{ name: counter, retry: always }]")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    let close = || a.fault(Fault::ExtraHeader("connection".into(), "close".into()));
    let is_call = |r: &crate::support::Request| r.rpc_method() == Some("tools/call");
    close();
    for tool in ["counter", "echo"] {
        let before = a.calls("tools/call").len();
        a.fault_next_when(1, Fault::CloseBeforeHead, is_call);
        let answer = client.start_call(&session, tool, json!({})).await;
        let sent = a.calls("tools/call").len() - before;
        match tool {
            "counter" => assert_eq!((answer.status, sent), (200, 2)),
            _ => assert_eq!((answer.status, sent), (502, 1)),
        }
    }
    assert!(b.calls("tools/call").is_empty());
}

#[tokio::test]
async fn what_a_server_says_of_a_tool_can_be_overruled() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let trusting = "retries: { trust_annotations: true, ratio: 100%, floor: 100 }";
    let gate = build(&[&a, &b], "[{ name: whoami, retry: never }]")
        .pool(trusting)
        .start()
        .await;
    for endpoint in [&a, &b] {
        endpoint
            .until("its tools are known", |e| !e.calls("tools/list").is_empty())
            .await;
    }
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    break_calls(&a);
    assert!(failed(&gate, "whoami").await > 0);
    let safe = gate.config().replace("retry: never", "retry: safe");
    gate.reload(&safe).await;
    assert_eq!(failed(&gate, "whoami").await, 0);
}
