//! TLS listeners: everything that is served without TLS is served with it, and what is no TLS at all is
//! told so.

use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion, version};
use serde_json::{Value, json};

use crate::support::h2::H2Client;
use crate::support::tidegate::Builder;
use crate::support::tls::{Certificate, End, TlsDoor, VERSIONS};
use crate::support::ws::{Frame, WebSocket};
use crate::support::{Endpoint, Fault, Mcp, Outgoing, Tidegate, eventually, text_of};

mod clients;
mod identity;
mod names;
mod principals;
mod shut;
mod weak;

/// What HTTP/1.1 clients offer.
const HTTP_11: &[&str] = &["http/1.1"];

/// One whose listener speaks TLS.
fn build(endpoints: &[&Endpoint], certificate: &Certificate) -> Builder {
    Tidegate::build(endpoints).listener(&certificate.listener())
}

async fn door(gate: &Tidegate, certificate: &Certificate) -> TlsDoor {
    TlsDoor::open(gate.address(), certificate, HTTP_11).await
}

#[tokio::test]
async fn sessions_are_kept_over_tls() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let certificate = Certificate::new();
    let gate = build(&[&a, &b], &certificate).start().await;
    for version in VERSIONS {
        let door = TlsDoor::with_versions(gate.address(), &certificate, HTTP_11, &[version]).await;
        let client = door.client();
        let session = client.initialize().await;
        let owner = client.whoami(&session).await;
        for _ in 0..4 {
            assert_eq!(client.whoami(&session).await, owner);
        }
        assert_eq!(client.delete(&session).await.status, 200);
        let carried = door.carried();
        assert!(!carried.is_empty());
        for one in carried {
            assert_eq!(one.version, Some(version.version));
            assert_eq!(one.protocol.as_deref(), Some("http/1.1"));
        }
    }
}

#[tokio::test]
async fn a_connection_carries_many_calls() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let mut connection = client.connect().await.expect("a connection");
    for size in [0, 1, 100, 5000, 20_000, 70_000] {
        let text = "x".repeat(size);
        let params = json!({"name": "echo", "arguments": {"text": text}});
        let call = Outgoing::stateless(&json!(size), "tools/call", Some("echo"), params);
        let response = client
            .try_request_on(connection, "POST", "/mcp", &call.header_lines(), &call.body)
            .await;
        let mut response = response.expect("an answer");
        assert_eq!(text_of(&response.json().await), text);
        connection = response.into_connection();
    }
    assert_eq!(door.carried().len(), 1);
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_served_http_1() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = TlsDoor::open(gate.address(), &certificate, &[]).await;
    assert_eq!(
        text_of(&door.client().modern_call("whoami", json!({})).await),
        "a"
    );
    assert_eq!(door.carried()[0].protocol, None);
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_delivers() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .config("streams: { keep_alive: 100ms }")
        .start()
        .await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let mut events = stream.events();
    for _ in 0..3 {
        events.next_comment().await;
    }
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert!(a.push(&a.sessions()[0].clone(), &note));
    assert_eq!(events.next_json().await, note);
    events.next_comment().await;
    let ticks = client
        .modern_call("ticks", json!({"n": 5, "every_ms": 30}))
        .await;
    assert_eq!(text_of(&ticks), "5 ticks");
}

#[tokio::test]
async fn http2_is_agreed_on_in_the_handshake() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let certificate = Certificate::new();
    let gate = build(&[&a, &b], &certificate).start().await;
    let door = TlsDoor::open(gate.address(), &certificate, &["h2", "http/1.1"]).await;
    let client = H2Client::connect(door.address()).await.expect("HTTP/2");
    let session = client.initialize().await;
    let owner = client.whoami(&session).await;
    for _ in 0..4 {
        assert_eq!(client.whoami(&session).await, owner);
    }
    let big = client.modern_call("big", json!({"bytes": 1_000_000})).await;
    assert_eq!(text_of(&big).len(), 1_000_000);
    let carried = door.carried();
    assert_eq!(carried.len(), 1);
    assert_eq!(carried[0].protocol.as_deref(), Some("h2"));
    // Prior knowledge does as well.
    let unnamed = TlsDoor::open(gate.address(), &certificate, &[]).await;
    let client = H2Client::connect(unnamed.address()).await.expect("HTTP/2");
    client.modern_call("whoami", json!({})).await;
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    let a = Endpoint::named("a").websocket().start().await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    let socket = WebSocket::connect(&door.client())
        .await
        .expect("an upgrade");
    for length in [0, 5, 126, 65_536, 300_000] {
        let text = "x".repeat(length);
        socket.send_text(&text).await;
        assert_eq!(socket.next_text().await, text);
    }
    socket.send(&Frame::Ping(b"p".to_vec())).await;
    assert_eq!(socket.next().await, Ok(Frame::Pong(b"p".to_vec())));
    assert_eq!(a.push_websockets("news"), 1);
    assert_eq!(socket.next_text().await, "news");
    socket.close(1000).await;
    let notified = || door.carried()[0].end == Some(End::Notified);
    assert!(
        eventually(Duration::from_secs(5), notified).await,
        "{:?}",
        door.carried()
    );
}

#[tokio::test]
async fn plain_routes_are_served_over_tls() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let mut connection = client.connect().await.expect("a connection");
    let body = vec![b'x'; 1 << 20];
    for body in [&b"some body"[..], &body, b"again"] {
        let response = client
            .try_request_on(connection, "POST", "/plain/x", &[], body)
            .await;
        let mut response = response.expect("an answer");
        assert_eq!(response.json().await["body_bytes"], body.len());
        connection = response.into_connection();
    }
    assert_eq!(door.carried().len(), 1);
    let h2 = TlsDoor::open(gate.address(), &certificate, &["h2"]).await;
    let client = H2Client::connect(h2.address()).await.expect("HTTP/2");
    let mut answer = client
        .try_request("GET", "/plain", &[], b"")
        .await
        .expect("an answer");
    assert_eq!(answer.json().await["method"], "GET");
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let text: String = (0..1 << 20)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    let session = client.initialize().await;
    let echo = client.call(&session, "echo", json!({"text": text})).await;
    assert!(text_of(&echo) == text, "it came back altered");
    let big = client.modern_call("big", json!({"bytes": 1 << 20})).await;
    assert_eq!(text_of(&big).len(), 1 << 20);
}

#[tokio::test]
async fn a_slow_reader_holds_its_server_back_and_gets_everything() {
    const BYTES: usize = 48 << 20;
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    let client = door.client();
    let before = gate.metrics().await.sum("process_resident_memory_bytes");
    let params = json!({"name": "big", "arguments": {"bytes": BYTES}});
    let mut response = client.modern("tools/call", Some("big"), params).await;
    assert_eq!(response.status, 200);
    // Nobody reads: what the sockets on the way do not hold stays with the server.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = gate.metrics().await.sum("process_resident_memory_bytes");
    assert!(after - before < 8e6, "{} bytes more", after - before);
    let body: Value = response.json().await;
    assert_eq!(text_of(&body).len(), BYTES);
}

#[tokio::test]
async fn a_client_resumes_on_whichever_thread_it_comes_to() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate)
        .config("threads: 4")
        .start()
        .await;
    for (version, number) in [
        (&version::TLS13, ProtocolVersion::TLSv1_3),
        (&version::TLS12, ProtocolVersion::TLSv1_2),
    ] {
        let door = TlsDoor::with_versions(gate.address(), &certificate, HTTP_11, &[version]).await;
        for _ in 0..12 {
            door.client().modern_call("whoami", json!({})).await;
        }
        let kinds: Vec<_> = door
            .carried()
            .iter()
            .map(|one| (one.version, one.kind))
            .collect();
        assert_eq!(kinds[0], (Some(number), Some(HandshakeKind::Full)));
        let again = (Some(number), Some(HandshakeKind::Resumed));
        assert_eq!(kinds[1..], vec![again; 11]);
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_ends_without_a_word() {
    let a = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&a], &certificate).start().await;
    let door = door(&gate, &certificate).await;
    a.fault_next(1, Fault::CloseMidEvent(500_000));
    let params = json!({"name": "big", "arguments": {"bytes": 1_000_000}});
    let mut response = door
        .client()
        .modern("tools/call", Some("big"), params)
        .await;
    assert_eq!(response.status, 200);
    response.read_to_end().await;
    let cut = || door.carried()[0].end == Some(End::Cut);
    assert!(
        eventually(Duration::from_secs(5), cut).await,
        "{:?}",
        door.carried()
    );
}
