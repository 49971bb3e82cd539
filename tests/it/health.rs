//! Active checks: they find out what a server speaks, notice when it is gone and when it is back,
//! and leave nothing behind on it.

mod unwell;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::endpoint::Builder;
use crate::support::tidegate::Metrics;
use crate::support::{Endpoint, Fault, Mcp, Tidegate, text_of};

/// Checks that come as fast as they may.
const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 2, fall: 2 }";

async fn checked(endpoints: &[&Endpoint]) -> Tidegate {
    Tidegate::build(endpoints).health(QUICK).start().await
}

fn healthy(metrics: &Metrics, name: &str) -> f64 {
    metrics.with("mcp_server_healthy", &[("server_name", name)])
}

async fn until_health(gate: &Tidegate, name: &str, up: bool) {
    let wanted = if up { 1.0 } else { 0.0 };
    gate.metrics_when(|m| healthy(m, name) == wanted).await;
}

/// Ends the program and looks at what it leaves behind.
async fn leaves_nothing(mut gate: Tidegate, a: &Endpoint) {
    gate.signal("TERM");
    assert!(gate.wait_exit(Duration::from_secs(5)).await.success());
    assert!(a.sessions().is_empty(), "{:?}", a.sessions());
    assert_eq!(a.sessions_opened() - a.sessions_deleted(), 0);
}

/// Lets `count` checks pass, and watches that there never is more than one session meanwhile.
async fn watch(a: &Endpoint, method: &str, count: usize) {
    for n in 1..=count {
        a.until("the next check", |e| e.calls(method).len() >= n)
            .await;
        assert!(a.sessions().len() <= 1, "{:?}", a.sessions());
    }
}

#[tokio::test]
async fn a_server_of_sessions_is_pinged_over_one_session() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = checked(&[&a]).await;
    watch(&a, "ping", 5).await;
    assert_eq!(a.sessions_opened(), 1);
    assert_eq!(a.calls("initialize").len(), 1);
    assert_eq!(a.calls("server/discover").len(), 1, "asked once");
    let accept = a.calls("ping")[0].header("accept").map(str::to_owned);
    assert_eq!(
        accept.as_deref(),
        Some("application/json, text/event-stream")
    );
    leaves_nothing(gate, &a).await;
}

#[tokio::test]
async fn a_stateless_server_is_asked_what_it_is() {
    let a = Endpoint::named("a").stateless_only().start().await;
    let gate = checked(&[&a]).await;
    watch(&a, "server/discover", 5).await;
    until_health(&gate, "a", true).await;
    assert_eq!(a.sessions_opened(), 0);
    assert!(a.calls("ping").is_empty());
    leaves_nothing(gate, &a).await;
}

#[tokio::test]
async fn a_server_of_both_eras_keeps_no_session_of_ours() {
    let a = Endpoint::start("a").await;
    let gate = checked(&[&a]).await;
    watch(&a, "server/discover", 5).await;
    assert!(a.sessions().is_empty());
    assert!(a.sessions_opened() <= 1, "opened to see whether it can be");
    leaves_nothing(gate, &a).await;
}

#[tokio::test]
async fn a_server_without_session_ids_is_no_trouble() {
    let a = Endpoint::named("a")
        .session_only()
        .sessionless()
        .start()
        .await;
    let gate = checked(&[&a]).await;
    watch(&a, "initialize", 4).await;
    until_health(&gate, "a", true).await;
    assert_eq!(a.sessions_opened(), 0);
    leaves_nothing(gate, &a).await;
}

#[tokio::test]
async fn a_leaky_server_gets_back_every_session_that_it_opens_for_a_check() {
    let manners: [fn(Builder) -> Builder; 2] = [|b| b.session_only().leaky(), Builder::leaky];
    for manner in manners {
        let a = manner(Endpoint::named("a")).start().await;
        let gate = checked(&[&a]).await;
        until_health(&gate, "a", true).await;
        let seen = a.requests().len();
        a.until("more checks", |e| e.requests().len() > seen + 3)
            .await;
        a.until("one session at most after good checks", |e| {
            e.sessions().len() <= 1
        })
        .await;
        // It fails for a while, and opens a session with every failure.
        a.fault_when(Fault::Status(500, "{}".into()), |r| r.method == "POST");
        until_health(&gate, "a", false).await;
        a.heal();
        until_health(&gate, "a", true).await;
        a.until("one session at most after failures", |e| {
            e.sessions().len() <= 1
        })
        .await;
        // It forgets ours, and opens another one over the refusal.
        if let Some(session) = a.sessions().first() {
            let (opened, pings) = (a.sessions_opened(), a.calls("ping").len());
            a.expire(session);
            a.until("a new session", |e| e.sessions_opened() > opened)
                .await;
            a.until("a good ping", |e| e.calls("ping").len() > pings + 2)
                .await;
            a.until("one session at most after a loss", |e| {
                e.sessions().len() <= 1
            })
            .await;
        }
        gate.signal("TERM");
        a.until("nothing left", |e| e.sessions().is_empty()).await;
    }
}

#[tokio::test]
async fn a_check_of_an_old_server_ends_its_stream() {
    let a = Endpoint::named("a").legacy_sse().start().await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /sse\n  pool: main")
        .health(QUICK)
        .start()
        .await;
    a.until("five checks", |e| e.requests().len() >= 5).await;
    until_health(&gate, "a", true).await;
    a.until("no stream is kept", |e| e.streams_open() == 0)
        .await;
    a.kill().await;
    until_health(&gate, "a", false).await;
}

#[tokio::test]
async fn a_server_that_asks_for_credentials_is_alive() {
    for status in [401, 403] {
        let a = Endpoint::start("a").await;
        a.fault(Fault::Status(status, "{}".into()));
        let gate = checked(&[&a]).await;
        until_health(&gate, "a", true).await;
        let seen = a.requests().len();
        a.until("more checks", |e| e.requests().len() > seen + 5)
            .await;
        assert_eq!(healthy(&gate.metrics().await, "a"), 1.0);
    }
}

#[tokio::test]
async fn a_server_is_down_after_so_many_bad_checks_and_up_after_so_many_good_ones() {
    let a = Endpoint::named("a").stateless_only().start().await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, interval: 100ms, timeout: 500ms, rise: 3, fall: 4 }")
        .pool("eras: stateless")
        .start()
        .await;
    until_health(&gate, "a", true).await;

    // A few failures are none.
    a.fault_next(3, Fault::Status(500, "{}".into()));
    a.until("they are over", |e| e.faults_fired() == 3).await;
    let seen = a.requests().len();
    a.until("good checks", |e| e.requests().len() > seen + 1)
        .await;
    assert_eq!(healthy(&gate.metrics().await, "a"), 1.0);

    a.fault(Fault::Status(500, "{}".into()));
    let bad = || a.faults_fired() - 3;
    loop {
        let up = healthy(&gate.metrics().await, "a") == 1.0;
        let after = bad();
        if !up {
            assert!((4..=5).contains(&after), "{after} bad checks");
            break;
        }
    }
    let mut refused = gate.client().modern("tools/list", None, json!({})).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers().has("retry-after"));
    refused.json().await;

    let before = a.calls("server/discover").len();
    let bad_before = bad();
    a.heal();
    let good = || a.calls("server/discover").len() - before - (bad() - bad_before);
    loop {
        let up = healthy(&gate.metrics().await, "a") == 1.0;
        let after = good();
        if up {
            assert!((3..=4).contains(&after), "{after} good checks");
            break;
        }
    }
    let served = gate.client().modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&served), "a");
}

/// The answer to `initialize` comes when the check has given up on it, and brings a session that
/// nobody else will ever hear of.
#[tokio::test]
async fn a_server_too_slow_for_its_check_keeps_no_session() {
    let a = Endpoint::named("a").session_only().start().await;
    a.fault_when(Fault::StallBeforeHead, |r| {
        r.rpc_method() == Some("initialize")
    });
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }")
        .start()
        .await;
    until_health(&gate, "a", false).await;
    watch(&a, "initialize", 1).await;
    a.heal();
    until_health(&gate, "a", true).await;
    leaves_nothing(gate, &a).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_down() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }")
        .start()
        .await;
    until_health(&gate, "a", true).await;
    a.fault(Fault::StallBeforeHead);
    until_health(&gate, "a", false).await;
    a.heal();
    until_health(&gate, "a", true).await;
    for fault in [
        Fault::GarbageHead,
        Fault::ResetBeforeHead,
        Fault::CloseMidEvent(5),
    ] {
        a.fault(fault);
        until_health(&gate, "a", false).await;
        a.heal();
        until_health(&gate, "a", true).await;
    }
}

#[tokio::test]
async fn a_failed_connect_brings_the_next_check_forward() {
    let (a, b) = (
        Endpoint::named("a").stateless_only().start().await,
        Endpoint::named("b").stateless_only().start().await,
    );
    let gate = Tidegate::build(&[&a, &b])
        .health("{ check: mcp, interval: 8s, timeout: 500ms, rise: 1, fall: 1 }")
        .pool("eras: stateless\nbalance: round_robin")
        .start()
        .await;
    until_health(&gate, "a", true).await;
    until_health(&gate, "b", true).await;
    a.kill().await;
    let started = Instant::now();
    for _ in 0..2 {
        let served = gate.client().modern_call("whoami", json!({})).await;
        assert_eq!(text_of(&served), "b", "the call itself goes elsewhere");
    }
    until_health(&gate, "a", false).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(healthy(&gate.metrics().await, "b"), 1.0);
}

#[tokio::test]
async fn sessions_of_a_server_that_is_down_are_not_found_and_others_go_on() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = checked(&[&a, &b]).await;
    until_health(&gate, "a", true).await;
    until_health(&gate, "b", true).await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let session = client.initialize().await;
        sessions.push((client.whoami(&session).await, session));
    }
    a.kill().await;
    until_health(&gate, "a", false).await;
    for (owner, session) in &sessions {
        let mut answer = client.start_call(session, "whoami", json!({})).await;
        if owner == "b" {
            assert_eq!(text_of(&answer.json().await), "b");
        } else {
            assert_eq!(answer.status, 404);
            let message = answer.json().await;
            assert_eq!(message["error"]["code"], -32001);
            assert!(message["id"].is_number());
        }
    }
    let lost = [("reason", "lost")];
    let metrics = gate.metrics().await;
    let of_a = sessions.iter().filter(|(owner, _)| owner == "a").count();
    assert_eq!(
        metrics.with("tidegate_sessions_ended_total", &lost),
        of_a as f64
    );
    let again = client.initialize().await;
    assert_eq!(client.whoami(&again).await, "b");
}

#[tokio::test]
async fn a_check_over_http_wants_success() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: http, path: /plain/alive, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .start()
        .await;
    until_health(&gate, "a", true).await;
    let asked = a.request(|r| r.path == "/plain/alive").await;
    assert_eq!(asked.method, "GET");
    assert_eq!(asked.header("host"), Some(&*a.address().to_string()));
    for status in [500, 404] {
        a.fault(Fault::Status(status, "{}".into()));
        until_health(&gate, "a", false).await;
        a.heal();
        until_health(&gate, "a", true).await;
    }
    a.fault(Fault::Status(302, String::new()));
    let seen = a.requests().len();
    a.until("more checks", |e| e.requests().len() > seen + 3)
        .await;
    assert_eq!(healthy(&gate.metrics().await, "a"), 1.0);
    a.kill().await;
    until_health(&gate, "a", false).await;
}

#[tokio::test]
async fn a_check_over_http_speaks_the_http_of_the_endpoint() {
    let a = Endpoint::named("a").http2().start().await;
    let gate = Tidegate::build(&[&a])
        .endpoint("a", "http2: true")
        .health("{ check: http, path: /plain/alive, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .start()
        .await;
    a.until("it is asked twice", |e| e.requests().len() > 1)
        .await;
    until_health(&gate, "a", true).await;
    let authority = a.address().to_string();
    assert_eq!(a.requests()[0].header("host"), Some(&*authority));
    a.fault(Fault::Status(500, "{}".into()));
    until_health(&gate, "a", false).await;
    a.heal();
    until_health(&gate, "a", true).await;
}

#[tokio::test]
async fn a_check_over_tcp_wants_a_connection() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: tcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .start()
        .await;
    until_health(&gate, "a", true).await;
    a.until("more checks", |e| e.connections_accepted() > 3)
        .await;
    a.refuse_connections().await;
    until_health(&gate, "a", false).await;
    a.restart().await;
    until_health(&gate, "a", true).await;
    assert!(a.requests().is_empty(), "nothing is said");
}

#[tokio::test]
async fn an_endpoint_may_have_a_name() {
    let a = Endpoint::start("a").await;
    let address = format!("localhost:{}", a.address().port());
    let gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: named")
        .pools(&format!(
            "named: {{ health: {QUICK}, resolve_every: 1s, endpoints: [\"{address}\"] }}"
        ))
        .start()
        .await;
    until_health(&gate, &address, true).await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    assert_eq!(a.requests()[0].header("host"), Some(address.as_str()));
    let last = a.requests();
    let host = last
        .last()
        .and_then(|r| r.header("host").map(str::to_owned));
    assert_eq!(host.as_deref(), Some(address.as_str()));
}

/// What `localhost` stands for is the machine's business: one address or two, of which the endpoint
/// has the first.
#[tokio::test]
async fn a_name_may_stand_for_an_endpoint_at_each_of_its_addresses() {
    let a = Endpoint::start("a").await;
    let address = format!("localhost:{}", a.address().port());
    let pool = |keys: &str| {
        format!(
            "several: {{ health: {QUICK}, resolve_every: 1s, \
             endpoints: [{{ name: api, address: \"{address}\"{keys} }}] }}"
        )
    };
    let gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: several")
        .pools(&pool(", resolve: all, weight: 7"))
        .start()
        .await;
    until_health(&gate, "api@127.0.0.1", true).await;
    let client = gate.client();
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    assert!(
        a.requests()
            .iter()
            .all(|asked| asked.header("host") == Some(address.as_str())),
        "it is asked for by its name"
    );
    let before = gate.config();
    let one = before.replace(", resolve: all", "");
    assert_ne!(one, before);
    gate.reload(&one).await;
    until_health(&gate, "api", true).await;
    assert_eq!(client.whoami(&session).await, "a", "while it is drained");
}

/// A machine that does not let the program run looks like servers that do not answer.
#[tokio::test]
async fn a_check_that_is_late_because_of_us_is_not_held_against_the_server() {
    let a = Endpoint::named("a").stateless_only().start().await;
    let gate = Tidegate::build(&[&a])
        .health("{ check: mcp, interval: 100ms, timeout: 1s, rise: 1, fall: 1 }")
        .pool("eras: stateless")
        .start()
        .await;
    until_health(&gate, "a", true).await;
    // Each question waits, so that the program stands still in the middle of one.
    a.fault(Fault::StallBeforeHead);
    let asked = a.requests().len();
    a.until("a question", |a| a.requests().len() > asked).await;
    // It stands still for longer than a check may take.
    gate.signal("STOP");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gate.signal("CONT");
    gate.metrics_when(|m| m.sum("tidegate_checks_excused_total") > 0.0)
        .await;
    a.heal();
    assert_eq!(
        healthy(&gate.metrics().await, "a"),
        1.0,
        "{}",
        gate.stderr()
    );

    // Where we run, the same silence is what it looks like.
    a.fault(Fault::StallBeforeHead);
    until_health(&gate, "a", false).await;
    assert!(
        gate.stderr()
            .contains("a check without an answer is passed over")
    );
}
