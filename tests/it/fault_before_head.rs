//! Servers that fail before they have answered: the client gets a status and a JSON-RPC error with
//! the id that it sent, on a connection that it can go on using, and nothing is done twice.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Client, Endpoint, Fault, Mcp, Outgoing, Response, SessionId, Tidegate, text_of,
};

/// Ids whose spelling must survive.
fn ids() -> [Value; 4] {
    [
        json!(7),
        json!("7"),
        json!("sé\"ven"),
        json!(9_007_199_254_740_993_u64),
    ]
}

fn tool_call(id: &Value, tool: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"text": "hello"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn stateless_call(id: &Value, tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {"text": "hello"}});
    Outgoing::stateless(id, "tools/call", Some(tool), params)
}

/// Asserts a JSON-RPC error of ours, and that its connection serves the next request.
async fn assert_fault(
    client: &Client,
    mut response: Response,
    status: u16,
    id: &Value,
    what: &str,
) {
    assert_eq!(
        response.header("content-type"),
        Some("application/json"),
        "{what}"
    );
    let body = response.read_to_end().await;
    assert_eq!(body.end, BodyEnd::Complete, "{what}");
    let message: Value = serde_json::from_slice(&body.bytes).expect("JSON");
    assert_eq!(response.status, status, "{what}: {message}");
    assert_eq!(message["jsonrpc"], "2.0", "{what}");
    assert_eq!(&message["id"], id, "{what}");
    assert_eq!(message["error"]["code"], -32603, "{what}");
    let text = message["error"]["message"].as_str().unwrap_or_default();
    assert!(
        !text.is_empty() && !text.contains("127.0.0.1"),
        "{what}: {text}"
    );
    let kept = response.into_connection();
    let next = client
        .try_request_on(kept, "GET", "/health", &[], b"")
        .await;
    assert_eq!(next.map(|next| next.status), Ok(200), "{what}");
}

/// A gate that does not wait long, and a session on the one endpoint.
async fn hasty(a: &Endpoint) -> (Tidegate, Client, SessionId) {
    let gate = Tidegate::build(&[a]).pool("timeouts: { header: 300ms }\nbreaker: off");
    let gate = gate.start().await;
    let client = gate.client();
    let session = client.initialize().await;
    (gate, client, session)
}

// What the client is told.

#[tokio::test]
async fn every_failure_is_an_answer_with_the_id() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = hasty(&a).await;
    for (fault, status) in [
        (Fault::CloseBeforeHead, 502),
        (Fault::ResetBeforeHead, 502),
        (Fault::StallBeforeHead, 504),
        (Fault::GarbageHead, 502),
        (Fault::LengthTooLong(5), 502),
        (Fault::CloseMidEvent(20), 502),
        (Fault::ResetMidEvent(20), 502),
        (Fault::StallMidEvent(20), 504),
        (Fault::StallAfterHead, 504),
        (Fault::Status(500, String::new()), 500),
        (Fault::Status(502, "<html>Bad Gateway</html>".into()), 502),
        (Fault::Status(503, r#"{"detail":"busy"}"#.into()), 503),
        (Fault::Status(504, "null".into()), 504),
    ] {
        a.fault(fault.clone());
        let both_eras = async |id: Value| {
            let what = format!("{fault:?} {id}");
            let answer = client.send(stateless_call(&id, "echo")).await;
            assert_fault(&client, answer, status, &id, &what).await;
            let answer = client.post(&session, &tool_call(&id, "echo")).await;
            assert_fault(&client, answer, status, &id, &what).await;
        };
        let [w, x, y, z] = ids().map(both_eras);
        tokio::join!(w, x, y, z);
        a.heal();
    }
    assert_eq!(
        a.calls("tools/call").len(),
        13 * 4 * 2,
        "none was sent twice"
    );
    let echoed = client.call(&session, "echo", json!({"text": "well"})).await;
    assert_eq!(
        text_of(&echoed),
        "well",
        "the session has survived all of it"
    );
}

#[tokio::test]
async fn a_failure_reaches_http2_clients_the_same_way() {
    let a = Endpoint::start("a").await;
    let (gate, _, _) = hasty(&a).await;
    let client = gate.h2_client().await;
    for (fault, status) in [
        (Fault::CloseBeforeHead, 502),
        (Fault::ResetBeforeHead, 502),
        (Fault::StallBeforeHead, 504),
        (Fault::GarbageHead, 502),
        (Fault::LengthTooLong(5), 502),
        (Fault::Status(503, String::new()), 503),
    ] {
        a.fault_next(1, fault.clone());
        let mut answer = client.send(stateless_call(&json!("h2"), "echo")).await;
        let message = answer.json().await;
        assert_eq!(
            (answer.status, &message["id"]),
            (status, &json!("h2")),
            "{fault:?}"
        );
        assert_eq!(message["error"]["code"], -32603, "{fault:?}");
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn what_has_no_id_is_answered_too() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = hasty(&a).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let answer = json!({"jsonrpc": "2.0", "id": 3, "result": {}});
    for message in [note, answer] {
        a.fault_next(1, Fault::ResetBeforeHead);
        let sent = client.post(&session, &message).await;
        assert_eq!(sent.status, 502, "{message}");
        let seen = a
            .requests()
            .iter()
            .filter(|r| r.rpc.as_ref() == Some(&message))
            .count();
        assert!(seen >= 1);
    }
    // As often as it is asked: an attempt on an idle connection does not count as one.
    a.fault_when(Fault::CloseBeforeHead, |request| request.method == "GET");
    // Two failures and a client never asks for its stream again; one that ended it opens anew.
    let mut stream = client.get_stream(&session, None).await;
    assert_eq!((stream.status, stream.is_stream()), (200, true));
    let body = stream.read_to_end().await;
    assert_eq!((body.bytes.len(), body.end), (0, BodyEnd::Complete));
    a.heal();
    a.fault_when(Fault::CloseBeforeHead, |request| request.method == "DELETE");
    let deleted = client.delete(&session).await;
    assert_fault(&client, deleted, 502, &Value::Null, "DELETE").await;
}

#[tokio::test]
async fn a_json_rpc_error_of_the_server_passes_as_it_is() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = hasty(&a).await;
    let error = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32050, "message": "its own", "data": 1}});
    for status in [400, 404, 429, 500, 503] {
        let session = match status {
            404 => client.initialize().await,
            _ => session.clone(),
        };
        a.fault_next(1, Fault::Status(status, error.to_string()));
        a.fault_next(1, Fault::ExtraHeader("Retry-After".into(), "7".into()));
        let mut answer = client.post(&session, &tool_call(&json!(7), "echo")).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (status, Some("7"))
        );
        assert_eq!(answer.json().await, error);
    }
    // Below 500 it is the server's word, whatever its form.
    for status in [400, 401, 403, 404, 413, 429] {
        a.fault_next(1, Fault::Status(status, "its own".into()));
        let mut answer = client.send(stateless_call(&json!(7), "echo")).await;
        assert_eq!(
            (answer.status, answer.text().await.as_str()),
            (status, "its own")
        );
    }
}

#[tokio::test]
async fn hints_before_the_head_are_passed_over() {
    let a = Endpoint::start("a").await;
    let (_gate, client, _) = hasty(&a).await;
    a.fault(Fault::EarlyHints);
    let mut answer = client.send(stateless_call(&json!(1), "echo")).await;
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert_eq!(text_of(&answer.json().await), "hello");
}

#[tokio::test]
async fn a_tool_that_takes_its_time_is_waited_for() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    a.fault(Fault::StallBeforeHead);
    let (mut answer, ()) = tokio::join!(client.send(stateless_call(&json!(1), "echo")), async {
        a.until("the call has arrived", |a| a.in_flight() == 1)
            .await;
        a.heal();
    });
    assert_eq!(text_of(&answer.json().await), "hello");
    assert_eq!(a.requests().len(), 1);
}

// Answers that are too long to be held until they are whole.

#[tokio::test]
async fn a_large_answer_that_is_cut_is_visibly_not_whole() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).pool("timeouts: { stream_idle: 300ms }");
    let gate = gate.start().await;
    let client = gate.client();
    let arguments = json!({"name": "big", "arguments": {"bytes": 1_000_000}});
    for fault in [
        Fault::CloseMidEvent(500_000),
        Fault::ResetMidEvent(500_000),
        Fault::StallMidEvent(500_000),
        Fault::LengthTooLong(5),
    ] {
        a.fault_next(1, fault.clone());
        let outgoing = Outgoing::stateless(&json!(1), "tools/call", Some("big"), arguments.clone());
        let mut answer = client.send(outgoing).await;
        match (&fault, answer.status) {
            // A reset takes with it what lies unread in the kernel, so little enough may be left
            // to be held, and the answer can be a proper one.
            (Fault::ResetMidEvent(_), 502) => assert_eq!(answer.json().await["id"], 1),
            (_, status) => {
                assert_eq!(status, 200, "{fault:?}");
                let body = answer.read_to_end().await;
                assert_eq!(body.end, BodyEnd::Truncated, "{fault:?}");
            }
        }
        a.heal();
    }
    a.until("nothing is left", |a| a.in_flight() == 0).await;
}

// Another try, where that is safe.

/// A pool of two that are taken in turn.
async fn two() -> (Endpoint, Endpoint, Tidegate) {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b]).pool("balance: round_robin");
    let gate = gate.start().await;
    (a, b, gate)
}

#[tokio::test]
async fn a_read_is_sent_to_another_copy() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    for fault in [Fault::ResetBeforeHead, Fault::CloseBeforeHead] {
        a.fault(fault.clone());
        for id in ids() {
            for method in ["tools/list", "server/discover", "resources/list"] {
                let outgoing = Outgoing::stateless(&id, method, None, Value::Null);
                let mut answer = client.send(outgoing).await;
                let message = answer.json().await;
                assert_eq!(
                    (answer.status, &message["id"]),
                    (200, &id),
                    "{fault:?} {method}"
                );
            }
        }
        a.heal();
    }
    let lists = |endpoint: &Endpoint| endpoint.calls("tools/list").len();
    assert_eq!(lists(&b), 8, "each list came from the copy that is well");
    assert!(lists(&a) > 0);
    let metrics = gate.metrics().await;
    let retried = metrics.with("tidegate_retries_total", &[("outcome", "success")]);
    assert_eq!(retried, a.faults_fired() as f64);
}

#[tokio::test]
async fn a_read_that_fails_everywhere_ends_with_one_answer() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        endpoint.fault(Fault::ResetBeforeHead);
    }
    for id in ids() {
        let list = Outgoing::stateless(&id, "tools/list", None, Value::Null);
        let answer = client.send(list).await;
        assert_fault(&client, answer, 502, &id, "everywhere").await;
    }
    assert_eq!((a.requests().len(), b.requests().len()), (4, 4));
}

#[tokio::test]
async fn a_tool_call_is_never_sent_twice() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    for fault in [
        Fault::ResetBeforeHead,
        Fault::CloseBeforeHead,
        Fault::GarbageHead,
    ] {
        for endpoint in [&a, &b] {
            endpoint.fault(fault.clone());
        }
        for id in ids() {
            let answer = client.send(stateless_call(&id, "counter")).await;
            assert_fault(&client, answer, 502, &id, "a tool call").await;
        }
        a.heal();
        b.heal();
    }
    let seen = a.calls("tools/call").len() + b.calls("tools/call").len();
    assert_eq!(seen, 3 * 4);
}

#[tokio::test]
async fn a_call_goes_to_another_copy_when_no_connection_can_be_made() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    a.kill().await;
    for _ in 0..4 {
        let answer = client.modern_call("counter", json!({})).await;
        assert!(answer.get("result").is_some(), "{answer}");
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "b");
    }
    assert_eq!(b.sessions_opened(), 4);
    b.kill().await;
    for id in ids() {
        let answer = client.send(stateless_call(&id, "counter")).await;
        assert_fault(&client, answer, 502, &id, "nobody is there").await;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": {}});
        let answer = client.send(Outgoing::post(&message)).await;
        assert_fault(&client, answer, 502, &id, "nobody is there").await;
    }
}

#[tokio::test]
async fn initialize_is_tried_on_another_copy() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    a.fault(Fault::ResetBeforeHead);
    for _ in 0..4 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "b");
    }
    assert_eq!((a.sessions_opened(), b.sessions_opened()), (0, 4));
}

#[tokio::test]
async fn within_a_session_only_the_owner_is_tried_again() {
    let (a, b, gate) = two().await;
    let client = gate.client();
    let session = client.initialize().await;
    let (owner, other) = match client.whoami(&session).await.as_str() {
        "a" => (&a, &b),
        _ => (&b, &a),
    };
    let seen = other.requests().len();
    for method in ["ping", "tools/list"] {
        owner.fault_next(1, Fault::ResetBeforeHead);
        let mut answer = client.rpc(&session, method, json!({})).await;
        let message = answer.json().await;
        assert_eq!(answer.status, 200, "{method}: {message}");
        assert_eq!(owner.calls(method).len(), 2, "{method}");
    }
    owner.fault_next(1, Fault::ResetBeforeHead);
    let answer = client
        .post(&session, &tool_call(&json!("t"), "counter"))
        .await;
    assert_fault(&client, answer, 502, &json!("t"), "a tool call").await;
    let counted = client.call(&session, "counter", json!({})).await;
    assert_eq!(text_of(&counted), "1", "the lost call was not sent again");
    assert_eq!(other.requests().len(), seen);
}

// Connections that lie idle.

#[tokio::test]
async fn connections_are_used_again() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).config("threads: 1").start().await;
    let client = gate.client();
    for _ in 0..10 {
        client.modern_call("whoami", json!({})).await;
    }
    assert_eq!(a.connections_accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_fails_no_call() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).config("threads: 1").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault(Fault::CloseIdleAfter(Duration::from_millis(1)));
    for counted in 1..=10 {
        let answer = client.modern_call("whoami", json!({})).await;
        assert_eq!(text_of(&answer), "a");
        a.until("it has closed", |a| a.connections_open() == 0)
            .await;
        let answer = client.call(&session, "counter", json!({})).await;
        assert_eq!(text_of(&answer), counted.to_string());
        a.until("it has closed", |a| a.connections_open() == 0)
            .await;
    }
}

/// Servers close idle connections at the moment that they are used as well, all of them at once when
/// they have been idle for as long. A read must not be lost, and finds an open one where all are closed.
#[tokio::test]
async fn idle_connections_that_close_as_they_are_used_lose_no_read() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).config("threads: 1").start().await;
    let client = gate.client();
    let session = client.initialize().await;
    // Together, so that there are as many idle connections afterwards.
    a.fault_next(4, Fault::StallBeforeHead);
    let call = || client.modern_call("whoami", json!({}));
    tokio::join!(call(), call(), call(), call(), async {
        a.until("all have arrived", |a| a.in_flight() == 4).await;
        a.heal();
    });
    let (opened, fired) = (a.connections_accepted(), a.faults_fired());
    let served: Mutex<HashSet<usize>> = Mutex::new((1..=opened).collect());
    a.fault_when(Fault::ResetBeforeHead, move |request| {
        !served
            .lock()
            .expect("no holder panics")
            .insert(request.connection)
    });
    for id in 0..2 {
        let list = Outgoing::stateless(&json!(id), "tools/list", None, Value::Null);
        assert_eq!(client.send(list).await.status, 200, "without a session");
        let mut answer = client.rpc(&session, "ping", json!({})).await;
        let message = answer.json().await;
        assert_eq!(answer.status, 200, "in a session: {message}");
    }
    assert_eq!(
        a.faults_fired() - fired,
        4,
        "each has met an idle one first"
    );
}

#[tokio::test]
async fn a_restart_of_the_server_fails_no_call() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    for counted in 1..=5 {
        let answer = client.call(&session, "counter", json!({})).await;
        assert_eq!(text_of(&answer), counted.to_string());
        a.kill().await;
        a.restart().await;
    }
}
