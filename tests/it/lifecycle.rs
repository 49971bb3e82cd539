//! Signals, starts and ends of the process, under clients that notice.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::wire::NoHead;
use crate::support::{
    BodyEnd, Client, Endpoint, Mcp, NoAnswer, Tidegate, eventually, eventually_some, text_of,
};

/// What leaving may take when nothing has to be waited for.
const SOON: Duration = Duration::from_secs(4);

async fn leaves(gate: &mut Tidegate) {
    let status = gate.wait_exit(SOON).await;
    assert!(status.success(), "{status}");
}

/// Waits until the listener is closed to newcomers.
async fn closed_to_newcomers(client: &Client) {
    let refused = eventually_some(SOON, async || {
        let connected = client.connect().await;
        matches!(connected, Err(NoAnswer::Connect(_))).then_some(())
    });
    assert!(refused.await.is_some(), "newcomers are still let in");
}

#[tokio::test]
async fn a_call_that_is_running_is_finished() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let running = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 700})).await })
    };
    let streaming = {
        let client = client.clone();
        let ticks = json!({"n": 7, "every_ms": 100});
        tokio::spawn(async move { client.modern_call("ticks", ticks).await })
    };
    a.until("both run", |e| e.in_flight() == 2).await;
    gate.signal("TERM");
    closed_to_newcomers(&client).await;
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    assert_eq!(text_of(&streaming.await.expect("no panic")), "7 ticks");
    leaves(&mut gate).await;
    assert!(a.disconnects().is_empty());
}

#[tokio::test]
async fn streams_without_an_end_of_their_own_are_ended_properly() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut get = client.get_stream(&session, None).await;
    let mut listen = client.listen().await;
    let first = listen.events().next_json().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    gate.signal("TERM");
    let (events, end) = get.events().rest().await;
    assert_eq!((events.len(), end), (0, BodyEnd::Complete));
    let (events, end) = listen.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    assert_eq!(events.len(), 1);
    let result = events[0].json();
    assert_eq!(result["id"], 1);
    assert_eq!(result["result"]["resultType"], "complete");
    leaves(&mut gate).await;
    a.until("both are told", |e| e.streams_open() == 0).await;
}

#[tokio::test]
async fn streams_stay_open_while_a_call_is_waited_for() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut get = client.get_stream(&session, None).await;
    let running = {
        let (client, session) = (client.clone(), session.clone());
        tokio::spawn(async move { client.call(&session, "slow", json!({"ms": 800})).await })
    };
    a.until("it runs", |e| e.in_flight() == 2).await;
    gate.signal("TERM");
    closed_to_newcomers(&client).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
    let own = a.sessions()[0].clone();
    assert!(a.push(&own, &note), "the server may still say something");
    assert_eq!(get.events().next_json().await, note);
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    assert_eq!(get.events().rest().await.1, BodyEnd::Complete);
    leaves(&mut gate).await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_told_so() {
    let a = Endpoint::start("a").await;
    let old = Endpoint::named("old").legacy_sse().start().await;
    let mut gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: main\n- path: /sse\n  pool: old")
        .pools(&format!(
            "old: {{ health: {{ check: none }}, endpoints: [\"{}\"] }}",
            old.address()
        ))
        .config("drain_timeout: 500ms")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let endless = json!({"n": 1000, "every_ms": 50});
    let mut stream = client.start_call(&session, "ticks", endless).await;
    let waiting = {
        let (client, session) = (client.clone(), session.clone());
        let slow = json!({"ms": 60_000});
        tokio::spawn(async move { client.start_call(&session, "slow", slow).await })
    };
    let accept = [("accept", "text/event-stream")];
    let mut old_stream = client.request("GET", "/sse", &accept, b"").await;
    let address = old_stream.events().next().await.and_then(|e| e.data);
    let call = json!({"jsonrpc": "2.0", "id": "x-1", "method": "tools/call",
        "params": {"name": "slow", "arguments": {"ms": 60_000}}});
    let body = call.to_string();
    let json = [("content-type", "application/json")];
    let posted = client
        .request(
            "POST",
            &address.expect("an address"),
            &json,
            body.as_bytes(),
        )
        .await;
    assert_eq!(posted.status, 202);
    a.until("both run", |e| e.in_flight() == 2).await;
    let started = Instant::now();
    gate.signal("TERM");

    let (events, end) = stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    let last = events.last().expect("the error").json();
    assert_eq!(last["error"]["code"], -32603);
    assert_eq!(last["id"], 1);
    let mut refused = waiting.await.expect("no panic");
    assert_eq!(refused.status, 503);
    assert!(refused.headers().has("retry-after"));
    assert_eq!(refused.json().await["id"], 2);
    let (events, end) = old_stream.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    assert_eq!(events.len(), 1);
    let told = events[0].json();
    assert_eq!(told["id"], "x-1");
    assert_eq!(told["error"]["code"], -32603);
    leaves(&mut gate).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let line = gate.logged(|line| line["status"] == 503).await;
    assert_eq!(line["end_reason"], "draining");
}

#[tokio::test]
async fn asking_twice_is_being_in_a_hurry() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let waiting =
        tokio::spawn(async move { client.modern("tools/call", Some("slow"), slow).await });
    a.until("it runs", |e| e.in_flight() == 1).await;
    gate.signal("TERM");
    closed_to_newcomers(&gate.client()).await;
    assert!(gate.is_running());
    gate.signal("TERM");
    assert_eq!(waiting.await.expect("no panic").status, 503);
    leaves(&mut gate).await;
}

#[tokio::test]
async fn quit_drains_as_well() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let running = tokio::spawn(async move { client.modern_call("slow", json!({"ms": 300})).await });
    a.until("it runs", |e| e.in_flight() == 1).await;
    gate.signal("QUIT");
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    leaves(&mut gate).await;
}

#[tokio::test]
async fn a_signal_that_comes_early_is_not_lost() {
    let a = Endpoint::start("a").await;
    for signal in ["TERM", "QUIT", "INT"] {
        // Sent as soon as it answers, when much of it has only just begun.
        let mut gate = Tidegate::in_front_of(&[&a]).await;
        gate.signal(signal);
        leaves(&mut gate).await;
    }
}

#[tokio::test]
async fn an_interrupt_leaves_at_once() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let outgoing = crate::support::Outgoing::stateless(&json!(1), "tools/call", Some("slow"), slow);
    let waiting = tokio::spawn(async move { client.try_send(outgoing).await });
    a.until("it runs", |e| e.in_flight() == 1).await;
    let started = Instant::now();
    gate.signal("INT");
    gate.wait_exit(Duration::from_secs(2)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    // There may be time for a word of goodbye, and there may be none.
    if let Ok(answer) = waiting.await.expect("no panic") {
        assert_eq!(answer.status, 503);
    }
}

#[tokio::test]
async fn other_signals_do_not_kill() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    for signal in ["HUP", "USR1", "HUP"] {
        gate.signal(signal);
        assert_eq!(client.whoami(&session).await, "a");
    }
    assert!(gate.is_running());
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);
}

#[tokio::test]
async fn a_rotated_access_log_is_opened_anew() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    client.modern_call("echo", json!({"text": "1"})).await;
    gate.logged(|line| line["tool_name"] == "echo").await;
    let log = gate.places().access_log();
    let old = log.with_extension("old");
    std::fs::rename(&log, &old).expect("a file of ours");
    client.modern_call("counter", json!({})).await;
    gate.signal("USR1");
    // Only what was written before the signal may still go to the old file.
    assert!(eventually(SOON, || log.exists()).await);
    client.modern_call("whoami", json!({})).await;
    gate.logged(|line| line["tool_name"] == "whoami").await;
    let old = std::fs::read_to_string(old).expect("still there");
    assert!(old.contains("echo") && !old.contains("whoami"));
    let both = old + &std::fs::read_to_string(&log).expect("the new one");
    assert_eq!(both.matches("\"counter\"").count(), 1, "no line is lost");
}

#[tokio::test]
async fn a_second_process_cannot_take_the_address() {
    let a = Endpoint::start("a").await;
    let first = Tidegate::in_front_of(&[&a]).await;
    for (what, listen, admin) in [
        ("the listener", first.address(), None),
        (
            "the admin address",
            first.admin_address(),
            Some(first.admin_address()),
        ),
    ] {
        let second = Tidegate::build(&[])
            .config_with(move |places| {
                let (listen, admin) = match admin {
                    None => (listen, places.admin),
                    Some(admin) => (places.listen, admin),
                };
                format!(
                    "listeners: [{{ bind: \"{listen}\" }}]\nroutes: [{{ path: /mcp, pool: p }}]\n\
                     pools: {{ p: {{ endpoints: [127.0.0.1:9], health: {{ check: none }} }} }}\n\
                     admin: {{ bind: \"{admin}\" }}\nstate_dir: {}\n",
                    places.state_dir().display()
                )
            })
            .try_start()
            .await;
        let failure = second.err().unwrap_or_else(|| panic!("{what} was shared"));
        assert_eq!(failure.status.code(), Some(1), "{what}");
        assert!(
            failure.stderr.contains(&listen.to_string()),
            "{}",
            failure.stderr
        );
        assert!(
            failure.stderr.contains("cannot listen"),
            "{}",
            failure.stderr
        );
        assert!(!failure.stderr.contains("panicked"), "{}", failure.stderr);
    }
    let answer = first.client().modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&answer), "a", "the first is not disturbed");
}

#[tokio::test]
async fn readiness_says_when_to_send_traffic_elsewhere() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::build(&[&a])
        .health("{ check: tcp, interval: 100ms, timeout: 500ms, rise: 1, fall: 1 }")
        .start()
        .await;
    let ready = |client: Client| async move {
        let answer = client.try_request("GET", "/ready", &[], b"").await;
        answer.map(|answer| answer.status).ok()
    };
    assert_eq!(ready(gate.client()).await, Some(200));
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    a.refuse_connections().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 0.0)
        .await;
    for client in [gate.client(), gate.admin()] {
        assert_eq!(ready(client.clone()).await, Some(503));
        let health = client.request("GET", "/health", &[], b"").await;
        assert_eq!(health.status, 200, "alive all the same");
    }
    a.restart().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    assert_eq!(ready(gate.client()).await, Some(200));

    let client = gate.client();
    let running = tokio::spawn(async move { client.modern_call("slow", json!({"ms": 800})).await });
    a.until("it runs", |e| e.in_flight() == 1).await;
    gate.signal("TERM");
    closed_to_newcomers(&gate.client()).await;
    // The admin address is open to the end, so that whoever asks can be told.
    assert_eq!(ready(gate.admin()).await, Some(503));
    let mut page = gate.admin().request("GET", "/ready", &[], b"").await;
    assert!(page.text().await.contains("draining"));
    assert_eq!(
        gate.admin()
            .request("GET", "/metrics", &[], b"")
            .await
            .status,
        200
    );
    assert_eq!(text_of(&running.await.expect("no panic")), "done");
    leaves(&mut gate).await;
}

#[tokio::test]
async fn it_is_not_ready_before_every_endpoint_was_checked() {
    let a = Endpoint::start("a").await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let mute = mute.expect("a free port");
    let begun = Instant::now();
    let gate = Tidegate::build(&[&a])
        .also_at("mute", mute.local_addr().expect("it is bound"))
        .health("{ check: mcp, interval: 100ms, timeout: 700ms, rise: 1, fall: 1 }")
        .start()
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let ready = gate.client().request("GET", "/ready", &[], b"").await;
    assert_eq!(ready.status, 200, "one that does not answer is no obstacle");
}

#[tokio::test]
async fn sessions_outlive_the_process_and_its_key_is_a_secret() {
    let (a, b, c) = (
        Endpoint::start("a").await,
        Endpoint::start("b").await,
        Endpoint::start("c").await,
    );
    let mut gate = Tidegate::in_front_of(&[&a, &b, &c]).await;
    let client = gate.client();
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let session = client.initialize().await;
        sessions.push((client.whoami(&session).await, session));
    }
    let key = gate.places().state_dir().join("session.key");
    let mode = std::fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).expect("a key");
    gate.restart().await;
    gate.signal("TERM");
    leaves(&mut gate).await;
    gate.start_again().await;
    assert_eq!(std::fs::read(&key).expect("a key"), before);
    for (owner, session) in &sessions {
        assert_eq!(client.whoami(session).await, *owner);
        assert_eq!(client.get_stream(session, None).await.status, 200);
    }
    gate.metrics_when(|m| m.sum("tidegate_sessions") == 6.0)
        .await;

    // With another key they are unknown, and not an error of ours.
    gate.kill().await;
    std::fs::remove_file(&key).expect("a file of ours");
    gate.start_again().await;
    let gone = client.start_call(&sessions[0].1, "whoami", json!({})).await;
    assert_eq!(gone.status, 404);
    let fresh = client.initialize().await;
    client.whoami(&fresh).await;
}

#[tokio::test]
async fn nobody_who_was_let_in_is_left_without_an_answer() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let client = gate.client();
        let (answered, over) = (answered.clone(), over.clone());
        clients.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let params = json!({"name": "slow", "arguments": {"ms": 3}});
                let call = crate::support::Outgoing::stateless(
                    &json!(1),
                    "tools/call",
                    Some("slow"),
                    params,
                );
                match client.try_send(call).await {
                    Ok(mut answer) => {
                        assert_eq!(text_of(&answer.json().await), "done");
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(NoAnswer::Connect(_)) => return,
                    Err(left) => panic!("let in and left alone: {left:?}"),
                }
            }
        });
    }
    let count = answered.clone();
    assert!(eventually(SOON, || count.load(Ordering::SeqCst) > 50).await);
    gate.signal("TERM");
    leaves(&mut gate).await;
    over.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.expect("every client was answered");
    }
}

#[tokio::test]
async fn a_connection_between_requests_is_closed_when_the_drain_begins() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let params = json!({"name": "whoami", "arguments": {}});
    let mut first = client.modern("tools/call", Some("whoami"), params).await;
    assert_eq!(text_of(&first.json().await), "a");
    gate.signal("TERM");
    let closed = first.into_connection().response(false).await;
    assert_eq!(
        closed.map(|r| r.status),
        Err(NoAnswer::Head(NoHead::Closed))
    );
    leaves(&mut gate).await;
}
