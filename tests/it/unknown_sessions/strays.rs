//! Requests that belong to no session by their form.

use serde_json::{Value, json};

use super::{assert_refused, call, initialize};
use crate::support::{Connection, Endpoint, Mcp, Outgoing, SessionId, Tidegate};

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
                let text = answer.json().await;
                // A batch is answered for each of its requests.
                let error = text.get(0).unwrap_or(&text);
                assert!(error["error"]["code"].is_i64(), "{what}");
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
