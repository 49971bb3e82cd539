//! A call that goes on without its client keeps the place that it has among the calls of its tool.

use serde_json::json;

use super::{endpoint, read, rest};
use crate::support::{Client, Endpoint, Mcp, PATIENCE, SessionId, Tidegate, eventually_some};

async fn in_front_of(a: &Endpoint, streams: &str) -> Tidegate {
    Tidegate::build(&[a])
        .pool("tools: [{ name: ticks, concurrent: 1 }]")
        .config(&format!("streams: {{ {streams} }}"))
        .start()
        .await
}

/// The status of one more call.
async fn one_more(client: &Client, session: &SessionId) -> u16 {
    let ticks = json!({"n": 1, "every_ms": 1});
    let mut answer = client.start_call(session, "ticks", ticks).await;
    if answer.status == 200 {
        rest(&mut answer).await;
    }
    answer.status
}

async fn until_there_is_room(client: &Client, session: &SessionId) {
    let room = eventually_some(PATIENCE, async || {
        (one_more(client, session).await == 200).then_some(())
    });
    room.await.expect("its place is free again");
}

#[tokio::test]
async fn a_call_that_goes_on_keeps_its_place_until_its_answer() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "resume: {}").await;
    let client = gate.client();
    let session = client.initialize().await;
    let ticks = json!({"n": 30, "every_ms": 100});
    let mut stream = client.start_call(&session, "ticks", ticks).await;
    let mut last = read(&mut stream, 1..=2).await;
    assert_eq!(one_more(&client, &session).await, 429);
    for seen in [3, 4] {
        stream.reset();
        gate.logged(|line| line["end_reason"] == "client_gone")
            .await;
        assert_eq!(one_more(&client, &session).await, 429, "nobody listens");
        stream = client.get_stream(&session, Some(&last)).await;
        last = read(&mut stream, [seen]).await;
        assert_eq!(one_more(&client, &session).await, 429, "it is listened to");
    }
    rest(&mut stream).await;
    assert_eq!(one_more(&client, &session).await, 200);
    assert_eq!(a.calls("tools/call").len(), 2);
}

#[tokio::test]
async fn a_call_that_ends_without_its_client_gives_its_place_back() {
    let a = endpoint("a").await;
    let gate = in_front_of(&a, "resume: {}").await;
    let client = gate.client();
    let session = client.initialize().await;
    let ticks = json!({"n": 20, "every_ms": 100});
    let mut stream = client.start_call(&session, "ticks", ticks).await;
    read(&mut stream, 1..=2).await;
    stream.reset();
    gate.logged(|line| line["end_reason"] == "client_gone")
        .await;
    assert_eq!(one_more(&client, &session).await, 429);
    until_there_is_room(&client, &session).await;
    assert!(a.disconnects().is_empty(), "it was read to its end");
}

#[tokio::test]
async fn a_call_that_is_not_read_on_gives_its_place_back_at_once() {
    let a = endpoint("a").await;
    for streams in ["resume: off", "resume: { keep: 1s }"] {
        let gate = in_front_of(&a, streams).await;
        let client = gate.client();
        let session = client.initialize().await;
        let ticks = json!({"n": 10_000, "every_ms": 50});
        let mut stream = client.start_call(&session, "ticks", ticks).await;
        assert!(stream.events().next().await.is_some());
        stream.reset();
        until_there_is_room(&client, &session).await;
    }
    a.until("both are closed", |a| a.disconnects().len() == 2)
        .await;
}
