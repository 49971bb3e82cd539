//! Another configuration for the process that runs: what is new counts, what stays does not notice, and
//! what is wrong changes nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::crowd::{calls, end_of, held, size};
use crate::support::{
    BodyEnd, Client, Endpoint, Mcp, Outgoing, PATIENCE, Response, Tidegate, eventually, text_of,
};

/// Puts a file there that is not taken. What was said about it.
async fn refused(gate: &Tidegate, text: &str) -> String {
    let before = told(gate, "not reloaded");
    gate.write_config(text);
    gate.signal("HUP");
    until("the refusal", || told(gate, "not reloaded") > before).await;
    let stderr = gate.stderr();
    stderr[stderr.rfind("not reloaded").expect("it was said")..].to_owned()
}

async fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(eventually(PATIENCE, condition).await, "{what}");
}

fn told(gate: &Tidegate, words: &str) -> usize {
    gate.stderr().matches(words).count()
}

fn line(endpoint: &Endpoint) -> String {
    format!(
        "      - {{ name: {}, address: \"{}\" }}\n",
        endpoint.name(),
        endpoint.address()
    )
}

#[tokio::test]
async fn an_endpoint_that_is_added_serves_and_nobody_else_notices() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let running = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 500})).await })
    };
    a.until("both are there", |a| a.in_flight() == 2).await;
    let kept = client.connect().await.expect("a connection");
    let connections = a.connections_accepted();

    gate.reload(&gate.config().replace(&line(&a), &(line(&a) + &line(&b))))
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    assert!(stream.silent_for(Duration::from_millis(50)).await);
    assert_eq!(client.whoami(&session).await, "a");
    assert!(
        a.connections_accepted() <= connections + 2,
        "checks and calls"
    );
    client.session_on(&b).await;
    let request = client.encode("GET", "/health", &[], b"");
    kept.raw(&request).await.expect("it is open");
    assert_eq!(kept.response(false).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_shown_with_its_line() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let (client, good) = (gate.client(), gate.config());
    let session = client.initialize().await;
    let said = refused(&gate, &good.replace("    pool: main", "    pool: mian")).await;
    assert!(said.contains("^") && said.contains("mian"), "{said}");
    let said = refused(&gate, "listeners: [").await;
    assert!(
        said.contains("tidegate.yaml") || said.contains(":1:"),
        "{said}"
    );
    // An address that somebody else has.
    let taken = format!("listeners:\n  - bind: {}\n", a.address());
    let said = refused(&gate, &good.replacen("listeners:\n", &taken, 1)).await;
    assert!(said.contains("cannot listen"), "{said}");
    assert_eq!(client.whoami(&session).await, "a");
    gate.reload(&good).await;
    assert_eq!(client.whoami(&session).await, "a");
}

#[tokio::test]
async fn a_file_that_fails_late_changes_nothing_either() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.ask(&["weight", "main/b", "7"]).await;
    let good = gate.config();
    let (before, log) = good.split_once("log: ").expect("it is configured");
    let (_, after) = log.split_once('\n').expect("more keys, or none");
    let missing = gate.places().dir().join("missing/access.log");
    let address = format!("address: \"{}\"", a.address());
    let before = before.replace(&address, &format!("{address}, state: maint, weight: 3"));
    assert!(before.contains("maint"), "{before}");
    let wrong = format!("{before}log: {{ access: {} }}\n{after}", missing.display());
    let status = || async { gate.ask(&["status"]).await["pools"].clone() };
    let was = status().await;
    let said = refused(&gate, &wrong).await;
    assert!(said.contains("missing/access.log"), "{said}");
    assert_eq!(status().await, was);
}

#[tokio::test]
async fn files_are_watched_where_that_is_wanted() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a]).config("watch: 1s").start().await;
    let client = gate.client();
    let good = gate.config();
    gate.write_config(&good.replace("    pool: main", "    pool: mian"));
    until("the refusal", || told(&gate, "not reloaded") == 1).await;
    // The one that is wrong is told of once, and does not keep another from being read.
    let other = good.replace(&a.address().to_string(), &b.address().to_string());
    gate.write_config(&other);
    until("the reload", || told(&gate, "reloaded in") == 1).await;
    assert_eq!(told(&gate, "not reloaded"), 1);
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "b");
}

#[tokio::test]
async fn the_command_says_what_was_done_or_what_is_wrong() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a]).await;
    let good = gate.config();
    gate.write_config(&good.replace(&line(&a), &(line(&a) + &line(&b))));
    let done = gate.ask(&["reload"]).await;
    assert_eq!(
        (&done["pools_changed"], &done["endpoints_leaving"]),
        (&json!(1), &json!(0))
    );
    gate.write_config(&good.replace("pool: main", "pool: mian"));
    let failed = gate.verb(&["reload"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("mian") && said.contains("^^^^"), "{said}");
    // Over the admin address one may look and not touch.
    let refused = gate.admin().request("POST", "/v1/reload", &[], b"").await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn an_endpoint_that_is_removed_is_drained_and_then_forgotten() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .config("drain_timeout: 2s\ndrain_jitter: 100ms")
        .start()
        .await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    let other = client.session_on(&b).await;
    let stream = tokio::spawn(end_of(client.get_stream(&session, None).await));
    a.until("it is open", |a| a.streams_open() == 1).await;

    let begun = Instant::now();
    gate.reload(&gate.config().replace(&line(&a), "")).await;
    assert_eq!(client.whoami(&session).await, "a", "it keeps what it has");
    for _ in 0..10 {
        let new = client.initialize().await;
        assert_eq!(client.whoami(&new).await, "b", "and gets nothing new");
    }
    let end = stream.await.expect("no panic");
    assert!(end - begun > Duration::from_secs(1), "it had its time");
    a.until("its sessions are deleted", |a| a.sessions().is_empty())
        .await;
    let answer = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(answer.status, 404);
    gate.metrics_when(|m| m.with("mcp_server_healthy", &[("server", "a")]) == 0.0)
        .await;
    assert_eq!(client.whoami(&other).await, "b");
}

#[tokio::test]
async fn what_is_removed_is_draining_when_the_reload_is_done() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    let stream = client.get_stream(&session, None).await;
    gate.write_config(&gate.config().replace(&line(&a), ""));
    assert!(gate.verb(&["reload"]).await.status.success());
    let status = gate.ask(&["status"]).await;
    let endpoints = status["pools"][0]["endpoints"].as_array().expect("a list");
    let leaves = endpoints.iter().find(|endpoint| endpoint["name"] == "a");
    assert_eq!(leaves.expect("it is still there")["state"], "drain");
    drop(stream);
}

#[tokio::test]
async fn an_endpoint_that_is_removed_and_added_again_is_taken_back() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let (client, both) = (gate.client(), gate.config());
    let session = client.session_on(&a).await;
    let mut stream = client.get_stream(&session, None).await;
    gate.reload(&both.replace(&line(&a), "")).await;
    gate.reload(&both).await;
    until("it is taken back", || {
        told(&gate, "no longer draining") == 1
    })
    .await;
    client.session_on(&a).await;
    assert_eq!(client.whoami(&session).await, "a");
    assert!(stream.silent_for(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_pool_that_is_removed_ends_what_it_has_open() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a])
        .config("drain_timeout: 1s\ndrain_jitter: 100ms")
        .routes("- { host: other.test, path: /mcp, pool: other }\n- { path: /mcp, pool: main }")
        .pools(&format!("other: {{ endpoints: [\"{}\"] }}", b.address()))
        .start()
        .await;
    let other = gate.client().with_header("host", "other.test");
    let session = other.initialize().await;
    let stream = tokio::spawn(end_of(other.get_stream(&session, None).await));
    b.until("it is open", |b| b.streams_open() == 1).await;
    let without: String = gate
        .config()
        .lines()
        .filter(|line| !line.contains("other"))
        .map(|line| format!("{line}\n"))
        .collect();
    gate.reload(&without).await;
    let main = gate.client();
    let answer = main.start_call(&session, "whoami", json!({})).await;
    assert_eq!(answer.status, 404, "it is no session of the other pool");
    stream.await.expect("no panic");
    b.until("its sessions are deleted", |b| b.sessions().is_empty())
        .await;
}

#[tokio::test]
async fn listeners_come_and_go() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a]).more_ports(1).start().await;
    let (client, one) = (gate.client(), gate.config());
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let more = gate.places().more[0];
    let both = one.replacen(
        "listeners:\n",
        &format!("listeners:\n  - bind: {more}\n"),
        1,
    );
    gate.reload(&both).await;
    let second = Client::new(more);
    assert_eq!(second.whoami(&session).await, "a");
    let running = {
        let (second, session) = (second.clone(), session.clone());
        tokio::spawn(async move { second.call(&session, "slow", json!({"ms": 400})).await })
    };
    a.until("it runs", |a| a.in_flight() == 2).await;
    let idle = second.connect().await.expect("a connection");

    gate.reload(&one).await;
    let (rest, end) = idle.rest().await;
    assert!(
        rest.is_empty() && end == BodyEnd::Closed,
        "an idle connection is closed: {end:?}"
    );
    until("it is closed", || {
        std::net::TcpStream::connect(more).is_err()
    })
    .await;
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    assert!(stream.silent_for(Duration::from_millis(50)).await);
    assert_eq!(client.whoami(&session).await, "a");
}

#[tokio::test]
async fn what_was_used_of_a_rate_counts_on() {
    let a = Endpoint::start("a").await;
    let build = Tidegate::build(&[&a]);
    let gate = build
        .route("rate: { per_client: 1/h, burst: 1 }")
        .start()
        .await;
    let client = gate.client();
    let ask = || async { client.request("GET", "/mcp", &[], b"").await.status };
    assert_ne!(ask().await, 429);
    assert_eq!(ask().await, 429);
    let more = "routes:\n  - path: /new\n    pool: main\n";
    let text = gate.config().replacen("routes:\n", more, 1);
    gate.reload(&text).await;
    assert_eq!(ask().await, 429);
}

#[tokio::test]
async fn limits_count_from_the_reload_on() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let text = gate.config();
    let held = TcpStream::connect(gate.address()).await.expect("a place");
    let client = gate.client();
    let session = client.initialize().await;
    let first = text.replacen("\nroutes:", "\n    max_connections: 1\nroutes:", 1);
    gate.reload(&format!("{first}limits: {{ body: 1KiB }}\n"))
        .await;
    let denied = client.try_request("GET", "/health", &[], b"").await;
    assert!(denied.is_err(), "the one that is open is counted");
    drop(held);
    gate.metrics_when(|m| m.sum("mcp_connections_active") <= 1.0)
        .await;
    gate.reload(&format!("{text}limits: {{ body: 1KiB }}\n"))
        .await;
    let long = client
        .start_call(&session, "echo", json!({"text": "x".repeat(2000)}))
        .await;
    assert_eq!(long.status, 413);
}

#[tokio::test]
async fn what_is_known_of_endpoints_outlives_a_reload() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::build(&[&a, &b])
        .health("{ check: mcp, interval: 100ms, timeout: 500ms, rise: 100, fall: 1 }")
        .start()
        .await;
    a.refuse_connections().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    a.restart().await;
    let changed = gate
        .config()
        .replace("    health:", "    slow_start: 1s\n    health:");
    gate.reload(&changed).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        gate.metrics().await.sum("mcp_server_healthy"),
        1.0,
        "it must rise first"
    );
    gate.reload(&changed.replace("rise: 100", "rise: 1")).await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
}

/// A `subscriptions/listen` that has been acknowledged.
async fn listen(client: &Client, number: usize) -> Response {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let request = Outgoing::stateless(&json!(number), "subscriptions/listen", None, wanted);
    let mut stream = client.send(request).await;
    stream.events().next_json().await;
    stream
}

#[tokio::test]
async fn many_reloads_under_load_cut_nothing() {
    let reloads = size("TIDEGATE_RELOADS", 20);
    let (sessions, streams) = (size("TIDEGATE_SESSIONS", 20), size("TIDEGATE_STREAMS", 100));
    let pause = Duration::from_millis(size("TIDEGATE_RELOAD_PAUSE_MS", 50) as u64);
    let (a, b, c) = (
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    );
    let gate = Tidegate::build(&[&a, &b])
        .config("streams: { max_per_session: 1000 }")
        .start()
        .await;
    // Comments come every 15 s, and are no end.
    let client = gate.client().with_patience(Duration::from_secs(60));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (mut calling, mut listening) = (JoinSet::new(), JoinSet::new());
    for number in 0..sessions {
        let session = client.initialize().await;
        for number in (number..streams).step_by(sessions) {
            let stream = match number < sessions {
                true => client.get_stream(&session, None).await,
                false => listen(&client, number).await,
            };
            listening.spawn(held(stream, stopped.clone()));
        }
        calling.spawn(calls(client.clone(), session, stopped.clone()));
    }
    let text = gate.config();
    let more = text.replace(&line(&b), &(line(&b) + &line(&c)));
    let other = text.replace("    health:", "    slow_start: 3s\n    health:");
    let mut longest = Duration::ZERO;
    for round in 0..reloads {
        let begun = Instant::now();
        gate.reload([&text, &more, &other][round % 3]).await;
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(pause).await;
    }
    stop.send_replace(true);
    let made: usize = calling.join_all().await.into_iter().sum();
    assert_eq!(listening.join_all().await.len(), streams);
    assert!(made > reloads, "{made}");
    println!(
        "{reloads} reloads, {made} calls, {streams} streams; the longest until it was told {longest:?}"
    );
}
