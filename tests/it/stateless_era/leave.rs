//! How an exchange ends before its time: a client that leaves, a listener whose server does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::call;
use crate::support::{BodyEnd, Endpoint, Fault, Mcp, Outgoing, Tidegate, text_of, within};

/// How soon a server hears that its client has left. The fastest of a few times counts: a machine
/// that has much else to do makes some of them slow, and a program that waits makes all of them so.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How often it is tried.
const TIMES: usize = 3;

// A client that leaves cancels.

/// Asserts that the server hears at once of a client that leaves while it works on this request.
async fn assert_cancelled(
    gate: &Tidegate,
    endpoint: &Endpoint,
    outgoing: Outgoing,
    streaming: bool,
) {
    let mut fastest = Duration::MAX;
    for _ in 0..TIMES {
        fastest = fastest.min(cancel(gate, endpoint, &outgoing, streaming).await);
    }
    assert!(fastest < AT_ONCE, "{fastest:?}");
}

/// Sends the request and drops its connection once the server works on it. Returns how long it took
/// the server to hear of that.
async fn cancel(
    gate: &Tidegate,
    endpoint: &Endpoint,
    outgoing: &Outgoing,
    streaming: bool,
) -> Duration {
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
    assert_eq!(heard.streaming, streaming);
    endpoint
        .until("nothing is left of it", |e| e.in_flight() == 0)
        .await;
    heard.at.saturating_duration_since(left)
}

#[tokio::test]
async fn a_client_that_leaves_cancels_at_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let slow = call(&json!(1), "slow", json!({"ms": 60_000}));
    assert_cancelled(&gate, &a, slow, false).await;
    a.fault_next(TIMES, Fault::StallMidEvent(20));
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
    let mut kept = client.listen().await;
    kept.events().next_json().await;
    let arguments = json!({"name": "ticks", "arguments": {"n": 9, "every_ms": 60_000}});
    let mut fastest = Duration::MAX;
    for round in 0..TIMES {
        let gone = client.modern("tools/call", Some("ticks"), arguments.clone());
        gone.await.reset();
        let left = Instant::now();
        a.until("it hears of it", |a| a.disconnects().len() == round + 1)
            .await;
        fastest = fastest.min(a.disconnects()[round].at.saturating_duration_since(left));
    }
    assert!(fastest < AT_ONCE, "{fastest:?}");
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
    let gate = Tidegate::build(&[&a])
        .config("streams: { reconnect: 300ms }")
        .start()
        .await;
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
