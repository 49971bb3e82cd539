//! HTTP/2 with prior knowledge, on both sides: everything that HTTP/1.1 can do, on one connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::h2::H2Client;
use crate::support::{
    BodyEnd, Endpoint, Fault, Mcp, NoAnswer, Outgoing, Tidegate, eventually, text_of,
};

/// What a cancellation may take to reach the server: far less than any of our timeouts.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_preface_that_stalls_does_not_hold_its_place() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 1s }")
        .start()
        .await;
    let connection = gate.client().connect().await.expect("a connection");
    connection
        .raw(b"PRI * HTTP/2.0\r\n\r\n")
        .await
        .expect("it is read");
    let (rest, _) = connection.rest().await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn both_eras_are_spoken() {
    let (a, b, c) = (
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    );
    let gate = Tidegate::in_front_of(&[&a, &b, &c]).await;
    let client = gate.h2_client().await;
    for _ in 0..3 {
        let session = client.initialize().await;
        let owner = client.whoami(&session).await;
        for _ in 0..4 {
            assert_eq!(client.whoami(&session).await, owner);
        }
        let ticks = client.call(&session, "ticks", json!({"n": 3})).await;
        assert_eq!(text_of(&ticks), "3 ticks");
        assert_eq!(client.delete(&session).await.status, 200);
        let gone = client.start_call(&session, "whoami", json!({})).await;
        assert_eq!(gone.status, 404);
    }
    let mut discovered = client.modern("server/discover", None, Value::Null).await;
    assert_eq!(discovered.status, 200);
    let versions = discovered.json().await["result"]["supportedVersions"].clone();
    assert_eq!(versions, json!(["2026-07-28"]));
    let name = text_of(&client.modern_call("whoami", json!({})).await);
    assert!(["a", "b", "c"].contains(&name.as_str()));
    let big = client.modern_call("big", json!({"bytes": 1_000_000})).await;
    assert_eq!(text_of(&big).len(), 1_000_000);
}

#[tokio::test]
async fn a_get_stream_delivers_and_a_listen_is_told() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    assert_eq!(stream.status, 200);
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);

    let mut listen = client.listen().await;
    let first = listen.events().next_json().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(a.notify_listeners(), 1);
    let second = listen.events().next_json().await;
    assert_eq!(second["method"], "notifications/tools/list_changed");
    assert_eq!(a.finish_listeners(), 1);
    let (last, end) = listen.events().rest().await;
    assert_eq!((last.len(), end), (1, BodyEnd::Complete));
}

#[tokio::test]
async fn a_request_may_end_in_a_frame_behind_its_head() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await.with_late_end();
    let session = client.initialize().await;
    assert_eq!(client.get_stream(&session, None).await.status, 200);
    assert_eq!(client.whoami(&session).await, "a");
}

#[tokio::test]
async fn no_connection_header_crosses_into_http2() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.fault_next(
        1,
        Fault::ExtraHeader("Connection".into(), "keep-alive".into()),
    );
    a.fault_next(
        1,
        Fault::ExtraHeader("Keep-Alive".into(), "timeout=5".into()),
    );
    let client = gate.h2_client().await;
    let answer = client.modern("tools/list", None, Value::Null).await;
    assert_eq!(answer.status, 200);
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        assert!(!answer.headers().has(name), "{name}");
    }
    assert_eq!(a.requests()[0].headers.all("host").count(), 1);
    let authority = a.address().to_string();
    assert_eq!(a.requests()[0].header("host"), Some(&*authority));
}

#[tokio::test]
async fn many_streams_share_one_connection() {
    const STREAMS: usize = 60;
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.h2_client().await;
    let started = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let client = client.clone();
        calls.spawn(async move { client.modern_call("slow", json!({"ms": 300})).await });
    }
    let both = |gauge: usize| a.in_flight() + b.in_flight() == gauge;
    assert!(eventually(Duration::from_secs(5), || both(STREAMS)).await);
    let metrics = gate.metrics().await;
    // This client, and the one that asks.
    assert!(metrics.sum("mcp_active_connections") <= 2.0);
    let mut ids = Vec::new();
    while let Some(answer) = calls.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!(text_of(&answer), "done");
        ids.push(answer["id"].as_u64());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), STREAMS);
    assert!(started.elapsed() < Duration::from_secs(8), "in parallel");
}

#[tokio::test]
async fn a_cancelled_stream_is_cancelled_at_the_server_at_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let ticks = json!({"name": "ticks", "arguments": {"n": 1000, "every_ms": 20}});
    let mut response = client.modern("tools/call", Some("ticks"), ticks).await;
    response.events().next_json().await;
    response.reset();
    assert!(eventually(AT_ONCE, || a.disconnects().len() == 1).await);
    assert!(a.disconnects()[0].streaming);

    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    stream.reset();
    assert!(eventually(AT_ONCE, || a.disconnects().len() == 2).await);
    let again = client.get_stream(&session, None).await;
    assert_eq!(again.status, 200, "the place of the stream is free again");

    // Before the head of the reply, where a client has nothing to read yet.
    let waiting = client.modern_call("slow", json!({"ms": 60_000}));
    let cancelled = tokio::select! {
        _ = waiting => false,
        () = a.until("it runs", |e| e.calls("tools/call").len() == 2) => true,
    };
    assert!(cancelled);
    assert!(eventually(AT_ONCE, || a.disconnects().len() == 3).await);
    assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "a");
}

#[tokio::test]
async fn a_connection_that_vanishes_cancels_all_its_streams() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.listen().await);
    }
    drop(streams);
    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    drop((client, stream));
    assert!(eventually(AT_ONCE, || a.streams_open() == 0).await);
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_calls_finish() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let idle = gate.h2_client().await;
    assert_eq!(text_of(&idle.modern_call("whoami", json!({})).await), "a");
    let running = client.clone();
    let call = tokio::spawn(async move { running.modern_call("slow", json!({"ms": 700})).await });
    a.until("it runs", |e| e.in_flight() == 1).await;
    gate.signal("TERM");
    assert!(eventually(AT_ONCE, || idle.is_closed()).await, "GOAWAY");
    assert_eq!(text_of(&call.await.expect("no panic")), "done");
    assert!(eventually(AT_ONCE, || client.is_closed()).await);
    assert!(gate.wait_exit(Duration::from_secs(5)).await.success());
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_with_an_answer() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { body: 64KiB }")
        .start()
        .await;
    let client = gate.h2_client().await;
    let call = |bytes: usize| {
        let params = json!({"name": "echo", "arguments": {"text": "x".repeat(bytes)}});
        Outgoing::stateless(&json!(1), "tools/call", Some("echo"), params)
    };
    let refused = client.try_send(call(1 << 20)).await;
    assert_eq!(refused.expect("an answer, not a reset").status, 413);
    let small = client.send(call(1000)).await;
    assert_eq!(small.status, 200, "the connection lives on");
    assert_eq!(a.requests().len(), 1);
}

#[tokio::test]
async fn header_limits_hold() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let call = || {
        let params = json!({"name": "whoami", "arguments": {}});
        Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
    };
    let mut many = call();
    for n in 0..150 {
        many = many.with(&format!("x-{n}"), "1");
    }
    let client = gate.h2_client().await;
    let refused = client.try_send(many).await.expect("an answer");
    assert_eq!(refused.status, 431);
    // Far above the limit the frame layer refuses, by 431 or by a reset: not by passing it on.
    let huge = call().with("x-huge", &"h".repeat(60_000));
    match client.try_send(huge).await {
        Ok(refused) => assert_eq!(refused.status, 431),
        Err(NoAnswer::H2(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
    let fine = gate.h2_client().await;
    assert_eq!(fine.send(call()).await.status, 200);
    assert_eq!(a.requests().len(), 1);
}

/// An endpoint that is spoken to in HTTP/2.
async fn behind_h2(name: &str) -> (Endpoint, Tidegate) {
    let a = Endpoint::named(name).http2().start().await;
    let gate = Tidegate::build(&[&a])
        .endpoint(name, "http2: true")
        .config("threads: 1")
        .start()
        .await;
    (a, gate)
}

#[tokio::test]
async fn an_endpoint_may_speak_http2_and_its_streams_share_a_connection() {
    let (a, gate) = behind_h2("a").await;
    let client = gate.client();
    let session = client.initialize().await;
    assert!(!session.0.is_empty());
    assert_eq!(client.whoami(&session).await, "a");
    let mut stream = client.get_stream(&session, None).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { client.modern_call("slow", json!({"ms": 200})).await });
    }
    a.until("all are running", |e| e.in_flight() == 21).await;
    assert_eq!(a.connections_open(), 1);
    while let Some(answer) = calls.join_next().await {
        assert_eq!(text_of(&answer.expect("no panic")), "done");
    }
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);
    let ticks = client.call(&session, "ticks", json!({"n": 2})).await;
    assert_eq!(text_of(&ticks), "2 ticks");
    let big = client.modern_call("big", json!({"bytes": 2_000_000})).await;
    assert_eq!(text_of(&big).len(), 2_000_000);
    let text = "e".repeat(1_000_000);
    let echo = client.modern_call("echo", json!({"text": text})).await;
    assert_eq!(text_of(&echo).len(), 1_000_000);
    assert_eq!(client.delete(&session).await.status, 200);
    assert!(a.sessions().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_only() {
    let (a, gate) = behind_h2("a").await;
    let client = gate.client();
    let other = client.initialize().await;
    let other_stream = client.get_stream(&other, None).await;
    let ticks = json!({"name": "ticks", "arguments": {"n": 1000, "every_ms": 20}});
    let mut response = client.modern("tools/call", Some("ticks"), ticks).await;
    response.events().next_json().await;
    response.reset();
    assert!(eventually(AT_ONCE, || a.disconnects().len() == 1).await);
    assert_eq!(a.connections_open(), 1);
    assert_eq!(a.streams_open(), 1, "the other stream lives");
    assert_eq!(client.whoami(&other).await, "a");
    drop(other_stream);
}

#[tokio::test]
async fn an_http2_endpoint_that_dies_is_told_in_the_stream() {
    let (a, gate) = behind_h2("a").await;
    for client_is_h2 in [false, true] {
        let ticks = json!({"name": "ticks", "arguments": {"n": 1000, "every_ms": 20}});
        let mut response = if client_is_h2 {
            let client: H2Client = gate.h2_client().await;
            client.modern("tools/call", Some("ticks"), ticks).await
        } else {
            let client = gate.client();
            client.modern("tools/call", Some("ticks"), ticks).await
        };
        response.events().next_json().await;
        a.kill().await;
        let (events, end) = response.events().rest().await;
        assert_eq!(end, BodyEnd::Complete);
        let last = events.last().expect("the error").json();
        assert_eq!(last["error"]["code"], -32603);
        a.restart().await;
    }
    let answer = gate.client().modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&answer), "a", "a new connection is made");
}

#[tokio::test]
async fn an_http2_endpoint_that_resets_a_call_is_an_error_with_its_id() {
    let (a, gate) = behind_h2("a").await;
    a.fault_next(1, Fault::ResetBeforeHead);
    let call = json!({"name": "echo", "arguments": {}});
    let mut answer = gate.client().modern("tools/call", Some("echo"), call).await;
    assert_eq!(answer.status, 502);
    let message = answer.json().await;
    assert_eq!(message["id"], 0);
    assert_eq!(message["error"]["code"], -32603);
    assert_eq!(a.calls("tools/call").len(), 1, "never sent twice");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { idle_timeout: 300ms, head_timeout: 300ms }")
        .start()
        .await;
    let (idle, busy) = (gate.h2_client().await, gate.h2_client().await);
    assert_eq!(text_of(&idle.modern_call("whoami", json!({})).await), "a");
    let session = busy.initialize().await;
    let mut stream = busy.get_stream(&session, None).await;
    assert!(eventually(Duration::from_secs(5), || idle.is_closed()).await);
    assert!(stream.silent_for(Duration::from_millis(500)).await);
    assert!(!busy.is_closed());
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let stream = tokio::net::TcpStream::connect(gate.address()).await;
    let stream = stream.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = http::Request::post(gate.url())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(())
        .expect("a request");
    let mut sender = sender.ready().await.expect("a place");
    let (answer, mut body) = sender.send_request(request, false).expect("sent");
    body.send_data("{\"jsonrpc\":".into(), false).expect("sent");
    let answer = crate::support::within("the refusal", answer).await;
    assert_eq!(answer.expect("an answer, not a reset").status(), 408);
    assert!(a.requests().is_empty());
    driver.abort();
}
