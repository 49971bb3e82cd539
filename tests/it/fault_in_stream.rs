//! Servers that fail in the middle of an event stream: the client is told in the stream, in an event
//! that it understands, and the stream ends as it should.

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Client, Endpoint, Event, Fault, Mcp, Outgoing, Response, SessionId, Tidegate, within,
};

/// Ids whose spelling must survive.
fn ids() -> [Value; 3] {
    [json!(7), json!("7"), json!("sé\"ven")]
}

fn ticks(n: u64) -> Value {
    json!({"name": "ticks", "arguments": {"n": n, "every_ms": 1}})
}

/// A call of a tool that streams, in either era; the stateless era without a session.
async fn start(
    client: &Client,
    session: Option<&SessionId>,
    id: &Value,
    params: Value,
) -> Response {
    match session {
        None => {
            let name = params["name"].as_str().unwrap_or_default().to_owned();
            let outgoing = Outgoing::stateless(id, "tools/call", Some(&name), params);
            client.send(outgoing).await
        }
        Some(session) => {
            let message =
                json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
            client.post(session, &message).await
        }
    }
}

/// What a client takes for messages: events of the type `message`, which is also the default.
fn messages(events: &[Event]) -> Vec<Value> {
    let named = |event: &&Event| matches!(event.name.as_deref(), None | Some("message"));
    let full = |event: &&Event| event.data.as_deref().is_some_and(|data| !data.is_empty());
    events
        .iter()
        .filter(named)
        .filter(full)
        .map(Event::json)
        .collect()
}

fn is_response(message: &Value) -> bool {
    message.get("result").is_some() || message.get("error").is_some()
}

/// Asserts that the stream holds the ticks that came whole, then one error with the id, and that it
/// ends properly, on a connection that can be used again. Returns the number of ticks.
async fn assert_told(client: &Client, mut response: Response, id: &Value, what: &str) -> usize {
    assert_eq!(
        (response.status, response.is_stream()),
        (200, true),
        "{what}"
    );
    assert!(!response.headers().has("content-length"), "{what}");
    let mut stream = response.events();
    let (events, end) = within(what, stream.rest()).await;
    assert_eq!(
        (end, stream.unfinished().as_str()),
        (BodyEnd::Complete, ""),
        "{what}"
    );
    let mut messages = messages(&events);
    let last = messages.pop().unwrap_or_default();
    assert_eq!(last["error"]["code"], -32603, "{what}: {events:#?}");
    assert_eq!(
        (&last["jsonrpc"], &last["id"]),
        (&json!("2.0"), id),
        "{what}"
    );
    assert!(!messages.iter().any(is_response), "{what}: {messages:?}");
    let kept = response.into_connection();
    let next = client
        .try_request_on(kept, "GET", "/health", &[], b"")
        .await;
    assert_eq!(next.map(|next| next.status), Ok(200), "{what}");
    messages.len()
}

async fn gate_and_session(a: &Endpoint, config: &str, pool: &str) -> (Tidegate, Client, SessionId) {
    let gate = Tidegate::build(&[a])
        .config(config)
        .pool(pool)
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    (gate, client, session)
}

#[tokio::test]
async fn a_stream_that_is_cut_ends_with_an_error_for_its_request() {
    let a = Endpoint::start("a").await;
    let (gate, client, session) = gate_and_session(&a, "", "").await;
    let mut told = 0;
    for fault in [
        Fault::CloseMidEvent(250),
        Fault::ResetMidEvent(250),
        Fault::BadChunk,
    ] {
        a.fault(fault.clone());
        for id in ids() {
            for session in [None, Some(&session)] {
                let what = format!("{fault:?} {id} {}", session.is_some());
                let stream = start(&client, session, &id, ticks(5)).await;
                let whole = assert_told(&client, stream, &id, &what).await;
                assert!(whole < 5, "{what}");
                told += 1;
            }
        }
        a.heal();
    }
    let ended = [("kind", "post"), ("reason", "upstream_lost")];
    let metrics =
        gate.metrics_when(|m| m.with("tidegate_streams_ended_total", &ended) == told as f64);
    let metrics = metrics.await;
    assert_eq!(metrics.with("tidegate_streams", &[("kind", "post")]), 0.0);
    assert_eq!(a.calls("tools/call").len(), told, "none was sent twice");
}

#[tokio::test]
async fn an_event_that_was_cut_anywhere_is_no_message() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "", "breaker: off").await;
    let id = json!("cut");
    let mut whole = start(&client, Some(&session), &id, ticks(1)).await;
    let length = whole.read_to_end().await.bytes.len();
    // Every place of the tick, and some of the result after it.
    let tick = format!("event: message\ndata: {}\n\n", tick_of(&id));
    for at in (0..=tick.len() + 20).chain([length - 2, length - 1]) {
        a.fault_next(1, Fault::CloseMidEvent(at));
        let what = format!("cut after {at} of {length}");
        let stream = start(&client, Some(&session), &id, ticks(1)).await;
        let whole = assert_told(&client, stream, &id, &what).await;
        assert_eq!(whole, usize::from(at >= tick.len()), "{what}");
    }
}

fn tick_of(id: &Value) -> Value {
    let params = json!({"progressToken": id, "progress": 1, "total": 1});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

#[tokio::test]
async fn an_event_that_is_cut_goes_by_another_name() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "", "").await;
    a.fault(Fault::ResetMidEvent(30));
    let mut stream = start(&client, Some(&session), &json!(1), ticks(1)).await;
    let (events, _) = stream.events().rest().await;
    let names: Vec<_> = events.iter().map(|event| event.name.as_deref()).collect();
    assert_eq!(names, [Some("aborted"), Some("message")]);
}

#[tokio::test]
async fn a_stream_that_ends_well_but_unanswered_gets_its_error() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "", "").await;
    a.fault(Fault::CloseCleanWithoutResponse);
    for id in ids() {
        for session in [None, Some(&session)] {
            let stream = start(&client, session, &id, ticks(2)).await;
            let ticks = assert_told(&client, stream, &id, "a clean end").await;
            assert_eq!(ticks, 2);
            let echo = json!({"name": "echo", "arguments": {"text": "x"}});
            let stream = start(&client, session, &id, echo).await;
            assert_told(&client, stream, &id, "nothing at all").await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_lacks_only_its_end_is_whole() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "", "").await;
    for fault in [
        Fault::CloseMidEvent(usize::MAX),
        Fault::ResetMidEvent(usize::MAX),
    ] {
        a.fault(fault.clone());
        for session in [None, Some(&session)] {
            let mut stream = start(&client, session, &json!(1), ticks(2)).await;
            let (events, end) = stream.events().rest().await;
            assert_eq!((events.len(), end), (3, BodyEnd::Complete), "{fault:?}");
            assert!(events[2].json().get("result").is_some());
        }
        a.heal();
    }
}

#[tokio::test]
async fn an_event_over_the_limit_ends_its_stream() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "streams: { max_event: 64KiB }", "").await;
    for id in ids() {
        for session in [None, Some(&session)] {
            a.fault_next(1, Fault::HugeEvent(200_000));
            let stream = start(&client, session, &id, ticks(1)).await;
            let ticks = assert_told(&client, stream, &id, "huge").await;
            assert_eq!(ticks, 0);
        }
    }
    a.fault_next(1, Fault::HugeEvent(60_000));
    let mut stream = start(&client, None, &json!(1), ticks(1)).await;
    let (events, end) = stream.events().rest().await;
    assert_eq!(
        (events.len(), end),
        (3, BodyEnd::Complete),
        "a large one passes"
    );
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let a = Endpoint::start("a").await;
    let pool = "timeouts: { stream_idle: 300ms }";
    let (_gate, client, session) = gate_and_session(&a, "", pool).await;
    for fault in [
        Fault::StallAfterHead,
        Fault::StallMidEvent(30),
        Fault::StallMidEvent(130),
    ] {
        a.fault(fault.clone());
        let told = async |id: Value, session: Option<&SessionId>| {
            let what = format!("{fault:?} {id}");
            let stream = start(&client, session, &id, ticks(2)).await;
            assert_told(&client, stream, &id, &what).await;
        };
        tokio::join!(
            told(json!(7), None),
            told(json!("7"), None),
            told(json!(7), Some(&session)),
            told(json!("7"), Some(&session)),
        );
        a.heal();
        a.until("the calls are given up", |a| a.in_flight() == 0)
            .await;
    }
}

#[tokio::test]
async fn a_stream_has_a_longest_life_even_when_busy() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "", "timeouts: { total: 400ms }").await;
    let busy = json!({"name": "ticks", "arguments": {"n": 10_000, "every_ms": 20}});
    let told = async |session: Option<&SessionId>| {
        let stream = start(&client, session, &json!("t"), busy.clone()).await;
        assert_told(&client, stream, &json!("t"), "busy").await
    };
    let (stateless, in_session) = tokio::join!(told(None), told(Some(&session)));
    assert!(stateless > 2 && in_session > 2, "{stateless} {in_session}");
    a.until("the calls are given up", |a| a.in_flight() == 0)
        .await;
}

#[tokio::test]
async fn http2_clients_are_told_the_same_way() {
    let a = Endpoint::start("a").await;
    let (gate, _, session) = gate_and_session(&a, "", "").await;
    let client = gate.h2_client().await;
    for fault in [
        Fault::CloseMidEvent(250),
        Fault::ResetMidEvent(30),
        Fault::CloseCleanWithoutResponse,
    ] {
        a.fault_next(1, fault.clone());
        let call =
            json!({"jsonrpc": "2.0", "id": "h2", "method": "tools/call", "params": ticks(5)});
        let mut stream = client.post(&session, &call).await;
        let (events, end) = stream.events().rest().await;
        assert_eq!(end, BodyEnd::Complete, "{fault:?}");
        let last = messages(&events).pop().unwrap_or_default();
        assert_eq!(
            (&last["error"]["code"], &last["id"]),
            (&json!(-32603), &json!("h2")),
            "{fault:?}"
        );
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn a_server_that_dies_takes_no_stream_with_it_silently() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "streams: { reconnect: off }", "").await;
    let long = json!({"name": "ticks", "arguments": {"n": 9, "every_ms": 60_000}});
    let one = start(&client, None, &json!(1), long.clone()).await;
    let two = start(&client, Some(&session), &json!("1"), long).await;
    let mut events = client.get_stream(&session, None).await;
    a.kill().await;
    assert_told(&client, one, &json!(1), "stateless").await;
    assert_told(&client, two, &json!("1"), "in a session").await;
    assert_eq!(events.events().rest().await.1, BodyEnd::Complete);
}

// Servers whose streams can be resumed.

#[tokio::test]
async fn a_stream_that_is_closed_on_purpose_gets_nothing_added() {
    let a = Endpoint::named("a").event_store().start().await;
    let (gate, client, session) = gate_and_session(&a, "", "").await;
    for close_after in [0, 1, 2] {
        let params = json!({"name": "ticks", "arguments": {"n": 3, "close_after": close_after}});
        let mut stream = start(&client, Some(&session), &json!(1), params).await;
        let (events, end) = stream.events().rest().await;
        assert_eq!((events.len(), end), (close_after + 1, BodyEnd::Complete));
        assert_eq!(
            (events[0].data.as_deref(), events[0].retry),
            (Some(""), Some(50))
        );
        assert!(
            events.iter().all(|event| event.id.is_some()),
            "the server's own: {events:?}"
        );
        assert!(!messages(&events).iter().any(is_response));
    }
    let ended = [("kind", "post"), ("reason", "upstream_closed")];
    gate.metrics_when(|m| m.with("tidegate_streams_ended_total", &ended) == 3.0)
        .await;
}

#[tokio::test]
async fn a_resumable_stream_that_is_cut_in_an_event_is_no_intention() {
    let a = Endpoint::named("a").event_store().start().await;
    let (_gate, client, session) = gate_and_session(&a, "", "").await;
    for fault in [Fault::CloseMidEvent(60), Fault::ResetMidEvent(60)] {
        a.fault_next(1, fault.clone());
        let stream = start(&client, Some(&session), &json!("r"), ticks(3)).await;
        assert_told(&client, stream, &json!("r"), &format!("{fault:?}")).await;
    }
}

#[tokio::test]
async fn a_get_stream_that_is_cut_in_an_event_ends_without_a_broken_message() {
    let a = Endpoint::start("a").await;
    let (_gate, client, session) = gate_and_session(&a, "streams: { reconnect: off }", "").await;
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n", "params": {"text": "hello"}});
    for cut in [3, 20, 40] {
        a.fault_next_when(1, Fault::ResetMidEvent(cut), |request| {
            request.method == "GET"
        });
        let mut stream = client.get_stream(&session, None).await;
        a.until("the stream is open", |a| a.streams_open() == 1)
            .await;
        a.push(&own, &note);
        let (events, end) = stream.events().rest().await;
        assert_eq!(end, BodyEnd::Complete, "{cut}");
        assert_eq!(messages(&events), Vec::<Value>::new(), "{cut}");
    }
}

#[tokio::test]
async fn a_listener_that_is_cut_in_an_event_still_gets_its_result() {
    let a = Endpoint::start("a").await;
    let (_gate, client, _) = gate_and_session(&a, "streams: { reconnect: off }", "").await;
    for id in ids() {
        a.fault_next(1, Fault::CloseMidEvent(100));
        let params = json!({"notifications": {"toolsListChanged": true}});
        let outgoing = Outgoing::stateless(&id, "subscriptions/listen", None, params);
        let mut stream = client.send(outgoing).await;
        let (events, end) = stream.events().rest().await;
        let messages = messages(&events);
        assert_eq!((messages.len(), end), (1, BodyEnd::Complete), "{events:?}");
        assert_eq!(messages[0]["id"], id);
        assert_eq!(messages[0]["result"]["resultType"], "complete");
    }
}
