//! Header fields that routes set, add and remove, on every kind of exchange.

use std::time::Duration;

use serde_json::json;

use crate::support::tidegate::Builder;
use crate::support::ws::WebSocket;
use crate::support::{Endpoint, Fault, Mcp, Outgoing, Tidegate, text_of};

const CHANGES: &str = "\
request_headers:
  set: { Authorization: \"Bearer inside\", X-Real-IP: $remote_addr, X-Asked: \"$scheme://$http_host$request_uri\" }
  add: { X-List: two, X-Request-Id: $request_id }
  remove: [Cookie, X-Secret]
response_headers:
  set: { Strict-Transport-Security: max-age=63072000, Cache-Control: private, X-Endpoint: hidden }
  add: { X-Served-To: $remote_addr }
  remove: [Server, X-Powered-By]";

/// One whose only route changes fields.
fn build(endpoints: &[&Endpoint]) -> Builder {
    Tidegate::build(endpoints).route(CHANGES)
}

const SENT: [(&str, &str); 5] = [
    ("authorization", "Bearer outside"),
    ("cookie", "a=1"),
    ("x-secret", "s"),
    ("x-list", "one"),
    ("x-real-ip", "192.0.2.66"),
];

fn check_request(request: &crate::support::Request, uri: &str) {
    let all = |name: &str| {
        request
            .headers
            .all(name)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(all("authorization"), ["Bearer inside"]);
    assert_eq!(all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(all("x-list"), ["one", "two"]);
    assert_eq!(all("x-request-id").len(), 1);
    assert_eq!(all("x-request-id")[0].len(), 16);
    assert!(all("cookie").is_empty() && all("x-secret").is_empty());
    let asked = request.header("x-asked").expect("what was asked");
    assert!(
        asked.starts_with("http://127.0.0.1:") && asked.ends_with(uri),
        "{asked}"
    );
}

fn check_response(headers: &crate::support::Headers) {
    let all = |name: &str| headers.all(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("strict-transport-security"), ["max-age=63072000"]);
    assert_eq!(all("cache-control"), ["private"]);
    assert_eq!(all("x-served-to"), ["127.0.0.1"]);
    assert!(all("server").is_empty());
}

#[tokio::test]
async fn calls_and_their_answers_are_changed_on_both_http_versions() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let mut call = Outgoing::stateless(
        &json!(1),
        "tools/call",
        Some("whoami"),
        json!({"name": "whoami", "arguments": {}}),
    );
    for (name, value) in SENT {
        call = call.with(name, value);
    }
    let mut answer = gate.client().send(call.clone()).await;
    check_response(answer.headers());
    assert_eq!(answer.header("x-endpoint"), Some("hidden"));
    assert_eq!(text_of(&answer.rpc().await), "a");
    let mut answer = gate.h2_client().await.send(call).await;
    check_response(answer.headers());
    assert_eq!(text_of(&answer.rpc().await), "a");
    let seen = a.calls("tools/call");
    assert_eq!(seen.len(), 2);
    seen.iter()
        .for_each(|request| check_request(request, "/mcp"));
}

#[tokio::test]
async fn sessions_streams_and_deletions_are_changed_and_keep_their_ids() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client().with_header("x-list", "one");
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    let stream = client.get_stream(&session, None).await;
    check_response(stream.headers());
    assert!(stream.is_stream());
    let deleted = client.delete(&session).await;
    check_response(deleted.headers());
    for request in a.requests() {
        check_request(&request, "/mcp");
    }
}

#[tokio::test]
async fn answers_of_our_own_are_changed_too() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    let mut wrong = client.request("POST", "/mcp", &[], b"nonsense").await;
    assert!(wrong.status >= 400);
    check_response(wrong.headers());
    assert_eq!(wrong.header("content-type"), Some("application/json"));
    wrong.text().await;
    a.kill().await;
    let call = Outgoing::stateless(&json!(1), "tools/list", None, json!({}));
    let mut gone = client.send(call).await;
    assert_eq!(gone.status, 502);
    check_response(gone.headers());
    gone.text().await;
    let socket = WebSocket::connect(&client)
        .await
        .expect_err("nobody is there");
    check_response(&socket.headers);
}

#[tokio::test]
async fn a_websocket_is_changed_in_its_handshake_alone() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build(&[&a]).start().await;
    let mut client = gate.client();
    for (name, value) in SENT {
        client = client.with_header(name, value);
    }
    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    check_response(&socket.head.headers);
    check_request(&a.requests()[0], "/mcp");
    socket
        .send_text("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}")
        .await;
    assert!(socket.next_text().await.contains("result"));
}

#[tokio::test]
async fn plain_routes_are_changed_too() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build(&[&a])
        .routes(&format!(
            "- path_prefix: /\n  pool: main\n  {}",
            CHANGES.replace('\n', "\n  ")
        ))
        .pool("kind: http\naffinity: { cookie: TIDEGATE }\ntimeouts: { header: 300ms }")
        .start()
        .await;
    let mut answer = gate
        .client()
        .request("GET", "/plain/x?y=z", &SENT, b"")
        .await;
    check_response(answer.headers());
    assert!(
        answer
            .header("set-cookie")
            .is_some_and(|cookie| cookie.starts_with("TIDEGATE="))
    );
    answer.text().await;
    let h2 = gate.h2_client().await;
    let answer = h2.try_request("POST", "/plain/x?y=z", &SENT, b"body").await;
    check_response(answer.expect("an answer").headers());
    let seen = a.requests();
    assert_eq!(seen.len(), 2);
    seen.iter()
        .for_each(|request| check_request(request, "/plain/x?y=z"));
    let mut client = gate.client().with_path("/any");
    for (name, value) in SENT {
        client = client.with_header(name, value);
    }
    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    check_response(&socket.head.headers);
    check_request(&a.requests()[2], "/any");
    a.fault_next(1, Fault::StallBeforeHead);
    let late = gate.client().request("GET", "/plain", &SENT, b"").await;
    assert_eq!(late.status, 504);
    check_response(late.headers());
}

#[tokio::test]
async fn a_server_is_asked_by_the_name_that_the_route_gives() {
    let a = Endpoint::start("a").await;
    let own = a.address().to_string();
    for (kind, path) in [("mcp", "/mcp"), ("http", "/plain")] {
        for (host, seen) in [
            ("inside.example:81", "inside.example:81"),
            ("$host", "asked.example"),
            ("$http_host", "asked.example:8080"),
        ] {
            let gate = Tidegate::build(&[&a])
                .routes(&format!(
                    "- host: asked.example\n  path_prefix: /\n  pool: main\n  request_headers: {{ set: {{ Host: {host} }} }}\n\
                     - path_prefix: /\n  pool: main"
                ))
                .pool(&format!("kind: {kind}"))
                .start()
                .await;
            let call = Outgoing::stateless(&json!(1), "tools/list", None, json!({}));
            let mut lines = call.header_lines();
            lines.push(("host", "asked.example:8080"));
            let answer = gate
                .client()
                .request("POST", path, &lines, &call.body)
                .await;
            assert_eq!(answer.status, 200);
            let last = a.requests().pop().expect("a request");
            assert_eq!(
                last.headers.all("host").collect::<Vec<_>>(),
                [seen],
                "{kind}"
            );
        }
        let gate = Tidegate::build(&[&a]).start().await;
        let call = Outgoing::stateless(&json!(1), "tools/list", None, json!({}));
        gate.client().send(call).await;
        let last = a.requests().pop().expect("a request");
        assert_eq!(last.header("host"), Some(own.as_str()));
    }
}

#[tokio::test]
async fn a_session_begun_again_brings_what_the_route_sets() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = build(&[&a, &b])
        .pool("on_endpoint_loss: reinitialize\nejection: off\nbreaker: off")
        .health("{ check: tcp, interval: 100ms, timeout: 200ms, fall: 1, rise: 1 }")
        .start()
        .await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 2.0)
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let owner = client.whoami(&session).await;
    let (dead, other) = if owner == "a" { (&a, &b) } else { (&b, &a) };
    dead.kill().await;
    gate.metrics_when(|m| m.sum("mcp_server_healthy") == 1.0)
        .await;
    assert_eq!(client.whoami(&session).await, other.name());
    other
        .until("the beginning", |e| !e.calls("initialize").is_empty())
        .await;
    let begun = &other.calls("initialize")[0];
    assert_eq!(begun.header("authorization"), Some("Bearer inside"));
    assert_eq!(begun.header("x-real-ip"), Some("127.0.0.1"));
    tokio::time::timeout(Duration::from_secs(5), client.delete(&session))
        .await
        .expect("an answer");
}
