//! The endpoint as a server with `initialize`, and the client of it.

use std::time::Duration;

use serde_json::json;

use crate::support::{BodyEnd, Client, Endpoint, Mcp, Outgoing, SessionId, text_of};

#[tokio::test]
async fn a_session_lives_from_initialize_to_delete() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    assert_eq!(endpoint.sessions(), std::slice::from_ref(&session.0));
    assert_eq!(client.whoami(&session).await, "a");

    let unknown = SessionId("deadbeef".into());
    let mut refused = client.start_call(&unknown, "whoami", json!({})).await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.json().await["error"]["code"], -32001);
    let nobody = SessionId(String::new());
    let refused = client.start_call(&nobody, "whoami", json!({})).await;
    assert_eq!(refused.status, 400);
    assert!(!refused.headers().has("mcp-session-id"));

    assert_eq!(client.delete(&session).await.status, 200);
    assert_eq!(client.delete(&session).await.status, 404);
    assert_eq!(endpoint.sessions_opened(), 1);
    assert_eq!(endpoint.sessions_deleted(), 1);
    assert!(endpoint.sessions().is_empty());
}

#[tokio::test]
async fn tools_answer_and_requests_are_recorded_as_they_came() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint).with_header("X-Mark", "one");
    let session = client.initialize().await;
    let other = client.initialize().await;
    for expected in ["1", "2"] {
        let counted = client.call(&session, "counter", json!({})).await;
        assert_eq!(text_of(&counted), expected);
    }
    let counted = client.call(&other, "counter", json!({})).await;
    assert_eq!(text_of(&counted), "1");
    let big = client
        .call(&session, "big", json!({"bytes": 300_000}))
        .await;
    assert_eq!(text_of(&big).len(), 300_000);
    let echo = client.call(&session, "echo", json!({"text": "hé"})).await;
    assert_eq!(text_of(&echo), "hé");
    let slow = client.call(&session, "slow", json!({"ms": 1})).await;
    assert_eq!(text_of(&slow), "done");
    let failed = client.call(&session, "fail", json!({})).await;
    assert_eq!(failed["result"]["isError"], true);
    let missing = client.call(&session, "no_such", json!({})).await;
    assert_eq!(missing["error"]["code"], -32602);

    let echo = endpoint.request(|r| r.tool() == Some("echo")).await;
    assert_eq!(echo.header("x-mark"), Some("one"));
    assert_eq!(echo.headers.0[1], ("X-Mark".into(), "one".into()));
    assert_eq!((echo.method.as_str(), echo.path.as_str()), ("POST", "/mcp"));
    assert_eq!(endpoint.calls("initialize").len(), 2);
    assert_eq!(endpoint.requests().len(), endpoint.connections_accepted());
}

#[tokio::test]
async fn ticks_come_one_by_one_before_the_result() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let arguments = json!({"n": 3, "every_ms": 40});
    let mut response = client.start_call(&session, "ticks", arguments).await;
    assert!(response.is_stream());
    let (events, end) = response.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    assert_eq!(events.len(), 4);
    assert_eq!(events[1].json()["params"]["progress"], 2);
    assert_eq!(text_of(&events[3].json()), "3 ticks");
    assert!(events[3].at - events[0].at >= Duration::from_millis(60));
    endpoint.until("no stream", |e| e.streams_open() == 0).await;
}

#[tokio::test]
async fn a_server_request_is_answered_by_another_post() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let mut response = client.start_call(&session, "ask", json!({})).await;
    let mut events = response.events();
    let asked = events.next_json().await;
    assert_eq!(asked["method"], "elicitation/create");
    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    let accepted = client.answer(&session, &asked["id"], answer).await;
    assert_eq!(accepted.status, 202);
    assert!(text_of(&events.next_json().await).contains("Ada"));
    assert!(events.next().await.is_none());
    assert!(endpoint.stray_answers().is_empty());

    client.answer(&session, &json!(77), json!({})).await;
    assert_eq!(endpoint.stray_answers().len(), 1);
}

#[tokio::test]
async fn pushes_come_on_the_one_get_stream() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert!(!endpoint.push(&session.0, &note), "nobody is there");

    let mut stream = client.get_stream(&session, None).await;
    assert_eq!(stream.status, 200);
    assert!(stream.silent_for(Duration::from_millis(30)).await);
    assert_eq!(client.get_stream(&session, None).await.status, 409);
    assert!(endpoint.push(&session.0, &note));
    let mut events = stream.events();
    assert_eq!(events.next_json().await, note);
    endpoint.close_get_stream(&session.0);
    assert!(events.next().await.is_none());
    assert_eq!(events.end, Some(BodyEnd::Complete));

    let stream = client.get_stream(&session, None).await;
    endpoint
        .until("one stream", |e| e.streams_open() == 1)
        .await;
    drop(stream);
    endpoint
        .until("a disconnect", |e| e.disconnects().len() == 1)
        .await;
    let left = &endpoint.disconnects()[0];
    assert!(left.streaming);
    assert_eq!(left.request.method, "GET");
}

#[tokio::test]
async fn a_sessionless_server_gives_no_id_and_ignores_any() {
    let endpoint = Endpoint::named("a").sessionless().start().await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    assert_eq!(session.0, "");
    let made_up = SessionId("deadbeef".into());
    assert_eq!(client.whoami(&made_up).await, "a");
    let mut stream = client.get_stream(&session, None).await;
    assert!(stream.silent_for(Duration::from_millis(30)).await);
    assert_eq!(client.delete(&session).await.status, 405);
}

#[tokio::test]
async fn a_leaky_server_opens_a_session_with_every_error() {
    let endpoint = Endpoint::named("a").leaky().start().await;
    let client = Client::of(&endpoint);
    let refused = client.request("GET", "/mcp", &[], b"").await;
    assert_eq!(refused.status, 406);
    assert!(refused.headers().has("mcp-session-id"));
    let refused = client.request("OPTIONS", "/mcp", &[], b"").await;
    assert_eq!(refused.status, 405);
    assert_eq!(endpoint.sessions().len(), 2);
    client.initialize().await;
    assert_eq!(endpoint.sessions_opened(), 3);
}

#[tokio::test]
async fn an_event_store_closes_on_purpose_and_replays() {
    let endpoint = Endpoint::named("a").event_store().start().await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let arguments = json!({"n": 3, "close_after": 1});
    let mut response = client.start_call(&session, "ticks", arguments).await;
    let (events, end) = response.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].data.as_deref(), Some(""));
    assert!(events[0].retry.is_some());

    let last = events[1].id.clone().expect("events are numbered");
    let mut resumed = client.get_stream(&session, Some(&last)).await;
    let (events, end) = resumed.events().rest().await;
    assert_eq!(end, BodyEnd::Complete);
    assert_eq!(events[0].json()["params"]["progress"], 2);
    assert_eq!(text_of(&events.last().expect("a result").json()), "3 ticks");

    let mut lost = client.get_stream(&session, Some("9999")).await;
    assert_eq!(lost.status, 200);
    assert!(lost.silent_for(Duration::from_millis(30)).await);
}

#[tokio::test]
async fn a_get_stream_is_resumed_where_it_broke() {
    let endpoint = Endpoint::named("a").event_store().start().await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let note = |n: u64| json!({"jsonrpc": "2.0", "method": "notifications/n", "params": {"n": n}});
    let mut stream = client.get_stream(&session, None).await;
    endpoint.push(&session.0, &note(1));
    let mut events = stream.events();
    let priming = events.next().await.expect("a priming event");
    assert_eq!(priming.data.as_deref(), Some(""));
    let first = events.next().await.expect("the first push");
    drop(stream);
    endpoint.until("no stream", |e| e.streams_open() == 0).await;
    endpoint.push(&session.0, &note(2));
    let mut stream = client.get_stream(&session, first.id.as_deref()).await;
    assert_eq!(stream.events().next_json().await, note(2));
}

#[tokio::test]
async fn a_batch_is_answered_by_a_batch() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let ping = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let mut response = client.post(&session, &json!([ping(1), ping(2)])).await;
    assert_eq!(response.json().await.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn wrong_headers_are_refused_as_real_servers_do() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let ping = Outgoing::post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let narrow = ping
        .clone()
        .without("accept")
        .with("accept", "application/json");
    assert_eq!(client.send(narrow).await.status, 406);
    let untyped = ping.without("content-type");
    assert_eq!(client.send(untyped).await.status, 415);
    let put = client.request("PUT", "/mcp", &[], b"").await;
    assert_eq!(put.header("allow"), Some("GET, POST, DELETE"));
}

#[tokio::test]
async fn a_server_that_streams_everything_streams_even_an_echo() {
    let endpoint = Endpoint::named("a").streams_everything().start().await;
    let client = Client::of(&endpoint);
    let session = client.initialize().await;
    let mut response = client.start_call(&session, "whoami", json!({})).await;
    assert!(response.is_stream());
    assert_eq!(text_of(&response.rpc().await), "a");
}

#[tokio::test]
async fn http_and_sse_answers_on_the_stream() {
    let endpoint = Endpoint::named("a").legacy_sse().start().await;
    let client = Client::of(&endpoint);
    assert_eq!(client.send_initialize().await.status, 404);
    let mut stream = client
        .request("GET", "/sse", &[("accept", "text/event-stream")], b"")
        .await;
    let mut events = stream.events();
    let first = events.next().await.expect("the endpoint event");
    assert_eq!(first.name.as_deref(), Some("endpoint"));
    let uri = first.data.expect("the address for messages");
    let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
        "params": {"name": "ticks", "arguments": {"n": 1}}});
    let headers = [("content-type", "application/json")];
    let mut accepted = client
        .request("POST", &uri, &headers, call.to_string().as_bytes())
        .await;
    assert_eq!(
        (accepted.status, accepted.text().await.as_str()),
        (202, "Accepted")
    );
    assert_eq!(events.next_json().await["method"], "notifications/progress");
    assert_eq!(text_of(&events.next_json().await), "1 ticks");

    drop(stream);
    endpoint
        .until("no session", |e| e.sessions().is_empty())
        .await;
    let lost = client
        .request("POST", &uri, &headers, call.to_string().as_bytes())
        .await;
    assert_eq!(lost.status, 404);
}
