//! How long a call of a tool may take, whatever the pool allows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::message;
use crate::support::{
    BodyEnd, Endpoint, Fault, Mcp, Outgoing, Request, Response, Tidegate, text_of,
};

const TOOLS: &str = "tools: [{ name: \"s*\", timeout: 400ms }, { name: ticks, timeout: 500ms }]";

fn call(tool: &str, arguments: Value) -> Outgoing {
    let params = json!({"name": tool, "arguments": arguments});
    Outgoing::stateless(&json!(1), "tools/call", Some(tool), params)
}

fn is_call(request: &Request) -> bool {
    request.rpc_method() == Some("tools/call")
}

/// The answer in place of one that has not come in time.
async fn timed_out(mut answer: Response, began: Instant) {
    assert_eq!(answer.status, 504);
    let told = answer.json().await;
    assert_eq!(
        (&told["id"], &told["error"]["code"]),
        (&json!(1), &json!(-32603))
    );
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn an_answer_is_there_in_the_time_of_its_tool() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).pool(TOOLS).start().await;
    let client = gate.client();
    let session = client.initialize().await;
    let h2 = gate.h2_client().await;
    let slow = || call("slow", json!({"ms": 20_000}));
    let began = Instant::now();
    timed_out(client.send(slow()).await, began).await;
    let began = Instant::now();
    timed_out(h2.send(slow()).await, began).await;
    let mut within = message(1, "slow");
    within["params"]["arguments"] = json!({"ms": 20_000});
    for message in [within.clone(), json!([within])] {
        let began = Instant::now();
        let answer = client.send(Outgoing::in_session(&session, &message)).await;
        assert_eq!(answer.status, 504);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let mut quick = client.send(call("slow", json!({"ms": 10}))).await;
    assert_eq!(text_of(&quick.json().await), "done");
    // A body that begins and does not go on.
    a.fault_next_when(1, Fault::StallMidEvent(5), is_call);
    let began = Instant::now();
    timed_out(client.send(call("slow", json!({"ms": 1}))).await, began).await;
    let line = gate.logged(|line| line["status"] == 504).await;
    assert_eq!(line["end_reason"], "upstream_timeout");
}

#[tokio::test]
async fn a_tool_may_take_longer_than_others() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .pool("timeouts: { header: 200ms, total: 200ms }")
        .pool("tools: [{ name: slow, timeout: 30s }, { name: ticks, timeout: 30s }]")
        .start()
        .await;
    let client = gate.client();
    let mut answer = client.send(call("slow", json!({"ms": 700}))).await;
    assert_eq!(text_of(&answer.json().await), "done");
    let ticks = json!({"n": 4, "every_ms": 150});
    let mut answer = client.send(call("ticks", ticks)).await;
    assert_eq!(text_of(&answer.rpc().await), "4 ticks");
    a.fault_next_when(1, Fault::StallBeforeHead, is_call);
    assert_eq!(client.send(call("whoami", json!({}))).await.status, 504);
}

#[tokio::test]
async fn an_event_stream_ends_in_the_time_of_its_tool_with_an_error() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).pool(TOOLS).start().await;
    let began = Instant::now();
    let ticks = json!({"n": 1000, "every_ms": 50});
    let mut stream = gate.client().send(call("ticks", ticks)).await;
    assert!(stream.is_stream());
    let (events, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let last = events.last().expect("events").json();
    assert_eq!(
        (&last["id"], &last["error"]["code"]),
        (&json!(1), &json!(-32603))
    );
    assert!(events.len() > 1, "there was progress before");
    a.until("the server is told", |a| a.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_that_would_come_on_a_stream_is_told_to_be_late_there() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .pool("tools: [{ name: slow, timeout: 400ms, concurrent: 1 }]")
        .start()
        .await;
    let client = gate.client();
    let accept = [("accept", "text/event-stream")];
    let mut stream = client.request("GET", "/sse", &accept, b"").await;
    let mut events = stream.events();
    let first = events.next().await.expect("an event");
    let address = first.data.expect("an address");
    let post = async |id: u64, ms: u64| {
        let mut call = message(id, "slow");
        call["params"]["arguments"] = json!({"ms": ms});
        let json = [("content-type", "application/json")];
        let body = call.to_string();
        client
            .request("POST", &address, &json, body.as_bytes())
            .await
            .status
    };
    let began = Instant::now();
    assert_eq!(post(7, 20_000).await, 202);
    assert_eq!(post(8, 1).await, 429, "one at once");
    let late = events.next_json().await;
    assert_eq!(
        (&late["id"], &late["error"]["code"]),
        (&json!(7), &json!(-32603))
    );
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Its place is another's, and the stream goes on.
    assert_eq!(post(9, 1).await, 202);
    let answer = events.next_json().await;
    assert_eq!(
        (&answer["id"], text_of(&answer)),
        (&json!(9), "done".to_owned())
    );
}
