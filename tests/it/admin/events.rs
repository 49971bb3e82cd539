//! The stream of events, and the figures beside it.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{ASKED, pair};
use crate::support::{
    Client, Endpoint, Event, Events, Mcp, Outgoing, PATIENCE, Response, Tidegate, eventually_some,
};

async fn listen(http: &Client, query: &str, headers: &[(&str, &str)]) -> Response {
    let path = format!("/v1/events{query}");
    http.request("GET", &path, headers, b"").await
}

/// Reads until an event is what is wanted.
async fn until(events: &mut Events<'_>, wanted: impl Fn(&str, &Value) -> bool) -> (Event, Value) {
    let end = Instant::now() + PATIENCE;
    while let Some(event) = events.next().await {
        if event.data.is_none() {
            // When to come back, which is no event (HTML, section 9.2.6).
            continue;
        }
        let data = event.json();
        if wanted(event.name.as_deref().unwrap_or_default(), &data) {
            return (event, data);
        }
        assert!(Instant::now() < end, "it does not come");
    }
    panic!("the stream has ended");
}

/// Is it an event with this topic, about this endpoint?
fn is(topic: &str, endpoint: &str) -> impl Fn(&str, &Value) -> bool {
    move |kind, data| kind == "event" && data["topic"] == topic && data["endpoint"] == endpoint
}

#[tokio::test]
async fn a_listener_sees_how_things_stand_each_second_and_what_happens_at_once() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .health("{ interval: 400ms, timeout: 1s, rise: 1, fall: 3 }")
        .start()
        .await;
    let mut response = listen(&gate.admin(), "", &[]).await;
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let mut events = response.events();
    let shows = |state: &'static str| {
        move |kind: &str, data: &Value| {
            let first = &data["pools"][0]["endpoints"][0];
            kind == "status" && first["name"] == "a" && first["state"] == state
        }
    };
    let (_, status) = until(&mut events, shows("up")).await;
    let totals = &status["totals"];
    assert!(totals["requests_per_second"].is_number(), "{status}");
    let begun = Instant::now();
    for _ in 0..3 {
        until(&mut events, |kind, _| kind == "status").await;
    }
    assert!(begun.elapsed() < Duration::from_secs(6));

    a.kill().await;
    let killed = Instant::now();
    let (_, down) = until(&mut events, |kind, data| {
        is("health", "a")(kind, data) && data["weight"] == "bad"
    })
    .await;
    assert_eq!(down["pool"], "main");
    let text = down["text"].as_str().expect("text");
    assert!(text.starts_with("down: "), "{down}");
    until(&mut events, shows("down")).await;
    println!("down is shown {:?} after it died", killed.elapsed());

    assert!(gate.verb(&["drain", "main/b"]).await.status.success());
    // What was told to do and what is done may be told in either order.
    let (told, drained) = (OnceCell::new(), Cell::new(false));
    until(&mut events, |kind, data| {
        if is("operator", "b")(kind, data) {
            let _ = told.set(data["text"].as_str().expect("text").to_owned());
        }
        drained.set(drained.get() || is("drain", "b")(kind, data));
        told.get().is_some() && drained.get()
    })
    .await;
    let told = told.into_inner().expect("it was told");
    assert!(
        told.starts_with("drain main/b") && told.contains("by uid"),
        "{told}"
    );
}

#[tokio::test]
async fn a_listener_that_takes_nothing_is_let_go_and_counted() {
    let a = Endpoint::start("a").await;
    let endpoints: Vec<String> = (1..=400)
        .map(|n| format!("{{ name: e{n}, address: \"127.0.0.1:{n}\" }}"))
        .collect();
    let pools = format!(
        "many: {{ endpoints: [{}], health: {{ check: none }} }}",
        endpoints.join(", ")
    );
    let gate = Tidegate::build(&[&a]).pools(&pools).start().await;
    // A unix socket's buffer has one size, and two frames of so many endpoints do not fit into it.
    let socket = gate.places().admin_socket();
    let mut deaf = UnixStream::connect(socket).await.expect("a connection");
    let asks = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    deaf.write_all(asks).await.expect("it is asked");
    let slow = [("limit", "slow_listeners")];
    let counted = eventually_some(Duration::from_secs(30), async || {
        let metrics = gate.metrics().await;
        (metrics.with("tidegate_limits_hit_total", &slow) == 1.0).then_some(())
    });
    assert!(counted.await.is_some(), "it is not let go");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, deaf.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it did not end as it should");
}

#[tokio::test]
async fn who_comes_back_gets_what_it_has_missed_and_a_newcomer_gets_the_last() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    for _ in 0..3 {
        assert!(gate.verb(&["weight", "main/a", "7"]).await.status.success());
    }
    let operated = is("operator", "a");
    let mut ids = Vec::new();
    let http = gate.admin();
    let mut response = listen(&http, "?only=event", &[]).await;
    let mut events = response.events();
    while ids.len() < 3 {
        let (event, data) = until(&mut events, &operated).await;
        assert_eq!(event.id.as_deref(), data["id"].as_str());
        ids.push(event.id.expect("an id"));
    }
    let mut response = listen(&http, "?only=event", &[("last-event-id", &ids[1])]).await;
    let mut events = response.events();
    let (event, _) = until(&mut events, |kind, _| kind == "event").await;
    assert_eq!(
        event.id.as_deref(),
        Some(ids[2].as_str()),
        "and not the first two"
    );
    let mut response = listen(&http, "?only=event", &[("last-event-id", "1-9999999")]).await;
    let mut events = response.events();
    until(&mut events, |_, data| data["id"] == ids[0]).await;
}

#[tokio::test]
async fn listeners_have_a_bound_and_a_stream_ends_with_the_process() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let http = gate.admin();
    let mut listeners = Vec::new();
    for _ in 0..32 {
        let response = listen(&http, "?only=event", &[]).await;
        assert_eq!(response.status, 200);
        listeners.push(response);
    }
    let mut refused = listen(&http, "", &[]).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json().await["error"]["code"], "busy");
    gate.metrics_when(|m| {
        m.with("tidegate_limits_hit_total", &[("limit", "event_listeners")]) == 1.0
    })
    .await;
    listeners.truncate(1);
    let mut wrong = listen(&http, "?only=x", &[]).await;
    assert_eq!(wrong.json().await["error"]["code"], "bad_request");
    let posted = http.request("POST", "/v1/events", &[ASKED], b"").await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET")));
    gate.signal("TERM");
    gate.wait_exit(PATIENCE).await;
    let mut events = listeners[0].events();
    while events.next().await.is_some() {}
    assert!(events.end.is_some());
}

#[tokio::test]
async fn the_figures_of_the_last_minutes_say_what_was_served() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    for _ in 0..20 {
        client.whoami(&session).await;
    }
    let http = gate.admin();
    let mut response = listen(&http, "?only=status", &[]).await;
    let mut events = response.events();
    let (_, status) = until(&mut events, |_, data| {
        data["totals"]["requests"].as_u64() >= Some(21) && data["totals"]["p50_seconds"].is_number()
    })
    .await;
    assert!(status["totals"]["p50_seconds"].as_f64() <= status["totals"]["p99_seconds"].as_f64());
    let get = async |path: &str| http.request("GET", path, &[], b"").await.json().await;
    let history = get("/v1/history").await;
    let rates = history["requests_per_second"].as_array().expect("a list");
    let sum: f64 = rates.iter().filter_map(Value::as_f64).sum();
    assert!(sum >= 15.0, "{history}");
    assert_eq!(history["time"].as_array().map(Vec::len), Some(rates.len()));
    let counted = eventually_some(PATIENCE, async || {
        let tools = get("/v1/tools").await;
        let calls = tools["tools"].as_array().expect("a list").iter();
        let calls: u64 = calls.filter_map(|tool| tool["calls"].as_u64()).sum();
        (calls == 20).then_some(())
    });
    assert!(counted.await.is_some(), "{}", get("/v1/tools").await);
    let streams = get("/v1/streams").await;
    assert!(streams["ended"].is_array(), "{streams}");
}

#[tokio::test]
async fn sessions_tell_their_client_and_can_be_searched() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    for (name, version) in [("Inspector <b>", "1.2.3"), ("other", ""), ("other", "")] {
        let info = json!({ "name": name, "version": version });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info,
        }});
        assert_eq!(client.send(Outgoing::post(&message)).await.status, 200);
    }
    let find = async |query: &str| {
        let path = format!("/v1/sessions?{query}");
        gate.admin()
            .request("GET", &path, &[], b"")
            .await
            .json()
            .await
    };
    let found = find("q=inSPector%20%3c").await;
    let sessions = found["sessions"].as_array().expect("a list");
    assert_eq!(sessions.len(), 1, "{found}");
    assert_eq!(
        sessions[0]["client"],
        json!({ "name": "Inspector <b>", "version": "1.2.3" })
    );
    assert_eq!(sessions[0]["era"], "session");
    let id = sessions[0]["id"].as_str().expect("an id");
    let count = async |query: &str| find(query).await["sessions"].as_array().map(Vec::len);
    assert_eq!(count(&format!("q={}", &id[2..])).await, Some(1));
    assert_eq!(count("q=other").await, Some(2));
    assert_eq!(count("q=main").await, Some(3));
    assert_eq!(count("q=nobody").await, Some(0));
    assert_eq!(
        find(&format!("q={}", "x".repeat(300))).await["error"]["code"],
        "bad_request"
    );
}

#[tokio::test]
async fn reloads_are_remembered_with_what_came_of_them() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let get = async || {
        gate.admin()
            .request("GET", "/v1/reloads", &[], b"")
            .await
            .json()
            .await
    };
    assert_eq!(get().await, json!({ "reloads": [] }));
    let good = gate.config();
    gate.write_config(&good.replace("pool: main", "pool: mian"));
    assert!(!gate.verb(&["reload"]).await.status.success());
    gate.write_config(&good);
    assert!(gate.verb(&["reload"]).await.status.success());
    let answer = get().await;
    let reloads = answer["reloads"].as_array().expect("a list");
    assert_eq!(reloads.len(), 2);
    assert_eq!(
        (&reloads[0]["result"], &reloads[0]["error"]),
        (&json!("ok"), &json!(null))
    );
    assert!(reloads[0]["done"]["took_ms"].is_number());
    assert_eq!(
        (&reloads[1]["result"], &reloads[1]["done"]),
        (&json!("failed"), &json!(null))
    );
    assert!(reloads[1]["error"].as_str().expect("why").contains("mian"));
}
