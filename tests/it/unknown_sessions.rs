//! What belongs to no session: it is answered here, in the words that clients act on, and no server
//! sees any of it.

mod lost;
mod strays;

use serde_json::{Value, json};

use crate::support::{Endpoint, Fault, Mcp, Response, SessionId, Tidegate};

fn call(id: &Value) -> Value {
    let params = json!({"name": "counter", "arguments": {}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn initialize() -> Value {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "it"}});
    json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params})
}

/// Asserts a JSON-RPC error with this status, code and id.
async fn assert_refused(mut response: Response, status: u16, code: i64, id: Value, what: &str) {
    assert_eq!(
        response.header("content-type"),
        Some("application/json"),
        "{what}"
    );
    assert!(!response.headers().has("mcp-session-id"), "{what}");
    let message = response.json().await;
    assert_eq!(response.status, status, "{what}: {message}");
    assert_eq!(message["error"]["code"], code, "{what}: {message}");
    assert_eq!(
        (&message["jsonrpc"], &message["id"]),
        (&json!("2.0"), &id),
        "{what}"
    );
}

/// Asserts that a session is unknown in every way that a client can ask for it.
async fn assert_unknown(client: &impl Mcp, session: &SessionId) {
    let what = session.0.as_str();
    for id in [json!(7), json!("seven")] {
        let answer = client.post(session, &call(&id)).await;
        assert_refused(answer, 404, -32001, id, what).await;
    }
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let answer = client.post(session, &note).await;
    assert_refused(answer, 404, -32001, Value::Null, what).await;
    let answer = client.get_stream(session, Some("1")).await;
    assert_refused(answer, 404, -32001, Value::Null, what).await;
    let answer = client.delete(session).await;
    assert_refused(answer, 404, -32001, Value::Null, what).await;
}

#[tokio::test]
async fn an_id_that_is_not_whole_is_unknown() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let seen = a.requests().len();
    let good = &session.0;
    let tampered = |at: usize| {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        SessionId(String::from_utf8(bytes).expect("ASCII"))
    };
    for at in [0, 1, good.len() / 3, good.len() / 2, good.len() - 2] {
        assert_unknown(&client, &tampered(at)).await;
    }
    let others = [
        good[..good.len() - 1].to_owned(),
        good[..good.len() / 2].to_owned(),
        good[1..].to_owned(),
        format!("{good}A"),
        format!("{good}{good}"),
        good.to_ascii_lowercase(),
        "A".repeat(4000),
    ];
    for other in others {
        assert_unknown(&client, &SessionId(other)).await;
    }
    assert_eq!((a.requests().len(), a.sessions_opened()), (seen, 1));
    assert_eq!(
        client
            .start_call(&session, "counter", json!({}))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn an_id_from_elsewhere_is_unknown() {
    let a = Endpoint::named("a").leaky().start().await;
    let other_pool = format!(
        "other:\n  health: {{ check: none }}\n  endpoints: [{{ name: a, address: \"{}\" }}]",
        a.address()
    );
    let gate = Tidegate::build(&[&a])
        .routes("- { path: /mcp, pool: main }\n- { path: /other, pool: other }")
        .pools(&other_pool)
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let stranger = Tidegate::in_front_of(&[&a]).await;
    let foreign = stranger.client().initialize().await;
    let seen = a.requests().len();

    assert_unknown(&client, &foreign).await;
    assert_unknown(&stranger.client(), &session).await;
    assert_unknown(&gate.client().with_path("/other"), &session).await;
    // Even the server's own id, which the server knows, is none of ours.
    for own in a.sessions() {
        assert_unknown(&client, &SessionId(own)).await;
    }
    for made_up in [
        "deadbeef",
        "null",
        "0",
        "5c6f3f5e-7a52-4b5f-9f0e-0c1d2e3f4a5b",
    ] {
        assert_unknown(&client, &SessionId(made_up.into())).await;
    }
    assert_eq!((a.requests().len(), a.sessions_opened()), (seen, 2));
}

#[tokio::test]
async fn the_session_of_a_failed_initialize_is_deleted() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let error = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#;
    for (n, status) in [400, 401, 500, 503].into_iter().enumerate() {
        a.fault_next(1, Fault::Status(status, error.into()));
        let mut answer = client.send_initialize().await;
        assert_eq!(answer.status, status);
        assert!(
            !answer.headers().has("mcp-session-id"),
            "nobody is to use it"
        );
        assert_eq!(answer.json().await["error"]["message"], "no");
        a.until("the stray session is deleted", |a| {
            (a.sessions_deleted(), a.sessions().len()) == (n + 1, 0)
        })
        .await;
    }
    assert_eq!(a.sessions_opened(), 4);
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("tidegate_sessions_opened_total"), 1.0);
}

#[tokio::test]
async fn a_session_of_which_the_client_never_hears_is_deleted() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for (n, fault) in [
        Fault::CloseMidEvent(20),
        Fault::ResetMidEvent(20),
        Fault::LengthTooLong(5),
    ]
    .into_iter()
    .enumerate()
    {
        a.fault_next(1, fault);
        let answer = gate.client().send_initialize().await;
        let id = json!(0);
        assert_refused(answer, 502, -32603, id, "initialize").await;
        a.until("the session is deleted", |a| a.sessions_deleted() == n + 1)
            .await;
    }
    gate.metrics_when(|m| m.sum("tidegate_sessions") == 0.0)
        .await;
}

#[tokio::test]
async fn a_stray_session_on_a_stateless_answer_is_deleted_too() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let mut unknown = gate.client().modern("no/such", None, Value::Null).await;
    assert_eq!(unknown.status, 404);
    assert!(!unknown.headers().has("mcp-session-id"));
    assert_eq!(unknown.json().await["error"]["code"], -32601);
    a.until("the stray session is deleted", |a| {
        a.sessions_deleted() == 1
    })
    .await;
}
