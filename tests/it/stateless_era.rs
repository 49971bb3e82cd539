//! The stateless era through the program: any copy serves, headers are what they say they are, and
//! nobody is demoted to sessions by an answer of ours.

mod leave;
mod probe;

use serde_json::{Value, json};

use crate::support::{
    Endpoint, Mcp, Outgoing, PATIENCE, Response, SessionId, Tidegate, eventually, text_of,
};

/// Checks often enough for a test, and sees a loss at the second look.
const CHECKED: &str = "{ check: mcp, interval: 100ms, timeout: 1s, rise: 1, fall: 2 }";

fn call(id: &Value, tool: &str, arguments: Value) -> Outgoing {
    let params = json!({"name": tool, "arguments": arguments});
    Outgoing::stateless(id, "tools/call", Some(tool), params)
}

fn discover(id: &Value) -> Outgoing {
    Outgoing::stateless(id, "server/discover", None, Value::Null)
}

/// Waits until the program's log says this, so many times.
async fn logged(gate: &Tidegate, words: &str, times: usize) {
    let seen = eventually(PATIENCE, || gate.stderr().matches(words).count() >= times).await;
    assert!(seen, "never {words:?} {times} times: {}", gate.stderr());
}

/// A JSON-RPC error with this status, code and id.
async fn assert_error(
    mut response: Response,
    status: u16,
    code: i64,
    id: &Value,
    what: &str,
) -> Value {
    let message = response.json().await;
    assert_eq!(response.status, status, "{what}: {message}");
    assert_eq!(message["error"]["code"], code, "{what}: {message}");
    assert_eq!(&message["id"], id, "{what}: {message}");
    message
}

// Where requests go, and what arrives.

#[tokio::test]
async fn any_copy_serves_any_request() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    let over_http2 = gate.h2_client().await;
    for _ in 0..3 {
        client.modern_call("whoami", json!({})).await;
        over_http2.modern_call("whoami", json!({})).await;
    }
    assert_eq!(
        (a.calls("tools/call").len(), b.calls("tools/call").len()),
        (3, 3)
    );
    assert_eq!(a.sessions_opened() + b.sessions_opened(), 0);
}

#[tokio::test]
async fn headers_of_the_era_pass_and_those_of_the_other_do_not() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let coded = "=?base64?ZWNobw==?=";
    let outgoing = call(&json!("x"), "echo", json!({"text": "hé"}))
        .without("mcp-name")
        .with("Mcp-Name", coded)
        .with("Mcp-Param-Region", "=?base64?w6k=?=")
        .with("Last-Event-ID", "7")
        .with("Mcp-Session-Id", "deadbeef")
        .with("Origin", "http://localhost:1234")
        .with("X-Custom", "1");
    let body = outgoing.body.clone();
    let mut answer = client.send(outgoing).await;
    assert!(!answer.headers().has("mcp-session-id"));
    assert_eq!(text_of(&answer.json().await), "hé");
    let seen = &a.requests()[0];
    for (name, value) in [
        ("mcp-protocol-version", Some("2026-07-28")),
        ("mcp-method", Some("tools/call")),
        ("mcp-name", Some(coded)),
        ("mcp-param-region", Some("=?base64?w6k=?=")),
        ("accept", Some("application/json, text/event-stream")),
        ("x-custom", Some("1")),
        ("host", Some(a.address().to_string().as_str())),
        ("last-event-id", None),
        ("mcp-session-id", None),
        ("origin", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.body, body);
}

#[tokio::test]
async fn a_stray_session_id_means_nothing() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut served = Vec::new();
    for _ in 0..4 {
        let stray = call(&json!(1), "whoami", json!({})).with("mcp-session-id", &session.0);
        served.push(text_of(&client.send(stray).await.json().await));
    }
    served.sort();
    assert_eq!(served, ["a", "a", "b", "b"], "it binds to nobody");
}

#[tokio::test]
async fn what_the_server_refuses_passes_as_it_is() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let unknown = Outgoing::stateless(&json!("u"), "no/such", None, Value::Null);
    let unknown = client.send(unknown).await;
    assert_error(unknown, 404, -32601, &json!("u"), "a method").await;
    let missing = client.send(call(&json!(5), "no_such", json!({}))).await;
    assert_error(missing, 200, -32602, &json!(5), "a tool").await;
    let failed = client.modern_call("fail", json!({})).await;
    assert_eq!(failed["result"]["isError"], true);
}

#[tokio::test]
async fn an_input_round_trip_passes() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let asked = client.modern_call("ask", json!({})).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    let method = &asked["result"]["inputRequests"]["name"]["method"];
    assert_eq!(method, "elicitation/create");
    let retry = json!({
        "name": "ask",
        "arguments": {},
        "inputResponses": {"name": {"action": "accept", "content": {"name": "Ada"}}},
        "requestState": asked["result"]["requestState"],
    });
    let done = client
        .modern("tools/call", Some("ask"), retry)
        .await
        .json()
        .await;
    assert_eq!(done["result"]["resultType"], "complete");
    assert!(text_of(&done).contains("Ada"));
}

// What contradicts itself.

#[tokio::test]
async fn a_contradiction_is_refused_before_any_server_sees_it() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let version = |outgoing: Outgoing, version: &str| {
        outgoing
            .without("mcp-protocol-version")
            .with("mcp-protocol-version", version)
    };
    for id in [json!(7), json!("seven")] {
        let whole = || call(&id, "whoami", json!({}));
        let initialize = json!({"jsonrpc": "2.0", "id": id, "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}});
        let bare = |method: &str| {
            let list = json!({"jsonrpc": "2.0", "id": id, "method": method});
            version(Outgoing::post(&list), "2026-07-28")
        };
        let cases = [
            (
                "another method",
                whole()
                    .without("mcp-method")
                    .with("mcp-method", "tools/list"),
                -32020,
            ),
            ("no method", whole().without("mcp-method"), -32020),
            (
                "no method, no name",
                whole().without("mcp-method").without("mcp-name"),
                -32020,
            ),
            (
                "another name",
                whole().without("mcp-name").with("mcp-name", "echo"),
                -32020,
            ),
            ("no name", whole().without("mcp-name"), -32020),
            (
                "a name ill coded",
                whole().without("mcp-name").with("mcp-name", "=?base64?%?="),
                -32020,
            ),
            ("two names", whole().with("mcp-name", "whoami"), -32020),
            (
                "two methods",
                whole().with("mcp-method", "tools/call"),
                -32020,
            ),
            (
                "two versions",
                whole().with("mcp-protocol-version", "2026-07-28"),
                -32020,
            ),
            (
                "no version",
                whole().without("mcp-protocol-version"),
                -32020,
            ),
            (
                "no header at all",
                whole()
                    .without("mcp-protocol-version")
                    .without("mcp-method")
                    .without("mcp-name"),
                -32020,
            ),
            ("an old version", version(whole(), "2025-11-25"), -32020),
            (
                "an old version, old headers",
                version(whole(), "2025-06-18").without("mcp-method"),
                -32020,
            ),
            (
                "initialize",
                bare("initialize").with("mcp-method", "initialize"),
                -32020,
            ),
            (
                "initialize, no method",
                version(Outgoing::post(&initialize), "2026-07-28"),
                -32020,
            ),
            ("no method of a list", bare("tools/list"), -32020),
            ("an unknown version", version(whole(), "2031-01-01"), -32022),
            ("no version at all", version(whole(), "latest"), -32022),
        ];
        for (what, outgoing, code) in cases {
            let answer = client.send(outgoing).await;
            let message = assert_error(answer, 400, code, &id, what).await;
            if code == -32022 {
                assert_eq!(
                    message["error"]["data"]["supported"],
                    json!(["2026-07-28"]),
                    "{what}"
                );
            }
        }
    }
    assert_eq!((a.requests().len(), a.sessions_opened()), (0, 0));
}

#[tokio::test]
async fn an_unknown_version_within_a_session_is_refused_in_the_words_of_sessions() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let seen = a.requests().len();
    let ping = json!({"jsonrpc": "2.0", "id": "p", "method": "ping"});
    let outgoing = Outgoing::in_session(&session, &ping)
        .without("mcp-protocol-version")
        .with("mcp-protocol-version", "2031-01-01");
    let answer = client.send(outgoing).await;
    assert_error(answer, 400, -32600, &json!("p"), "in a session").await;
    assert_eq!(a.requests().len(), seen);
}

#[tokio::test]
async fn a_body_that_turns_wrong_on_its_way_never_reaches_its_end() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let tails = [
        (r#","result":{}}"#, -32600),
        (r#","method":"tools/list"}"#, -32600),
        (r#","id":8}"#, -32600),
        ("]", -32700),
        ("}}", -32700),
        ("", -32700),
    ];
    for (round, (tail, code)) in tails.into_iter().enumerate() {
        let outgoing = call(&json!("m"), "echo", json!({"text": "hello"}));
        let whole = outgoing.body.len() + tail.len() - 1;
        let length = whole.to_string();
        let mut headers = outgoing.header_lines();
        headers.push(("content-length", &length));
        // All that routes a call stands before its last brace, so it is on its way already.
        let first = &outgoing.body[..outgoing.body.len() - 1];
        let connection = client.connect().await.expect("a connection");
        let bytes = client.encode("POST", "/mcp", &headers, first);
        connection.raw(&bytes).await.expect("sent");
        a.until("it is on its way", |a| {
            a.connections_accepted() > round || tail.is_empty()
        })
        .await;
        connection.raw(tail.as_bytes()).await.expect("sent");
        let answer = connection.response(false).await.expect("an answer");
        assert_error(answer, 400, code, &json!("m"), tail).await;
    }
    a.until("all are broken off", |a| a.connections_open() == 0)
        .await;
    assert_eq!(a.requests().len(), 0);
}

// The eras that a pool speaks.

#[tokio::test]
async fn a_pool_of_sessions_tells_a_probe_to_begin_one() {
    let a = Endpoint::named("a").session_only().leaky().start().await;
    let learned = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&learned, "endpoint is up", 1).await;
    let told = Tidegate::build(&[&a]).pool("eras: session").start().await;
    for gate in [&learned, &told] {
        let client = gate.client();
        for id in [json!(7), json!("seven")] {
            let answer = client.send(discover(&id)).await;
            assert_error(answer, 400, -32601, &id, "the probe").await;
            let answer = client.send(call(&id, "whoami", json!({}))).await;
            assert_error(answer, 400, -32601, &id, "a call").await;
        }
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "a");
    }
    let probed = a.calls("server/discover").len();
    assert_eq!(probed, 1, "the check's own question");
}

#[tokio::test]
async fn a_stateless_pool_tells_initialize_its_versions() {
    let a = Endpoint::named("a").stateless_only().start().await;
    let learned = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&learned, "endpoint is up", 1).await;
    let told = Tidegate::build(&[&a]).pool("eras: stateless").start().await;
    let asked = a.calls("initialize").len();
    for gate in [&learned, &told] {
        let client = gate.client();
        for id in [json!(7), json!("seven")] {
            let initialize = json!({"jsonrpc": "2.0", "id": id, "method": "initialize",
                "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}});
            let answer = client.send(Outgoing::post(&initialize)).await;
            let message = assert_error(answer, 400, -32022, &id, "initialize").await;
            assert_eq!(message["error"]["data"]["supported"], json!(["2026-07-28"]));
            let text = message["error"]["message"].as_str().unwrap_or_default();
            assert!(
                text.contains("2026-07-28"),
                "old clients only show the text: {text}"
            );
        }
        let refused = client.get_stream(&SessionId(String::new()), None).await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("POST"))
        );
        assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "a");
    }
    assert_eq!(
        a.calls("initialize").len(),
        asked,
        "no client's came through"
    );
}
