//! Routes of plain HTTP beside those of MCP: one edge host serves both.

use std::net::SocketAddr;

use bytes::BytesMut;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::tidegate::{Builder, Places};
use crate::support::wire::{BodyReader, Wire};
use crate::support::ws::WebSocket;
use crate::support::{BodyEnd, Endpoint, Fault, Response, Tidegate, text_of, within};

mod affinity;
mod failures;
mod times;

/// One with a route of plain HTTP for everything.
fn build(endpoints: &[&Endpoint]) -> Builder {
    Tidegate::build(endpoints)
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
}

async fn name_of(response: &mut Response) -> String {
    assert_eq!(response.status, 200);
    let name = response.header("x-endpoint").map(str::to_owned);
    response.text().await;
    name.expect("the endpoint's name")
}

/// The `name=value` of our cookie, if it is set.
fn cookie_of(response: &Response) -> Option<String> {
    let set: Vec<&str> = response.headers().all("set-cookie").collect();
    assert!(set.len() <= 1, "{set:?}");
    let cookie = set.first()?;
    assert!(cookie.contains("HttpOnly") && cookie.contains("Path=/"));
    let pair = cookie.split(';').next()?;
    pair.starts_with("TIDEGATE=").then(|| pair.to_owned())
}

#[tokio::test]
async fn requests_and_answers_pass_both_ways() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    let mut got = client
        .request("GET", "/plain/x?q=1&r=%2F", &[("X-Mark", "1")], b"")
        .await;
    assert_eq!(got.header("x-endpoint"), Some("a"));
    let seen = got.json().await;
    assert_eq!(
        (&seen["method"], &seen["path"]),
        (&json!("GET"), &json!("/plain/x?q=1&r=%2F"))
    );
    assert_eq!(a.requests()[0].header("x-mark"), Some("1"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let mut answer = client.request(method, "/plain", &[], b"some body").await;
        let seen = answer.json().await;
        assert_eq!(seen["method"], method);
        assert_eq!(seen["body_bytes"], 9, "{method}");
    }
    let big = "z".repeat(700_000);
    a.fault_next(1, Fault::Status(404, big.clone()));
    let mut answer = client.request("GET", "/plain", &[], b"").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text().await, big);
}

#[tokio::test]
async fn a_body_in_chunks_passes() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let chunked = [("transfer-encoding", "chunked")];
    let body = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    let mut answer = gate
        .client()
        .request("POST", "/plain", &chunked, body)
        .await;
    assert_eq!(answer.json().await["body_bytes"], 11);
}

/// A server that reads one request and hands over the bytes of its body as they come; then answers
/// in two halves, the second when told.
async fn slow_server() -> (SocketAddr, tokio::task::JoinHandle<()>, Reports) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let (report, received) = tokio::sync::watch::channel(0);
    let (go_on, mut told) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let wire = Wire::new(stream);
        let head = wire.request_head().await.expect("a head");
        let mut reader = BodyReader::of_request(&head.headers);
        while let Ok(piece) = reader.next(&wire).await {
            report.send_modify(|total| *total += piece.len());
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * HALF);
        wire.write(head.as_bytes()).await.expect("sent");
        wire.write(&vec![b'1'; HALF]).await.expect("sent");
        let _ = told.wait_for(|told| *told).await;
        wire.write(&vec![b'2'; HALF]).await.expect("sent");
    });
    (address, task, Reports { received, go_on })
}

struct Reports {
    received: tokio::sync::watch::Receiver<usize>,
    go_on: tokio::sync::watch::Sender<bool>,
}

/// Half of a body that no buffer on the way holds.
const HALF: usize = 4 << 20;

fn whole_config(address: SocketAddr) -> impl Fn(&Places) -> String + Send + Sync + 'static {
    move |places| {
        format!(
            "listeners: [{{ bind: {} }}]\nroutes: [{{ path_prefix: /, pool: main }}]\n\
             pools: {{ main: {{ kind: http, health: {{ check: none }}, endpoints: [\"{address}\"] }} }}\n\
             admin: {{ bind: \"{}\" }}\nstate_dir: {}\nlog: {{ access: off }}\n",
            places.listen,
            places.admin,
            places.state_dir().display(),
        )
    }
}

#[tokio::test]
async fn large_bodies_are_streamed_and_not_collected() {
    let (address, server, mut reports) = slow_server().await;
    let gate = Tidegate::build(&[])
        .config_with(whole_config(address))
        .start()
        .await;
    let connection = gate.client().connect().await.expect("a connection");
    let head = format!(
        "POST /plain HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        gate.address(),
        2 * HALF
    );
    connection.raw(head.as_bytes()).await.expect("sent");
    connection.raw(&vec![b'x'; HALF]).await.expect("sent");
    let first = reports.received.wait_for(|total| *total == HALF);
    within("the first half at the server", first)
        .await
        .expect("the server lives");
    connection.raw(&vec![b'x'; HALF]).await.expect("sent");

    let mut answer = connection.response(false).await.expect("an answer");
    let mut body = BytesMut::new();
    while body.len() < HALF {
        body.extend_from_slice(&answer.piece().await.expect("the first half of the answer"));
    }
    reports.go_on.send_replace(true);
    let rest = answer.read_to_end().await;
    assert_eq!(rest.end, BodyEnd::Complete);
    assert_eq!(body.len() + rest.bytes.len(), 2 * HALF);
    assert_eq!(*reports.received.borrow(), 2 * HALF);
    server.await.expect("the server is done");
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    let connection = client.connect().await.expect("a connection");
    let answer = client
        .try_request_on(connection, "HEAD", "/plain", &[], b"")
        .await;
    let mut answer = answer.expect("an answer");
    assert_eq!(answer.status, 200);
    let length: usize = answer
        .header("content-length")
        .and_then(|l| l.parse().ok())
        .expect("a length");
    assert!(length > 0);
    assert_eq!(answer.text().await, "");
    let again = client
        .try_request_on(answer.into_connection(), "GET", "/plain", &[], b"")
        .await;
    assert_eq!(name_of(&mut again.expect("an answer")).await, "a");
}

#[tokio::test]
async fn a_connection_carries_plain_and_mcp_requests_in_turn() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .routes("- path: /mcp\n  pool: main\n- path_prefix: /\n  pool: web")
        .pools(&format!(
            "web: {{ kind: http, health: {{ check: none }}, endpoints: [\"{}\"] }}",
            a.address()
        ))
        .start()
        .await;
    let client = gate.client();
    let mut connection = client.connect().await.expect("a connection");
    let call = crate::support::Outgoing::stateless(
        &json!(1),
        "tools/call",
        Some("whoami"),
        json!({"name": "whoami", "arguments": {}}),
    );
    for _ in 0..3 {
        let plain = client
            .try_request_on(connection, "POST", "/plain", &[], b"body")
            .await;
        let mut plain = plain.expect("an answer");
        assert_eq!(plain.json().await["body_bytes"], 4);
        let lines = call.header_lines();
        let mcp = client
            .try_request_on(plain.into_connection(), "POST", "/mcp", &lines, &call.body)
            .await;
        let mut mcp = mcp.expect("an answer");
        assert_eq!(text_of(&mcp.json().await), "a");
        connection = mcp.into_connection();
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    let mut bytes = Vec::new();
    for n in 0..4 {
        bytes.extend(client.encode("GET", &format!("/plain/{n}"), &[], b""));
        bytes.extend(client.encode("POST", &format!("/plain/{n}"), &[], b"body"));
    }
    let mut connection = client.connect().await.expect("a connection");
    connection.raw(&bytes).await.expect("sent");
    for n in 0..4 {
        for (method, length) in [("GET", 0), ("POST", 4)] {
            let mut answer = connection.response(false).await.expect("an answer");
            let seen = answer.json().await;
            assert_eq!(seen["path"], format!("/plain/{n}"));
            assert_eq!(seen["method"], method);
            assert_eq!(seen["body_bytes"], length);
            connection = answer.into_connection();
        }
    }
}

#[tokio::test]
async fn a_route_may_claim_health_and_the_admin_address_keeps_its_own() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    for path in ["/health", "/ready"] {
        let mut answer = gate.client().request("GET", path, &[], b"").await;
        assert_eq!(answer.status, 404, "{path} is the endpoint's to answer");
        assert_eq!(answer.text().await, "{}");
        let mut own = gate.admin().request("GET", path, &[], b"").await;
        assert_eq!(own.status, 200);
        own.text().await;
    }
    assert_eq!(a.requests().len(), 2);

    let b = Endpoint::start("b").await;
    let gate = Tidegate::build(&[&b])
        .routes("- path_prefix: /plain\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    let mut own = gate.client().request("GET", "/health", &[], b"").await;
    assert_eq!((own.status, own.text().await.as_str()), (200, "ok\n"));
    let nothing = gate.client().request("GET", "/plainly", &[], b"").await;
    assert_eq!(nothing.status, 404, "prefixes end at a segment");
    assert!(b.requests().is_empty());
}

#[tokio::test]
async fn a_websocket_passes() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build(&[&a]).start().await;
    let client = gate.client().with_path("/any/where");
    let socket = match WebSocket::connect(&client).await {
        Ok(socket) => socket,
        Err(head) => panic!("{head:?}"),
    };
    for length in [3, 200, 300_000] {
        let text = "w".repeat(length);
        socket.send_text(&text).await;
        assert_eq!(socket.next_text().await, text);
    }
    assert_eq!(a.push_websockets("news"), 1);
    assert_eq!(socket.next_text().await, "news");
    assert_eq!(socket.close(3000).await, Some(3000));
    a.until("its end", |e| e.streams_open() == 0).await;
}

#[tokio::test]
async fn http2_reaches_plain_routes_too() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .pool("affinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let client = gate.h2_client().await;
    let answer = client.try_request("GET", "/plain/2?x=1", &[], b"").await;
    let mut answer = answer.expect("an answer");
    assert!(cookie_of(&answer).is_some());
    assert!(!answer.headers().has("connection"));
    let seen = answer.json().await;
    assert_eq!(seen["path"], "/plain/2?x=1");
    let body = vec![b'x'; 3_000_000];
    let posted = client.try_request("POST", "/plain", &[], &body).await;
    let mut posted = posted.expect("an answer");
    assert_eq!(posted.json().await["body_bytes"], 3_000_000);
    let big = "z".repeat(2_000_000);
    a.fault_next(1, Fault::Status(200, big));
    let answer = client.try_request("GET", "/plain", &[], b"").await;
    assert_eq!(answer.expect("an answer").text().await.len(), 2_000_000);
    a.kill().await;
    let refused = client.try_request("GET", "/plain", &[], b"").await;
    assert_eq!(refused.expect("an answer").status, 502);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_behind() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let headers = [
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eA=="),
        ("x-kept", "1"),
    ];
    a.fault_next(
        1,
        Fault::ExtraHeader("Keep-Alive".into(), "timeout=5".into()),
    );
    a.fault_next(1, Fault::ExtraHeader("X-Answer".into(), "1".into()));
    let answer = gate.client().request("GET", "/plain", &headers, b"").await;
    assert!(!answer.headers().has("keep-alive"));
    assert_eq!(answer.header("x-answer"), Some("1"));
    let seen = &a.requests()[0];
    for name in ["x-private", "keep-alive", "proxy-authorization"] {
        assert!(!seen.headers.has(name), "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn mcp_headers_mean_nothing_here() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let headers = [
        ("mcp-session-id", "anything"),
        ("origin", "http://localhost"),
    ];
    let mut answer = gate.client().request("GET", "/plain", &headers, b"").await;
    assert_eq!(name_of(&mut answer).await, "a");
    assert_eq!(a.requests()[0].header("mcp-session-id"), Some("anything"));
    // A session of MCP has no meaning to the table either.
    let none = gate.metrics().await;
    assert_eq!(none.sum("tidegate_sessions"), 0.0);
}

#[tokio::test]
async fn a_body_waits_for_the_word_to_continue() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    let client = gate.client();
    let expects = [("expect", "100-continue"), ("content-length", "4")];
    let head = client.encode("POST", "/plain", &expects, b"");
    let connection = client.connect().await.expect("a connection");
    connection.raw(&head).await.expect("sent");
    let wire = connection.into_wire();
    let go_on = within("the interim head", wire.response_head()).await;
    assert_eq!(go_on.expect("a head").status, 100);
    wire.write(b"body").await.expect("sent");
    let answer = within("the answer", wire.response_head()).await;
    assert_eq!(answer.expect("a head").status, 200);
    assert_eq!(a.requests()[0].body.len(), 4);
}

#[tokio::test]
async fn a_route_has_its_host_and_its_origins_here_too() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .routes(
            "- host: www.example.com\n  path_prefix: /\n  pool: main\n  \
             origins: [\"https://www.example.com\"]",
        )
        .pool("kind: http")
        .start()
        .await;
    let client = gate.client();
    let host = ("host", "www.example.com");
    let status = async |headers: &[(&str, &str)]| {
        let answer = client.request("GET", "/plain", headers, b"").await;
        answer.status
    };
    assert_eq!(status(&[host]).await, 200);
    let own = ("origin", "https://www.example.com");
    assert_eq!(status(&[host, own]).await, 200);
    let foreign = ("origin", "https://evil.example");
    assert_eq!(status(&[host, foreign]).await, 403);
    let other = status(&[("host", "other.example.com")]).await;
    assert!(matches!(other, 403 | 404), "{other}");
    assert_eq!(a.requests().len(), 2);
}
