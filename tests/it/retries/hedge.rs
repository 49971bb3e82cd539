//! A second endpoint that is asked for a list: it may gain time and costs none, and what shows itself
//! of either is held against it.

use std::time::{Duration, Instant};

use super::{build, list, retried};
use crate::support::deaf::Deaf;
use crate::support::{Endpoint, Fault, Request, Tidegate};

/// Far below the time that a connect is given.
const SOON: Duration = Duration::from_secs(2);
const HEDGE: &str = "{ hedge_after: 50ms }";
/// One failure is enough, for longer than the test takes.
const EJECT: &str = "ejection: { failures: 1, base_time: 5m }\nbreaker: off";

async fn one(name: &str) -> Endpoint {
    Endpoint::named(name).stateless_only().start().await
}

fn is_list(request: &Request) -> bool {
    request.rpc_method() == Some("tools/list")
}

/// Asks for a list of which `slow` answers when the second endpoint has long been turned to; how long
/// that took from then on.
async fn answered_late(gate: &Tidegate, slow: &Endpoint) -> Duration {
    slow.fault_next_when(1, Fault::StallBeforeHead, is_list);
    let client = gate.client();
    let asking = tokio::spawn(async move { list(&client).await });
    slow.request(is_list).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let healed = Instant::now();
    slow.heal();
    assert_eq!(asking.await.expect("it does not panic"), 200);
    healed.elapsed()
}

async fn ejections(gate: &Tidegate, endpoint: &str) -> f64 {
    let labels = [("endpoint", endpoint)];
    let metrics = gate.metrics().await;
    metrics.with("tidegate_endpoint_ejections_total", &labels)
}

#[tokio::test]
async fn a_second_endpoint_that_cannot_be_reached_costs_no_time() {
    let (a, deaf) = (one("a").await, Deaf::start());
    let gate = build(&[&a], HEDGE)
        .also_at("deaf", deaf.address())
        .endpoint("deaf", "backup: true")
        .pool("timeouts: { connect: 5s }")
        .start()
        .await;
    let took = answered_late(&gate, &a).await;
    assert!(took < SOON, "{took:?}");
    assert_eq!(retried(&gate, "failed").await, 1.0, "it was asked");
}

#[tokio::test]
async fn an_endpoint_that_has_failed_the_call_is_not_the_second_one() {
    let (a, deaf) = (one("a").await, Deaf::start());
    let gate = build(&[&a], HEDGE)
        .also_at("deaf", deaf.address())
        .endpoint("a", "backup: true")
        .pool("timeouts: { connect: 4s }")
        .start()
        .await;
    let took = answered_late(&gate, &a).await;
    assert!(took < SOON, "{took:?}");
    let asked = retried(&gate, "failed").await + retried(&gate, "over_budget").await;
    assert_eq!(asked, 0.0, "there was nobody else to ask");
}

#[tokio::test]
async fn a_first_endpoint_that_breaks_is_ejected_though_the_second_has_answered() {
    let (a, b) = (one("a").await, one("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool(EJECT)
        .pool(&format!("retries: {HEDGE}"))
        .endpoint("b", "backup: true")
        .start()
        .await;
    for endpoint in [&a, &b] {
        endpoint.fault_next_when(1, Fault::StallBeforeHead, is_list);
    }
    let client = gate.client();
    let asking = tokio::spawn(async move { list(&client).await });
    b.request(is_list).await;
    a.reset_connections().await;
    // Nothing shows that it was seen: the second one is not to answer before.
    tokio::time::sleep(Duration::from_millis(200)).await;
    b.heal();
    assert_eq!(asking.await.expect("it does not panic"), 200);
    assert_eq!(ejections(&gate, "a").await, 1.0);
    assert_eq!(ejections(&gate, "b").await, 0.0);
}

#[tokio::test]
async fn a_second_endpoint_that_cannot_be_reached_is_ejected() {
    let (a, b) = (one("a").await, one("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .pool(EJECT)
        .pool(&format!("retries: {HEDGE}"))
        .endpoint("b", "backup: true")
        .start()
        .await;
    b.refuse_connections().await;
    answered_late(&gate, &a).await;
    assert_eq!(ejections(&gate, "b").await, 1.0);
    assert_eq!(ejections(&gate, "a").await, 0.0);
}
