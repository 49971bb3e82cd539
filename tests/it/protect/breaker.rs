//! The circuit breaker: an endpoint that fails too much is left alone, its sessions are told so at
//! once and live on, and a few calls find out when it is well again.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::{calls, fail_calls, failed, of};
use crate::support::{Client, Endpoint, Fault, Mcp, SessionId, Tidegate};

/// A breaker that opens with the fourth failure, and ejection out of the way.
fn breaker(open_time: &str, trials: u32) -> String {
    format!(
        "ejection: off\nslow_start: off\nbreaker: {{ min_calls: 4, open_time: {open_time}, trials: {trials} }}"
    )
}

async fn state(gate: &Tidegate) -> f64 {
    of(
        &gate.metrics().await,
        "tidegate_endpoint_breaker_state",
        "a",
    )
}

/// One endpoint behind a breaker that has just opened, and a session on it.
async fn opened(open_time: &str, trials: u32) -> (Endpoint, Tidegate, Client, SessionId) {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .pool(&breaker(open_time, trials))
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(
        client
            .modern("server/discover", None, json!({}))
            .await
            .status,
        200
    );
    fail_calls(&a, Fault::Status(500, "{}".into()));
    for _ in 0..4 {
        let response = client.start_call(&session, "whoami", json!({})).await;
        assert_eq!(response.status, 500);
    }
    (a, gate, client, session)
}

#[tokio::test]
async fn while_it_is_open_nothing_is_sent_and_sessions_are_told_at_once() {
    let (a, gate, client, session) = opened("5m", 1).await;
    assert_eq!(state(&gate).await, 2.0);
    assert!(
        gate.stderr()
            .contains("breaker opens: 4 of 4 calls have failed")
    );
    a.heal();
    let seen = a.requests().len();
    for id in [json!(7), json!("seven")] {
        let began = Instant::now();
        let params = json!({"name": "whoami", "arguments": {}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let mut response = client.post(&session, &message).await;
        assert_eq!(response.status, 503);
        assert_eq!(response.header("retry-after"), Some("300"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let body = response.json().await;
        assert_eq!((&body["id"], &body["error"]["code"]), (&id, &json!(-32603)));
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
    let answers = calls(&client, 3).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 503),
        "{answers:?}"
    );
    // Clients give a GET up after two errors, and open one again that has ended.
    let mut stream = client.get_stream(&session, None).await;
    assert!(stream.is_stream() && stream.read_to_end().await.bytes.is_empty());
    assert_eq!(a.requests().len(), seen, "the server was left alone");
    // Its answer would decide which era a client speaks, some of them for good.
    let discovered = client.modern("server/discover", None, json!({})).await;
    assert_eq!(discovered.status, 200);
    assert_eq!(a.requests().len(), seen, "from memory");
    let metrics = gate.metrics().await;
    assert_eq!(
        of(&metrics, "tidegate_endpoint_breaker_opened_total", "a"),
        1.0
    );
    assert_eq!(of(&metrics, "tidegate_endpoint_ejected", "a"), 0.0);
    assert_eq!(of(&metrics, "tidegate_endpoint_up", "a"), 1.0);
    let line = gate
        // The GET was answered 200, and its line may come first: each thread has a queue of its own.
        .logged(|line| line["end_reason"] == "breaker_open" && line["method"] == "POST")
        .await;
    assert_eq!(line["status"], 503);
}

#[tokio::test]
async fn calls_that_may_go_elsewhere_do() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool(&breaker("5m", 1))
        .start()
        .await;
    fail_calls(&a, Fault::ResetBeforeHead);
    let answers = calls(&gate.client(), 60).await;
    assert_eq!(failed(&answers), 4);
    assert!(
        answers[40..].iter().all(|(_, name)| name == "b"),
        "{answers:?}"
    );
    let session = gate.client().initialize().await;
    assert_eq!(gate.client().whoami(&session).await, "b");
}

#[tokio::test]
async fn a_few_trials_find_out_whether_it_is_well_and_the_session_goes_on() {
    let (a, gate, client, session) = opened("300ms", 2).await;
    a.heal();
    // The trials hang, so that all come at the same time.
    fail_calls(&a, Fault::StallBeforeHead);
    gate.metrics_when(|m| of(m, "tidegate_endpoint_breaker_state", "a") == 1.0)
        .await;
    let seen = a.calls("tools/call").len();
    let mut running = JoinSet::new();
    for _ in 0..6 {
        let (client, session) = (gate.client(), session.clone());
        running.spawn(async move {
            let mut response = client.start_call(&session, "whoami", json!({})).await;
            (response.status, response.rpc().await["id"].is_u64())
        });
    }
    for _ in 0..4 {
        let refused = running.join_next().await.expect("six").expect("no panic");
        assert_eq!(refused, (503, true));
    }
    a.until("two trials", |a| a.calls("tools/call").len() == seen + 2)
        .await;
    a.heal();
    while let Some(trial) = running.join_next().await {
        assert_eq!(trial.expect("no panic"), (200, true));
    }
    assert_eq!(state(&gate).await, 0.0);
    assert!(gate.stderr().contains("breaker closes"));
    for _ in 0..10 {
        assert_eq!(client.whoami(&session).await, "a");
    }
}

#[tokio::test]
async fn a_server_that_is_there_again_need_not_wait_for_the_breaker() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .pool(&breaker("5m", 1))
        .health("{ check: mcp, interval: 200ms, timeout: 1s, rise: 1, fall: 100 }")
        .start()
        .await;
    let client = gate.client();
    a.kill().await;
    let status = async || {
        let call = json!({"name": "whoami", "arguments": {}});
        let answer = client.modern("tools/call", Some("whoami"), call).await;
        answer.status
    };
    for _ in 0..4 {
        assert_eq!(status().await, 502);
    }
    assert_eq!(status().await, 503, "the breaker is open");
    a.restart().await;
    let back = Instant::now();
    while status().await != 200 {
        assert!(back.elapsed() < Duration::from_secs(3), "not for 5 minutes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state(&gate).await, 0.0);
}

#[tokio::test]
async fn a_trial_that_fails_opens_it_again_and_one_whose_client_leaves_gives_its_place_back() {
    let (a, gate, client, session) = opened("300ms", 1).await;
    let half_open = |m: &crate::support::tidegate::Metrics| {
        of(m, "tidegate_endpoint_breaker_state", "a") == 1.0
    };
    gate.metrics_when(half_open).await;
    let response = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(response.status, 500, "a trial");
    assert_eq!(state(&gate).await, 2.0);
    assert!(
        gate.stderr()
            .contains("breaker opens again: a trial has failed")
    );

    a.heal();
    fail_calls(&a, Fault::StallBeforeHead);
    gate.metrics_when(half_open).await;
    let impatient = gate.client().with_patience(Duration::from_millis(100));
    let params = json!({"name": "whoami", "arguments": {}});
    let gone = impatient.try_send(crate::support::Outgoing::in_session(
        &session,
        &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}),
    ));
    assert!(gone.await.is_err(), "it left");
    a.heal();
    let served = async || {
        let response = client.start_call(&session, "whoami", json!({})).await;
        (response.status == 200).then_some(())
    };
    let back = crate::support::eventually_some(Duration::from_secs(5), served).await;
    assert!(back.is_some(), "its place was lost");
    assert_eq!(state(&gate).await, 0.0);
}

#[tokio::test]
async fn a_breaker_that_is_off_lets_everything_pass() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).pool("breaker: off").start().await;
    fail_calls(&a, Fault::Status(500, "{}".into()));
    let answers = calls(&gate.client(), 40).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 500),
        "{answers:?}"
    );
    assert_eq!(state(&gate).await, 0.0);
}
