//! Routes that are not logged, or in part.

use serde_json::json;

use super::{call, named};
use crate::support::{Endpoint, Mcp, Outgoing, Tidegate};

/// A call that belongs to a trace.
fn traced(trace: u32) -> Outgoing {
    let parent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
    call("whoami", json!({})).with("traceparent", &parent)
}

/// The traces, by their number, whose calls are in the log, as the user agent tells.
fn logged(gate: &Tidegate) -> Vec<String> {
    let lines = gate.access_log();
    let agents = lines.iter().filter_map(|line| line["user_agent"].as_str());
    let mut agents: Vec<String> = agents.map(str::to_owned).collect();
    agents.sort_unstable();
    agents
}

#[tokio::test]
async fn a_route_that_is_off_is_not_logged() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: main\n  access_log: off\n- path: /other\n  pool: main")
        .start()
        .await;
    let client = named(&gate, "off");
    let session = client.initialize().await;
    client.call(&session, "whoami", json!({})).await;
    client.call(&session, "no_such", json!({})).await;
    client.get_stream(&session, None).await.reset();
    let socket = crate::support::ws::WebSocket::connect(&client).await;
    socket.expect("an upgrade").close(1000).await;
    client.delete(&session).await;
    named(&gate, "on")
        .with_path("/other")
        .send(call("whoami", json!({})))
        .await;
    gate.logged(|line| line["user_agent"] == "on").await;
    gate.metrics_when(|metrics| metrics.sum("tidegate_streams") == 0.0)
        .await;
    assert_eq!(logged(&gate), ["on"]);
}

#[tokio::test]
async fn a_part_of_a_route_is_logged_and_every_hop_takes_the_same() {
    const CALLS: u32 = 200;
    let a = Endpoint::start("a").await;
    let sampled = || Tidegate::build(&[&a]).route("access_log: { sample: 0.2 }");
    let (first, second) = (sampled().start().await, sampled().start().await);
    for gate in [&first, &second] {
        for trace in 0..CALLS {
            let client = named(gate, &trace.to_string());
            assert_eq!(client.send(traced(trace)).await.status, 200);
        }
        named(gate, "end")
            .request("GET", "/nowhere", &[], b"")
            .await;
        gate.logged(|line| line["user_agent"] == "end").await;
    }
    let kept = logged(&first);
    assert!((15..80).contains(&kept.len()), "{} of {CALLS}", kept.len());
    assert_eq!(kept, logged(&second));
}

#[tokio::test]
async fn what_fails_is_always_logged() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .route("access_log: { sample: 0.000000001 }")
        .start()
        .await;
    named(&gate, "good").send(call("whoami", json!({}))).await;
    named(&gate, "rpc").send(call("no_such", json!({}))).await;
    named(&gate, "tool").send(call("fail", json!({}))).await;
    let ticks = call("ticks", json!({"n": 2, "every_ms": 1}));
    named(&gate, "stream").send(ticks).await.read_to_end().await;
    a.fault_next(1, crate::support::Fault::ResetBeforeHead);
    named(&gate, "reset").send(call("whoami", json!({}))).await;
    a.fault_next(1, crate::support::Fault::ResetMidEvent(30));
    let ticks = call("ticks", json!({"n": 3, "every_ms": 1}));
    named(&gate, "cut").send(ticks).await.read_to_end().await;
    named(&gate, "end")
        .request("GET", "/nowhere", &[], b"")
        .await;
    for agent in ["cut", "end"] {
        gate.logged(|line| line["user_agent"] == agent).await;
    }
    assert_eq!(logged(&gate), ["cut", "end", "reset", "rpc", "tool"]);
}
