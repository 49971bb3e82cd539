//! The endpoint as a server of 2026-07-28, and the client of it.

use serde_json::{Value, json};

use crate::support::{BodyEnd, Client, Endpoint, Mcp, Outgoing, SessionId, text_of};

#[tokio::test]
async fn requests_need_no_session() {
    let endpoint = Endpoint::named("a").cache(5000, "public").start().await;
    let client = Client::of(&endpoint);
    let discovered = client
        .modern("server/discover", None, Value::Null)
        .await
        .json()
        .await;
    assert_eq!(
        discovered["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    assert_eq!(discovered["result"]["ttlMs"], 5000);
    let whoami = client.modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&whoami), "a");
    assert_eq!(whoami["result"]["resultType"], "complete");
    let ticks = client.modern_call("ticks", json!({"n": 2})).await;
    assert_eq!(text_of(&ticks), "2 ticks");
    let list = client
        .modern("tools/list", None, Value::Null)
        .await
        .json()
        .await;
    assert!(
        list["result"]["tools"]
            .as_array()
            .is_some_and(|tools| tools.len() > 5)
    );
    assert_eq!(endpoint.sessions_opened(), 0);
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let call = || {
        let params = json!({"name": "whoami", "arguments": {}});
        Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
    };
    let cases = [
        (call().without("mcp-name").with("mcp-name", "echo"), -32020),
        (call().without("mcp-name"), -32020),
        (call().with("mcp-name", "whoami"), -32020),
        (call().without("mcp-method"), -32020),
        (call().without("mcp-protocol-version"), -32020),
        (
            call()
                .without("mcp-protocol-version")
                .with("mcp-protocol-version", "2031-01-01"),
            -32022,
        ),
    ];
    for (outgoing, code) in cases {
        let mut response = client.send(outgoing.clone()).await;
        let message = response.json().await;
        assert_eq!(
            (response.status, &message["error"]["code"]),
            (400, &json!(code)),
            "{outgoing:?}"
        );
        assert_eq!(message["id"], 1);
    }
    let coded = call()
        .without("mcp-name")
        .with("mcp-name", "=?base64?d2hvYW1p?=");
    assert_eq!(client.send(coded).await.status, 200);
    let unknown = client.modern("no/such", None, Value::Null).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_server_of_one_era_refuses_the_other() {
    let stateless = Endpoint::named("a").stateless_only().start().await;
    let client = Client::of(&stateless);
    let mut refused = client.send_initialize().await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json().await["error"]["data"]["supported"],
        json!(["2026-07-28"])
    );
    let refused = client.get_stream(&SessionId(String::new()), None).await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("POST"))
    );

    let session = Endpoint::named("b").session_only().leaky().start().await;
    let client = Client::of(&session);
    let refused = client.modern("server/discover", None, Value::Null).await;
    assert_eq!(refused.status, 400);
    assert_eq!(session.sessions_opened(), 1, "a probe leaks a session");
}

#[tokio::test]
async fn an_input_round_trip_ends_where_it_began() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let client = Client::of(&a);
    let asked = client.modern_call("ask", json!({})).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    let retry = json!({
        "name": "ask",
        "arguments": {},
        "inputResponses": {"name": {"action": "accept", "content": {"name": "Ada"}}},
        "requestState": asked["result"]["requestState"],
    });
    let done = client
        .modern("tools/call", Some("ask"), retry.clone())
        .await
        .json()
        .await;
    assert!(text_of(&done).contains("Ada"));
    let elsewhere = Client::of(&b)
        .modern("tools/call", Some("ask"), retry)
        .await
        .json()
        .await;
    assert_eq!(elsewhere["error"]["code"], -32602);
}

#[tokio::test]
async fn listeners_are_acknowledged_told_and_ended() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let mut stream = client.listen().await;
    let mut events = stream.events();
    let first = events.next_json().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let subscription = &first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(subscription, &json!(0));
    assert_eq!(endpoint.notify_listeners(), 1);
    let second = events.next_json().await;
    assert_eq!(second["method"], "notifications/tools/list_changed");
    assert_eq!(endpoint.finish_listeners(), 1);
    let last = events.next_json().await;
    assert_eq!(last["result"]["resultType"], "complete");
    assert!(events.next().await.is_none());
    assert_eq!(events.end, Some(BodyEnd::Complete));
}
