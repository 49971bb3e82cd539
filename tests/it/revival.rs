//! A client's stream outlives the server's, as long as there is somebody to have events from.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    BodyEnd, Endpoint, Event, Events, Fault, Mcp, Outgoing, Request, Response, SessionId, Tidegate,
    within,
};

const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }";
const CHANGED: &str = "notifications/tools/list_changed";

async fn in_front_of(endpoints: &[&Endpoint], loss: &str) -> Tidegate {
    let gate = Tidegate::build(endpoints)
        .pool(&format!("on_endpoint_loss: {loss}"))
        .health(QUICK)
        .config("streams: { keep_alive: 100ms }")
        .start()
        .await;
    let all = endpoints.len() as f64;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == all)
        .await;
    gate
}

fn hello(n: u32) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": n}})
}

/// A session with its stream open, and the server's own id of it.
async fn listening(gate: &Tidegate, a: &Endpoint) -> (SessionId, String, Response) {
    let client = gate.client();
    let session = client.session_on(a).await;
    let before = a.streams_open();
    let stream = client.get_stream(&session, None).await;
    assert_eq!(stream.status, 200);
    a.until("it is open", |a| a.streams_open() == before + 1)
        .await;
    let open = a
        .request(|r| r.method == "GET" && r.header("mcp-session-id").is_some())
        .await;
    (
        session,
        open.header("mcp-session-id").expect("as picked").to_owned(),
        stream,
    )
}

/// The next event with a message in it; priming ones have none.
async fn message(events: &mut Events<'_>) -> Event {
    loop {
        let event = events.next().await.expect("an event");
        if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
            return event;
        }
    }
}

fn is_get(request: &Request) -> bool {
    request.method == "GET" && request.header("mcp-session-id").is_some()
}

#[tokio::test]
async fn a_stream_goes_on_when_its_server_is_back_with_its_sessions() {
    let a = Endpoint::named("a")
        .session_only()
        .event_store()
        .start()
        .await;
    let gate = in_front_of(&[&a], "not_found").await;
    let (_, own, mut stream) = listening(&gate, &a).await;
    let mut events = stream.events();
    assert!(a.push(&own, &hello(1)));
    let first = message(&mut events).await;
    assert_eq!(first.json(), hello(1));
    for n in 2..4 {
        a.reset_connections().await;
        // Events of the meantime come with the rest, for the server is told the last one's id.
        a.push(&own, &hello(n));
        assert_eq!(message(&mut events).await.json(), hello(n));
    }
    let asked: Vec<_> = a.requests().into_iter().filter(is_get).collect();
    assert!(asked.len() >= 3);
    assert_eq!(asked[1].header("last-event-id"), first.id.as_deref());
    let metrics = gate.metrics().await;
    let get = [("kind", "get")];
    assert_eq!(
        metrics.with("tidegate_streams_reestablished_total", &get),
        2.0
    );
    assert_eq!(metrics.with("tidegate_streams", &get), 1.0);
}

#[tokio::test]
async fn a_stream_is_kept_alive_while_its_server_is_away() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = Tidegate::build(&[&a])
        .config("streams: { keep_alive: 100ms }")
        .start()
        .await;
    let (_, own, mut stream) = listening(&gate, &a).await;
    a.kill().await;
    let mut events = stream.events();
    for _ in 0..3 {
        events.next_comment().await;
    }
    a.restart().await;
    a.until("it is asked again", |a| a.streams_open() == 1)
        .await;
    assert!(a.push(&own, &hello(7)));
    assert_eq!(events.next_json().await, hello(7));
}

#[tokio::test]
async fn a_stream_that_breaks_off_in_an_event_goes_on_behind_it() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = in_front_of(&[&a], "not_found").await;
    a.fault_next_when(1, Fault::ResetMidEvent(20), is_get);
    let client = gate.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    a.until("it is open", |a| a.streams_open() == 1).await;
    let own = a
        .request(is_get)
        .await
        .header("mcp-session-id")
        .unwrap()
        .to_owned();
    a.push(&own, &hello(1));
    a.until("it is asked again", |a| {
        a.requests().iter().filter(|r| is_get(r)).count() == 2
    })
    .await;
    a.until("it is open again", |a| a.streams_open() == 1).await;
    assert!(a.push(&own, &hello(2)));
    let mut events = stream.events();
    let told = loop {
        let event = events.next().await.unwrap();
        if event.name.as_deref().is_none_or(|name| name == "message") {
            break event.json();
        }
        assert_eq!(event.name.as_deref(), Some("aborted"));
    };
    assert_eq!(told, hello(2));
}

#[tokio::test]
async fn a_stream_ends_properly_when_its_session_is_lost() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b], "not_found").await;
    let (session, _, mut stream) = listening(&gate, &a).await;
    a.kill().await;
    let (said, end) = stream.events().rest().await;
    assert_eq!((said.len(), end), (0, BodyEnd::Complete));
    let client = gate.client();
    assert_eq!(
        client
            .start_call(&session, "whoami", json!({}))
            .await
            .status,
        404
    );
    assert!(b.requests().iter().all(|r| !is_get(r)));
}

#[tokio::test]
async fn a_stream_ends_properly_when_its_server_has_forgotten_the_session() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = in_front_of(&[&a], "not_found").await;
    let (session, _, mut stream) = listening(&gate, &a).await;
    a.restart_forgetting().await;
    let (said, end) = stream.events().rest().await;
    assert_eq!((said.len(), end), (0, BodyEnd::Complete));
    assert_eq!(
        gate.client()
            .start_call(&session, "whoami", json!({}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_stream_goes_on_where_its_session_was_begun_again() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b], "reinitialize").await;
    let (session, _, mut stream) = listening(&gate, &a).await;
    a.kill().await;
    let mut events = stream.events();
    assert_eq!(
        events.next_json().await["method"],
        CHANGED,
        "it is another server"
    );
    let own = b
        .request(is_get)
        .await
        .header("mcp-session-id")
        .unwrap()
        .to_owned();
    assert!(b.push(&own, &hello(1)));
    assert_eq!(events.next_json().await, hello(1));
    assert_eq!(gate.client().whoami(&session).await, "b");
    assert_eq!(
        b.calls("initialize")
            .iter()
            .filter(|r| r.header("user-agent").is_none())
            .count(),
        b.calls("initialize").len()
    );
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_is_not_waited_for() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = Tidegate::build(&[&a]).start().await;
    let (_, _, stream) = listening(&gate, &a).await;
    a.kill().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.reset();
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
}

fn listen(id: &str) -> Outgoing {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    Outgoing::stateless(&json!(id), "subscriptions/listen", None, wanted)
}

#[tokio::test]
async fn a_subscription_goes_on_at_another_server() {
    let (a, b) = (
        Endpoint::named("a").stateless_only().start().await,
        Endpoint::named("b").stateless_only().start().await,
    );
    let gate = in_front_of(&[&a, &b], "not_found").await;
    let client = gate.client();
    let mut stream = client.send(listen("sub-1")).await;
    let mut events = stream.events();
    let acknowledged = events.next_json().await;
    assert_eq!(
        acknowledged["method"],
        "notifications/subscriptions/acknowledged"
    );
    let (dead, alive) = if a.streams_open() == 1 {
        (&a, &b)
    } else {
        (&b, &a)
    };
    dead.kill().await;
    let told = events.next_json().await;
    let key = "io.modelcontextprotocol/subscriptionId";
    assert_eq!(
        (&told["method"], &told["params"]["_meta"][key]),
        (&json!(CHANGED), &json!("sub-1"))
    );
    alive.until("it is open", |e| e.streams_open() == 1).await;
    assert_eq!(alive.notify_listeners(), 1);
    let told = events.next_json().await;
    assert_eq!(
        (&told["method"], &told["params"]["_meta"][key]),
        (&json!(CHANGED), &json!("sub-1"))
    );
    alive.finish_listeners();
    let (rest, end) = events.rest().await;
    assert_eq!((rest.len(), end), (1, BodyEnd::Complete));
    assert_eq!(rest[0].json()["id"], "sub-1");
}

#[tokio::test]
async fn a_subscription_that_is_granted_in_part_ends_and_may_be_asked_for_anew() {
    let (a, b) = (
        Endpoint::named("a").stateless_only().start().await,
        Endpoint::named("b").stateless_only().start().await,
    );
    let gate = in_front_of(&[&a, &b], "not_found").await;
    let wanted = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let request = Outgoing::stateless(&json!("sub-2"), "subscriptions/listen", None, wanted);
    let mut stream = gate.client().send(request).await;
    let mut events = stream.events();
    let granted = &events.next_json().await["params"]["notifications"];
    assert_eq!(granted, &json!({"toolsListChanged": true}));
    let dead = if a.streams_open() == 1 { &a } else { &b };
    dead.kill().await;
    let (rest, end) = events.rest().await;
    assert_eq!((rest.len(), end), (1, BodyEnd::Complete));
    let last = rest[0].json();
    assert_eq!(
        (&last["id"], &last["result"]["resultType"]),
        (&json!("sub-2"), &json!("complete"))
    );
}

fn is_listen(request: &Request) -> bool {
    request.rpc_method() == Some("subscriptions/listen")
}

/// A subscription at one of these, and which of them has it.
async fn subscribed<'a>(
    gate: &Tidegate,
    endpoints: &[&'a Endpoint],
    id: &str,
) -> (Response, &'a Endpoint) {
    let mut stream = gate.client().send(listen(id)).await;
    let acknowledged = stream.events().next_json().await;
    assert_eq!(
        acknowledged["method"],
        "notifications/subscriptions/acknowledged"
    );
    let has_it = |endpoint: &&&'a Endpoint| endpoint.streams_open() == 1;
    let endpoint = endpoints.iter().find(has_it);
    (stream, endpoint.expect("somebody has acknowledged it"))
}

async fn without_checks(endpoints: &[&Endpoint], reconnect: &str) -> Tidegate {
    Tidegate::build(endpoints)
        .pool("eras: stateless")
        .config(&format!(
            "streams: {{ keep_alive: 100ms, reconnect: {reconnect} }}"
        ))
        .start()
        .await
}

/// Lives, and says nothing to whoever asks for the stream again.
#[tokio::test]
async fn a_stream_is_not_held_open_for_a_server_that_says_nothing() {
    for fault in [Fault::StallBeforeHead, Fault::StallAfterHead] {
        let a = Endpoint::named("a").stateless_only().start().await;
        let gate = without_checks(&[&a], "3s").await;
        let (mut stream, _) = subscribed(&gate, &[&a], "sub-3").await;
        a.fault_when(fault, is_listen);
        let lost = Instant::now();
        a.reset_connections().await;
        let mut events = stream.events();
        let (rest, end) = within("its end", events.rest()).await;
        assert!(Duration::from_secs(2) < lost.elapsed());
        assert_eq!((rest.len(), end), (1, BodyEnd::Complete));
        assert_eq!(rest[0].json()["id"], "sub-3");
        assert!(a.calls("subscriptions/listen").len() > 1, "it was asked");
    }
    let a = Endpoint::named("a").session_only().start().await;
    let gate = Tidegate::build(&[&a])
        .config("streams: { keep_alive: 100ms, reconnect: 1s }")
        .start()
        .await;
    let (_, _, mut stream) = listening(&gate, &a).await;
    a.fault_when(Fault::StallBeforeHead, is_get);
    a.reset_connections().await;
    let mut events = stream.events();
    let (rest, end) = within("its end", events.rest()).await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Complete));
}

#[tokio::test]
async fn a_subscription_goes_on_past_a_server_that_says_nothing() {
    let (a, b) = (
        Endpoint::named("a").stateless_only().start().await,
        Endpoint::named("b").stateless_only().start().await,
    );
    let gate = without_checks(&[&a, &b], "30s").await;
    let (mut stream, mute) = subscribed(&gate, &[&a, &b], "sub-4").await;
    let other = if std::ptr::eq(mute, &a) { &b } else { &a };
    mute.fault_when(Fault::StallBeforeHead, is_listen);
    // The mute one has to be asked before the other takes it.
    other.fault_when(Fault::Status(503, String::new()), is_listen);
    mute.reset_connections().await;
    mute.until("it is asked again", |e| {
        e.calls("subscriptions/listen").len() > 1
    })
    .await;
    other.heal();
    let told = stream.events().next_json().await;
    assert_eq!(told["method"], CHANGED);
    assert_eq!(other.streams_open(), 1);
}

/// Longer than a call may wait on a server that its checks have found down.
#[tokio::test]
async fn a_stream_is_held_open_for_as_long_as_is_configured() {
    let a = Endpoint::named("a").stateless_only().start().await;
    let gate = Tidegate::build(&[&a])
        .health(QUICK)
        .config("streams: { keep_alive: 100ms, reconnect: 60s }")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    let (mut stream, _) = subscribed(&gate, &[&a], "sub-5").await;
    let lost = Instant::now();
    a.kill().await;
    let mut events = stream.events();
    while lost.elapsed() < Duration::from_secs(32) {
        events.next_comment().await;
    }
    a.restart().await;
    assert_eq!(events.next_json().await["method"], CHANGED);
}
