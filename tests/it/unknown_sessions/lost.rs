//! Sessions whose owner is lost, and what the checks leave behind.

use std::time::Duration;

use serde_json::json;

use super::{assert_refused, assert_unknown, call};
use crate::support::{Endpoint, Mcp, PATIENCE, Request, Tidegate, eventually, text_of};

/// Checks often enough for a test, and sees a loss at the second look.
const CHECKED: &str = "{ check: mcp, interval: 100ms, timeout: 1s, rise: 1, fall: 2 }";

/// Waits for a line of the program's log.
async fn logged(gate: &Tidegate, endpoint: &Endpoint, state: &str, times: usize) {
    let (word, name) = (
        format!("endpoint is {state}"),
        format!("endpoint={}", endpoint.name()),
    );
    let count = || {
        let log = gate.stderr();
        let lines = log
            .lines()
            .filter(|line| line.contains(&word) && line.contains(&name));
        lines.count()
    };
    let seen = eventually(PATIENCE, || count() >= times).await;
    assert!(seen, "never {word} {times} times: {}", gate.stderr());
}

#[tokio::test]
async fn a_lost_session_is_never_shown_to_another_copy() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::build(&[&a, &b]).health(CHECKED).start().await;
    logged(&gate, &a, "up", 1).await;
    logged(&gate, &b, "up", 1).await;
    let client = gate.client();
    let session = client.initialize().await;
    let (owner, other) = match client.whoami(&session).await.as_str() {
        "a" => (&a, &b),
        _ => (&b, &a),
    };
    let started = client.call(&session, "counter", json!({})).await;
    assert_eq!(text_of(&started), "1");
    let found = owner
        .request(|request| request.tool() == Some("counter"))
        .await;
    let own = found
        .header("mcp-session-id")
        .expect("in a session")
        .to_owned();

    owner.kill().await;
    logged(&gate, owner, "down", 1).await;
    assert_unknown(&client, &session).await;
    let shown = |request: &Request| {
        let id = request.header("mcp-session-id");
        id == Some(&own) || id == Some(&session.0) || request.tool().is_some()
    };
    assert!(!other.requests().iter().any(shown));
    assert_eq!(
        client.whoami(&client.initialize().await).await,
        other.name()
    );

    // It comes back as it was, and so does the session under the same id.
    owner.restart().await;
    logged(&gate, owner, "up", 2).await;
    let again = client.call(&session, "counter", json!({})).await;
    assert_eq!(text_of(&again), "2");
}

#[tokio::test]
async fn a_failure_that_no_check_has_seen_is_no_loss() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let (owner, other) = match client.whoami(&session).await.as_str() {
        "a" => (&a, &b),
        _ => (&b, &a),
    };
    owner.kill().await;
    let seen = other.requests().len();
    for id in [json!(7), json!("seven")] {
        let answer = client.post(&session, &call(&id)).await;
        assert_refused(answer, 502, -32603, id, "connect").await;
    }
    // Clients give a stream up after two errors; one that has ended they open again.
    let mut ended = client.get_stream(&session, None).await;
    assert!(ended.status == 200 && ended.is_stream());
    assert_eq!(ended.text().await, "");
    assert_eq!(other.requests().len(), seen);

    owner.restart().await;
    for counted in ["1", "2"] {
        let again = client.call(&session, "counter", json!({})).await;
        assert_eq!(text_of(&again), counted);
    }
}

#[tokio::test]
async fn the_session_of_a_copy_that_is_no_more_is_unknown() {
    let (a, b) = tokio::join!(Endpoint::start("a"), Endpoint::start("b"));
    let mut gate = Tidegate::build(&[&a, &b])
        .pool("balance: round_robin")
        .start()
        .await;
    let client = gate.client();
    let mut sessions = [client.initialize().await, client.initialize().await];
    if client.whoami(&sessions[0]).await == "b" {
        sessions.reverse();
    }
    let config = gate.config();
    let without_b = config.lines().filter(|line| !line.contains("name: b"));
    let without_b: Vec<_> = without_b.collect();
    gate.write_config(&without_b.join("\n"));
    gate.restart().await;
    assert_eq!(client.whoami(&sessions[0]).await, "a");
    let seen = (a.requests().len(), b.requests().len());
    assert_unknown(&client, &sessions[1]).await;
    assert_eq!((a.requests().len(), b.requests().len()), seen);

    // And back again, as after a mistake.
    gate.write_config(&config);
    gate.restart().await;
    assert_eq!(client.whoami(&sessions[1]).await, "b");
}

#[tokio::test]
async fn a_copy_that_forgot_its_sessions_says_so_itself() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.restart_forgetting().await;
    let gone = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    assert_eq!(a.calls("tools/call").len(), 1);
    let again = client.initialize().await;
    assert_eq!(client.whoami(&again).await, "a");
}

#[tokio::test]
async fn the_checks_leave_no_session_behind() {
    let a = Endpoint::named("a").leaky().start().await;
    let b = Endpoint::named("b").leaky().session_only().start().await;
    let mut gate = Tidegate::build(&[&a, &b]).health(CHECKED).start().await;
    b.until("some checks", |b| b.calls("ping").len() >= 3).await;
    a.until("some checks", |a| a.calls("server/discover").len() >= 3)
        .await;
    assert_eq!(b.sessions().len(), 1, "the one that ping goes over");
    gate.signal("TERM");
    gate.wait_exit(Duration::from_secs(10)).await;
    for endpoint in [&a, &b] {
        assert_eq!(
            endpoint.sessions(),
            Vec::<String>::new(),
            "{}",
            endpoint.name()
        );
        assert!(
            endpoint.sessions_opened() < 4,
            "{}",
            endpoint.sessions_opened()
        );
    }
}
