//! An endpoint has as many calls in flight as it may, and others wait their turn.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Client, Endpoint, Fault, Mcp, Outgoing, Request, Response, Tidegate, eventually_some, text_of,
};

fn call() -> Outgoing {
    Outgoing::stateless(
        &json!(7),
        "tools/call",
        Some("whoami"),
        json!({"name": "whoami", "arguments": {}}),
    )
}

/// Sends a call in a task of its own, whose end is the answer.
fn begin(client: &Client, outgoing: Outgoing) -> tokio::task::JoinHandle<Response> {
    let client = client.clone();
    tokio::spawn(async move { client.send(outgoing).await })
}

fn is_tool_call(request: &Request) -> bool {
    request.rpc_method() == Some("tools/call")
}

/// How many tool calls have come to the endpoint.
fn seen(endpoint: &Endpoint) -> usize {
    endpoint.calls("tools/call").len()
}

async fn limited(a: &Endpoint, max: u32, pool: &str) -> Tidegate {
    Tidegate::build(&[a])
        .endpoint(a.name(), &format!("max_in_flight: {max}"))
        .pool(pool)
        .start()
        .await
}

/// Waits until so many calls wait for a place.
async fn waiting(gate: &Tidegate, count: usize) {
    let found = eventually_some(Duration::from_secs(5), async || {
        let metrics = gate.metrics().await;
        let waiting = metrics.with("tidegate_calls_waiting", &[("pool", "main")]);
        (waiting == count as f64).then_some(())
    });
    assert!(found.await.is_some(), "never were {count} waiting");
}

async fn hits(gate: &Tidegate, limit: &str) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", limit)])
}

#[tokio::test]
async fn calls_over_the_limit_wait_and_are_served_in_order() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 2, "").await;
    let client = gate.client();
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let mut running = Vec::new();
    for count in 1..=2 {
        running.push(begin(&client, call()));
        a.until("the call has come", |a| seen(a) == count).await;
    }
    running.extend((0..6).map(|_| begin(&client, call())));
    waiting(&gate, 6).await;
    assert_eq!(seen(&a), 2, "no more than two at once");
    a.heal();
    for answer in running {
        let mut answer = answer.await.expect("no panic");
        assert_eq!(answer.status, 200);
        assert_eq!(text_of(&answer.json().await), "a");
    }
    assert_eq!(seen(&a), 8);
    assert_eq!(hits(&gate, "queue_timeout").await, 0.0);
}

#[tokio::test]
async fn a_call_that_waits_for_too_long_is_answered_with_its_id() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 300ms").await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the first call has come", |a| seen(a) == 1).await;
    let params = json!({"name": "whoami", "arguments": {}});
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    for outgoing in [call(), Outgoing::in_session(&session, &message)] {
        let begun = Instant::now();
        let mut late = client.send(outgoing).await;
        assert_eq!(late.status, 503);
        assert!(late.headers().has("retry-after"));
        let answer = late.json().await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(7), &json!(-32603))
        );
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(3));
    }
    assert_eq!(seen(&a), 1, "neither has come to the server");
    assert_eq!(hits(&gate, "queue_timeout").await, 2.0);
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let a = Endpoint::start("a").await;
    for (max, limit) in [(0, "in_flight"), (1, "queue_full")] {
        let gate = limited(&a, 1, &format!("queue_max: {max}")).await;
        let client = gate.client();
        let before = seen(&a);
        a.fault_when(Fault::StallBeforeHead, is_tool_call);
        let mut running = vec![begin(&client, call())];
        a.until("the first call has come", |a| seen(a) == before + 1)
            .await;
        if max == 1 {
            running.push(begin(&client, call()));
            waiting(&gate, 1).await;
        }
        let mut refused = client.send(call()).await;
        assert_eq!(refused.status, 503, "queue_max: {max}");
        assert_eq!(refused.json().await["id"], 7);
        assert_eq!(hits(&gate, limit).await, 1.0);
        a.heal();
        for answer in running {
            assert_eq!(answer.await.expect("no panic").status, 200);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_up_its_turn() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_max: 1\nqueue_timeout: 1m").await;
    let client = gate.client();
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the first call has come", |a| seen(a) == 1).await;
    for _ in 0..3 {
        let leaving = begin(&client, call());
        waiting(&gate, 1).await;
        leaving.abort();
        waiting(&gate, 0).await;
    }
    let last = begin(&client, call());
    waiting(&gate, 1).await;
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(last.await.expect("no panic").status, 200);
    assert_eq!(seen(&a), 2, "nothing was sent for those that had left");
    assert_eq!(hits(&gate, "queue_full").await, 0.0);
}

#[tokio::test]
async fn a_place_is_free_again_whatever_became_of_the_call() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 5s").await;
    let client = gate.client();
    for fault in [
        Fault::CloseBeforeHead,
        Fault::ResetBeforeHead,
        Fault::GarbageHead,
        Fault::Status(500, "no".into()),
        Fault::LengthTooLong(10),
    ] {
        a.fault_next(1, fault.clone());
        let failed = client.try_send(call()).await;
        assert!(failed.is_ok_and(|answer| answer.status >= 500), "{fault:?}");
    }
    // And one whose client has gone in the middle.
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let before = seen(&a);
    let left = begin(&client, call());
    a.until("the call has come", |a| seen(a) == before + 1)
        .await;
    left.abort();
    a.heal();
    let answer = client.send(call()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn streams_and_messages_without_an_answer_take_no_place() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 500ms").await;
    let client = gate.client();
    let session = client.initialize().await;
    let stream = client.get_stream(&session, None).await;
    assert_eq!(stream.status, 200);
    let listen = client.listen().await;
    assert_eq!(listen.status, 200);
    assert_eq!(client.whoami(&session).await, "a", "the place is free");
    // A call asks its client something, and holds the only place until it is answered.
    let mut asking = client.start_call(&session, "ask", json!({})).await;
    assert_eq!(asking.status, 200);
    let mut events = asking.events();
    let question = events.next_json().await;
    let answer = json!({"action": "accept", "content": {}});
    let said = client.answer(&session, &question["id"], answer).await;
    assert_eq!(said.status, 202);
    let result = events.next_json().await;
    assert!(text_of(&result).contains("accept"), "{result}");
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(client.post(&session, &note).await.status, 202);
    drop((stream, listen));
}

#[tokio::test]
async fn what_is_urgent_goes_before_calls_that_came_earlier() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 20s").await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault_next_when(1, Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the first call has come", |a| seen(a) == 1).await;
    let second = begin(&client, call());
    waiting(&gate, 1).await;
    let deleting = {
        let client = client.clone();
        tokio::spawn(async move { client.delete(&session).await.status })
    };
    waiting(&gate, 2).await;
    let probe = Outgoing::stateless(&json!(3), "server/discover", None, json!({}));
    let probing = begin(&client, probe);
    waiting(&gate, 3).await;
    let before = a.requests().len();
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(deleting.await.expect("no panic"), 200);
    assert_eq!(probing.await.expect("no panic").status, 200);
    assert_eq!(second.await.expect("no panic").status, 200);
    let order: Vec<bool> = a.requests()[before..].iter().map(is_tool_call).collect();
    assert_eq!(order, [false, false, true]);
}

#[tokio::test]
async fn a_probe_is_answered_from_memory_where_every_server_stays_busy() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 20s\nqueue_max: 1").await;
    let client = gate.client();
    let mut known = client.modern("server/discover", None, json!({})).await;
    assert!(known.json().await["result"].is_object());
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the call has come", |a| seen(a) == 1).await;
    let _second = begin(&client, call());
    waiting(&gate, 1).await;
    for _ in 0..3 {
        let mut probe = client.modern("server/discover", None, json!({})).await;
        assert_eq!(probe.status, 200);
        assert!(probe.json().await["result"]["supportedVersions"].is_array());
    }
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn calls_go_where_there_is_a_place() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .endpoint("a", "max_in_flight: 1")
        .endpoint("b", "max_in_flight: 3")
        .start()
        .await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        endpoint.fault_when(Fault::StallBeforeHead, is_tool_call);
    }
    let running: Vec<_> = (0..10).map(|_| begin(&client, call())).collect();
    a.until("one is here", |a| seen(a) == 1).await;
    b.until("three are here", |b| seen(b) == 3).await;
    waiting(&gate, 6).await;
    assert_eq!((seen(&a), seen(&b)), (1, 3));
    a.heal();
    b.heal();
    for answer in running {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    assert_eq!(seen(&a) + seen(&b), 10);
}

#[tokio::test]
async fn the_same_holds_over_http2_and_for_plain_http() {
    let a = Endpoint::start("a").await;
    let gate = limited(&a, 1, "queue_timeout: 300ms").await;
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&gate.client(), call());
    a.until("the first call has come", |a| seen(a) == 1).await;
    let h2 = gate.h2_client().await;
    let mut late = h2.send(call()).await;
    assert_eq!(late.status, 503);
    assert_eq!(late.json().await["id"], 7);
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(h2.send(call()).await.status, 200);

    let plain = Tidegate::build(&[&a])
        .endpoint("a", "max_in_flight: 1")
        .pool("kind: http\nqueue_timeout: 300ms")
        .start()
        .await;
    let client = plain.client();
    let before = seen(&a);
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the first call has come", |a| seen(a) == before + 1)
        .await;
    let mut late = client.send(call()).await;
    assert_eq!(late.status, 503);
    assert!(late.text().await.contains("busy"));
    let second = begin(&client, call());
    a.heal();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(second.await.expect("no panic").status, 200);
    assert_eq!(hits(&plain, "queue_timeout").await, 1.0);
}

#[tokio::test]
async fn a_session_waits_for_its_own_endpoint_and_is_told_if_that_is_lost() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .endpoint("a", "max_in_flight: 1")
        .pool("queue_timeout: 20s")
        .health("{ check: tcp, interval: 100ms, fall: 1 }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    a.fault_when(Fault::StallBeforeHead, is_tool_call);
    let first = begin(&client, call());
    a.until("the first call has come", |a| seen(a) == 1).await;
    let params = json!({"name": "whoami", "arguments": {}});
    let message: Value =
        json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params});
    let second = begin(&client, Outgoing::in_session(&session, &message));
    waiting(&gate, 1).await;
    a.refuse_connections().await;
    let mut told = second.await.expect("no panic");
    assert_eq!((told.status, &told.json().await["id"]), (503, &json!(9)));
    a.heal();
    drop(first);
}
