//! Leaving with many streams open: each ends in its own way, and not all at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::ws::{Frame, WebSocket};
use crate::support::{BodyEnd, Client, Endpoint, Mcp, Response, Tidegate, text_of};

/// The kinds of streams, and what each is told at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    GetOverHttp2,
    Listen,
    Post,
    Sse,
    WebSocket,
}

/// One of the streams has ended: which kind, and when.
type Ended = (Kind, Instant);

/// Reads an event stream to its end, and looks at its last words.
async fn read(kind: Kind, mut stream: Response) -> Ended {
    let (events, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete, "{kind:?}");
    let last = events.last().map_or(Value::Null, |event| event.json());
    match kind {
        Kind::Get | Kind::GetOverHttp2 | Kind::Sse => assert!(events.is_empty(), "{last}"),
        Kind::Listen => assert_eq!(last["result"]["resultType"], "complete", "{last}"),
        Kind::Post => assert_eq!(last["error"]["code"], -32603, "{last}"),
        Kind::WebSocket => unreachable!("it has no events"),
    }
    (kind, Instant::now())
}

async fn watch(socket: WebSocket) -> Ended {
    assert_eq!(socket.next().await, Ok(Frame::Close(Some(1001))));
    (Kind::WebSocket, Instant::now())
}

/// How far apart the first and the last of these ended, and when the first did.
fn span(ended: &[Ended], of: impl Fn(Kind) -> bool) -> (Instant, Duration) {
    let times = || {
        ended
            .iter()
            .filter(|(kind, _)| of(*kind))
            .map(|(_, at)| *at)
    };
    let first = times().min().expect("at least one");
    (
        first,
        times().max().map_or(Duration::ZERO, |last| last - first),
    )
}

async fn old_stream(client: &Client) -> Response {
    let accept = [("accept", "text/event-stream")];
    let mut stream = client.request("GET", "/sse", &accept, b"").await;
    assert!(stream.events().next().await.is_some(), "the endpoint event");
    stream
}

#[tokio::test]
async fn two_hundred_streams_end_one_after_the_other_and_no_call_fails() {
    let a = Endpoint::named("a").websocket().start().await;
    let old = Endpoint::named("old").legacy_sse().start().await;
    let mut gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: main\n- path: /sse\n  pool: old")
        .pools(&format!(
            "old: {{ health: {{ check: none }}, endpoints: [\"{}\"] }}",
            old.address()
        ))
        .config("drain_timeout: 4s\ndrain_jitter: 1500ms")
        .start()
        .await;
    let client = gate.client();
    let http2 = gate.h2_client().await;
    let mut streams = JoinSet::new();
    for _ in 0..40 {
        let session = client.initialize().await;
        let get = client.get_stream(&session, None).await;
        streams.spawn(read(Kind::Get, get));
        let session = client.initialize().await;
        let get = http2.get_stream(&session, None).await;
        streams.spawn(read(Kind::GetOverHttp2, get));
        let mut listen = client.listen().await;
        listen.events().next_json().await;
        streams.spawn(read(Kind::Listen, listen));
        streams.spawn(read(Kind::Sse, old_stream(&client).await));
        let socket = WebSocket::connect(&client).await.expect("a WebSocket");
        streams.spawn(watch(socket));
    }
    let sessions = a.sessions().len();
    let mut calls = JoinSet::new();
    for ms in [100, 400, 700, 1000] {
        let client = client.clone();
        calls.spawn(async move { client.modern_call("slow", json!({"ms": ms})).await });
    }
    let slow = |a: &Endpoint| {
        a.requests()
            .iter()
            .filter(|r| r.tool() == Some("slow"))
            .count()
    };
    a.until("they run", |a| slow(a) == 4).await;

    let told = Instant::now();
    gate.signal("TERM");
    while let Some(answer) = calls.join_next().await {
        assert_eq!(text_of(&answer.expect("no panic")), "done");
    }
    let mut ended = Vec::new();
    while let Some(stream) = streams.join_next().await {
        ended.push(stream.expect("each has its last words"));
    }
    let status = gate.wait_exit(Duration::from_secs(2)).await;
    assert!(status.success(), "{status}");
    let took = told.elapsed();
    assert_eq!(ended.len(), 200);
    let (first, spread) = span(&ended, |_| true);
    assert!(first - told >= Duration::from_millis(950), "calls go first");
    for kind in [
        Kind::Get,
        Kind::GetOverHttp2,
        Kind::Listen,
        Kind::Sse,
        Kind::WebSocket,
    ] {
        let (_, spread) = span(&ended, |other| other == kind);
        assert!(spread >= Duration::from_millis(900), "{kind:?}: {spread:?}");
    }
    assert!(spread < Duration::from_millis(1800), "{spread:?}");
    let most = most_within(&ended, Duration::from_millis(150));
    assert!(most < 60, "{most} of 200 ended in a tenth of the time");
    assert!(took < Duration::from_millis(3500), "{took:?}");
    // Another process may go on with them.
    assert_eq!(a.sessions().len(), sessions);
}

/// The most ends within any such stretch of time.
fn most_within(ended: &[Ended], stretch: Duration) -> usize {
    let in_stretch = |from: Instant| {
        let within = |at: Instant| at >= from && at - from < stretch;
        ended.iter().filter(|(_, at)| within(*at)).count()
    };
    ended
        .iter()
        .map(|(_, at)| in_stretch(*at))
        .max()
        .unwrap_or(0)
}

#[tokio::test]
async fn calls_that_stream_beyond_the_deadline_are_told_so_one_after_the_other() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::build(&[&a])
        .config("drain_timeout: 1500ms\ndrain_jitter: 1s")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut streams = JoinSet::new();
    for _ in 0..100 {
        let endless = json!({"n": 1000, "every_ms": 500});
        let stream = client.start_call(&session, "ticks", endless).await;
        streams.spawn(read(Kind::Post, stream));
    }
    let told = Instant::now();
    gate.signal("TERM");
    let mut ended = Vec::new();
    while let Some(stream) = streams.join_next().await {
        ended.push(stream.expect("each has its last words"));
    }
    let (first, spread) = span(&ended, |_| true);
    assert!(
        first - told >= Duration::from_millis(400),
        "before the window"
    );
    assert!(spread >= Duration::from_millis(700), "{spread:?}");
    assert!(told.elapsed() < Duration::from_millis(2200));
    assert!(gate.wait_exit(Duration::from_secs(2)).await.success());
}

#[tokio::test]
async fn one_stream_does_not_hold_up_a_drain() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    let told = Instant::now();
    gate.signal("TERM");
    read(Kind::Get, stream).await;
    assert!(gate.wait_exit(Duration::from_secs(2)).await.success());
    assert!(told.elapsed() < Duration::from_secs(1));
    assert_eq!(a.sessions().len(), 1, "the client's, and none of a check");
}

#[tokio::test]
async fn a_stream_of_http_sse_stays_for_the_answers_it_owes() {
    let old = Endpoint::named("old").legacy_sse().start().await;
    let mut gate = Tidegate::build(&[&old])
        .routes("- path: /sse\n  pool: main")
        .start()
        .await;
    let client = gate.client();
    let accept = [("accept", "text/event-stream")];
    let mut stream = client.request("GET", "/sse", &accept, b"").await;
    let address = stream.events().next().await.and_then(|event| event.data);
    let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
        "params": {"name": "slow", "arguments": {"ms": 900}}});
    let body = call.to_string();
    let json = [("content-type", "application/json")];
    let posted = client
        .request("POST", &address.expect("one"), &json, body.as_bytes())
        .await;
    assert_eq!(posted.status, 202);
    gate.signal("TERM");
    let (events, end) = stream.events().rest().await;
    assert_eq!((events.len(), end), (1, BodyEnd::Complete));
    assert_eq!(text_of(&events[0].json()), "done");
    assert!(gate.wait_exit(Duration::from_secs(2)).await.success());
}
