//! Checks of endpoints over TLS.

use std::time::Duration;

use super::{Place, build};
use crate::support::{Endpoint, Fault, eventually};

#[tokio::test]
async fn every_kind_of_check_finds_an_endpoint_well_over_tls() {
    for (check, path) in [("mcp", ""), ("http", ", path: /plain"), ("tcp", "")] {
        for protocols in [&["http/1.1"][..], &["h2", "http/1.1"]] {
            let endpoint = Endpoint::named("a");
            let http2 = protocols.len() == 2;
            let endpoint = if http2 { endpoint.http2() } else { endpoint };
            let place = Place::with(endpoint.start().await);
            let front = place.agreeing_to(protocols).await;
            let health = format!(
                "{{ check: {check}{path}, interval: 100ms, timeout: 1s, rise: 1, fall: 1 }}"
            );
            let gate = build(&front, &place.ca())
                .endpoint("a", &format!("http2: {http2}"))
                .health(&health)
                .start()
                .await;
            let up = |line: &str| line.contains("endpoint is up");
            let told = || gate.stderr().lines().any(up);
            assert!(
                eventually(Duration::from_secs(5), told).await,
                "{check}, {protocols:?}:\n{}",
                gate.stderr()
            );
            assert!(!gate.stderr().contains("endpoint is down"));
        }
    }
}

#[tokio::test]
async fn a_check_over_tls_notices_what_is_answered() {
    let place = Place::new().await;
    let front = place.front().await;
    let gate = build(&front, &place.ca())
        .health("{ check: http, path: /plain, interval: 100ms, timeout: 1s, fall: 1 }")
        .start()
        .await;
    place.endpoint.fault(Fault::Status(503, "{}".into()));
    let unwell = |line: &str| line.contains("endpoint is unwell") && line.contains("status 503");
    let told = || gate.stderr().lines().any(unwell);
    assert!(
        eventually(Duration::from_secs(5), told).await,
        "{}",
        gate.stderr()
    );
}
