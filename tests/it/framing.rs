//! HTTP/1.1 byte by byte: what is ambiguous is refused before anybody acts on it, and what is right
//! is understood in every way in which it may be cut.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{BodyEnd, Client, Connection, Endpoint, Mcp, Outgoing, Tidegate, text_of};

mod ambiguous;
mod bodies;

/// A call that any server of the stateless era answers.
fn call(id: u64) -> Outgoing {
    let params = json!({"name": "whoami", "arguments": {}});
    Outgoing::stateless(&json!(id), "tools/call", Some("whoami"), params)
}

/// The bytes of [`call`] on the wire.
fn call_bytes(client: &Client, id: u64) -> Vec<u8> {
    let call = call(id);
    client.encode("POST", "/mcp", &call.header_lines(), &call.body)
}

#[tokio::test]
async fn an_absolute_target_that_names_our_host_is_served() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let call = call(1);
    let target = format!("http://{}/mcp", gate.address());
    let mut answer = client
        .request("POST", &target, &call.header_lines(), &call.body)
        .await;
    assert_eq!(text_of(&answer.json().await), "a");
    assert_eq!(a.requests()[0].path, "/mcp");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut bytes = Vec::new();
    for id in 0..12_u64 {
        let (tool, arguments) = match id % 3 {
            0 => ("slow", json!({"ms": 30})),
            1 => ("ticks", json!({"n": 2})),
            _ => ("whoami", json!({})),
        };
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let outgoing = Outgoing::in_session(&session, &message);
        let lines = outgoing.header_lines();
        bytes.extend(client.encode("POST", "/mcp", &lines, &outgoing.body));
    }
    let mut connection = client.connect().await.expect("a connection");
    connection.raw(&bytes).await.expect("sent");
    for id in 0..12 {
        let mut answer = connection.response(false).await.expect("an answer");
        assert_eq!(answer.status, 200);
        let (message, events) = if answer.is_stream() {
            let (events, end) = answer.events().rest().await;
            assert_eq!(end, BodyEnd::Complete);
            (events.last().expect("the answer").json(), events.len())
        } else {
            (answer.json().await, 0)
        };
        assert_eq!(message["id"], id);
        assert_eq!(events, if id % 3 == 1 { 3 } else { 0 });
        connection = answer.into_connection();
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let connection = client.connect().await.expect("a connection");
    // An empty line before the request is allowed too (RFC 9112, section 2.2).
    connection.raw(b"\r\n").await.expect("sent");
    for byte in call_bytes(&client, 1) {
        connection.raw(&[byte]).await.expect("sent");
    }
    let mut answer = connection.response(false).await.expect("an answer");
    assert_eq!(text_of(&answer.json().await), "a");
}

#[tokio::test]
async fn a_body_waits_for_the_word_to_continue() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let call = call(1).with("expect", "100-continue");
    let bytes = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
    let head = bytes.len() - call.body.len();
    let connection = client.connect().await.expect("a connection");
    connection.raw(&bytes[..head]).await.expect("sent");
    let wire = connection.into_wire();
    let go_on = wire.response_head().await.expect("the interim head");
    assert_eq!(go_on.status, 100);
    wire.write(&call.body).await.expect("sent");
    let answer = wire.response_head().await.expect("the answer");
    assert_eq!(answer.status, 200);
    assert!(!a.requests()[0].headers.has("expect"), "hop by hop");

    // One who does not wait is served as well.
    let mut hasty = client.send(call.clone()).await;
    assert_eq!(hasty.status, 200);
    assert_eq!(text_of(&hasty.json().await), "a");
}

#[tokio::test]
async fn a_body_that_is_refused_need_not_be_sent() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let call = call(1).with("expect", "100-continue");
    let length = (5_usize << 20).to_string();
    let lines = call.with("content-length", &length);
    let head = gate
        .client()
        .encode("POST", "/mcp", &lines.header_lines(), b"");
    let refused = gate.client().raw(&head).await.expect("an answer");
    assert_eq!(refused.status, 413);
    assert!(refused.interim.is_empty(), "nobody asked for the body");
}

#[tokio::test]
async fn a_connection_is_reused_for_whatever_comes() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut connection = client.connect().await.expect("a connection");
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let ticks = json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call",
        "params": {"name": "ticks", "arguments": {"n": 2}}});
    let unknown = crate::support::SessionId("unknown".into());
    let requests = [
        (Outgoing::in_session(&session, &note), 202),
        (Outgoing::in_session(&session, &ticks), 200),
        (Outgoing::in_session(&unknown, &ticks), 404),
        (call(1).without("mcp-method"), 400),
        (call(1), 200),
        (call(2), 200),
    ];
    for (outgoing, status) in requests.iter().cycle().take(18) {
        let lines = outgoing.header_lines();
        let answer = client
            .try_request_on(connection, "POST", "/mcp", &lines, &outgoing.body)
            .await;
        let mut answer = answer.expect("an answer on the same connection");
        assert_eq!(answer.status, *status);
        assert!(!answer.headers().has_token("connection", "close"));
        assert_eq!(answer.read_to_end().await.end, BodyEnd::Complete);
        connection = answer.into_connection();
    }
    // Upstream too: one connection did for all of them, and one before for the session.
    assert!(
        a.connections_accepted() <= 3,
        "{}",
        a.connections_accepted()
    );
}

#[tokio::test]
async fn a_client_may_ask_for_the_end_of_the_connection() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let outgoing = call(1).with("connection", "close");
    let mut answer = gate.client().send(outgoing).await;
    assert_eq!(text_of(&answer.json().await), "a");
    let (rest, end) = answer.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
}

/// Waits for the end of a connection and tells how long that took.
async fn time_to_close(connection: Connection) -> Duration {
    let started = Instant::now();
    let (rest, end) = connection.rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    started.elapsed()
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    // Neither silence nor a trickle keeps the place.
    for trickle in [false, true] {
        let connection = client.connect().await.expect("a connection");
        let started = Instant::now();
        connection
            .raw(b"POST /mcp HTTP/1.1\r\nHost: x\r\n")
            .await
            .expect("sent");
        let wire = connection.into_wire();
        let answer = async {
            loop {
                tokio::select! {
                    biased;
                    head = wire.response_head() => break head,
                    () = tokio::time::sleep(Duration::from_millis(20)), if trickle => {
                        let _ = wire.write(b"x").await;
                    }
                }
            }
        };
        let answer = crate::support::within("the refusal", answer).await;
        assert_eq!(answer.expect("a head").status, 408);
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(250), "{waited:?}");
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        wire.shutdown_write();
        crate::support::within("the end", wire.closed()).await;
    }
    // A connection on which nothing ever came is closed without a word.
    let silent = client.connect().await.expect("a connection");
    assert!(time_to_close(silent).await < Duration::from_secs(3));
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_slow_second_head_is_given_up_as_well() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let mut first = gate.client().send(call(1)).await;
    first.json().await;
    let connection = first.into_connection();
    connection.raw(b"POST /mcp HT").await.expect("sent");
    let second = connection.response(false).await.expect("an answer");
    assert_eq!(second.status, 408);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    let bytes = call_bytes(&client, 1);
    let connection = client.connect().await.expect("a connection");
    connection
        .raw(&bytes[..bytes.len() - 10])
        .await
        .expect("sent");
    let mut refused = connection.response(false).await.expect("an answer");
    assert_eq!(refused.status, 408);
    refused.json().await;
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_stream_is_not_idle() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { idle_timeout: 300ms, head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let mut answer = client.send(call(1)).await;
    answer.json().await;
    let waited = time_to_close(answer.into_connection()).await;
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    // By now the stream has been silent for longer than either limit.
    assert!(stream.silent_for(Duration::from_millis(400)).await);
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);
    // And so has a call that takes its time.
    let slow = client.call(&session, "slow", json!({"ms": 700})).await;
    assert_eq!(text_of(&slow), "done");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for tool in ["whoami", "ticks"] {
        let params = json!({"name": tool, "arguments": {"n": 2}});
        let call = Outgoing::stateless(&json!(1), "tools/call", Some(tool), params);
        let text = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
        let text = String::from_utf8(text).expect("text");
        let text = text.replacen("HTTP/1.1", "HTTP/1.0", 1);
        let mut answer = client.raw(text.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(!answer.headers().has("transfer-encoding"), "not in 1.0");
        let message = answer.rpc().await;
        assert_eq!(message["id"], 1);
        let rest = answer.read_to_end().await;
        assert!(matches!(rest.end, BodyEnd::Closed | BodyEnd::Complete));
        let (rest, end) = answer.into_connection().rest().await;
        assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    }
    // It need not know the host either.
    let mut answer = client
        .raw(b"GET /health HTTP/1.0\r\n\r\n")
        .await
        .expect("an answer");
    assert_eq!((answer.status, answer.text().await.as_str()), (200, "ok\n"));
}
