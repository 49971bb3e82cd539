//! The stateless era through the program: any copy serves, headers are what they say they are, and
//! nobody is demoted to sessions by an answer of ours.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Endpoint, Fault, Mcp, Outgoing, PATIENCE, Response, SessionId, Tidegate, eventually,
    text_of, within,
};

/// How soon a server hears that its client has left.
const AT_ONCE: Duration = Duration::from_millis(200);

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

// The probe.

#[tokio::test]
async fn a_probe_gets_the_last_good_answer_when_no_server_does() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let good = client.send(discover(&json!(1))).await.json().await;
    assert_eq!(good["result"]["supportedVersions"], json!(["2026-07-28"]));
    let check = async |what: &str| {
        for id in [json!(7), json!("seven")] {
            let mut answer = client.send(discover(&id)).await;
            let message = answer.json().await;
            assert_eq!(answer.status, 200, "{what}: {message}");
            assert_eq!(message["id"], id, "{what}");
            let versions = &message["result"]["supportedVersions"];
            assert_eq!(versions, &json!(["2026-07-28"]), "{what}");
        }
    };
    for fault in [
        Fault::Status(503, String::new()),
        Fault::Status(500, r#"{"oops":true}"#.into()),
        Fault::CloseBeforeHead,
        Fault::ResetBeforeHead,
        Fault::GarbageHead,
        Fault::LengthTooLong(5),
    ] {
        a.fault(fault.clone());
        b.fault(fault.clone());
        check(&format!("{fault:?}")).await;
        a.heal();
        b.heal();
    }
    a.kill().await;
    b.kill().await;
    check("killed").await;
}

#[tokio::test]
async fn a_probe_is_answered_from_what_the_checks_have_learned() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&gate, "endpoint is up", 1).await;
    a.kill().await;
    logged(&gate, "endpoint is down", 1).await;
    let client = gate.client();
    let mut answer = client.send(discover(&json!("d"))).await;
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("d")),
        "{message}"
    );
    assert_eq!(
        message["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    let call = client.send(call(&json!(1), "whoami", json!({}))).await;
    assert_error(call, 503, -32603, &json!(1), "other requests").await;
}

#[tokio::test]
async fn a_probe_is_held_until_a_server_comes_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    a.kill().await;
    let (answer, ()) = tokio::join!(client.send(discover(&json!("held"))), async {
        logged(&gate, "cannot connect", 1).await;
        // It comes up as servers do: at first it can only say that it is not ready.
        a.fault_next(2, Fault::Status(503, String::new()));
        a.restart().await;
    });
    let mut answer = answer;
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("held")),
        "{message}"
    );
    assert_eq!(a.faults_fired(), 2);
}

#[tokio::test]
async fn a_probe_is_held_until_the_checks_find_a_server() {
    let a = Endpoint::start("a").await;
    a.kill().await;
    let gate = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&gate, "endpoint is down", 1).await;
    let client = gate.client();
    let (mut answer, ()) = tokio::join!(client.send(discover(&json!("held"))), async {
        a.restart().await;
    });
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("held")),
        "{message}"
    );
}

#[tokio::test]
async fn a_probe_does_not_wait_long_for_a_server_that_is_stuck() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    client.send(discover(&json!(1))).await.json().await;
    a.fault(Fault::StallBeforeHead);
    let began = Instant::now();
    let mut answer = client.send(discover(&json!("stuck"))).await;
    let message = answer.json().await;
    assert_eq!((answer.status, &message["id"]), (200, &json!("stuck")));
    assert!(began.elapsed() < Duration::from_secs(5));
    a.until("it is given up", |a| a.in_flight() == 0).await;
}

#[tokio::test]
async fn a_probe_that_comes_in_pieces_is_answered_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let status = Fault::Status(503, String::new());
    for (fault, status) in [(Fault::CloseBeforeHead, 502), (status, 503)] {
        a.fault_next(1, fault);
        let outgoing = discover(&json!("d"));
        let headers = outgoing.header_lines();
        let bytes = client.encode("POST", "/mcp", &headers, &outgoing.body);
        let accepted = a.connections_accepted();
        let connection = client.connect().await.expect("a connection");
        connection
            .raw(&bytes[..bytes.len() - 1])
            .await
            .expect("sent");
        a.until("it is on its way", |a| a.connections_accepted() > accepted)
            .await;
        connection.raw(b"}").await.expect("sent");
        let answer = connection.response(false).await.expect("an answer");
        assert_error(answer, status, -32603, &json!("d"), "in pieces").await;
    }
    assert_eq!(a.requests().len(), 2, "it was not here to be sent again");
}

#[tokio::test]
async fn a_probe_that_nobody_can_answer_ends_in_seconds() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.kill().await;
    let began = Instant::now();
    let answer = gate.client().send(discover(&json!("d"))).await;
    let status = answer.status;
    assert!(matches!(status, 502 | 503), "{status}");
    assert_error(answer, status, -32603, &json!("d"), "nobody").await;
    let took = began.elapsed();
    assert!(
        Duration::from_secs(1) < took && took < Duration::from_secs(6),
        "{took:?}"
    );
}

// A client that leaves cancels.

/// Sends the request, drops its connection once the server works on it, and asserts that the
/// server hears of it at once.
async fn assert_cancelled(
    gate: &Tidegate,
    endpoint: &Endpoint,
    outgoing: Outgoing,
    streaming: bool,
) {
    let client = gate.client();
    let before = endpoint.disconnects().len();
    let connection = client.connect().await.expect("a connection");
    let headers = outgoing.header_lines();
    let bytes = client.encode("POST", "/mcp", &headers, &outgoing.body);
    connection.raw(&bytes).await.expect("sent");
    let working = |e: &Endpoint| match streaming {
        true => e.streams_open() == 1,
        false => e.in_flight() == 1,
    };
    endpoint.until("it works on it", working).await;
    if streaming {
        // The head has come through, so what is cancelled is the stream.
        let response = connection.response(false).await.expect("a head");
        assert!(response.is_stream());
        drop(response);
    } else {
        drop(connection);
    }
    let left = Instant::now();
    endpoint
        .until("it hears of it", |e| e.disconnects().len() == before + 1)
        .await;
    let heard = endpoint.disconnects().pop().expect("just counted");
    assert!(
        heard.at.saturating_duration_since(left) < AT_ONCE,
        "{:?}",
        heard.at - left
    );
    assert_eq!(heard.streaming, streaming);
    endpoint
        .until("nothing is left of it", |e| e.in_flight() == 0)
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_at_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let slow = call(&json!(1), "slow", json!({"ms": 60_000}));
    assert_cancelled(&gate, &a, slow, false).await;
    a.fault_next(1, Fault::StallMidEvent(20));
    let stuck = call(&json!(1), "echo", json!({"text": "in a body"}));
    assert_cancelled(&gate, &a, stuck, false).await;
    let ticks = call(&json!(1), "ticks", json!({"n": 9, "every_ms": 60_000}));
    assert_cancelled(&gate, &a, ticks, true).await;
    let changes = json!({"notifications": {"toolsListChanged": true}});
    let listen = Outgoing::stateless(&json!(1), "subscriptions/listen", None, changes);
    assert_cancelled(&gate, &a, listen, true).await;
    assert_eq!(
        a.calls("notifications/cancelled").len(),
        0,
        "the end of the stream says it"
    );
    assert_eq!(
        text_of(&gate.client().modern_call("whoami", json!({})).await),
        "a"
    );
}

#[tokio::test]
async fn a_stream_that_is_reset_over_http2_cancels_at_once_and_alone() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let arguments = json!({"name": "ticks", "arguments": {"n": 9, "every_ms": 60_000}});
    let gone = client.modern("tools/call", Some("ticks"), arguments).await;
    let mut kept = client.listen().await;
    kept.events().next_json().await;
    gone.reset();
    let left = Instant::now();
    a.until("it hears of it", |a| a.disconnects().len() == 1)
        .await;
    assert!(a.disconnects()[0].at.saturating_duration_since(left) < AT_ONCE);
    assert_eq!(a.notify_listeners(), 1);
    let note = kept.events().next_json().await;
    assert_eq!(note["method"], "notifications/tools/list_changed");
}

// subscriptions/listen.

const SUBSCRIPTION: &str = "/params/_meta/io.modelcontextprotocol~1subscriptionId";

fn listen(id: &Value) -> Outgoing {
    let params = json!({"notifications": {"toolsListChanged": true}});
    Outgoing::stateless(id, "subscriptions/listen", None, params)
}

#[tokio::test]
async fn a_listener_is_acknowledged_told_and_ended_by_its_server() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for id in [json!(7), json!("seven")] {
        let mut stream = client.send(listen(&id)).await;
        let mut events = stream.events();
        let first = events.next_json().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(first.pointer(SUBSCRIPTION), Some(&id));
        for _ in 0..2 {
            assert_eq!(a.notify_listeners(), 1);
            let note = events.next_json().await;
            assert_eq!(note["method"], "notifications/tools/list_changed");
            assert_eq!(note.pointer(SUBSCRIPTION), Some(&id));
        }
        assert_eq!(a.finish_listeners(), 1);
        let (last, end) = events.rest().await;
        assert_eq!(
            (last.len(), end),
            (1, BodyEnd::Complete),
            "nothing is added"
        );
        assert_eq!(last[0].json()["id"], id);
    }
}

#[tokio::test]
async fn a_listener_whose_server_dies_gets_the_graceful_result() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for id in [json!(7), json!("seven")] {
        let mut stream = client.send(listen(&id)).await;
        let mut events = stream.events();
        events.next_json().await;
        a.kill().await;
        let (last, end) = within("the end", events.rest()).await;
        assert_eq!((last.len(), end), (1, BodyEnd::Complete), "{last:?}");
        let result = last[0].json();
        assert_eq!(result["id"], id, "{result}");
        assert_eq!(result["result"]["resultType"], "complete");
        let meta = &result["result"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/subscriptionId"], id);
        a.restart().await;
    }
}

#[tokio::test]
async fn a_listener_is_opened_on_another_copy_when_the_first_does_not_answer() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let acknowledged = async || {
        let mut stream = gate.client().listen().await;
        assert_eq!(stream.status, 200);
        let first = stream.events().next_json().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    };
    a.fault(Fault::ResetBeforeHead);
    for _ in 0..4 {
        acknowledged().await;
    }
    a.kill().await;
    for _ in 0..4 {
        acknowledged().await;
    }
}
