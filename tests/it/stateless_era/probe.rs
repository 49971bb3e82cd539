//! `server/discover`, by whose answer clients choose the era of the whole origin: it is answered
//! while there is anything to say.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CHECKED, assert_error, call, discover, logged};
use crate::support::{Endpoint, Fault, Mcp, Tidegate};

/// What a client may take for seconds, on a machine that has much else to do.
const SECONDS: Duration = Duration::from_secs(9);

#[tokio::test]
async fn a_probe_gets_the_last_good_answer_when_no_server_does() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let good = client.send(discover(&json!(1))).await.json().await;
    assert_eq!(good["result"]["supportedVersions"], json!(["2026-07-28"]));
    let check = async |what: &str| {
        for id in [json!(7), json!("seven")] {
            let mut answer = client.send(discover(&id)).await;
            let message = answer.json().await;
            assert_eq!(answer.status, 200, "{what}: {message}");
            assert_eq!(message["id"], id, "{what}");
            let versions = &message["result"]["supportedVersions"];
            assert_eq!(versions, &json!(["2026-07-28"]), "{what}");
        }
    };
    for fault in [
        Fault::Status(503, String::new()),
        Fault::Status(500, r#"{"oops":true}"#.into()),
        Fault::CloseBeforeHead,
        Fault::ResetBeforeHead,
        Fault::GarbageHead,
        Fault::LengthTooLong(5),
    ] {
        a.fault(fault.clone());
        b.fault(fault.clone());
        check(&format!("{fault:?}")).await;
        a.heal();
        b.heal();
    }
    a.kill().await;
    b.kill().await;
    check("killed").await;
}

#[tokio::test]
async fn a_probe_is_answered_from_what_the_checks_have_learned() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&gate, "endpoint is up", 1).await;
    a.kill().await;
    logged(&gate, "endpoint is down", 1).await;
    let client = gate.client();
    let mut answer = client.send(discover(&json!("d"))).await;
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("d")),
        "{message}"
    );
    assert_eq!(
        message["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    let call = client.send(call(&json!(1), "whoami", json!({}))).await;
    assert_error(call, 503, -32603, &json!(1), "other requests").await;
}

#[tokio::test]
async fn a_probe_is_held_until_a_server_comes_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    a.kill().await;
    let (answer, ()) = tokio::join!(client.send(discover(&json!("held"))), async {
        logged(&gate, "cannot connect", 1).await;
        // It comes up as servers do: at first it can only say that it is not ready.
        a.fault_next(2, Fault::Status(503, String::new()));
        a.restart().await;
    });
    let mut answer = answer;
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("held")),
        "{message}"
    );
    assert_eq!(a.faults_fired(), 2);
}

#[tokio::test]
async fn a_probe_is_held_until_the_checks_find_a_server() {
    let a = Endpoint::start("a").await;
    a.kill().await;
    let gate = Tidegate::build(&[&a]).health(CHECKED).start().await;
    logged(&gate, "endpoint is down", 1).await;
    let client = gate.client();
    let (mut answer, ()) = tokio::join!(client.send(discover(&json!("held"))), async {
        a.restart().await;
    });
    let message = answer.json().await;
    assert_eq!(
        (answer.status, &message["id"]),
        (200, &json!("held")),
        "{message}"
    );
}

#[tokio::test]
async fn a_probe_does_not_wait_long_for_a_server_that_is_stuck() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    client.send(discover(&json!(1))).await.json().await;
    a.fault(Fault::StallBeforeHead);
    let began = Instant::now();
    let mut answer = client.send(discover(&json!("stuck"))).await;
    let message = answer.json().await;
    assert_eq!((answer.status, &message["id"]), (200, &json!("stuck")));
    assert!(began.elapsed() < SECONDS);
    a.until("it is given up", |a| a.in_flight() == 0).await;
}

#[tokio::test]
async fn a_probe_that_comes_in_pieces_is_answered_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let status = Fault::Status(503, String::new());
    for (fault, status) in [(Fault::CloseBeforeHead, 502), (status, 503)] {
        a.fault_next(1, fault);
        let outgoing = discover(&json!("d"));
        let headers = outgoing.header_lines();
        let bytes = client.encode("POST", "/mcp", &headers, &outgoing.body);
        let accepted = a.connections_accepted();
        let connection = client.connect().await.expect("a connection");
        connection
            .raw(&bytes[..bytes.len() - 1])
            .await
            .expect("sent");
        a.until("it is on its way", |a| a.connections_accepted() > accepted)
            .await;
        connection.raw(b"}").await.expect("sent");
        let answer = connection.response(false).await.expect("an answer");
        assert_error(answer, status, -32603, &json!("d"), "in pieces").await;
    }
    assert_eq!(a.requests().len(), 2, "it was not here to be sent again");
}

#[tokio::test]
async fn a_probe_that_nobody_can_answer_ends_in_seconds() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.kill().await;
    let began = Instant::now();
    let answer = gate.client().send(discover(&json!("d"))).await;
    let status = answer.status;
    assert!(matches!(status, 502 | 503), "{status}");
    assert_error(answer, status, -32603, &json!("d"), "nobody").await;
    let took = began.elapsed();
    assert!(Duration::from_secs(1) < took && took < SECONDS, "{took:?}");
}

/// It accepts, and its checks ask for no more; when it will answer nobody knows.
#[tokio::test]
async fn a_probe_that_nobody_answers_ends_in_seconds() {
    for fault in [Fault::StallBeforeHead, Fault::StallAfterHead] {
        let a = Endpoint::start("a").await;
        let gate = Tidegate::in_front_of(&[&a]).await;
        a.fault(fault.clone());
        let client = gate.client().with_patience(2 * SECONDS);
        let began = Instant::now();
        let answer = client.send(discover(&json!("d"))).await;
        let took = began.elapsed();
        assert_error(answer, 503, -32603, &json!("d"), &format!("{fault:?}")).await;
        assert!(took < SECONDS + SECONDS / 3, "{took:?}");
        a.until("it is given up", |a| a.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn a_probe_that_one_server_does_not_answer_is_answered_by_another() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b])
        .endpoint("b", "backup: true")
        .start()
        .await;
    a.fault(Fault::StallBeforeHead);
    let began = Instant::now();
    let mut answer = gate.client().send(discover(&json!("d"))).await;
    let message = answer.json().await;
    assert_eq!((answer.status, &message["id"]), (200, &json!("d")));
    assert!(began.elapsed() < SECONDS);
    assert_eq!(a.calls("server/discover").len(), 1);
}
