//! What the operator says of a tool holds on whatever way it is called.

mod again;
mod time;

use serde_json::{Value, json};

use crate::support::ws::WebSocket;
use crate::support::{BodyEnd, Client, Endpoint, Mcp, Outgoing, Response, SessionId, Tidegate};

fn call(tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {}});
    Outgoing::stateless(&json!("seven"), "tools/call", Some(tool), params)
}

fn message(id: u64, tool: &str) -> Value {
    let params = json!({"name": tool, "arguments": {}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

async fn with_tools(a: &Endpoint, tools: &str) -> Tidegate {
    let tools = format!("tools: {tools}");
    Tidegate::build(&[a]).pool(&tools).start().await
}

async fn hits(gate: &Tidegate) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", "tool_denied")])
}

/// The answer to a request for a tool that is not called, as a server answers for one it does not have.
async fn denied(mut answer: Response, id: Value) {
    assert_eq!(answer.status, 200);
    let told = answer.json().await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&id, &json!(-32602)));
    assert_eq!(told["error"]["message"], "this tool may not be called here");
}

#[tokio::test]
async fn a_denied_tool_is_answered_for_and_never_reached() {
    let a = Endpoint::start("a").await;
    let gate = with_tools(&a, "[{ name: \"coun*\", deny: true }]").await;
    let client = gate.client();
    let session = client.initialize().await;
    for n in 0..2 {
        denied(client.send(call("counter")).await, json!("seven")).await;
        let within = Outgoing::in_session(&session, &message(n, "counter"));
        denied(client.send(within).await, json!(n)).await;
    }
    let h2 = gate.h2_client().await;
    denied(h2.send(call("counter")).await, json!("seven")).await;
    assert!(a.calls("tools/call").is_empty());
    assert_eq!(hits(&gate).await, 5.0);
    let line = gate.logged(|line| line["rpc_code"] == -32602).await;
    assert_eq!(
        (&line["end_reason"], &line["termination"]),
        (&json!("tool_denied"), &json!("PR"))
    );
    assert_eq!(line["tool_name"], "counter");

    // The session and its other tools are as they were, and the list is the server's.
    assert_eq!(client.whoami(&session).await, "a");
    let mut list = client.rpc(&session, "tools/list", json!({})).await;
    assert!(list.text().await.contains("counter"));
}

#[tokio::test]
async fn an_array_with_a_denied_tool_is_refused_as_a_whole() {
    let a = Endpoint::start("a").await;
    let gate = with_tools(&a, "[{ name: counter, deny: true }]").await;
    let client = gate.client();
    let session = client.initialize().await;
    let batch = json!([message(1, "whoami"), message(2, "counter")]);
    let mut answer = client.send(Outgoing::in_session(&session, &batch)).await;
    assert_eq!(answer.status, 200);
    let told = answer.json().await;
    for (at, id) in [1, 2].into_iter().enumerate() {
        let one = &told[at];
        assert_eq!(
            (&one["id"], &one["error"]["code"]),
            (&json!(id), &json!(-32602))
        );
    }
    let batch = json!([message(1, "whoami"), message(2, "echo")]);
    let answer = client.send(Outgoing::in_session(&session, &batch)).await;
    assert_eq!(answer.status, 200);
    let calls: Vec<_> = a
        .requests()
        .into_iter()
        .filter(|r| r.body.starts_with(b"["))
        .collect();
    assert_eq!(calls.len(), 1);
}

#[tokio::test]
async fn what_is_let_through_first_is_not_denied() {
    let a = Endpoint::start("a").await;
    let tools = "[{ name: \"who*\", deny: false }, { name: \"*\", deny: true }]";
    let gate = with_tools(&a, tools).await;
    let client = gate.client();
    assert_eq!(client.send(call("whoami")).await.status, 200);
    denied(client.send(call("echo")).await, json!("seven")).await;
    assert_eq!(a.calls("tools/call").len(), 1);
}

/// Sends the text of a session's message, which JSON has other ways to write.
async fn send_text(client: &Client, session: &SessionId, text: String) -> Response {
    let mut outgoing = Outgoing::in_session(session, &json!({}));
    outgoing.body = text.into_bytes();
    client.send(outgoing).await
}

#[tokio::test]
async fn a_name_is_read_as_a_server_would_read_it() {
    let a = Endpoint::start("a").await;
    let gate = with_tools(&a, "[{ name: counter, deny: true }]").await;
    let client = gate.client();
    let session = client.initialize().await;
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":"#;
    let escaped = format!(r#"{head}{{"name":"\u0063oun\u0074er"}}}}"#);
    denied(send_text(&client, &session, escaped).await, json!(1)).await;
    let before = r#"{"params":{"name":"counter"},"method":"tools\/call","id":1,"jsonrpc":"2.0"}"#;
    denied(send_text(&client, &session, before.into()).await, json!(1)).await;
    // Names that are none, or longer than any that is read.
    for name in [json!(null), json!(["counter"]), json!("c".repeat(4000))] {
        let odd = format!(r#"{head}{{"name":{name}}}}}"#);
        denied(send_text(&client, &session, odd).await, json!(1)).await;
    }
    // In the session era no header says what is called.
    let mut lying = Outgoing::in_session(&session, &json!({})).with("mcp-name", "whoami");
    lying.body = format!(r#"{head}{{"name":"{}"}}}}"#, "c".repeat(4000)).into_bytes();
    denied(client.send(lying).await, json!(1)).await;
    let twice = format!(r#"{head}{{"name":"whoami","name":"counter"}}}}"#);
    assert_eq!(send_text(&client, &session, twice).await.status, 400);
    assert!(a.calls("tools/call").is_empty());
}

/// The name stands behind more than is held of the body, so the call is on its way by its head.
#[tokio::test]
async fn a_call_that_turns_out_to_be_another_is_cut_off() {
    let a = Endpoint::start("a").await;
    let gate = with_tools(&a, "[{ name: counter, deny: true }]").await;
    let client = gate.client();
    let long = json!({"text": "x".repeat(1 << 20)});
    let outgoing = |tool: &str, said: &str| {
        let params = json!({"name": tool, "arguments": long});
        let outgoing = Outgoing::stateless(&json!(1), "tools/call", Some(tool), params);
        outgoing.without("mcp-name").with("mcp-name", said)
    };
    let mut answer = client.send(outgoing("counter", "echo")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json().await["error"]["code"], -32020);
    denied(client.send(outgoing("counter", "counter")).await, json!(1)).await;
    let mut answer = client.send(outgoing("echo", "echo")).await;
    assert_eq!(answer.status, 200);
    answer.read_to_end().await;
    assert_eq!(
        a.calls("tools/call").len(),
        1,
        "only what was true is whole"
    );
}

#[tokio::test]
async fn a_denied_tool_is_refused_where_its_answer_would_come_on_a_stream() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .pool("tools: [{ name: counter, deny: true }]")
        .start()
        .await;
    let client = gate.client();
    let accept = [("accept", "text/event-stream")];
    let mut stream = client.request("GET", "/sse", &accept, b"").await;
    let first = stream.events().next().await.expect("an event");
    let address = first.data.expect("an address");
    let post = async |message: Value| {
        let json = [("content-type", "application/json")];
        let body = message.to_string();
        client
            .request("POST", &address, &json, body.as_bytes())
            .await
    };
    // Taken for accepted, it would be waited for.
    for message in [message(1, "counter"), json!([message(2, "counter")])] {
        let mut refused = post(message).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().await.contains("-32602"));
    }
    assert_eq!(post(message(3, "whoami")).await.status, 202);
    assert_eq!(stream.events().next_json().await["id"], 3);
    assert_eq!(a.calls("tools/call").len(), 1);
}

#[tokio::test]
async fn what_is_not_looked_at_is_not_opened() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = with_tools(&a, "[{ name: counter, deny: true }]").await;
    let refused = WebSocket::connect(&gate.client()).await;
    assert_eq!(refused.expect_err("a refusal").status, 403);
    let line = gate.logged(|line| line["status"] == 403).await;
    assert_eq!(line["end_reason"], "websocket_denied");
    assert_eq!(hits(&gate).await, 1.0);
    let others = gate.config().replace("deny: true", "deny: false");
    gate.reload(&others).await;
    let open = WebSocket::connect(&gate.client()).await;
    open.expect("nothing is denied");
}

#[tokio::test]
async fn a_reload_denies_and_lets_through() {
    let a = Endpoint::start("a").await;
    let gate = with_tools(&a, "[{ name: counter, concurrent: 5 }]").await;
    let client = gate.client();
    assert_eq!(client.send(call("counter")).await.status, 200);
    let open = gate.config();
    gate.reload(&open.replace("concurrent: 5", "deny: true"))
        .await;
    denied(client.send(call("counter")).await, json!("seven")).await;
    gate.reload(&open).await;
    let mut answer = client.send(call("counter")).await;
    let body = answer.read_to_end().await;
    assert_eq!(body.end, BodyEnd::Complete);
    assert_eq!(a.calls("tools/call").len(), 2);
}
