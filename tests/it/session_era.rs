//! The session era through the program: every message of a session at the copy that owns it, with
//! an id that tells the client nothing and loses nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Endpoint, Event, Fault, Mcp, Outgoing, SessionId, Tidegate, text_of,
};

/// The number that the next call of `counter` returns.
async fn count(client: &impl Mcp, session: &SessionId) -> u64 {
    let counted = client.call(session, "counter", json!({})).await;
    let text = text_of(&counted);
    text.parse().expect("the counter is a number")
}

/// Two copies behind a gate that takes them in turn, and a session on each.
async fn two_sessions(
    a: &Endpoint,
    b: &Endpoint,
) -> (Tidegate, [(SessionId, SessionIdOfServer); 2]) {
    let gate = Tidegate::build(&[a, b]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    let mut sessions = [client.initialize().await, client.initialize().await];
    if client.whoami(&sessions[0]).await != a.name() {
        sessions.swap(0, 1);
    }
    let [on_a, on_b] = sessions;
    let own = |endpoint: &Endpoint| endpoint.sessions().pop().expect("one session on each");
    let (own_a, own_b) = (own(a), own(b));
    (gate, [(on_a, own_a), (on_b, own_b)])
}

type SessionIdOfServer = String;

#[tokio::test]
async fn initialize_hands_out_a_sealed_id_and_the_server_sees_its_own() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let own = a.sessions().pop().expect("one session");
    assert!(session.0.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!session.0.is_empty() && session.0.len() < 200, "{session}");
    assert!(!session.0.contains(&own));

    let reply = client.start_call(&session, "whoami", json!({})).await;
    let shown: Vec<_> = reply.headers().all("mcp-session-id").collect();
    assert_eq!(shown, [session.0.as_str()]);
    let stream = client.get_stream(&session, None).await;
    assert_eq!(stream.header("mcp-session-id"), Some(session.0.as_str()));

    assert_eq!(a.requests()[0].header("mcp-session-id"), None);
    for request in &a.requests()[1..] {
        assert_eq!(request.header("mcp-session-id"), Some(own.as_str()));
        assert_eq!(request.headers.all("mcp-session-id").count(), 1);
    }
    let other = client.initialize().await;
    assert_ne!(session, other);
}

#[tokio::test]
async fn every_call_of_a_session_reaches_its_owner_in_order() {
    let (a, b, c) = tokio::join!(
        Endpoint::start("a"),
        Endpoint::start("b"),
        Endpoint::start("c")
    );
    let gate = Tidegate::build(&[&a, &b, &c]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    let over_http2 = gate.h2_client().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let session = client.initialize().await;
        let owner = client.whoami(&session).await;
        sessions.push((session, owner));
    }
    for round in 1..=8 {
        for (session, owner) in &sessions {
            let counted = match round % 2 {
                0 => count(&over_http2, session).await,
                _ => count(&client, session).await,
            };
            assert_eq!(counted, round, "{owner}");
        }
    }
    for (session, owner) in &sessions {
        assert_eq!(&over_http2.whoami(session).await, owner);
    }
    for endpoint in [&a, &b, &c] {
        assert_eq!(endpoint.sessions_opened(), 2, "{}", endpoint.name());
    }
}

#[tokio::test]
async fn events_of_the_get_stream_pass_as_they_are() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let own = &a.sessions()[0];
    let mut stream = client.get_stream(&session, None).await;
    assert_eq!((stream.status, stream.is_stream()), (200, true));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));

    let mut second = client.get_stream(&session, None).await;
    assert_eq!(second.status, 409, "the server's own word");
    assert_eq!(second.json().await["error"]["code"], -32000);

    let mut events = stream.events();
    for n in 0..3 {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/n", "params": {"n": n}});
        assert!(a.push(own, &note));
        let event = events.next().await.expect("the event");
        assert_eq!(event.raw, format!("event: message\ndata: {note}\n\n"));
    }
    a.close_get_stream(own);
    let (events, end) = events.rest().await;
    assert_eq!((events.len(), end), (0, BodyEnd::Complete));
    let again = client.get_stream(&session, None).await;
    assert_eq!(again.status, 200, "the place is free again");
}

#[tokio::test]
async fn a_question_of_the_server_is_answered_in_its_own_session() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let (gate, sessions) = two_sessions(&a, &b).await;
    let client = gate.client();
    let (on_a, on_b) = (&sessions[0].0, &sessions[1].0);
    let mut at_a = client.start_call(on_a, "ask", json!({})).await;
    let mut at_b = client.start_call(on_b, "ask", json!({})).await;
    let mut events_a = at_a.events();
    let mut events_b = at_b.events();
    // The question arrives while the server still waits: nothing is buffered.
    let (asked_a, asked_b) = (events_a.next_json().await, events_b.next_json().await);
    assert_eq!(asked_a["method"], "elicitation/create");
    assert_eq!(asked_a["id"], asked_b["id"], "both number from 0");

    for (session, id, name) in [(on_b, &asked_b["id"], "Bo"), (on_a, &asked_a["id"], "Ada")] {
        let answer = client.answer(session, id, json!({"name": name})).await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (202, Some("0"))
        );
    }
    assert_eq!(text_of(&events_a.next_json().await), r#"{"name":"Ada"}"#);
    assert_eq!(text_of(&events_b.next_json().await), r#"{"name":"Bo"}"#);
    assert_eq!(events_a.rest().await.1, BodyEnd::Complete);
    assert!(a.stray_answers().is_empty() && b.stray_answers().is_empty());
}

#[tokio::test]
async fn a_resume_goes_to_the_owner_though_event_ids_collide() {
    let a = Endpoint::named("a").event_store().start().await;
    let b = Endpoint::named("b").event_store().start().await;
    let (gate, sessions) = two_sessions(&a, &b).await;
    let client = gate.client();
    let mut last_ids = Vec::new();
    for (n, (session, _)) in sessions.iter().enumerate() {
        let id = format!("call-{n}");
        let call = ticks(&id, json!({"n": 3, "close_after": 1}));
        let mut stream = client.post(session, &call).await;
        let (events, end) = stream.events().rest().await;
        assert_eq!(end, BodyEnd::Complete);
        assert_eq!(messages(&events).len(), 1, "nothing is added: {events:?}");
        let last = events.last().and_then(|event| event.id.clone());
        last_ids.push((id, last.expect("events are numbered")));
    }
    assert_eq!(
        last_ids[0].1, last_ids[1].1,
        "the ids of the copies collide"
    );
    for ((session, _), (id, last)) in sessions.iter().zip(&last_ids) {
        let mut stream = client.get_stream(session, Some(last)).await;
        let mut events = stream.events();
        for done in [2, 3] {
            let tick = events.next_json().await;
            assert_eq!(tick["params"]["progressToken"], id.as_str());
            assert_eq!(tick["params"]["progress"], done);
        }
        let result = events.next_json().await;
        assert_eq!(
            (&result["id"], text_of(&result)),
            (&json!(id), "3 ticks".into())
        );
    }
    for (endpoint, (_, last)) in [&a, &b].into_iter().zip(&last_ids) {
        let resume = endpoint.request(|request| request.method == "GET").await;
        assert_eq!(resume.header("last-event-id"), Some(last.as_str()));
    }
}

fn ticks(id: &str, arguments: Value) -> Value {
    let params = json!({"name": "ticks", "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The messages among the events, priming left out.
fn messages(events: &[Event]) -> Vec<Value> {
    let primed = |event: &&Event| event.data.as_deref() != Some("");
    events.iter().filter(primed).map(Event::json).collect()
}

#[tokio::test]
async fn delete_is_forwarded_and_ends_the_session() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let kept = client.initialize().await;
    assert_eq!(client.delete(&session).await.status, 200);
    assert_eq!((a.sessions_deleted(), a.sessions().len()), (1, 1));
    for _ in 0..2 {
        assert_eq!(client.delete(&session).await.status, 404);
        assert_eq!(client.get_stream(&session, None).await.status, 404);
        let call = client.start_call(&session, "whoami", json!({})).await;
        assert_eq!(call.status, 404);
    }
    assert_eq!(count(&client, &kept).await, 1);
    let metrics = gate.metrics().await;
    let ended = |reason| metrics.with("tidegate_sessions_ended_total", &[("reason", reason)]);
    assert_eq!((ended("deleted"), ended("forgotten")), (1.0, 0.0));
}

#[tokio::test]
async fn a_404_of_the_server_passes_and_ends_the_session() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.expire(&a.sessions()[0]);
    let mut gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json().await["error"]["message"], "Session not found");
    assert_eq!(a.calls("tools/call").len(), 1, "the server said so");
    let metrics = gate
        .metrics_when(|m| m.sum("tidegate_sessions") == 0.0)
        .await;
    let reason = [("reason", "forgotten")];
    assert_eq!(metrics.with("tidegate_sessions_ended_total", &reason), 1.0);
}

#[tokio::test]
async fn servers_without_sessions_are_served_by_any_copy() {
    let a = Endpoint::named("a").sessionless().start().await;
    let b = Endpoint::named("b").sessionless().start().await;
    let gate = Tidegate::build(&[&a, &b]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(session.0, "", "none is invented");
    let (first, second) = (client.whoami(&session).await, client.whoami(&session).await);
    assert_ne!(first, second);
    let stream = client.get_stream(&session, None).await;
    assert_eq!((stream.status, stream.is_stream()), (200, true));
}

#[tokio::test]
async fn a_batch_of_2025_03_26_passes_whole() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let ping = |id: Value| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let batch = json!([ping(json!(1)), ping(json!("1"))]);
    let outgoing = Outgoing::in_session(&session, &batch)
        .without("mcp-protocol-version")
        .with("mcp-protocol-version", "2025-03-26");
    let answers = client.send(outgoing).await.json().await;
    assert_eq!(
        (&answers[0]["id"], &answers[1]["id"]),
        (&json!(1), &json!("1"))
    );
}

#[tokio::test]
async fn a_batch_that_fails_is_answered_for_each_of_its_requests() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault(Fault::CloseBeforeHead);
    let ping = |id: Value| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled"});
    let batch = json!([ping(json!(1)), note, ping(json!("1"))]);
    let mut response = client.send(Outgoing::in_session(&session, &batch)).await;
    assert_eq!(response.status, 502);
    let errors = response.json().await;
    let ids: Vec<_> = errors
        .as_array()
        .expect("an array")
        .iter()
        .map(|e| &e["id"])
        .collect();
    assert_eq!(ids, [&json!(1), &json!("1")]);
}

// One id, several processes.

/// A directory with key files.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// A key file whose key begins with this digit.
    fn file(&self, digit: char) -> PathBuf {
        let path = self.0.path().join(format!("{digit}.key"));
        let key = format!("{digit}123456789abcdef").repeat(4);
        std::fs::write(&path, format!("{key}\n")).expect("a file in our own directory");
        path
    }

    /// The configuration with these keys, the first of which seals.
    fn config(&self, digits: &str) -> String {
        let files = digits
            .chars()
            .map(|digit| self.file(digit).display().to_string());
        let files: Vec<_> = files.collect();
        format!("sessions: {{ key_files: [{}] }}", files.join(", "))
    }
}

async fn with_keys(endpoints: &[&Endpoint], config: &str) -> Tidegate {
    let gate = Tidegate::build(endpoints).config(config);
    gate.start().await
}

#[tokio::test]
async fn another_process_with_the_same_key_serves_the_session() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let keys = Keys::new();
    let one = with_keys(&[&a, &b], &keys.config("1")).await;
    let two = with_keys(&[&b, &a], &keys.config("1")).await;
    for _ in 0..4 {
        let session = one.client().initialize().await;
        let owner = one.client().whoami(&session).await;
        for counted in [1, 3, 5] {
            assert_eq!(count(&two.client(), &session).await, counted);
            assert_eq!(count(&one.client(), &session).await, counted + 1);
        }
        assert_eq!(two.client().whoami(&session).await, owner);
        let stream = two.client().get_stream(&session, None).await;
        assert_eq!(stream.header("mcp-session-id"), Some(session.0.as_str()));
        drop(stream);
        assert_eq!(two.client().delete(&session).await.status, 200);
        let gone = one.client().start_call(&session, "whoami", json!({})).await;
        assert_eq!(gone.status, 404);
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_opens_nothing_though_its_sessions_are_known() {
    let a = Endpoint::start("a").await;
    let keys = Keys::new();
    let (old, both, new) = (keys.config("1"), keys.config("21"), keys.config("2"));
    let gate = with_keys(&[&a], &old).await;
    let before = gate.client().initialize().await;
    assert_eq!(count(&gate.client(), &before).await, 1);
    let text = gate.config();
    gate.reload(&text.replace(&old, &both)).await;
    let after = gate.client().initialize().await;
    assert_eq!(count(&gate.client(), &before).await, 2);
    gate.reload(&text.replace(&old, &new)).await;
    let gone = gate.client().start_call(&before, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert_eq!(count(&gate.client(), &after).await, 1);
}

#[tokio::test]
async fn a_killed_process_starts_again_with_its_sessions() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let session = client.initialize().await;
        let owner = client.whoami(&session).await;
        assert_eq!(count(&client, &session).await, 1);
        sessions.push((session, owner));
    }
    gate.restart().await;
    for (session, owner) in &sessions {
        assert_eq!(count(&client, session).await, 2);
        assert_eq!(&client.whoami(session).await, owner);
    }
    assert_eq!(a.sessions_opened() + b.sessions_opened(), 4);
    gate.metrics_when(|m| m.sum("tidegate_sessions") == 4.0)
        .await;
}

#[tokio::test]
async fn the_owner_is_found_by_its_name_wherever_it_is() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let (here, there) = (a.address().to_string(), b.address().to_string());
    gate.write_config(&gate.config().replace(&here, &there));
    gate.restart().await;
    let moved = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(
        moved.status, 404,
        "what lives there now knows no such session"
    );
    let asked = b.calls("tools/call");
    assert_eq!(
        asked[0].header("mcp-session-id"),
        Some(a.sessions()[0].as_str())
    );
}

#[tokio::test]
async fn keys_rotate_without_losing_a_session() {
    let a = Endpoint::start("a").await;
    let keys = Keys::new();
    let mut gate = with_keys(&[&a], &keys.config("1")).await;
    let client = gate.client();
    let first = client.initialize().await;

    gate.write_config(&gate.config().replace(&keys.config("1"), &keys.config("21")));
    gate.restart().await;
    assert_eq!(count(&client, &first).await, 1);
    let second = client.initialize().await;

    gate.write_config(&gate.config().replace(&keys.config("21"), &keys.config("2")));
    gate.restart().await;
    assert_eq!(count(&client, &second).await, 1);
    let retired = client.start_call(&first, "counter", json!({})).await;
    assert_eq!(retired.status, 404, "its key is gone");
    assert_eq!(a.calls("tools/call").len(), 2, "and no server is asked");
}
