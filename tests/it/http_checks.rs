//! What checks ask and what they take for a good answer, where the operator says so.

use std::time::{Duration, Instant};

use crate::support::ws::{Frame, WebSocket};
use crate::support::{Endpoint, Fault, PATIENCE, Tidegate, eventually_some};

async fn until_up(gate: &Tidegate, up: bool) {
    let wanted = if up { 1.0 } else { 0.0 };
    let labels = [("server_name", "a")];
    gate.metrics_when(|m| m.with("mcp_server_healthy", &labels) == wanted)
        .await;
}

/// Waits until the API says this of the endpoint's last check.
async fn until_told(gate: &Tidegate, why: &str) {
    let look = async || {
        let status = gate.ask(&["status"]).await;
        let health = &status["pools"][0]["endpoints"][0]["health"];
        let reason = health["reason"].as_str().unwrap_or_default();
        (health["state"] == "unwell" && reason.contains(why)).then_some(())
    };
    let told = eventually_some(PATIENCE, look).await;
    assert!(told.is_some(), "{why}: {}", gate.stderr());
}

#[tokio::test]
async fn a_check_over_http_asks_and_expects_what_it_is_told_to() {
    let a = Endpoint::start("a").await;
    let far_back = format!("{}all is well", " ".repeat(64 * 1024));
    a.fault(Fault::Status(200, "today all is well".into()));
    let gate = Tidegate::build(&[&a])
        .health(
            "{ check: http, method: POST, path: \"/plain/alive?deep\", host: www.example.com, \
             expect: { status: \"200-299, 401\", body: \"all is well\" }, \
             interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }",
        )
        .start()
        .await;
    until_up(&gate, true).await;
    let asked = a.request(|r| r.path == "/plain/alive?deep").await;
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.header("host"), Some("www.example.com"));
    assert_eq!(asked.header("content-length"), Some("0"));
    // It tells what it received, and says nothing of being well.
    a.heal();
    until_told(&gate, "what is expected is not in the body").await;
    for (fault, wrong) in [
        (
            Fault::Status(302, "all is well".into()),
            Some("with status 302"),
        ),
        (Fault::Status(401, "all is well".into()), None),
        // What stands too far back is not looked for.
        (Fault::Status(200, far_back), Some("not in the body")),
        (Fault::Status(200, "all is well".into()), None),
    ] {
        // The first of several faults counts.
        a.heal();
        a.fault(fault);
        match wrong {
            Some(why) => until_told(&gate, why).await,
            None => until_up(&gate, true).await,
        }
    }
}

#[tokio::test]
async fn a_check_over_http_may_ask_for_the_head_alone() {
    let a = Endpoint::start("a").await;
    a.fault(Fault::Status(204, String::new()));
    let gate = Tidegate::build(&[&a])
        .health(
            "{ check: http, method: HEAD, path: /plain/alive, expect: { status: 204 }, \
             interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }",
        )
        .start()
        .await;
    until_up(&gate, true).await;
    a.heal();
    until_up(&gate, false).await;
    assert!(a.requests().iter().all(|asked| asked.method == "HEAD"));
}

#[tokio::test]
async fn a_server_that_is_down_is_asked_at_an_interval_of_its_own() {
    let a = Endpoint::start("a").await;
    a.fault(Fault::Status(500, "{}".into()));
    let gate = Tidegate::build(&[&a])
        .health(
            "{ check: http, path: /plain/alive, interval: 30s, interval_fast: 100ms, \
             interval_down: 200ms, timeout: 500ms, rise: 2, fall: 20 }",
        )
        .start()
        .await;
    let begun = Instant::now();
    until_up(&gate, false).await;
    let bad = a.requests().len();
    a.until("more checks", |a| a.requests().len() > bad + 3)
        .await;
    a.heal();
    until_up(&gate, true).await;
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "never at the usual interval: {took:?}"
    );
}

#[tokio::test]
async fn a_check_of_mcp_asks_the_one_thing_it_is_told_to() {
    for (question, others) in [
        ("server/discover", ["initialize", "ping"]),
        ("initialize", ["server/discover", "ping"]),
    ] {
        let a = Endpoint::start("a").await;
        let word = question.trim_start_matches("server/");
        let gate = Tidegate::build(&[&a])
            .health(&format!(
                "{{ check: mcp, method: {word}, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }}"
            ))
            .start()
            .await;
        until_up(&gate, true).await;
        a.until("more checks", |a| a.calls(question).len() > 3)
            .await;
        for other in others {
            assert!(a.calls(other).is_empty(), "{word} and {other}");
        }
        a.until("no session", |a| a.sessions().len() <= 1).await;
        drop(gate);
    }
    // A server of both eras, of which `ping` is asked all the same.
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, method: ping, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .start()
        .await;
    a.until("pings", |a| a.calls("ping").len() > 3).await;
    assert_eq!(a.calls("initialize").len(), 1, "over one session");
    assert!(a.calls("server/discover").is_empty());
    drop(gate);
}

/// Only the checks fail: the connections are as well as they were.
#[tokio::test]
async fn what_is_open_on_a_server_that_is_down_ends_only_where_that_is_wanted() {
    for (on_down, kind) in [
        ("end", "mcp"),
        ("end", "http"),
        ("keep", "mcp"),
        ("keep", "http"),
    ] {
        let a = Endpoint::named("a").websocket().start().await;
        let address = a.address();
        let health = format!(
            "{{ check: http, path: /plain/alive, interval: 100ms, timeout: 500ms, rise: 1, fall: 1, \
             on_down: {on_down} }}"
        );
        let gate = Tidegate::build(&[&a])
            .routes("- path: /mcp\n  pool: one")
            .pools(&format!(
                "one: {{ kind: {kind}, health: {health}, endpoints: [{{ name: a, address: \"{address}\" }}] }}"
            ))
            .start()
            .await;
        until_up(&gate, true).await;
        let socket = WebSocket::connect(&gate.client())
            .await
            .expect("it is open");
        socket.send_text("before").await;
        assert_eq!(socket.next_text().await, "before");
        // One that answers that it is not well keeps what it has; one that says nothing is down.
        a.fault_when(Fault::StallBeforeHead, |r| r.path == "/plain/alive");
        until_up(&gate, false).await;
        if on_down == "keep" {
            socket.send_text("after").await;
            assert_eq!(socket.next_text().await, "after", "{kind}");
            continue;
        }
        let end = socket.next().await;
        assert_eq!(end, Ok(Frame::Close(Some(1001))), "{kind}");
        assert!(socket.next().await.is_err(), "{kind}");
        gate.logged(|line| line["end_reason"] == "withdrawn").await;
        a.heal();
        until_up(&gate, true).await;
        let again = WebSocket::connect(&gate.client())
            .await
            .expect("it is open");
        again.send_text("again").await;
        assert_eq!(again.next_text().await, "again", "{kind}");
    }
}
