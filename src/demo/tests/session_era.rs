//! The session era: from `initialize` to DELETE.

use serde_json::json;

use super::*;
use crate::demo::feed::Ending;
use crate::demo::session::STREAMS_PER_SESSION_MAX;

/// The fields of a request within this session.
fn within(session: &str) -> [(&str, &str); 2] {
    [
        ("Mcp-Session-Id", session),
        ("MCP-Protocol-Version", "2025-11-25"),
    ]
}

fn begin(fixture: &mut Fixture) -> String {
    let whole = whole(fixture.post(&[], INITIALIZE));
    assert_eq!(whole.status, 200);
    whole
        .session
        .expect("a session was begun")
        .as_str()
        .to_owned()
}

fn request(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string()
}

fn result(fixture: &mut Fixture, session: &str, method: &str, params: &Value) -> Value {
    let whole = whole(fixture.post(&within(session), &request(method, params)));
    assert_eq!(whole.status, 200, "{whole:?}");
    assert_eq!(whole.session.as_ref().map(|id| id.as_str()), Some(session));
    let answer = json_of(&whole);
    assert_eq!(answer["id"], 7);
    answer["result"].clone()
}

fn text(fixture: &mut Fixture, session: &str, name: &str, arguments: &Value) -> (Value, Value) {
    let params = json!({"name": name, "arguments": arguments});
    let result = result(fixture, session, "tools/call", &params);
    assert_eq!(
        result["content"].as_array().map(Vec::len),
        Some(1),
        "{result}"
    );
    assert_eq!(result["content"][0]["type"], "text");
    (
        result["content"][0]["text"].clone(),
        result["isError"].clone(),
    )
}

#[test]
fn initialize_begins_a_session_and_settles_the_revision() {
    let rows = [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ];
    for (wanted, settled) in rows {
        let params = json!({"protocolVersion": wanted, "capabilities": {}});
        let whole = whole(Fixture::new().post(&[], &request("initialize", &params)));
        let id = whole
            .session
            .as_ref()
            .expect("a session was begun")
            .as_str();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
        let result = &json_of(&whole)["result"];
        assert_eq!(result["protocolVersion"], settled, "{wanted}");
        assert!(result["capabilities"]["tools"].is_object());
        assert!(result["serverInfo"]["name"].is_string());
        assert_eq!(result["resultType"], Value::Null);
    }
}

#[test]
fn an_initialize_that_fails_leaves_no_session_behind() {
    let mut fixture = Fixture::new();
    let rows: [(Fields<'_>, &str, (u16, i64)); 4] = [
        (
            &[],
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
            (200, -32602),
        ),
        (
            &[("MCP-Protocol-Version", "2026-07-28")],
            INITIALIZE,
            (400, -32020),
        ),
        (
            &[("MCP-Protocol-Version", "2031-01-01")],
            INITIALIZE,
            (400, -32022),
        ),
        (&[("Mcp-Session-Id", "gone")], INITIALIZE, (404, -32001)),
    ];
    for (fields, body, expected) in rows {
        assert_eq!(
            verdict(fixture.post(fields, body)),
            expected,
            "{fields:?} {body}"
        );
    }
    assert_eq!(fixture.state.sessions.len(), 0);
}

#[test]
fn messages_need_a_session_that_exists() {
    let ping = request("ping", &json!({}));
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let response = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    let unknown: [(&str, &str); 1] = [("Mcp-Session-Id", "3f2b0e6c-0000-4000-8000-000000000000")];
    for body in [ping.as_str(), notification, response] {
        let mut fixture = Fixture::new();
        let session = begin(&mut fixture);
        assert_eq!(verdict(fixture.post(&[], body)), (400, -32600), "{body}");
        assert_eq!(
            verdict(fixture.post(&unknown, body)),
            (404, -32001),
            "{body}"
        );
        let upper = session.to_uppercase();
        assert_eq!(
            verdict(fixture.post(&within(&upper), body)),
            (404, -32001),
            "{body}"
        );
        let status = if body == ping { 200 } else { 202 };
        assert_eq!(
            verdict(fixture.post(&within(&session), body)),
            (status, 0),
            "{body}"
        );
    }
    let answer = json_of(&whole(Fixture::new().post(&unknown, &ping)));
    assert_eq!(answer["id"], 7);
}

#[test]
fn the_version_header_is_optional_and_must_be_served() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    let ping = request("ping", &json!({}));
    let rows = [
        (None, (200, 0)),
        (Some("2025-03-26"), (200, 0)),
        (Some("2025-06-18"), (200, 0)),
        (Some("2024-11-05"), (400, -32600)),
        (Some("2031-01-01"), (400, -32600)),
    ];
    for (version, expected) in rows {
        let mut fields = vec![("Mcp-Session-Id", session.as_str())];
        fields.extend(version.map(|version| ("MCP-Protocol-Version", version)));
        assert_eq!(
            verdict(fixture.post(&fields, &ping)),
            expected,
            "{version:?}"
        );
    }
}

#[test]
fn methods_of_a_session_are_answered() {
    let rows = [
        ("ping", json!({}), (200, 0)),
        ("tools/list", json!({}), (200, 0)),
        ("tools/list", json!({"cursor": "x"}), (200, -32602)),
        ("logging/setLevel", json!({"level": "warning"}), (200, 0)),
        ("logging/setLevel", json!({"level": "loud"}), (200, -32602)),
        ("tools/call", json!({"name": "nothing"}), (200, -32602)),
        ("tools/call", json!({"arguments": {}}), (200, -32602)),
        (
            "initialize",
            json!({"protocolVersion": "2025-11-25"}),
            (400, -32600),
        ),
        ("server/discover", json!({}), (200, -32601)),
        ("resources/list", json!({}), (200, -32601)),
    ];
    for (method, params, expected) in rows {
        let mut fixture = Fixture::new();
        let session = begin(&mut fixture);
        let reply = fixture.post(&within(&session), &request(method, &params));
        assert_eq!(verdict(reply), expected, "{method} {params}");
    }
}

#[test]
fn each_tool_answers_with_one_text() {
    let mut fixture = Fixture::new();
    let (first, second) = (begin(&mut fixture), begin(&mut fixture));
    assert_eq!(
        text(&mut fixture, &first, "whoami", &json!({})),
        (json!("one"), json!(false))
    );
    let odd = "a \"quoted\" line\nand \u{1f30a}";
    assert_eq!(
        text(&mut fixture, &first, "echo", &json!({"text": odd})),
        (json!(odd), json!(false))
    );
    for (session, count) in [(&first, "1"), (&first, "2"), (&second, "1"), (&first, "3")] {
        assert_eq!(text(&mut fixture, session, "counter", &json!({})).0, count);
    }
    let (_, is_error) = text(
        &mut fixture,
        &first,
        "ticks",
        &json!({"n": 0, "every_ms": 1}),
    );
    assert_eq!(is_error, json!(true));
    assert_eq!(
        result(&mut fixture, &first, "tools/list", &json!({}))["tools"],
        crate::demo::tools::catalog()
    );
}

#[test]
fn ids_go_back_exactly_as_they_came() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    for id in ["12345678901234567890123", r#""\u0041""#, "1.50", r#""""#] {
        let body = format!(r#"{{"method":"ping","id":{id},"jsonrpc":"2.0"}}"#);
        let Body::Json(json) = whole(fixture.post(&within(&session), &body)).body else {
            panic!("no JSON for {id}");
        };
        let json = String::from_utf8(json).expect("JSON is UTF-8");
        assert!(json.contains(&format!(r#""id":{id},"#)), "{json}");
    }
}

/// `ticks` with this `_meta`, in a session that wants messages from this level on.
fn tick_events(level: Option<&str>, meta: &Value) -> Vec<Value> {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    if let Some(level) = level {
        result(
            &mut fixture,
            &session,
            "logging/setLevel",
            &json!({"level": level}),
        );
    }
    let params = json!({"name": "ticks", "arguments": {"n": 2, "every_ms": 30}, "_meta": meta});
    let reply = fixture.post(&within(&session), &request("tools/call", &params));
    let mut opened = stream(reply);
    assert_eq!(
        opened.lease.as_ref().map(|lease| lease.session.as_str()),
        Some(session.as_str())
    );
    let (events, waited) = play(&mut opened.feed);
    assert_eq!(waited, Duration::from_millis(60));
    let (answer, ticks) = events.split_last().expect("there is an answer");
    assert_eq!(answer["id"], 7);
    assert_eq!(
        answer["result"]["content"],
        json!([{"type": "text", "text": "2 ticks"}])
    );
    assert!(ticks.iter().all(|tick| tick["id"].is_null()));
    ticks.to_vec()
}

#[test]
fn ticks_are_told_as_progress_or_as_messages() {
    for token in [json!("t"), json!(0)] {
        let ticks = tick_events(Some("emergency"), &json!({"progressToken": token}));
        assert_eq!(ticks.len(), 2);
        assert_eq!(ticks[1]["method"], "notifications/progress");
        assert_eq!(ticks[1]["params"]["progressToken"], token);
        assert_eq!(
            (
                &ticks[1]["params"]["progress"],
                &ticks[1]["params"]["total"]
            ),
            (&json!(2), &json!(2))
        );
    }
    for level in [None, Some("debug"), Some("info")] {
        let ticks = tick_events(level, &json!({}));
        assert_eq!(ticks.len(), 2, "{level:?}");
        assert_eq!(ticks[0]["method"], "notifications/message");
        assert_eq!(ticks[0]["params"]["level"], "info");
    }
    assert_eq!(tick_events(Some("notice"), &json!({})), Vec::<Value>::new());
}

fn open_ticks(fixture: &mut Fixture, session: &str, id: &Value) -> Opened {
    let params = json!({"name": "ticks", "arguments": {"n": 5, "every_ms": 5}});
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    stream(fixture.post(&within(session), &body.to_string()))
}

#[test]
fn a_cancelled_call_is_stopped_and_no_other() {
    let mut fixture = Fixture::new();
    let (session, other) = (begin(&mut fixture), begin(&mut fixture));
    let mut number = open_ticks(&mut fixture, &session, &json!(1));
    let mut string = open_ticks(&mut fixture, &session, &json!("1"));
    let mut elsewhere = open_ticks(&mut fixture, &other, &json!("1"));
    for request in [json!("1"), json!("1"), json!(9), json!({}), Value::Null] {
        let body = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request}});
        assert_eq!(
            verdict(fixture.post(&within(&session), &body.to_string())),
            (202, 0)
        );
    }
    let stopped = |opened: &mut Opened| {
        opened
            .lease
            .as_mut()
            .map(|lease| lease.stop.try_recv().is_ok())
    };
    assert_eq!(stopped(&mut string), Some(true));
    assert_eq!(stopped(&mut number), Some(false));
    assert_eq!(stopped(&mut elsewhere), Some(false));
    assert_eq!(string.feed.last_words(Ending::Cancelled), None);
}

#[test]
fn delete_ends_the_session_and_its_streams() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    let mut ticks = open_ticks(&mut fixture, &session, &json!(1));
    assert_eq!(
        fixture.bare("DELETE", "/mcp", &within(&session)).status,
        200
    );
    let closed = ticks.lease.as_mut().map(|lease| lease.stop.try_recv());
    assert_eq!(
        closed,
        Some(Err(tokio::sync::oneshot::error::TryRecvError::Closed))
    );
    let answer = message(
        &ticks
            .feed
            .last_words(Ending::SessionOver)
            .expect("an answer"),
    );
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!(1), &json!(-32603))
    );
    assert_eq!(
        fixture.bare("DELETE", "/mcp", &within(&session)).status,
        404
    );
    assert_eq!(fixture.bare("GET", "/mcp", &within(&session)).status, 404);
    assert_eq!(
        verdict(fixture.post(&within(&session), &request("ping", &json!({})))),
        (404, -32001)
    );
    assert_eq!(fixture.bare("DELETE", "/mcp", &[]).status, 400);
}

#[test]
fn a_session_has_one_stream_of_its_own() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    let head = FakeHead::new("GET", "/mcp", &within(&session));
    let opened = stream(fixture.ask(&head, b""));
    assert_eq!(opened.feed, Feed::Silent);
    assert_eq!(opened.feed.last_words(Ending::Closing), None);
    assert_eq!(whole(fixture.ask(&head, b"")).status, 409);
    let lease = opened.lease.expect("a stream of a session has a lease");
    fixture.state.close_stream(&lease, fixture.now);
    stream(fixture.ask(&head, b""));
    let rows: [(&[(&str, &str)], u16); 3] = [
        (&[], 400),
        (&[("Mcp-Session-Id", "gone")], 404),
        (
            &[("Mcp-Session-Id", &session), ("Accept", "application/json")],
            406,
        ),
    ];
    for (fields, status) in rows {
        assert_eq!(
            fixture.bare("GET", "/mcp", fields).status,
            status,
            "{fields:?}"
        );
    }
}

#[test]
fn streams_of_a_session_are_bounded() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    let opened: Vec<_> = (0..STREAMS_PER_SESSION_MAX)
        .map(|id| open_ticks(&mut fixture, &session, &json!(id)))
        .collect();
    let (told, is_error) = text(
        &mut fixture,
        &session,
        "ticks",
        &json!({"n": 1, "every_ms": 0}),
    );
    assert_eq!(
        (told.as_str(), is_error),
        (Some("the session has too many streams open"), json!(true))
    );
    drop(opened);
}

#[test]
fn an_idle_session_ends_after_an_hour_without_use() {
    let mut fixture = Fixture::new();
    let session = begin(&mut fixture);
    let ping = request("ping", &json!({}));
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    fixture.after(minutes(59));
    assert_eq!(verdict(fixture.post(&within(&session), &ping)), (200, 0));
    fixture.after(minutes(59));
    assert_eq!(verdict(fixture.post(&within(&session), &ping)), (200, 0));
    fixture.after(minutes(60));
    assert_eq!(
        verdict(fixture.post(&within(&session), &ping)),
        (404, -32001)
    );
    assert_eq!(fixture.state.sessions.len(), 0);
}
