//! What belongs to no session: it is answered here, in the words that clients act on, and no server
//! sees any of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Connection, Endpoint, Fault, Mcp, Outgoing, PATIENCE, Response, SessionId, Tidegate,
    eventually, text_of,
};

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

/// A request that no server of sessions may see, and the status that it gets.
struct Stray {
    what: &'static str,
    outgoing: Outgoing,
    status: u16,
}

fn bare(http_method: &'static str) -> Outgoing {
    Outgoing {
        http_method,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn raw_post(content_type: Option<&str>, body: &[u8]) -> Outgoing {
    let post = Outgoing::post(&Value::Null).without("content-type");
    let mut post = match content_type {
        Some(content_type) => post.with("content-type", content_type),
        None => post,
    };
    post.body = body.to_vec();
    post
}

/// Everything that belongs to no session. `session` is a good id, for what is wrong in other ways.
fn strays(session: Option<&SessionId>) -> Vec<Stray> {
    let stray = |what, outgoing, status| Stray {
        what,
        outgoing,
        status,
    };
    let unknown = SessionId("deadbeef".into());
    let whole = call(&json!(1)).to_string();
    let json = Some("application/json");
    let mut strays = vec![
        stray(
            "a call without an id",
            Outgoing::post(&call(&json!(1))),
            400,
        ),
        stray(
            "a batch without an id",
            Outgoing::post(&json!([call(&json!(1))])),
            400,
        ),
        stray(
            "a notification without an id",
            Outgoing::post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
            400,
        ),
        stray(
            "an answer without an id",
            Outgoing::post(&json!({"jsonrpc": "2.0", "id": 0, "result": {}})),
            400,
        ),
        stray(
            "an unknown id",
            Outgoing::in_session(&unknown, &call(&json!(1))),
            404,
        ),
        stray(
            "initialize in an unknown session",
            Outgoing::in_session(&unknown, &initialize()),
            404,
        ),
        stray(
            "GET without an id",
            bare("GET").with("accept", "text/event-stream"),
            400,
        ),
        stray("GET for a page", bare("GET"), 400),
        stray("DELETE without an id", bare("DELETE"), 400),
        stray("PUT", bare("PUT"), 405),
        stray("PATCH", bare("PATCH"), 405),
        stray("OPTIONS", bare("OPTIONS"), 405),
        stray("HEAD", bare("HEAD"), 405),
        stray("TRACE", bare("TRACE"), 405),
        stray("no JSON", raw_post(json, b"hello"), 400),
        stray(
            "JSON that breaks off",
            raw_post(json, &whole.as_bytes()[..20]),
            400,
        ),
        stray(
            "two messages in a row",
            raw_post(json, format!("{whole}{whole}").as_bytes()),
            400,
        ),
        stray("no message", raw_post(json, b"{}"), 400),
        stray("a number", raw_post(json, b"1"), 400),
        stray("nothing", raw_post(json, b""), 400),
        stray("text", raw_post(Some("text/plain"), whole.as_bytes()), 415),
        stray("no content type", raw_post(None, whole.as_bytes()), 415),
    ];
    if let Some(session) = session {
        let within = |outgoing: Outgoing| outgoing.with("mcp-session-id", &session.0);
        strays.extend([
            stray(
                "no JSON in a session",
                within(raw_post(json, b"hello")),
                400,
            ),
            stray(
                "text in a session",
                within(raw_post(Some("text/plain"), b"x")),
                415,
            ),
            stray("PUT in a session", within(bare("PUT")), 405),
            stray("OPTIONS in a session", within(bare("OPTIONS")), 405),
            stray(
                "two ids",
                within(Outgoing::in_session(session, &call(&json!(1)))),
                400,
            ),
        ]);
    }
    strays
}

#[tokio::test]
async fn what_cannot_belong_to_a_session_is_answered_here() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let mut session = None;
    // Before anything is known of the server, and after.
    for opened in [0, 1] {
        let seen = a.requests().len();
        for Stray {
            what,
            outgoing,
            status,
        } in strays(session.as_ref())
        {
            let head = outgoing.http_method == "HEAD";
            let headers = outgoing.header_lines();
            let path = client.path();
            let sent = client.request(outgoing.http_method, path, &headers, &outgoing.body);
            let mut answer = sent.await;
            assert_eq!(answer.status, status, "{what}");
            assert!(!answer.headers().has("mcp-session-id"), "{what}");
            assert_eq!(answer.headers().has("allow"), status == 405, "{what}");
            if !head {
                assert!(answer.json().await["error"]["code"].is_i64(), "{what}");
            }
        }
        assert_eq!((a.requests().len(), a.sessions_opened()), (seen, opened));
        session = Some(client.initialize().await);
    }
}

#[tokio::test]
async fn the_answer_carries_the_id_that_was_sent() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for id in [json!(7), json!("seven"), json!(0), json!("")] {
        let answer = client.send(Outgoing::post(&call(&id))).await;
        assert_refused(answer, 400, -32600, id.clone(), "no session").await;
        let unknown = SessionId("deadbeef".into());
        let answer = client.post(&unknown, &call(&id)).await;
        assert_refused(answer, 404, -32001, id, "unknown session").await;
    }
}

#[tokio::test]
async fn the_id_is_told_as_soon_as_it_was_read() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for broken in [
        r#"{"jsonrpc":"2.0","id":"b","method":"tools/call","params":{"name":"#,
        r#"{"jsonrpc":"2.0","id":"b","method":"tools/call"]"#,
    ] {
        let answer = client
            .send(raw_post(Some("application/json"), broken.as_bytes()))
            .await;
        assert_refused(answer, 400, -32700, json!("b"), broken).await;
    }
    assert_eq!((a.requests().len(), a.sessions_opened()), (0, 0));
}

#[tokio::test]
async fn a_session_over_the_cap_is_refused_before_it_is_opened() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::build(&[&a]).config("sessions: { max: 1 }");
    let gate = gate.start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let answer = client.send(Outgoing::post(&initialize())).await;
    assert_refused(answer, 503, -32603, json!("i"), "the second").await;
    assert_eq!(a.sessions_opened(), 1);
    assert_eq!(client.delete(&session).await.status, 200);
    client.initialize().await;
}

#[tokio::test]
async fn a_thousand_strays_open_no_session() {
    const CONNECTIONS: usize = 4;
    const EACH: usize = 250;
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let send_many = async |first: usize| {
        let strays = strays(None);
        let mut kept: Option<Connection> = None;
        for n in first..first + EACH {
            let Stray {
                what,
                outgoing,
                status,
            } = &strays[n % strays.len()];
            let connection = match kept.take() {
                Some(connection) => connection,
                None => client.connect().await.expect("a connection"),
            };
            let headers = outgoing.header_lines();
            let sent = client.try_request_on(
                connection,
                outgoing.http_method,
                client.path(),
                &headers,
                &outgoing.body,
            );
            let mut answer = match sent.await {
                Ok(answer) => answer,
                Err(e) => panic!("{what}: {e:?}"),
            };
            assert_eq!(answer.status, *status, "{what}");
            answer.text().await;
            if !answer.headers().has_token("connection", "close") {
                kept = Some(answer.into_connection());
            }
        }
    };
    tokio::join!(send_many(0), send_many(1), send_many(2), send_many(3));
    assert_eq!((a.sessions_opened(), a.requests().len()), (0, 0));
    assert_eq!(a.connections_accepted(), 0);
    let metrics = gate.metrics().await;
    assert_eq!(
        metrics.sum("mcp_requests_total"),
        (CONNECTIONS * EACH) as f64
    );
    assert_eq!(metrics.sum("tidegate_sessions"), 0.0);
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

// The owner of a session is lost.

/// Checks often enough for a test, and sees a loss at the second look.
const CHECKED: &str = "{ check: mcp, interval: 100ms, timeout: 1s, rise: 1, fall: 2 }";

/// Waits for a line of the program's log.
async fn logged(gate: &Tidegate, endpoint: &Endpoint, state: &str, times: usize) {
    let (word, name) = (
        format!("endpoint is {state}"),
        format!("endpoint={}", endpoint.name()),
    );
    let count = || {
        let log = gate.stderr();
        let lines = log
            .lines()
            .filter(|line| line.contains(&word) && line.contains(&name));
        lines.count()
    };
    let seen = eventually(PATIENCE, || count() >= times).await;
    assert!(seen, "never {word} {times} times: {}", gate.stderr());
}

#[tokio::test]
async fn a_lost_session_is_never_shown_to_another_copy() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b]).health(CHECKED).start().await;
    logged(&gate, &a, "up", 1).await;
    logged(&gate, &b, "up", 1).await;
    let client = gate.client();
    let session = client.initialize().await;
    let (owner, other) = match client.whoami(&session).await.as_str() {
        "a" => (&a, &b),
        _ => (&b, &a),
    };
    let started = client.call(&session, "counter", json!({})).await;
    assert_eq!(text_of(&started), "1");
    let found = owner
        .request(|request| request.tool() == Some("counter"))
        .await;
    let own = found
        .header("mcp-session-id")
        .expect("in a session")
        .to_owned();

    owner.kill().await;
    logged(&gate, owner, "down", 1).await;
    assert_unknown(&client, &session).await;
    let shown = |request: &crate::support::Request| {
        let id = request.header("mcp-session-id");
        id == Some(&own) || id == Some(&session.0) || request.tool().is_some()
    };
    assert!(!other.requests().iter().any(shown));
    assert_eq!(
        client.whoami(&client.initialize().await).await,
        other.name()
    );

    // It comes back as it was, and so does the session under the same id.
    owner.restart().await;
    logged(&gate, owner, "up", 2).await;
    let again = client.call(&session, "counter", json!({})).await;
    assert_eq!(text_of(&again), "2");
}

#[tokio::test]
async fn a_failure_that_no_check_has_seen_is_no_loss() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let (owner, other) = match client.whoami(&session).await.as_str() {
        "a" => (&a, &b),
        _ => (&b, &a),
    };
    owner.kill().await;
    let seen = other.requests().len();
    for id in [json!(7), json!("seven")] {
        let answer = client.post(&session, &call(&id)).await;
        assert_refused(answer, 502, -32603, id, "connect").await;
    }
    let answer = client.get_stream(&session, None).await;
    assert_refused(answer, 502, -32603, Value::Null, "GET").await;
    assert_eq!(other.requests().len(), seen);

    owner.restart().await;
    for counted in ["1", "2"] {
        let again = client.call(&session, "counter", json!({})).await;
        assert_eq!(text_of(&again), counted);
    }
}

#[tokio::test]
async fn the_session_of_a_copy_that_is_no_more_is_unknown() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let mut gate = Tidegate::build(&[&a, &b])
        .pool("balance: round_robin")
        .start()
        .await;
    let client = gate.client();
    let mut sessions = vec![client.initialize().await, client.initialize().await];
    if client.whoami(&sessions[0]).await == "b" {
        sessions.reverse();
    }
    let config = gate.config();
    let without_b = config.lines().filter(|line| !line.contains("name: b"));
    let without_b: Vec<_> = without_b.collect();
    gate.write_config(&without_b.join("\n"));
    gate.restart().await;
    assert_eq!(client.whoami(&sessions[0]).await, "a");
    let seen = (a.requests().len(), b.requests().len());
    assert_unknown(&client, &sessions[1]).await;
    assert_eq!((a.requests().len(), b.requests().len()), seen);

    // And back again, as after a mistake.
    gate.write_config(&config);
    gate.restart().await;
    assert_eq!(client.whoami(&sessions[1]).await, "b");
}

#[tokio::test]
async fn a_copy_that_forgot_its_sessions_says_so_itself() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.restart_forgetting().await;
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert_eq!(a.calls("tools/call").len(), 1);
    let again = client.initialize().await;
    assert_eq!(client.whoami(&again).await, "a");
}

#[tokio::test]
async fn the_checks_leave_no_session_behind() {
    let a = Endpoint::named("a").leaky().start().await;
    let b = Endpoint::named("b").leaky().session_only().start().await;
    let mut gate = Tidegate::build(&[&a, &b]).health(CHECKED).start().await;
    b.until("some checks", |b| b.calls("ping").len() >= 3).await;
    a.until("some checks", |a| a.calls("server/discover").len() >= 3)
        .await;
    assert_eq!(b.sessions().len(), 1, "the one that ping goes over");
    gate.signal("TERM");
    gate.wait_exit(Duration::from_secs(10)).await;
    for endpoint in [&a, &b] {
        assert_eq!(
            endpoint.sessions(),
            Vec::<String>::new(),
            "{}",
            endpoint.name()
        );
        assert!(
            endpoint.sessions_opened() < 4,
            "{}",
            endpoint.sessions_opened()
        );
    }
}
