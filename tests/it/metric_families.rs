//! What Prometheus is told beside requests and times: failures, reloads, waits, pools, workers, sessions.

use std::time::Duration;

use serde_json::json;

use crate::support::tidegate::Metrics;
use crate::support::{Client, Endpoint, Fault, Mcp, Outgoing, Tidegate};

fn call(tool: &str) -> Outgoing {
    let params = json!({"name": tool, "arguments": {"n": 3}});
    Outgoing::stateless(&json!(7), "tools/call", Some(tool), params)
}

fn pool(metrics: &Metrics, family: &str) -> f64 {
    metrics.with(family, &[("pool", "main")])
}

/// The kinds of failures that were counted.
fn kinds(metrics: &Metrics) -> Vec<&'static str> {
    let count = |kind: &&str| {
        let labels = [("pool", "main"), ("endpoint", "a"), ("kind", *kind)];
        metrics.with("tidegate_endpoint_failures_total", &labels) > 0.0
    };
    let all = [
        "connect",
        "closed",
        "malformed",
        "timeout",
        "status",
        "error",
        "stream",
    ];
    all.into_iter().filter(count).collect()
}

#[tokio::test]
async fn a_failure_is_counted_by_its_kind() {
    let internal = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"x"}}"#;
    let cases = [
        ("closed", "whoami", Fault::CloseBeforeHead),
        ("malformed", "whoami", Fault::GarbageHead),
        ("timeout", "whoami", Fault::StallBeforeHead),
        ("status", "whoami", Fault::Status(503, "no".into())),
        ("error", "whoami", Fault::Status(200, internal.into())),
        ("stream", "ticks", Fault::CloseMidEvent(10)),
    ];
    for (kind, tool, fault) in cases {
        let a = Endpoint::start("a").await;
        let gate = Tidegate::build(&[&a])
            .health("{ check: none }")
            .pool("timeouts: { header: 500ms }")
            .start()
            .await;
        let idle = gate.metrics().await;
        assert_eq!(kinds(&idle), [""; 0], "nothing has failed yet");
        a.fault(fault);
        let mut answer = gate.client().send(call(tool)).await;
        answer.read_to_end().await;
        gate.metrics_when(|m| kinds(m) == [kind]).await;
    }
    let a = Endpoint::start("a").await;
    a.refuse_connections().await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: none }")
        .start()
        .await;
    gate.client().send(call("whoami")).await.read_to_end().await;
    gate.metrics_when(|m| kinds(m) == ["connect"]).await;
}

#[tokio::test]
async fn a_reload_is_counted_and_the_time_of_the_good_one_stays() {
    const GOOD: &str = "tidegate_config_last_reload_successful";
    const AT: &str = "tidegate_config_last_reload_success_timestamp_seconds";
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let count = |m: &Metrics, result| m.with("tidegate_reloads_total", &[("result", result)]);
    let start = gate.metrics().await;
    assert_eq!((count(&start, "ok"), count(&start, "failed")), (0.0, 0.0));
    assert_eq!(start.sum(GOOD), 1.0);
    assert!(start.sum(AT) > 1.7e9);

    let right = gate.config();
    gate.write_config("nonsense: 1\n");
    gate.signal("HUP");
    let failed = gate.metrics_when(|m| count(m, "failed") == 1.0).await;
    assert_eq!((failed.sum(GOOD), failed.sum(AT)), (0.0, start.sum(AT)));

    gate.reload(&right).await;
    let again = gate.metrics_when(|m| count(m, "ok") == 1.0).await;
    assert_eq!(again.sum(GOOD), 1.0);
    assert!(again.sum(AT) > start.sum(AT));
}

#[tokio::test]
async fn a_wait_is_counted_only_for_those_that_wait() {
    const WAIT: &str = "tidegate_queue_wait_seconds_count";
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .endpoint("a", "max_in_flight: 1")
        .start()
        .await;
    let client = gate.client();
    client.send(call("whoami")).await.read_to_end().await;
    assert_eq!(pool(&gate.metrics().await, WAIT), 0.0, "it found a place");
    a.fault_when(Fault::StallBeforeHead, |r| {
        r.rpc_method() == Some("tools/call")
    });
    let send = |client: Client| async move {
        client.send(call("whoami")).await.read_to_end().await;
    };
    let running = tokio::spawn(send(client.clone()));
    a.until("the call has come", |a| a.calls("tools/call").len() == 2)
        .await;
    let waits = tokio::spawn(send(client));
    gate.metrics_when(|m| pool(m, "tidegate_calls_waiting") == 1.0)
        .await;
    a.heal();
    running.await.expect("no panic");
    waits.await.expect("no panic");
    let metrics = gate.metrics_when(|m| pool(m, WAIT) == 1.0).await;
    assert!(pool(&metrics, "tidegate_queue_wait_seconds_sum") > 0.0);
}

#[tokio::test]
async fn a_pool_tells_how_many_endpoints_get_calls() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .health("{ check: mcp, interval: 100ms, timeout: 500ms, fall: 1 }")
        .start()
        .await;
    let available = |m: &Metrics| pool(m, "tidegate_pool_endpoints_available");
    let metrics = gate
        .metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    assert_eq!(available(&metrics), 2.0);
    gate.ask(&["maint", "main/a"]).await;
    gate.metrics_when(|m| available(m) == 1.0).await;
    b.kill().await;
    let metrics = gate.metrics_when(|m| available(m) == 0.0).await;
    assert_eq!(pool(&metrics, "tidegate_pool_endpoints"), 2.0);
}

#[tokio::test]
async fn the_retry_budget_tells_what_is_left_of_it() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .health("{ check: none }")
        .pool("retries: { ratio: 0%, floor: 1 }")
        .start()
        .await;
    let left = |m: &Metrics| pool(m, "tidegate_retry_budget");
    assert_eq!(left(&gate.metrics().await), 10.0, "ten seconds of one each");
    // A list may be asked for again, on another server.
    a.fault(Fault::CloseBeforeHead);
    b.fault(Fault::CloseBeforeHead);
    let list = Outgoing::stateless(&json!(1), "tools/list", None, json!({}));
    gate.client().send(list).await.read_to_end().await;
    let metrics = gate.metrics().await;
    assert!(left(&metrics) < 10.0, "{}", left(&metrics));
}

#[tokio::test]
async fn a_worker_that_stood_still_is_told_once() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).config("threads: 2").start().await;
    let lag = |m: &Metrics, worker| m.with("tidegate_worker_lag_seconds", &[("worker", worker)]);
    gate.metrics().await;
    gate.signal("STOP");
    tokio::time::sleep(Duration::from_secs(3)).await;
    gate.signal("CONT");
    let metrics = gate.metrics().await;
    for worker in ["0", "1"] {
        assert!(lag(&metrics, worker) > 2.0, "{}", lag(&metrics, worker));
    }
    gate.metrics_when(|m| lag(m, "0") < 2.0 && lag(m, "1") < 2.0)
        .await;
}

#[tokio::test]
async fn sessions_have_a_series_each_if_that_is_wanted_up_to_a_number() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("sessions: { context_sizes: 2 }")
        .start()
        .await;
    let client = gate.client();
    let first = client.initialize().await;
    client
        .call(&first, "echo", json!({"text": "x".repeat(20_000)}))
        .await;
    let second = client.initialize().await;
    let third = client.initialize().await;
    client.call(&third, "whoami", json!({})).await;

    let line = gate.logged(|line| line["tool_name"] == "echo").await;
    let hash = line["session"].as_str().expect("a hash").to_owned();
    let size = |m: &Metrics, id: &str| m.with("mcp_context_size_bytes", &[("session_id", id)]);
    let shown = |m: &Metrics| {
        let names = m.0.keys();
        names
            .filter(|name| name.starts_with("mcp_context_size_bytes"))
            .count()
    };
    let metrics = gate.metrics_when(|m| size(m, &hash) > 20_000.0).await;
    assert_eq!(shown(&metrics), 2);
    assert_eq!(metrics.sum("tidegate_context_sizes_overflow_total"), 1.0);
    assert!(!hash.contains(&first.0[..8]) && hash.len() == 8, "{hash}");

    client.delete(&first).await;
    let metrics = gate.metrics_when(|m| shown(m) == 1).await;
    assert_eq!(size(&metrics, &hash), 0.0, "it went with its session");
    let fourth = client.initialize().await;
    gate.metrics_when(|m| shown(m) == 2).await;
    for session in [second, third, fourth] {
        client.delete(&session).await;
    }
    gate.metrics_when(|m| shown(m) == 0).await;
}

/// Sends that many calls, each of another tool, over a few connections. The series there are then.
async fn call_many(count: usize) -> (usize, f64, f64) {
    const CLIENTS: usize = 8;
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .log("{ access: off }")
        .health("{ check: none }")
        .start()
        .await;
    let resident = async || gate.metrics().await.sum("process_resident_memory_bytes");
    let before = resident().await;
    let mut running = Vec::new();
    for client in 0..CLIENTS {
        let own = gate.h2_client().await;
        running.push(tokio::spawn(async move {
            for n in (client..count).step_by(CLIENTS) {
                let tool = format!("tool-{n}");
                own.send(call(&tool)).await.read_to_end().await;
            }
        }));
    }
    for client in running {
        client.await.expect("no panic");
    }
    let overflow = |m: &Metrics| m.sum("tidegate_label_overflow_total");
    let metrics = gate.metrics_when(|m| overflow(m) == count as f64).await;
    (metrics.0.len(), before, resident().await)
}

#[tokio::test]
async fn tool_names_that_clients_invent_make_no_series() {
    let (few, ..) = call_many(10).await;
    let (many, ..) = call_many(1000).await;
    // The statuses of these calls may differ, the tools may not.
    assert!(many <= few + 10, "{few} {many}");
}

/// Some minutes: `cargo test --test it a_hundred_thousand -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_tool_names_leave_memory_as_it_was() {
    let (series, before, after) = call_many(100_000).await;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    eprintln!(
        "100000 tool names: {series} series, resident {:.1} MiB before and {:.1} MiB after",
        mib(before),
        mib(after)
    );
    assert!(series < 2000, "{series}");
    assert!(mib(after - before) < 32.0);
}
