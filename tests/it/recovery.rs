//! A session whose endpoint is lost goes on at another one, where its pool says so.

use std::time::Duration;

use serde_json::json;

use crate::support::{Endpoint, Fault, Mcp, SessionId, Tidegate, text_of};

const QUICK: &str = "{ check: mcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }";

async fn in_front_of(endpoints: &[&Endpoint]) -> Tidegate {
    let gate = Tidegate::build(endpoints)
        .pool("on_endpoint_loss: reinitialize")
        .health(QUICK)
        .start()
        .await;
    for endpoint in endpoints {
        until_up(&gate, endpoint.name(), true).await;
    }
    gate
}

async fn until_up(gate: &Tidegate, name: &str, up: bool) {
    let wanted = f64::from(u8::from(up));
    let name = [("server_name", name)];
    gate.metrics_when(|m| m.with("mcp_server_healthy", &name) == wanted)
        .await;
}

/// A session on each of two servers: that of `a`, then that of `b`.
async fn one_on_each(gate: &Tidegate) -> [SessionId; 2] {
    let client = gate.client();
    let mut of_a = None;
    let mut of_b = None;
    while of_a.is_none() || of_b.is_none() {
        let session = client.initialize().await;
        match client.whoami(&session).await.as_str() {
            "a" => of_a = Some(session),
            _ => of_b = Some(session),
        }
    }
    [of_a.expect("found"), of_b.expect("found")]
}

fn request(id: u32, method: &str, params: serde_json::Value) -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test]
async fn a_session_goes_on_where_another_server_is() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b]).await;
    let client = gate.client().with_header("authorization", "Bearer t");
    let [session, _] = one_on_each(&gate).await;
    for (n, (method, params)) in [
        ("logging/setLevel", json!({"level": "info"})),
        ("logging/setLevel", json!({"level": "debug"})),
        ("resources/subscribe", json!({"uri": "note:1"})),
        ("resources/subscribe", json!({"uri": "note:2"})),
        ("resources/unsubscribe", json!({"uri": "note:1"})),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client
            .post(&session, &request(100 + n as u32, method, params))
            .await;
        assert_eq!(answer.status, 200);
    }
    a.kill().await;
    until_up(&gate, "a", false).await;
    let seen = b.requests().len();

    assert_eq!(client.whoami(&session).await, "b");
    assert_eq!(client.whoami(&session).await, "b");
    let requests = b.requests();
    let told: Vec<_> = requests[seen..]
        .iter()
        .filter(|r| r.rpc_method() != Some("ping"))
        .map(|r| {
            (
                r.rpc_method().unwrap().to_owned(),
                r.header("authorization").is_some(),
            )
        })
        .collect();
    let methods: Vec<_> = told.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "initialize",
            "notifications/initialized",
            "logging/setLevel",
            "resources/subscribe",
            "tools/call",
            "tools/call"
        ]
    );
    assert!(told.iter().all(|(_, authorized)| *authorized));
    let level = &b.calls("logging/setLevel")[0];
    assert!(String::from_utf8_lossy(&level.body).contains("debug"));
    let subscribed = &b.calls("resources/subscribe")[0];
    assert!(String::from_utf8_lossy(&subscribed.body).contains("note:2"));
    let metrics = gate.metrics().await;
    let success = [("pool", "main"), ("outcome", "success")];
    assert_eq!(
        metrics.with("tidegate_session_recoveries_total", &success),
        1.0
    );
    assert_eq!(
        metrics.with("tidegate_sessions_ended_total", &[("reason", "lost")]),
        0.0
    );
    // What was opened in the client's name ends with the client's session.
    let on_b = b.sessions().len();
    assert!((200..300).contains(&client.delete(&session).await.status));
    assert_eq!(b.sessions().len(), on_b - 1);
}

/// Between the end of a server and the checks that find it down its sessions need not be told.
#[tokio::test]
async fn a_call_that_cannot_be_sent_waits_until_its_session_goes_on() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let [session, _] = one_on_each(&gate).await;
    a.kill().await;
    // Nobody has noticed yet, and a tool call may wait as well: no server has seen it.
    let mut answer = client.start_call(&session, "counter", json!({})).await;
    assert_eq!(
        (answer.status, text_of(&answer.json().await).as_str()),
        (200, "1")
    );
    assert_eq!(
        b.calls("tools/call")
            .iter()
            .filter(|r| r.tool() == Some("counter"))
            .count(),
        1
    );
}

/// Some servers hold the head of a stream back until there is an event.
#[tokio::test]
async fn a_stream_that_has_not_begun_goes_on_too() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b]).await;
    let [session, _] = one_on_each(&gate).await;
    a.fault_next_when(1, Fault::StallBeforeHead, |r| r.method == "GET");
    let opening = {
        let (client, session) = (gate.client(), session.clone());
        tokio::spawn(async move { client.get_stream(&session, None).await })
    };
    a.request(|r| r.method == "GET").await;
    a.kill().await;
    let stream = opening.await.unwrap();
    assert_eq!((stream.status, stream.is_stream()), (200, true));
    assert!(b.requests().iter().any(|r| r.method == "GET"));
}

#[tokio::test]
async fn a_server_that_has_forgotten_its_sessions_is_told_of_them_again() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    client.whoami(&session).await;
    a.restart_forgetting().await;
    for _ in 0..3 {
        assert_eq!(client.whoami(&session).await, "a");
    }
    let success = [("pool", "main"), ("outcome", "success")];
    let metrics = gate.metrics().await;
    assert_eq!(
        metrics.with("tidegate_session_recoveries_total", &success),
        1.0
    );
}

#[tokio::test]
async fn calls_at_once_open_one_session() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b]).await;
    let [session, _] = one_on_each(&gate).await;
    a.kill().await;
    until_up(&gate, "a", false).await;
    let before = b.calls("initialize").len();
    let calls = (0..20).map(|_| {
        let (client, session) = (gate.client(), session.clone());
        tokio::spawn(async move { client.whoami(&session).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "b");
    }
    assert_eq!(b.calls("initialize").len(), before + 1);
}

#[tokio::test]
async fn without_a_server_the_session_waits_for_one() {
    let a = Endpoint::named("a").session_only().start().await;
    let gate = in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    a.kill().await;
    until_up(&gate, "a", false).await;
    let mut answer = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json().await["error"]["code"], -32603);
    a.restart_forgetting().await;
    until_up(&gate, "a", true).await;
    assert_eq!(client.whoami(&session).await, "a");
}

#[tokio::test]
async fn a_server_that_does_not_take_the_session_is_not_the_only_one() {
    let (a, b, c) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
        Endpoint::named("c").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b, &c]).await;
    let client = gate.client();
    let session = client.session_on(&a).await;
    let refuse = || Fault::Status(500, "{}".into());
    let initialize = |r: &crate::support::Request| r.rpc_method() == Some("initialize");
    b.fault_when(refuse(), initialize);
    a.kill().await;
    until_up(&gate, "a", false).await;
    assert_eq!(client.whoami(&session).await, "c");
}

#[tokio::test]
async fn a_session_for_which_there_was_no_memory_is_lost() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = Tidegate::build(&[&a, &b])
        .pool("on_endpoint_loss: reinitialize")
        .health(QUICK)
        .config("sessions: { recovery_memory: 1KiB }")
        .start()
        .await;
    let client = gate.client();
    let mut of_a = Vec::new();
    while of_a.len() < 4 {
        of_a.push(client.session_on(&a).await);
    }
    a.kill().await;
    until_up(&gate, "a", false).await;
    let mut statuses = Vec::new();
    for session in &of_a {
        statuses.push(client.start_call(session, "whoami", json!({})).await.status);
    }
    assert!(statuses.contains(&404), "{statuses:?}");
    let metrics = gate.metrics().await;
    assert!(metrics.with("tidegate_limits_hit_total", &[("limit", "origins")]) > 0.0);
    let lost = metrics.with("tidegate_sessions_ended_total", &[("reason", "lost")]);
    let gone = statuses.iter().filter(|status| **status == 404).count();
    assert!(lost >= gone as f64, "{lost} of {gone}");
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_sent_again() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let [session, _] = one_on_each(&gate).await;
    a.fault_next_when(1, Fault::StallBeforeHead, |r| r.tool() == Some("counter"));
    let waiting = {
        let (client, session) = (gate.client(), session.clone());
        tokio::spawn(async move {
            let mut answer = client.start_call(&session, "counter", json!({})).await;
            (answer.status, answer.json().await)
        })
    };
    a.request(|r| r.tool() == Some("counter")).await;
    a.kill().await;
    let (status, message) = tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((status, &message["error"]["code"]), (502, &json!(-32603)));
    let elsewhere = |e: &Endpoint| e.requests().iter().any(|r| r.tool() == Some("counter"));
    assert!(!elsewhere(&b));
    until_up(&gate, "a", false).await;
    let mut answer = client.start_call(&session, "whoami", json!({})).await;
    assert_eq!(
        text_of(&answer.json().await),
        "b",
        "the session itself goes on"
    );
}

/// All clients of a lost server come back at once, and each of their sessions is begun again: what
/// that takes is held to what a server may have at once.
#[tokio::test]
async fn sessions_are_begun_again_in_turn_where_calls_in_flight_are_limited() {
    let (a, b) = (
        Endpoint::named("a").session_only().start().await,
        Endpoint::named("b").session_only().start().await,
    );
    let gate = Tidegate::build(&[&a, &b])
        .pool("on_endpoint_loss: reinitialize\nqueue_timeout: 30s")
        .endpoint("b", "max_in_flight: 1")
        .health(QUICK)
        .start()
        .await;
    for name in ["a", "b"] {
        until_up(&gate, name, true).await;
    }
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(gate.client().session_on(&a).await);
    }
    a.kill().await;
    until_up(&gate, "a", false).await;
    let before = b.calls("initialize").len();
    b.fault_when(Fault::StallBeforeHead, |r| {
        r.rpc_method() == Some("initialize")
    });
    let calls = sessions.iter().map(|session| {
        let (client, session) = (gate.client(), session.clone());
        tokio::spawn(async move { client.whoami(&session).await })
    });
    let calls = calls.collect::<Vec<_>>();
    let waiting = [("pool", "main")];
    gate.metrics_when(|m| m.with("tidegate_calls_waiting", &waiting) == 19.0)
        .await;
    assert_eq!(b.calls("initialize").len(), before + 1);
    b.heal();
    for call in calls {
        assert_eq!(call.await.unwrap(), "b");
    }
}
