//! Clients that come back to a stream of a server that gives no event ids.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Client, Endpoint, Event, Mcp, Request, Response, SessionId, Tidegate, eventually,
    text_of,
};

mod places;

async fn endpoint(name: &str) -> Endpoint {
    Endpoint::named(name).session_only().start().await
}

async fn in_front_of(a: &Endpoint, resume: &str) -> Tidegate {
    Tidegate::build(&[a])
        .config(&format!("streams: {{ resume: {resume} }}"))
        .start()
        .await
}

fn hello(n: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": n}})
}

fn is_get(request: &Request) -> bool {
    request.method == "GET" && request.header("mcp-session-id").is_some()
}

fn gets(a: &Endpoint) -> Vec<Request> {
    a.requests().into_iter().filter(is_get).collect()
}

/// A session with its GET stream open, and the server's own id of it.
async fn listening(client: &Client, a: &Endpoint) -> (SessionId, String, Response) {
    let session = client.initialize().await;
    let before = a.streams_open();
    let stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == before + 1)
        .await;
    let get = gets(a).pop().expect("one");
    let own = get.header("mcp-session-id").expect("one").to_owned();
    (session, own, stream)
}

/// Reads so many events; returns the id of the last.
async fn read(stream: &mut Response, expected: impl IntoIterator<Item = u64>) -> String {
    let mut id = None;
    for n in expected {
        let event = stream.events().next().await.expect("an event");
        assert_eq!(place(&event.json()), n);
        id = event.id;
    }
    id.expect("every event has an id")
}

/// The how many-th message this is.
fn place(message: &Value) -> u64 {
    let params = &message["params"];
    let n = params["n"].as_u64();
    n.or_else(|| params["progress"].as_u64())
        .unwrap_or_else(|| panic!("no number in {message}"))
}

async fn rest(stream: &mut Response) -> (Vec<Value>, Option<String>) {
    let (events, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    let id = events.last().and_then(|event: &Event| event.id.clone());
    (events.iter().map(Event::json).collect(), id)
}

#[tokio::test]
async fn a_call_goes_on_for_a_client_that_lost_its_connection() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let session = client.initialize().await;
    let ticks = json!({"n": 8, "every_ms": 60});
    let mut stream = client.start_call(&session, "ticks", ticks).await;
    let last = read(&mut stream, 1..=3).await;
    stream.reset();
    let mut again = client.get_stream(&session, Some(&last)).await;
    assert_eq!(again.status, 200);
    assert!(again.is_stream());
    assert_eq!(again.header("mcp-session-id"), Some(session.0.as_str()));
    let (events, last) = rest(&mut again).await;
    let (result, ticks) = events.split_last().expect("the rest");
    assert_eq!(ticks.iter().map(place).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    assert_eq!(text_of(result), "8 ticks");
    // A client that takes an error for no answer asks once more, and is told to leave it.
    let over = client.get_stream(&session, last.as_deref()).await;
    assert_eq!(over.status, 204);
    assert_eq!(a.calls("tools/call").len(), 1, "the call was made once");
    assert_eq!(gets(&a).len(), 0, "and the server asked for nothing else");
    assert!(a.disconnects().is_empty());
    let metrics = gate.metrics().await;
    let live = [("found", "live")];
    assert_eq!(metrics.with("tidegate_streams_resumed_total", &live), 1.0);
}

#[tokio::test]
async fn an_answer_that_came_meanwhile_waits_for_its_client() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let session = client.initialize().await;
    let ticks = json!({"n": 5, "every_ms": 50});
    let mut stream = client.start_call(&session, "ticks", ticks).await;
    let last = read(&mut stream, 1..=2).await;
    stream.reset();
    a.until("it is done", |a| a.in_flight() == 0).await;
    // As often as it takes: the answer may be lost on its way as well.
    for _ in 0..3 {
        let found = async || {
            let mut again = client.get_stream(&session, Some(&last)).await;
            rest(&mut again).await.0
        };
        let events = found().await;
        assert_eq!(events.len(), 4);
        assert_eq!(text_of(&events[3]), "5 ticks");
    }
    assert_eq!(a.calls("tools/call").len(), 1);
}

#[tokio::test]
async fn a_call_that_says_nothing_for_long_can_be_come_back_to() {
    let a = Endpoint::named("a")
        .session_only()
        .streams_everything()
        .start()
        .await;
    let gate = Tidegate::build(&[&a])
        .config("streams: { keep_alive: 100ms, resume: {} }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let slow = json!({"ms": 900});
    let mut stream = client.start_call(&session, "slow", slow).await;
    let primer = stream.events().next().await.expect("an id");
    assert_eq!(primer.data.as_deref(), Some(""));
    stream.reset();
    let mut again = client.get_stream(&session, primer.id.as_deref()).await;
    let (events, _) = rest(&mut again).await;
    assert_eq!(events.len(), 1);
    assert_eq!(text_of(&events[0]), "done");
}

#[tokio::test]
async fn a_standing_stream_misses_nothing() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let (session, own, mut stream) = listening(&client, &a).await;
    for n in 1..=2 {
        assert!(a.push(&own, &hello(n)));
    }
    let mut last = read(&mut stream, 1..=2).await;
    for round in 1..4 {
        stream.reset();
        for n in 1..=3 {
            assert!(a.push(&own, &hello(3 * round + n - 1)));
        }
        stream = client.get_stream(&session, Some(&last)).await;
        last = read(&mut stream, 3 * round..3 * round + 3).await;
    }
    assert!(a.push(&own, &hello(12)));
    read(&mut stream, 12..=12).await;
    assert_eq!(gets(&a).len(), 1, "it is one stream to the server");
    let metrics = gate.metrics().await;
    assert_eq!(metrics.with("tidegate_streams", &[("kind", "get")]), 1.0);
}

#[tokio::test]
async fn a_stream_is_taken_over_from_a_connection_that_only_seems_to_live() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let (session, own, mut first) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)) && a.push(&own, &hello(2)));
    let last = read(&mut first, 1..=1).await;
    let mut second = client.get_stream(&session, Some(&last)).await;
    read(&mut second, 2..=2).await;
    assert!(a.push(&own, &hello(3)));
    read(&mut second, 3..=3).await;
    let (left, end) = first.events().rest().await;
    assert!(left.len() == 1 && end != BodyEnd::Complete, "{end:?}");
    assert_eq!(gets(&a).len(), 1);
}

#[tokio::test]
async fn over_http_2_as_well() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.h2_client().await;
    let session = client.initialize().await;
    let ticks = json!({"n": 6, "every_ms": 60});
    let mut stream = client.start_call(&session, "ticks", ticks).await;
    let last = read(&mut stream, 1..=2).await;
    stream.reset();
    let mut again = client.get_stream(&session, Some(&last)).await;
    let (events, last) = rest(&mut again).await;
    assert_eq!(events.len(), 5);
    let over = client.get_stream(&session, last.as_deref()).await;
    assert_eq!(over.status, 204);
    assert_eq!(a.calls("tools/call").len(), 1);
}

#[tokio::test]
async fn a_client_that_has_seen_no_id_gets_the_stream_that_was_read_on() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let (session, own, mut stream) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)));
    read(&mut stream, 1..=1).await;
    stream.reset();
    let read_on = || a.disconnects().is_empty() && a.streams_open() == 1;
    gate.metrics_when(|m| m.with("tidegate_streams", &[("kind", "get")]) == 0.0)
        .await;
    assert!(read_on());
    assert!(a.push(&own, &hello(2)));
    // A server has one such stream per session; were it asked, it would refuse.
    let mut again = client.get_stream(&session, None).await;
    assert_eq!(again.status, 200);
    read(&mut again, 2..=2).await;
    assert_eq!(gets(&a).len(), 1);
}

#[tokio::test]
async fn whoever_comes_too_late_is_told_so() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{ keep: 1s }").await;
    let client = gate.client();
    let (session, own, mut get) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)));
    let of_get = read(&mut get, 1..=1).await;
    let ticks = json!({"n": 1000, "every_ms": 20});
    let mut post = client.start_call(&session, "ticks", ticks).await;
    let of_post = read(&mut post, 1..=1).await;
    get.reset();
    post.reset();
    a.until("both are given up", |a| a.disconnects().len() == 2)
        .await;
    let late = gate
        .metrics_when(|m| m.with("tidegate_limits_hit_total", &[("limit", "resume_time")]) == 2.0)
        .await;
    assert_eq!(late.sum("tidegate_streams_resumed_total"), 0.0);

    // The standing stream is a fresh one of the server's, which is not shown an id of ours.
    let mut fresh = client.get_stream(&session, Some(&of_get)).await;
    assert_eq!(fresh.status, 200);
    let asked = gets(&a);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("last-event-id"), None);
    a.until("it is open", |a| a.streams_open() == 1).await;
    assert!(a.push(&own, &hello(2)));
    read(&mut fresh, 2..=2).await;

    // The call gets an answer, so that nobody waits for one, and the client is not to come back.
    let mut told = client.get_stream(&session, Some(&of_post)).await;
    assert_eq!(told.status, 200);
    let (events, last) = rest(&mut told).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["error"]["code"], -32603);
    assert_eq!(events[0]["id"], a.calls("tools/call")[0].rpc_id());
    let over = client.get_stream(&session, last.as_deref()).await;
    assert_eq!(over.status, 204);
    assert_eq!(gets(&a).len(), 2);
}

#[tokio::test]
async fn nobody_comes_by_the_stream_of_another_session() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let (_, own, mut stream) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)) && a.push(&own, &hello(2)));
    let of_another = read(&mut stream, 1..=1).await;
    let stranger = client.initialize().await;
    let mut fresh = client.get_stream(&stranger, Some(&of_another)).await;
    assert_eq!(fresh.status, 200);
    assert!(fresh.silent_for(Duration::from_millis(300)).await);
    assert_eq!(gets(&a).len(), 2);
    read(&mut stream, 2..=2).await;
    assert!(a.push(&own, &hello(3)));
    read(&mut stream, 3..=3).await;
}

#[tokio::test]
async fn ids_of_the_server_pass_untouched() {
    let a = Endpoint::named("a")
        .session_only()
        .event_store()
        .start()
        .await;
    let gate = in_front_of(&a, "{}").await;
    let (direct, through) = (Client::of(&a), gate.client());
    let mut bodies = Vec::new();
    for client in [&direct, &through] {
        let session = client.initialize().await;
        let ticks = json!({"n": 3, "every_ms": 5});
        let mut stream = client.start_call(&session, "ticks", ticks).await;
        let (events, _) = stream.events().rest().await;
        bodies.push(events.len());
        assert!(events.iter().all(|event| !event.raw.contains("tg.")));
        assert!(events.iter().all(|event| event.id.is_some()));
        let id = events[1].id.clone().expect("one");
        let mut again = client.get_stream(&session, Some(&id)).await;
        assert!(again.events().next().await.is_some());
        let asked = gets(&a).pop().expect("one");
        assert_eq!(asked.header("last-event-id"), Some(id.as_str()));
    }
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn unless_it_is_asked_for_nothing_is_lent() {
    let a = endpoint("a").await;
    for resume in ["streams: { resume: off }", "streams: { keep_alive: 15s }"] {
        let gate = Tidegate::build(&[&a]).config(resume).start().await;
        let client = gate.client();
        let session = client.initialize().await;
        let ticks = json!({"n": 3, "every_ms": 5});
        let mut stream = client.start_call(&session, "ticks", ticks).await;
        let (events, _) = stream.events().rest().await;
        assert_eq!(events.len(), 4);
        assert!(events.iter().all(|event| event.id.is_none()));
    }
}

#[tokio::test]
async fn beyond_the_bounds_the_oldest_events_are_missing() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{ events: 2 }").await;
    let client = gate.client();
    let (session, own, mut stream) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)));
    let last = read(&mut stream, 1..=1).await;
    stream.reset();
    gate.metrics_when(|m| m.with("tidegate_streams", &[("kind", "get")]) == 0.0)
        .await;
    for n in 2..=6 {
        assert!(a.push(&own, &hello(n)));
    }
    // Behind these, so that they have been read.
    let hit = [("limit", "resume_events")];
    let mut again = client.get_stream(&session, Some(&last)).await;
    let first = place(&again.events().next_json().await);
    assert!((2..=5).contains(&first));
    read(&mut again, first + 1..=6).await;
    assert!(a.push(&own, &hello(7)));
    let last = read(&mut again, 7..=7).await;
    again.reset();
    gate.metrics_when(|m| m.with("tidegate_streams", &[("kind", "get")]) == 0.0)
        .await;
    for n in 8..=12 {
        assert!(a.push(&own, &hello(n)));
    }
    client.whoami(&session).await;
    let mut again = client.get_stream(&session, Some(&last)).await;
    read(&mut again, 11..=12).await;
    let metrics = gate.metrics().await;
    assert!(metrics.with("tidegate_limits_hit_total", &hit) >= 1.0);
}

#[tokio::test]
async fn streams_wait_for_their_clients_as_far_as_there_is_memory() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{ memory: 64KiB }").await;
    let client = gate.client();
    for _ in 0..6 {
        let (_, own, mut stream) = listening(&client, &a).await;
        assert!(a.push(&own, &hello(1)));
        read(&mut stream, 1..=1).await;
        stream.reset();
        gate.metrics_when(|m| m.with("tidegate_streams", &[("kind", "get")]) == 0.0)
            .await;
    }
    // 16 KiB for each; the events of all take their share of it.
    a.until("those beyond it are closed", |a| a.streams_open() == 3)
        .await;
    let hit = [("limit", "resume_memory")];
    let metrics = gate.metrics().await;
    assert_eq!(metrics.with("tidegate_limits_hit_total", &hit), 3.0);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_clients_that_are_gone() {
    let a = endpoint("a").await;
    let mut gate = in_front_of(&a, "{}").await;
    let client = gate.client();
    let (session, own, mut stream) = listening(&client, &a).await;
    assert!(a.push(&own, &hello(1)));
    read(&mut stream, 1..=1).await;
    let endless = json!({"n": 1000, "every_ms": 20});
    let mut post = client.start_call(&session, "ticks", endless).await;
    read(&mut post, 1..=1).await;
    stream.reset();
    post.reset();
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
    let told = Instant::now();
    gate.signal("TERM");
    assert!(gate.wait_exit(Duration::from_secs(2)).await.success());
    assert!(told.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_client_that_breaks_at_random_sees_every_event_once_and_in_order() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "{}").await;
    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..8 {
        let client = gate.client();
        clients.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            let session = client.initialize().await;
            let ticks = json!({"n": 60, "every_ms": 8});
            let mut stream = client.start_call(&session, "ticks", ticks).await;
            let (mut seen, mut last, mut breaks) = (0, None, 0);
            let answer = 'stream: loop {
                for _ in 0..rng.u32(1..12) {
                    let Some(event) = stream.events().next().await else {
                        panic!("the stream has ended after {seen}");
                    };
                    last = event.id.clone().or(last);
                    let message = event.json();
                    if message.get("result").is_some() {
                        break 'stream message;
                    }
                    seen += 1;
                    assert_eq!(place(&message), seen, "seed {seed}");
                }
                breaks += 1;
                stream.reset();
                tokio::time::sleep(Duration::from_millis(rng.u64(..40))).await;
                stream = client.get_stream(&session, last.as_deref()).await;
                assert_eq!(stream.status, 200, "seed {seed}");
            };
            assert_eq!((seen, text_of(&answer).as_str()), (60, "60 ticks"));
            breaks
        });
    }
    let mut breaks = 0;
    while let Some(client) = clients.join_next().await {
        breaks += client.expect("every client has seen everything");
    }
    assert!(breaks >= 30, "{breaks}");
    assert_eq!(a.calls("tools/call").len(), 8);
    assert!(eventually(Duration::from_secs(2), || a.in_flight() == 0).await);
}
