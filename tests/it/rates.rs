//! Nobody gets more than a rate allows, and whoever is refused is told when to come again.

use serde_json::{Value, json};

use crate::support::ws::WebSocket;
use crate::support::{
    Client, Endpoint, Fault, Mcp, Outgoing, Request, Response, SessionId, Tidegate, text_of,
};

fn call(tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {}});
    Outgoing::stateless(&json!("seven"), "tools/call", Some(tool), params)
}

async fn limited(a: &Endpoint, rate: &str) -> Tidegate {
    let rate = format!("rate: {rate}");
    Tidegate::build(&[a]).route(&rate).start().await
}

async fn hits(gate: &Tidegate, limit: &str) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", limit)])
}

/// A refusal with whole seconds to wait; its body.
async fn refused(mut answer: Response) -> Value {
    assert_eq!(answer.status, 429);
    let seconds = answer.header("retry-after").expect("when to come again");
    assert!(seconds.parse::<u32>().expect("whole seconds") >= 1);
    answer.json().await
}

#[tokio::test]
async fn a_client_over_its_rate_is_told_so_with_its_id() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, "{ per_client: 1/h, burst: 3 }").await;
    let client = gate.client();
    for _ in 0..3 {
        assert_eq!(client.send(call("whoami")).await.status, 200);
    }
    for _ in 0..2 {
        let answer = client.send(call("whoami")).await;
        let seconds: u32 = answer
            .header("retry-after")
            .expect("given")
            .parse()
            .expect("whole");
        assert!((3590..=3600).contains(&seconds), "{seconds}");
        let told = refused(answer).await;
        assert_eq!(
            (&told["id"], &told["error"]["code"]),
            (&json!("seven"), &json!(-32603))
        );
    }
    assert_eq!(a.requests().len(), 3);
    assert_eq!(hits(&gate, "rate").await, 2.0);
}

#[tokio::test]
async fn a_token_is_there_when_it_was_said_to_be() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, "{ per_client: 2/s, burst: 1 }").await;
    let client = gate.client();
    assert_eq!(client.send(call("whoami")).await.status, 200);
    let answer = client.send(call("whoami")).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    refused(answer).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(client.send(call("whoami")).await.status, 200);
}

#[tokio::test]
async fn what_decides_and_what_gives_back_always_passes() {
    let a = Endpoint::start("a").await;
    // A session takes two to begin.
    let gate = limited(&a, "{ per_client: 1/h, burst: 3 }").await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    refused(client.send(call("whoami")).await).await;
    for _ in 0..3 {
        let probe = client.modern("server/discover", None, json!({})).await;
        assert_eq!(probe.status, 200);
        let ping = client.rpc(&session, "ping", json!({})).await;
        assert_eq!(ping.status, 200);
    }
    assert_eq!(client.delete(&session).await.status, 200);
}

#[tokio::test]
async fn the_total_holds_for_all_and_costs_a_refused_client_nothing() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, "{ total: 2/h }").await;
    // One at once, for that is what it gives in a second, rounded up.
    assert_eq!(gate.client().send(call("whoami")).await.status, 200);
    let over_h2 = gate.h2_client().await.send(call("whoami")).await;
    refused(over_h2).await;
    assert_eq!(hits(&gate, "rate_total").await, 1.0);
}

/// The session's requests of every kind, each with whether it must be refused.
async fn each_kind(client: &Client, session: &SessionId) {
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let list = client.rpc(session, "tools/list", json!({})).await;
    for answer in [
        client.get_stream(session, None).await,
        client.post(session, &note).await,
        client.send_initialize().await,
        client.listen().await,
        // What is refused anyhow, and what cannot be understood.
        client
            .request(
                "POST",
                "/mcp",
                &[("content-type", "application/json")],
                b"{",
            )
            .await,
        client.request("PUT", "/mcp", &[], b"").await,
        list,
    ] {
        refused(answer).await;
    }
}

#[tokio::test]
async fn it_holds_for_every_kind_of_request() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, "{ per_client: 1/h, burst: 2 }").await;
    let client = gate.client();
    let session = client.initialize().await;
    each_kind(&client, &session).await;
    let h2 = gate.h2_client().await;
    refused(h2.get_stream(&session, None).await).await;
    refused(h2.send(call("whoami")).await).await;
    let denied = WebSocket::connect(&client).await.expect_err("a refusal");
    assert_eq!(denied.status, 429);
    assert!(denied.headers.get("retry-after").is_some());
    // What needs no route is not limited.
    assert_eq!(client.request("GET", "/health", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_batch_is_as_many_requests_as_it_holds() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, "{ per_client: 1/h, burst: 6 }").await;
    let client = gate.client();
    let session = client.initialize().await;
    let batch: Value = (0..4)
        .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"}))
        .collect();
    let answer = client.send(Outgoing::in_session(&session, &batch)).await;
    assert_eq!(answer.status, 200);
    let told = refused(client.send(Outgoing::in_session(&session, &batch)).await).await;
    assert_eq!(told.as_array().map(Vec::len), Some(4), "each is answered");
}

#[tokio::test]
async fn plain_http_is_refused_in_plain_text() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .route("rate: { per_client: 1/h }")
        .pool("kind: http")
        .start()
        .await;
    let client = gate.client();
    assert_eq!(client.send(call("whoami")).await.status, 200);
    let mut answer = client.send(call("whoami")).await;
    assert_eq!(answer.status, 429);
    assert!(answer.headers().has("retry-after"));
    assert_eq!(answer.text().await, "too many requests\n");
    assert_eq!(hits(&gate, "rate").await, 1.0);
}

#[tokio::test]
async fn http_and_sse_is_limited_like_the_rest() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main\n  rate: { per_client: 1/h, burst: 2 }")
        .start()
        .await;
    let client = gate.client().with_path("/sse");
    let mut stream = client
        .request("GET", "/sse", &[("accept", "text/event-stream")], b"")
        .await;
    assert_eq!(stream.status, 200);
    let mut events = stream.events();
    let address = events
        .next()
        .await
        .and_then(|event| event.data)
        .expect("an address");
    let message = json!({"jsonrpc": "2.0", "id": 4, "method": "tools/list"}).to_string();
    let json = [("content-type", "application/json")];
    let accepted = client
        .request("POST", &address, &json, message.as_bytes())
        .await;
    assert_eq!(accepted.status, 202);
    let over = client
        .request("POST", &address, &json, message.as_bytes())
        .await;
    assert_eq!(refused(over).await["id"], 4);
    let over = client
        .request("GET", "/sse", &[("accept", "text/event-stream")], b"")
        .await;
    refused(over).await;
}

#[tokio::test]
async fn a_tool_has_a_rate_of_its_own() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .pool("tools:\n  - { name: \"who*\", per_client: 1/h }\n  - { name: echo, total: 1/h }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    for tool in ["whoami", "echo"] {
        assert_eq!(client.send(call(tool)).await.status, 200, "{tool}");
        refused(client.send(call(tool)).await).await;
        // In the session era the name stands in the body.
        refused(client.start_call(&session, tool, json!({})).await).await;
    }
    let params = |tool: &str| json!({"name": tool, "arguments": {}});
    let batch: Value = ["counter", "whoami"]
        .iter()
        .map(|tool| json!({"jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params(tool)}))
        .collect();
    refused(client.send(Outgoing::in_session(&session, &batch)).await).await;
    assert_eq!(client.send(call("counter")).await.status, 200, "of no rule");
    assert_eq!(hits(&gate, "tool_rate").await, 5.0);
}

#[tokio::test]
async fn a_tool_runs_so_often_at_once_over_all_endpoints() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("tools: [{ name: \"who*\", concurrent: 2 }]")
        .start()
        .await;
    let client = gate.client();
    let is_whoami = |request: &Request| request.rpc_method() == Some("tools/call");
    for endpoint in [&a, &b] {
        endpoint.fault_next_when(2, Fault::StallBeforeHead, is_whoami);
    }
    let begin = || {
        let client = client.clone();
        tokio::spawn(async move { client.send(call("whoami")).await })
    };
    let running = [begin(), begin()];
    let there = || a.calls("tools/call").len() + b.calls("tools/call").len();
    assert!(crate::support::eventually(crate::support::PATIENCE, || there() == 2).await);
    let told = refused(client.send(call("whoami")).await).await;
    assert_eq!(told["id"], "seven");
    assert_eq!(hits(&gate, "tool_concurrency").await, 1.0);
    a.heal();
    b.heal();
    for answer in running {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    let mut again = client.send(call("whoami")).await;
    assert!(["a", "b"].contains(&text_of(&again.json().await).as_str()));
}
