//! Every fault, as a client without anything between sees it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::wire::NoHead;
use crate::support::{BodyEnd, Client, Endpoint, Fault, Mcp, NoAnswer, Outgoing, Response, within};

/// An endpoint with a fault for the next request, and what became of that request: `tool` called in
/// the stateless era.
async fn meet(fault: Fault, tool: &str) -> (Endpoint, Result<Response, NoAnswer>) {
    let endpoint = Endpoint::start("a").await;
    endpoint.fault_next(1, fault);
    let answer = Client::of(&endpoint).try_send(call(tool)).await;
    assert_eq!(endpoint.faults_fired(), 1);
    (endpoint, answer)
}

fn call(tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {"n": 2, "every_ms": 1}});
    Outgoing::stateless(&json!(1), "tools/call", Some(tool), params)
}

#[tokio::test]
async fn the_head_never_comes() {
    for (fault, expected) in [
        (Fault::CloseBeforeHead, NoHead::Closed),
        (Fault::ResetBeforeHead, NoHead::Reset),
    ] {
        let (endpoint, answer) = meet(fault, "echo").await;
        assert_eq!(answer.map(drop).err(), Some(NoAnswer::Head(expected)));
        let again = Client::of(&endpoint).try_send(call("echo")).await;
        assert_eq!(
            again.map(|r| r.status).ok(),
            Some(200),
            "the fault is used up"
        );
    }
    let (_endpoint, answer) = meet(Fault::GarbageHead, "echo").await;
    assert!(matches!(answer, Err(NoAnswer::Head(NoHead::Garbage(_)))));
}

#[tokio::test]
async fn a_stall_before_the_head_ends_when_healed() {
    let endpoint = Endpoint::start("a").await;
    endpoint.fault(Fault::StallBeforeHead);
    let hasty = Client::of(&endpoint).with_patience(Duration::from_millis(50));
    let silent = hasty.try_send(call("echo")).await;
    assert_eq!(silent.map(drop).err(), Some(NoAnswer::Silent));
    endpoint
        .until("the disconnect", |e| e.disconnects().len() == 1)
        .await;
    assert!(!endpoint.disconnects()[0].streaming);

    let client = Client::of(&endpoint);
    let (answer, ()) = tokio::join!(client.send(call("echo")), async {
        endpoint
            .until("the second", |e| e.faults_fired() == 2)
            .await;
        endpoint.heal();
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_stall_in_the_body_ends_when_healed() {
    for (fault, arrived) in [
        (Fault::StallAfterHead, ""),
        (Fault::StallMidEvent(20), "event: message\ndata:"),
    ] {
        let (endpoint, answer) = meet(fault, "ticks").await;
        let mut response = answer.expect("a head");
        if !arrived.is_empty() {
            assert!(!response.silent_for(Duration::from_secs(5)).await);
        }
        assert!(response.silent_for(Duration::from_millis(50)).await);
        assert_eq!(response.events().unfinished(), arrived);
        endpoint.heal();
        let (events, end) = response.events().rest().await;
        assert_eq!((events.len(), end), (3, BodyEnd::Complete));
    }
}

#[tokio::test]
async fn the_body_is_cut_in_an_event() {
    for (fault, expected) in [
        (Fault::CloseMidEvent(30), BodyEnd::Truncated),
        (Fault::ResetMidEvent(30), BodyEnd::Reset),
    ] {
        for tool in ["ticks", "echo"] {
            let (_endpoint, answer) = meet(fault.clone(), tool).await;
            let body = answer.expect("a head").read_to_end().await;
            assert_eq!(
                (body.bytes.len(), body.end),
                (30, expected.clone()),
                "{tool}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_lacks_only_its_last_chunk() {
    let (_endpoint, answer) = meet(Fault::CloseMidEvent(usize::MAX), "ticks").await;
    let (events, end) = answer.expect("a head").events().rest().await;
    assert_eq!((events.len(), end), (3, BodyEnd::Truncated));
}

#[tokio::test]
async fn a_stream_ends_well_but_without_the_response() {
    for (tool, count) in [("ticks", 2), ("echo", 0)] {
        let (_endpoint, answer) = meet(Fault::CloseCleanWithoutResponse, tool).await;
        let mut response = answer.expect("a head");
        assert!(response.is_stream());
        let (events, end) = response.events().rest().await;
        assert_eq!((events.len(), end), (count, BodyEnd::Complete));
    }
}

#[tokio::test]
async fn the_announced_length_is_a_lie() {
    let (_endpoint, answer) = meet(Fault::LengthTooLong(5), "echo").await;
    let body = answer.expect("a head").read_to_end().await;
    assert_eq!(body.end, BodyEnd::Truncated);
    assert!(serde_json::from_slice::<serde_json::Value>(&body.bytes).is_ok());

    let (_endpoint, answer) = meet(Fault::LengthTooShort(5), "echo").await;
    let mut response = answer.expect("a head");
    let body = response.read_to_end().await;
    assert_eq!(body.end, BodyEnd::Complete);
    let (rest, end) = response.into_connection().rest().await;
    assert_eq!((rest.len(), end), (5, BodyEnd::Closed));
}

#[tokio::test]
async fn a_chunk_has_no_size() {
    let (_endpoint, answer) = meet(Fault::BadChunk, "ticks").await;
    let body = answer.expect("a head").read_to_end().await;
    assert!(matches!(body.end, BodyEnd::Garbage(_)));
}

#[tokio::test]
async fn every_byte_comes_by_itself() {
    let started = Instant::now();
    let (_endpoint, answer) = meet(Fault::Trickle(Duration::from_micros(100)), "ticks").await;
    let mut response = answer.expect("a head");
    let (events, end) = response.events().rest().await;
    assert_eq!((events.len(), end), (3, BodyEnd::Complete));
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_event_is_huge() {
    for tool in ["ticks", "echo"] {
        let (_endpoint, answer) = meet(Fault::HugeEvent(3_000_000), tool).await;
        let mut response = answer.expect("a head");
        let mut events = response.events();
        let first = events.next().await.expect("the huge event");
        assert!(first.raw.len() > 3_000_000);
        let (_, end) = events.rest().await;
        assert_eq!(end, BodyEnd::Complete);
    }
}

#[tokio::test]
async fn another_status_takes_the_place_of_the_answer() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    endpoint.fault_next(1, Fault::Status(503, r#"{"busy":true}"#.into()));
    endpoint.fault_next(1, Fault::Status(429, String::new()));
    endpoint.fault_next(1, Fault::ExtraHeader("Retry-After".into(), "7".into()));
    let mut first = client.send(call("echo")).await;
    assert_eq!(
        (first.status, first.header("retry-after")),
        (503, Some("7"))
    );
    assert_eq!(first.json().await["busy"], true);
    let second = client.send(call("echo")).await;
    assert_eq!((second.status, second.header("retry-after")), (429, None));
    assert_eq!(client.send(call("echo")).await.status, 200);
}

#[tokio::test]
async fn hints_come_before_the_head() {
    let (_endpoint, answer) = meet(Fault::EarlyHints, "echo").await;
    let mut response = answer.expect("a head");
    assert_eq!(response.interim.len(), 1);
    assert_eq!((response.interim[0].status, response.status), (103, 200));
    response.json().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let fault = Fault::CloseIdleAfter(Duration::from_millis(20));
    let (_endpoint, answer) = meet(fault, "echo").await;
    let mut response = answer.expect("a head");
    response.json().await;
    assert!(!response.headers().has("connection"));
    let closed = within("the close", response.into_connection().rest()).await;
    assert_eq!((closed.0.len(), closed.1), (0, BodyEnd::Closed));
}

#[tokio::test]
async fn a_fault_can_be_for_some_requests_only() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    endpoint.fault_when(Fault::CloseBeforeHead, |r| r.tool() == Some("whoami"));
    for _ in 0..2 {
        assert!(client.try_send(call("whoami")).await.is_err());
        assert_eq!(client.send(call("echo")).await.status, 200);
    }
    endpoint.heal();
    assert_eq!(client.send(call("whoami")).await.status, 200);
    endpoint.fault_next_when(1, Fault::ResetBeforeHead, |r| r.tool() == Some("whoami"));
    assert_eq!(client.send(call("echo")).await.status, 200);
    assert!(client.try_send(call("whoami")).await.is_err());
    assert_eq!(client.send(call("whoami")).await.status, 200);
}
