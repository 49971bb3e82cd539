//! The PROXY protocol from proxies in front of us: who the client is comes before everything else.

use std::time::Duration;

use serde_json::json;

use crate::support::door::{Door, Far};
use crate::support::h2::H2Client;
use crate::support::tidegate::Builder;
use crate::support::tls::{Certificate, TlsDoor};
use crate::support::ws::WebSocket;
use crate::support::{BodyEnd, Client, Endpoint, Mcp, Outgoing, Tidegate};

const LINE: &[u8] = b"PROXY TCP4 198.51.100.7 203.0.113.9 56324 443\r\n";
/// The same client in IPv6, in version 2, with an addition (NOOP) behind the addresses.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\xdc\x04\x01\xbb\x04\0\x02xx";
/// A proxy's own connection, as its health checks make them.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn build(endpoints: &[&Endpoint]) -> Builder {
    Tidegate::build(endpoints).listener("proxy_protocol: true")
}

/// The same with a route of plain HTTP.
fn build_with_plain(a: &Endpoint) -> Builder {
    let plain = format!(
        "plain: {{ kind: http, health: {{ check: none }}, endpoints: [\"{}\"] }}",
        a.address()
    );
    build(&[a])
        .routes("- { path: /mcp, pool: main }\n- { path_prefix: /, pool: plain }")
        .pools(&plain)
}

async fn door(gate: &Tidegate, header: &[u8]) -> Door {
    Door::announcing(Far::Tcp(gate.address()), header).await
}

async fn failures(gate: &Tidegate, reason: &str) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_proxy_headers_failed_total", &[("reason", reason)])
}

/// Who the endpoint was told the clients of its last requests are.
fn told(a: &Endpoint) -> Vec<String> {
    let requests = a.requests();
    let list = |header: Option<&str>| header.unwrap_or_default().to_owned();
    let mut told: Vec<String> = requests
        .iter()
        .map(|request| list(request.headers.get("x-forwarded-for")))
        .collect();
    told.dedup();
    told
}

async fn ask_in_every_way(client: &Client) {
    let session = client.initialize().await;
    client.whoami(&session).await;
    drop(client.get_stream(&session, None).await);
    drop(WebSocket::connect(client).await.expect("a WebSocket"));
    for body in ["x", "y"] {
        let plain = client.request("PUT", "/plain", &[], body.as_bytes()).await;
        assert_eq!(plain.status, 200);
    }
}

#[tokio::test]
async fn the_announced_client_is_the_client_on_every_path() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build_with_plain(&a).start().await;
    for (header, address) in [(LINE, "198.51.100.7"), (BINARY, "2001:db8::7")] {
        let before = a.requests().len();
        let door = door(&gate, header).await;
        ask_in_every_way(&Client::new(door.address())).await;
        let h2 = H2Client::connect(door.address()).await.expect("HTTP/2");
        h2.modern_call("whoami", json!({})).await;
        let plain = h2.try_request("GET", "/plain", &[], b"").await;
        assert_eq!(plain.expect("an answer").status, 200);
        let seen = &a.requests()[before..];
        assert!(seen.len() >= 8);
        for request in seen {
            let told = request.headers.get("x-forwarded-for");
            assert_eq!(told, Some(address), "{}", request.path);
        }
        gate.logged(|line| line["client"] == address && line["path"] == "/plain")
            .await;
    }
}

#[tokio::test]
async fn it_comes_before_tls() {
    let a = Endpoint::named("a").websocket().start().await;
    let certificate = Certificate::new();
    let gate = build_with_plain(&a)
        .listener(&certificate.listener())
        .start()
        .await;
    for header in [LINE, BINARY] {
        let front = door(&gate, header).await;
        let door = TlsDoor::open(front.address(), &certificate, &["http/1.1"]).await;
        ask_in_every_way(&door.client()).await;
        let door = TlsDoor::open(front.address(), &certificate, &["h2"]).await;
        let h2 = H2Client::connect(door.address()).await.expect("HTTP/2");
        h2.modern_call("whoami", json!({})).await;
    }
    assert_eq!(told(&a), ["198.51.100.7", "2001:db8::7"]);
    for request in a.requests() {
        assert_eq!(request.headers.get("x-forwarded-proto"), Some("https"));
    }
}

#[tokio::test]
async fn a_proxy_may_speak_for_itself() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let door = door(&gate, header).await;
        Client::new(door.address())
            .modern_call("whoami", json!({}))
            .await;
    }
    assert_eq!(told(&a), ["127.0.0.1"]);
}

#[tokio::test]
async fn a_header_in_pieces_is_read_and_nothing_behind_it_is_lost() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a]).start().await;
    for header in [LINE, BINARY] {
        let connection = gate.client().connect().await.expect("a connection");
        let wire = connection.into_wire();
        let call = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
        let (first, last) = header.split_at(header.len() - 1);
        wire.trickle(first, Duration::from_millis(1))
            .await
            .expect("written");
        let rest = [last, call, call].concat();
        wire.write(&rest).await.expect("written");
        for _ in 0..2 {
            assert_eq!(wire.response_head().await.expect("an answer").status, 200);
            wire.with_inbox(|inbox| {
                let end = inbox
                    .windows(3)
                    .position(|three| three == b"ok\n")
                    .map(|at| at + 3);
                let _ = inbox.split_to(end.unwrap_or(0));
            });
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_header_is_closed_and_counted() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    for (bytes, reason) in [
        (
            &b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"[..],
            "missing",
        ),
        (b"\x16\x03\x01\x02\0\x01\0", "missing"),
        (b"PROXY TCP4 198.51.100.7 203.0.113.9 1 x\r\n", "malformed"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "malformed"),
        (b"PROXY TCP4 198.51.100.7", "timeout"),
        (b"", "timeout"),
    ] {
        let before = failures(&gate, reason).await;
        let connection = gate.client().connect().await.expect("the kernel accepts");
        connection.raw(bytes).await.expect("written");
        let (rest, end) = connection.rest().await;
        assert_eq!(rest.len(), 0, "{reason}");
        assert!(matches!(end, BodyEnd::Closed | BodyEnd::Reset));
        assert_eq!(failures(&gate, reason).await, before + 1.0, "{reason}");
    }
    drop(gate.client().connect().await.expect("the kernel accepts"));
    gate.metrics_when(|metrics| {
        metrics.with(
            "tidegate_proxy_headers_failed_total",
            &[("reason", "closed")],
        ) == 1.0
    })
    .await;
    assert_eq!(a.requests().len(), 0);
}

#[tokio::test]
async fn where_there_are_trusted_proxies_nobody_else_may_announce() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .config("trusted_proxies: [10.0.0.0/8]")
        .start()
        .await;
    let connection = gate.client().connect().await.expect("the kernel accepts");
    // It may be closed before it was written.
    let _ = connection.raw(LINE).await;
    let (rest, _) = connection.rest().await;
    assert_eq!(rest.len(), 0);
    assert_eq!(failures(&gate, "untrusted").await, 1.0);
    let gate = build(&[&a])
        .config("trusted_proxies: [127.0.0.1, 198.51.100.0/24]")
        .start()
        .await;
    let door = door(&gate, LINE).await;
    // And the announced one may be a proxy that says more.
    let client = Client::new(door.address()).with_header("x-forwarded-for", "192.0.2.1");
    client.modern_call("whoami", json!({})).await;
    assert_eq!(told(&a), ["192.0.2.1, 198.51.100.7"]);
}

#[tokio::test]
async fn limits_count_the_announced_client() {
    let a = Endpoint::start("a").await;
    let gate = build(&[&a])
        .listener("max_connections_per_client: 1")
        .route("rate: { per_client: 1/h, burst: 2 }")
        .start()
        .await;
    let (one, other) = (door(&gate, LINE).await, door(&gate, BINARY).await);
    for door in [&one, &other] {
        let client = Client::new(door.address());
        let mut held = client.connect().await.expect("a connection");
        for expected in [200, 200, 429] {
            let params = json!({"name": "whoami", "arguments": {}});
            let call = Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params);
            let answer = client
                .try_request_on(held, "POST", "/mcp", &call.header_lines(), &call.body)
                .await;
            let mut answer = answer.expect("an answer");
            assert_eq!(answer.status, expected);
            answer.read_to_end().await;
            held = answer.into_connection();
        }
        // A second connection of the same client, while there is one.
        let over = client.connect().await.expect("the door accepts");
        let (rest, _) = over.rest().await;
        assert_eq!(rest.len(), 0);
    }
    let metrics = gate.metrics().await;
    let hits = metrics.with(
        "tidegate_limits_hit_total",
        &[("limit", "connections_per_client")],
    );
    assert_eq!(hits, 2.0);
}
