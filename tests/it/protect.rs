//! Endpoints whose calls fail are set aside, whatever their checks say, and get their share back when
//! they have recovered.

mod breaker;

use std::time::Duration;

use serde_json::json;

use crate::support::tidegate::Metrics;
use crate::support::{Endpoint, Fault, Mcp, Tidegate, eventually, eventually_some, text_of};

const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }";
/// Ejection alone, for longer than any test takes, in turn so that shares are exact.
const EJECT: &str = "balance: round_robin\nejection: { failures: 5, base_time: 5m }\nbreaker: off";

/// A body with an error of this code.
fn error(code: i64) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "x"}}).to_string()
}

fn fail_calls(endpoint: &Endpoint, fault: Fault) {
    endpoint.fault_when(fault, |r| r.rpc_method() == Some("tools/call"));
}

fn of(metrics: &Metrics, family: &str, endpoint: &str) -> f64 {
    metrics.with(family, &[("endpoint", endpoint)])
}

/// Status and name of the endpoint for so many calls; no name where there was no answer with one.
async fn calls(client: &impl Mcp, count: usize) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let params = json!({"name": "whoami", "arguments": {}});
        let mut response = client.modern("tools/call", Some("whoami"), params).await;
        let message = response.rpc().await;
        let name = message.pointer("/result/content/0/text");
        let name = name.and_then(|name| name.as_str()).unwrap_or_default();
        answers.push((response.status, name.to_owned()));
    }
    answers
}

fn failed(answers: &[(u16, String)]) -> usize {
    answers.iter().filter(|(_, name)| name.is_empty()).count()
}

#[tokio::test]
async fn an_endpoint_that_fails_calls_and_passes_checks_is_ejected() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    fail_calls(&b, Fault::Status(500, "{}".into()));
    let gate = Tidegate::build(&[&a, &b])
        .health(QUICK)
        .pool(EJECT)
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let client = gate.client();
    let answers = calls(&client, 60).await;
    assert_eq!(failed(&answers), 5, "and none any more after the fifth");
    assert_eq!(b.calls("tools/call").len(), 5);
    assert!(
        answers[10..]
            .iter()
            .all(|answer| *answer == (200, "a".into()))
    );

    let metrics = gate.metrics().await;
    assert_eq!(
        of(&metrics, "tidegate_endpoint_up", "b"),
        1.0,
        "its checks are good"
    );
    assert_eq!(of(&metrics, "tidegate_endpoint_ejected", "b"), 1.0);
    assert_eq!(of(&metrics, "tidegate_endpoint_ejections_total", "b"), 1.0);
    assert_eq!(of(&metrics, "tidegate_endpoint_ejected", "a"), 0.0);
    let told = "endpoint is ejected for 300s after 5 failures in a row";
    assert!(gate.stderr().contains(told), "{}", gate.stderr());
    assert!(
        calls(&client, 20)
            .await
            .iter()
            .all(|(status, _)| *status == 200)
    );
}

#[tokio::test]
async fn every_kind_of_failure_of_the_server_ejects() {
    let faults = [
        Fault::Status(503, String::new()),
        Fault::Status(500, error(-32603)),
        Fault::Status(200, error(-32603)),
        Fault::CloseBeforeHead,
        Fault::ResetBeforeHead,
        Fault::GarbageHead,
        Fault::LengthTooLong(10),
    ];
    for fault in faults {
        let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
        let gate = Tidegate::build(&[&a, &b]).pool(EJECT).start().await;
        fail_calls(&b, fault.clone());
        let answers = calls(&gate.client(), 20).await;
        assert_eq!(failed(&answers), 5, "{fault:?}: {answers:?}");
        assert_eq!(
            of(&gate.metrics().await, "tidegate_endpoint_ejected", "b"),
            1.0
        );
    }
}

#[tokio::test]
async fn a_refused_connection_and_a_stream_that_is_cut_eject() {
    let a = Endpoint::named("a").streams_everything().start().await;
    let b = Endpoint::named("b").streams_everything().start().await;
    let gate = Tidegate::build(&[&a, &b]).pool(EJECT).start().await;
    fail_calls(&b, Fault::CloseCleanWithoutResponse);
    assert_eq!(failed(&calls(&gate.client(), 20).await), 5);

    let gate = Tidegate::build(&[&a, &b]).pool(EJECT).start().await;
    b.kill().await;
    let answers = calls(&gate.client(), 20).await;
    assert_eq!(
        failed(&answers),
        0,
        "nothing was sent, so each went elsewhere"
    );
    assert_eq!(
        of(&gate.metrics().await, "tidegate_endpoint_ejected", "b"),
        1.0
    );
}

#[tokio::test]
async fn what_is_not_the_servers_fault_never_ejects() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b]).pool(EJECT).start().await;
    let client = gate.client();
    for _ in 0..20 {
        let answer = client.modern_call("fail", json!({})).await;
        assert_eq!(answer["result"]["isError"], true);
        let answer = client.modern_call("no such tool", json!({})).await;
        assert_eq!(answer["error"]["code"], -32602);
    }
    for fault in [
        Fault::Status(200, error(-32601)),
        Fault::Status(200, error(-32600)),
        Fault::Status(200, error(-32700)),
        Fault::Status(200, error(-32002)),
        Fault::Status(400, error(-32603)),
        Fault::Status(429, "{}".into()),
        Fault::Status(501, String::new()),
        Fault::Status(505, String::new()),
    ] {
        b.fault_next_when(12, fault, |r| r.rpc_method() == Some("tools/call"));
        let answers = calls(&client, 24).await;
        assert_eq!(failed(&answers), 12, "{answers:?}");
    }
    let stderr = gate.stderr();
    assert_eq!(
        gate.metrics()
            .await
            .sum("tidegate_endpoint_ejections_total"),
        0.0,
        "{stderr}"
    );
}

#[tokio::test]
async fn sessions_of_an_ejected_endpoint_go_on_and_new_ones_go_elsewhere() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b]).pool(EJECT).start().await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let session = client.initialize().await;
        sessions.push((client.whoami(&session).await, session));
    }
    fail_calls(&b, Fault::Status(500, "{}".into()));
    calls(&client, 20).await;
    assert_eq!(
        of(&gate.metrics().await, "tidegate_endpoint_ejected", "b"),
        1.0
    );
    b.heal();
    for (name, session) in &sessions {
        assert_eq!(&client.whoami(session).await, name, "each at its own");
        assert!(client.get_stream(session, None).await.is_stream());
    }
    assert!(sessions.iter().any(|(name, _)| name == "b"));
    for _ in 0..6 {
        let session = client.initialize().await;
        assert_eq!(client.whoami(&session).await, "a");
    }
}

#[tokio::test]
async fn an_ejection_ends_by_itself_and_the_next_one_is_longer() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("balance: round_robin\nejection: { failures: 1, base_time: 700ms }\nbreaker: off")
        .start()
        .await;
    let client = gate.client();
    fail_calls(&b, Fault::Status(500, "{}".into()));
    let mut failures = 0;
    for times in 1..=3 {
        let time = Duration::from_millis(700 * times);
        let told = format!("endpoint is ejected for {time:?}");
        let ejected = async || {
            failures += failed(&calls(&client, 2).await) as u64;
            gate.stderr().contains(&told).then_some(())
        };
        let ejected = eventually_some(Duration::from_secs(10), ejected).await;
        assert!(ejected.is_some(), "not {told}: {}", gate.stderr());
        assert_eq!(failures, times, "each was enough");
    }
    b.heal();
    let returned = || gate.stderr().contains("endpoint is no longer ejected");
    assert!(eventually(Duration::from_secs(10), returned).await);
    let answers = calls(&client, 40).await;
    assert!(answers.iter().any(|(_, name)| name == "b"));
}

#[tokio::test]
async fn when_all_are_ejected_they_serve() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool("ejection: { failures: 2, base_time: 5m, max_share: 100% }\nbreaker: off")
        .start()
        .await;
    let client = gate.client();
    for endpoint in [&a, &b] {
        fail_calls(endpoint, Fault::Status(500, "{}".into()));
    }
    calls(&client, 20).await;
    let metrics = gate.metrics().await;
    assert_eq!(metrics.sum("tidegate_endpoint_ejected"), 2.0);
    a.heal();
    b.heal();
    let answers = calls(&client, 20).await;
    assert_eq!(failed(&answers), 0);
    for name in ["a", "b"] {
        assert!(
            answers.iter().any(|(_, other)| other == name),
            "{answers:?}"
        );
    }
}

#[tokio::test]
async fn no_more_of_a_pool_is_ejected_than_may_be() {
    let endpoints = [
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    ];
    let gate = Tidegate::build(&endpoints.each_ref())
        .pool(EJECT)
        .start()
        .await;
    for endpoint in &endpoints {
        fail_calls(endpoint, Fault::Status(500, "{}".into()));
    }
    calls(&gate.client(), 60).await;
    let metrics = gate.metrics().await;
    assert_eq!(
        metrics.sum("tidegate_endpoint_ejected"),
        1.0,
        "half of three"
    );
    let limit = metrics.with("tidegate_limits_hit_total", &[("limit", "ejections")]);
    assert!(limit > 0.0);
}

#[tokio::test]
async fn an_endpoint_that_comes_back_starts_slowly() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .health(QUICK)
        .pool("balance: round_robin\nslow_start: 1h\nejection: off\nbreaker: off")
        .start()
        .await;
    let client = gate.client();
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let share = async || {
        let answers = calls(&client, 110).await;
        answers.iter().filter(|(_, name)| name == "b").count()
    };
    assert_eq!(
        share().await,
        55,
        "from the start of the process there is no ramp"
    );
    b.kill().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    assert_eq!(share().await, 0);
    b.restart().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let slow = share().await;
    assert!(
        (8..=13).contains(&slow),
        "{slow} of 110 is not a tenth of the other's"
    );
}

#[tokio::test]
async fn peak_ewma_prefers_the_faster_endpoint() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    // Every byte by itself: its heads take some hundred milliseconds.
    b.fault(Fault::Trickle(Duration::from_millis(2)));
    let gate = Tidegate::build(&[&a, &b])
        .pool("balance: peak_ewma")
        .start()
        .await;
    let client = gate.client();
    let mut slow = 0;
    for _ in 0..40 {
        let name = text_of(&client.modern_call("whoami", json!({})).await);
        slow += usize::from(name == "b");
    }
    assert!((1..=4).contains(&slow), "{slow} of 40 went to the slow one");
}

#[tokio::test]
async fn peak_ewma_does_not_take_streams_for_slow_answers() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let slow = || Fault::Trickle(Duration::from_millis(2));
    a.fault_when(slow(), |r| r.rpc_method() == Some("subscriptions/listen"));
    fail_calls(&b, slow());
    let gate = Tidegate::build(&[&a, &b])
        .pool("balance: peak_ewma")
        .start()
        .await;
    let client = gate.client();
    let mut held = Vec::new();
    while a.streams_open() < 2 {
        held.push(client.listen().await);
    }
    drop(held);
    for endpoint in [&a, &b] {
        endpoint.until("no stream", |e| e.streams_open() == 0).await;
    }
    // Were the streams of a taken for slow answers, it would be as slow as b.
    let answers = calls(&client, 40).await;
    let got = answers.iter().filter(|(_, name)| name == "b").count();
    assert!(got <= 4, "b got {got} of 40");
}

#[tokio::test]
async fn routes_of_plain_http_are_protected_as_well() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http\nbalance: round_robin\nejection: { failures: 3, base_time: 5m }")
        .pool("breaker: { min_calls: 4, open_time: 5m }")
        .start()
        .await;
    let client = gate.client();
    b.fault(Fault::Status(500, String::new()));
    let mut failures = 0;
    for _ in 0..20 {
        let answer = client.request("GET", "/plain", &[], b"").await;
        failures += usize::from(answer.status == 500);
    }
    assert_eq!(failures, 3);
    assert_eq!(
        of(&gate.metrics().await, "tidegate_endpoint_ejected", "b"),
        1.0
    );

    a.fault(Fault::ResetBeforeHead);
    let mut last = 0;
    for _ in 0..20 {
        last = client.request("GET", "/plain", &[], b"").await.status;
    }
    let metrics = gate.metrics().await;
    assert_eq!(
        metrics.sum("tidegate_endpoint_breaker_state"),
        4.0,
        "both are open"
    );
    assert_eq!(last, 503);
    assert_eq!(of(&metrics, "tidegate_endpoint_ejections_total", "a"), 0.0);
}
