//! Event streams that live long: they are kept alive while they are quiet, pass what comes at once,
//! and end with whichever side ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Client, Endpoint, Fault, Mcp, Outgoing, Response, SessionId, Tidegate,
};

/// How soon a server hears that its client has left. The fastest of a few times counts: a machine
/// that has much else to do makes some of them slow, and a program that waits makes all of them so.
const AT_ONCE: Duration = Duration::from_millis(200);

/// The shortest time between comments that can be configured.
const QUICK: &str = "streams: { keep_alive: 100ms }";

async fn quick_gate(a: &Endpoint) -> (Tidegate, Client, SessionId) {
    let gate = Tidegate::build(&[a]).config(QUICK).start().await;
    let client = gate.client();
    let session = client.initialize().await;
    (gate, client, session)
}

/// Reads comments off a stream that was quiet since it was opened, and asserts that they come, and
/// not too often.
async fn assert_kept_alive(stream: &mut Response, opened: Instant) {
    let mut events = stream.events();
    for count in 1..=4 {
        let at = events.next_comment().await.at;
        let quiet = at - opened;
        assert!(
            quiet >= count * Duration::from_millis(100),
            "{count} in {quiet:?}"
        );
    }
}

#[tokio::test]
async fn quiet_streams_of_every_kind_are_kept_alive() {
    let a = Endpoint::named("a").streams_everything().start().await;
    let (gate, client, session) = quick_gate(&a).await;
    let slow = json!({"ms": 60_000});
    let opened = Instant::now();
    let mut get = client.get_stream(&session, None).await;
    let mut post = client.start_call(&session, "slow", slow.clone()).await;
    let params = json!({"name": "slow", "arguments": slow});
    let mut stateless = client.modern("tools/call", Some("slow"), params).await;
    let mut listen = client.listen().await;
    let first = listen.events().next_json().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let over_http2 = gate.h2_client().await;
    let other = client.initialize().await;
    let mut get_over_http2 = over_http2.get_stream(&other, None).await;
    tokio::join!(
        assert_kept_alive(&mut get, opened),
        assert_kept_alive(&mut post, opened),
        assert_kept_alive(&mut stateless, opened),
        assert_kept_alive(&mut listen, opened),
        assert_kept_alive(&mut get_over_http2, opened),
    );
    // And they still carry what comes.
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    for (id, stream) in a.sessions().iter().zip([&mut get, &mut get_over_http2]) {
        assert!(a.push(id, &note));
        assert_eq!(stream.events().next_json().await, note);
    }
    assert_eq!(a.notify_listeners(), 1);
    let note = listen.events().next_json().await;
    assert_eq!(note["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn comments_stand_only_between_events() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = quick_gate(&a).await;
    for at in [1, 14, 15, 16, 40, 250] {
        a.fault_next(1, Fault::StallMidEvent(at));
        let arguments = json!({"n": 2, "every_ms": 1});
        let mut stream = client.start_call(&session, "ticks", arguments).await;
        let pause = Duration::from_millis(350);
        // What comes in the pause is kept for the reader: nothing is dropped by waiting.
        let arrived = async {
            let end = Instant::now() + pause;
            while Instant::now() < end {
                stream.silent_for(end - Instant::now()).await;
            }
        };
        arrived.await;
        a.heal();
        let mut stream = stream.events();
        let (events, end) = stream.rest().await;
        assert_eq!(
            (events.len(), end),
            (3, BodyEnd::Complete),
            "stalled after {at}"
        );
        for event in &events {
            assert!(event.json().is_object(), "{event:?}");
            assert!(
                !event.raw.lines().any(|line| line.starts_with(':')),
                "{event:?}"
            );
        }
        assert!(
            stream.comments.is_empty(),
            "in the middle of an event, {at}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_comes_byte_by_byte_is_not_disturbed() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = quick_gate(&a).await;
    a.fault_next(1, Fault::Trickle(Duration::from_millis(1)));
    let arguments = json!({"n": 3, "every_ms": 250});
    let mut stream = client.start_call(&session, "ticks", arguments).await;
    let mut stream = stream.events();
    let (events, end) = stream.rest().await;
    assert_eq!((events.len(), end), (4, BodyEnd::Complete));
    for event in &events {
        let expected = format!(
            "event: message\ndata: {}\n\n",
            event.data.as_deref().unwrap_or("")
        );
        assert_eq!(event.raw, expected);
    }
    assert!(
        !stream.comments.is_empty(),
        "the pauses between events are filled"
    );
}

#[tokio::test]
async fn an_event_is_passed_on_when_it_comes() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let first =
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"".len();
    a.fault_next(1, Fault::StallMidEvent(first + 300));
    let mut stream = client
        .start_call(&session, "ticks", json!({"n": 9, "every_ms": 0}))
        .await;
    let mut events = stream.events();
    // The server is stuck, and yet all that it has said is here, half an event included.
    for done in [1, 2] {
        assert_eq!(events.next_json().await["params"]["progress"], done);
    }
    a.heal();
    let (rest, end) = events.rest().await;
    assert_eq!((rest.len(), end), (8, BodyEnd::Complete));
}

#[tokio::test]
async fn a_head_of_a_stream_comes_before_its_first_event() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault(Fault::StallAfterHead);
    let post = client.start_call(&session, "ticks", json!({"n": 1})).await;
    let get = client.get_stream(&session, None).await;
    let listen = client.listen().await;
    for stream in [&post, &get, &listen] {
        assert_eq!((stream.status, stream.is_stream()), (200, true));
        assert_eq!(
            stream.header("cache-control"),
            Some("no-cache, no-transform")
        );
        assert_eq!(stream.headers().all("x-accel-buffering").count(), 1);
    }
}

#[tokio::test]
async fn a_get_stream_ends_properly_when_its_server_does() {
    let a = Endpoint::start("a").await;
    let (gate, client, session) = quick_gate(&a).await;
    let own = a.sessions()[0].clone();
    let mut stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    a.close_get_stream(&own);
    let mut events = stream.events();
    let (said, end) = events.rest().await;
    assert_eq!((said.len(), end), (0, BodyEnd::Complete));
    assert_eq!(events.unfinished(), "");
    let kept = stream.into_connection();
    let next = client
        .try_request_on(kept, "GET", "/health", &[], b"")
        .await;
    assert_eq!(next.map(|next| next.status), Ok(200));
    gate.metrics_when(|m| m.with("tidegate_streams_ended_total", &[("kind", "get")]) == 1.0)
        .await;
    assert_eq!(gate.metrics().await.sum("tidegate_streams"), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream_at_the_server_at_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut fastest = [Duration::MAX; 3];
    for round in 0..6 {
        let reset = round % 2 == 1;
        let before = a.disconnects().len();
        let stream = client.get_stream(&session, None).await;
        assert_eq!(stream.status, 200, "the place at the server is free");
        if reset {
            stream.reset();
        } else {
            drop(stream);
        }
        let left = Instant::now();
        a.until("it hears of it", |a| a.disconnects().len() == before + 1)
            .await;
        let heard = a.disconnects().pop().expect("just counted");
        assert!(heard.streaming);
        let took = heard.at.saturating_duration_since(left);
        fastest[usize::from(reset)] = fastest[usize::from(reset)].min(took);
    }
    for round in 0..3 {
        let arguments = json!({"n": 9, "every_ms": 60_000});
        drop(client.start_call(&session, "ticks", arguments).await);
        let left = Instant::now();
        a.until("it hears of it", |a| a.disconnects().len() == 7 + round)
            .await;
        let heard = a.disconnects().pop().expect("just counted");
        fastest[2] = fastest[2].min(heard.at.saturating_duration_since(left));
    }
    assert!(fastest.iter().all(|took| *took < AT_ONCE), "{fastest:?}");
    assert_eq!(client.whoami(&session).await, "a", "the session lives on");
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
}

#[tokio::test]
async fn a_client_of_http2_leaves_one_stream_and_keeps_the_others() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.h2_client().await;
    let (one, two) = (client.initialize().await, client.initialize().await);
    let own = a.sessions()[1].clone();
    let leaving = client.get_stream(&one, None).await;
    let mut kept = client.get_stream(&two, None).await;
    leaving.reset();
    a.until("it hears of it", |a| a.disconnects().len() == 1)
        .await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(kept.events().next_json().await, note);
}

#[tokio::test]
async fn a_stream_is_no_reason_to_forget_its_session() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).config("sessions: { idle_ttl: 1s }");
    let gate = gate.start().await;
    let client = gate.client();
    let (streaming, idle) = (client.initialize().await, client.initialize().await);
    let mut stream = client.get_stream(&streaming, None).await;
    let own = a.sessions();
    a.until("the idle one is deleted", |a| a.sessions_deleted() == 1)
        .await;
    assert_eq!(a.sessions(), own[..1]);
    let gone = client.start_call(&idle, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own[0], &note));
    assert_eq!(stream.events().next_json().await, note);
    let answer = client.call(&streaming, "counter", json!({})).await;
    assert_ne!(answer["result"], Value::Null);
}

/// A server that answers every connection with these bytes, and then neither says nor hears more.
async fn one_answer(bytes: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a listener");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let wire = crate::support::wire::Wire::new(stream);
            wire.request_head().await.expect("a request");
            wire.write(bytes.as_bytes()).await.expect("sent");
            open.push(wire);
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_its_server_forgets_to_end_is_ended_soon_after_the_answer() {
    let a = Endpoint::start("a").await;
    let forgetful = one_answer(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"jsonrpc\":\"2.0\",\"id\":\"f\",\r\ndata: \"result\":{}}\r\n\r\n",
    )
    .await;
    let pool = format!("forgetful:\n  health: {{ check: none }}\n  endpoints: [\"{forgetful}\"]");
    let gate = Tidegate::build(&[&a])
        .routes("- { path: /mcp, pool: forgetful }\n- { path: /other, pool: main }")
        .pools(&pool)
        .config(QUICK)
        .start()
        .await;
    let began = Instant::now();
    let params = json!({"name": "echo", "arguments": {}});
    let outgoing = Outgoing::stateless(&json!("f"), "tools/call", Some("echo"), params);
    let mut stream = gate.client().send(outgoing).await;
    let mut events = stream.events();
    let (said, end) = events.rest().await;
    assert_eq!((said.len(), end), (1, BodyEnd::Complete));
    assert_eq!(said[0].json()["id"], "f");
    assert!(!events.comments.is_empty());
    assert!(began.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_large_answer_passes_whole() {
    let a = Endpoint::named("a").streams_everything().start().await;
    let b = Endpoint::start("b").await;
    let gate = Tidegate::build(&[&a, &b]).pool("balance: round_robin");
    let gate = gate.start().await;
    let client = gate.client();
    for bytes in [0, 1, 262_143, 262_144, 3_000_000] {
        for _ in 0..2 {
            let arguments = json!({"bytes": bytes});
            let answer = client.modern_call("big", arguments).await;
            assert_eq!(crate::support::text_of(&answer).len(), bytes);
        }
    }
    assert_eq!((a.requests().len(), b.requests().len()), (5, 5));
}
