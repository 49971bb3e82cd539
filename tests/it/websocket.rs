//! WebSockets on MCP routes: the connection is the session, pinned to one endpoint for its life.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wire::NoHead;
use crate::support::ws::{Frame, WebSocket};
use crate::support::{Client, Endpoint, Fault, Tidegate, text_of};

async fn endpoint(name: &str) -> Endpoint {
    Endpoint::named(name).websocket().start().await
}

async fn connect(client: &Client) -> WebSocket {
    match WebSocket::connect(client).await {
        Ok(socket) => socket,
        Err(head) => panic!("refused: {head:?}"),
    }
}

async fn whoami(socket: &WebSocket) -> String {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "whoami", "arguments": {}}});
    socket.send_text(&call.to_string()).await;
    let answer: Value = serde_json::from_str(&socket.next_text().await).expect("JSON");
    text_of(&answer)
}

#[tokio::test]
async fn the_handshake_keeps_the_subprotocol_and_frames_pass_both_ways() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let socket = connect(&gate.client()).await;
    let head = &socket.head.headers;
    assert_eq!(head.get("sec-websocket-protocol"), Some("mcp"));
    for length in [0, 5, 125, 126, 65_535, 65_536, 300_000] {
        let text = "x".repeat(length);
        socket.send_text(&text).await;
        assert_eq!(socket.next_text().await, text);
    }
    assert_eq!(whoami(&socket).await, "a");
    socket.send(&Frame::Binary(vec![0, 255, 10])).await;
    assert_eq!(socket.next().await, Ok(Frame::Binary(vec![0, 255, 10])));
    socket.send(&Frame::Ping(b"p".to_vec())).await;
    assert_eq!(socket.next().await, Ok(Frame::Pong(b"p".to_vec())));
    assert_eq!(a.push_websockets("news"), 1);
    assert_eq!(socket.next_text().await, "news");
}

#[tokio::test]
async fn what_the_server_sees_of_the_handshake() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let origin = format!("http://{}", gate.address());
    let client = gate
        .client()
        .with_header("origin", &origin)
        .with_header("authorization", "Bearer t0ken")
        .with_header("proxy-authorization", "Basic eA==");
    let socket = connect(&client).await;
    let seen = &a.requests()[0];
    assert_eq!(seen.headers.all("host").count(), 1);
    assert_eq!(seen.header("host"), Some(&*a.address().to_string()));
    assert_eq!(seen.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(seen.header("origin"), None);
    assert_eq!(seen.header("proxy-authorization"), None);
    assert_eq!(seen.headers.all("upgrade").count(), 1);
    assert_eq!(seen.headers.all("connection").count(), 1);
    drop(socket);
}

#[tokio::test]
async fn large_frames_cross_in_both_directions_at_once() {
    const COUNT: usize = 6;
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let socket = connect(&gate.client()).await;
    assert_eq!(whoami(&socket).await, "a");
    let big = "y".repeat(1 << 20);
    for _ in 0..COUNT {
        assert_eq!(a.push_websockets(&big), 1);
    }
    let sending = async {
        for _ in 0..COUNT {
            socket.send_text(&big).await;
        }
    };
    let receiving = async {
        let mut received = 0;
        // The pushed ones and the echoes.
        for _ in 0..2 * COUNT {
            received += socket.next_text().await.len();
        }
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_eq!(received, 2 * COUNT * (1 << 20));
}

#[tokio::test]
async fn a_socket_stays_on_its_endpoint_and_sockets_are_spread() {
    let (a, b, c) = (
        endpoint("a").await,
        endpoint("b").await,
        endpoint("c").await,
    );
    let gate = Tidegate::in_front_of(&[&a, &b, &c]).await;
    let mut sockets = Vec::new();
    // So many that chance alone leaves no endpoint out.
    for _ in 0..15 {
        let socket = connect(&gate.client()).await;
        sockets.push((whoami(&socket).await, socket));
    }
    for (owner, socket) in &sockets {
        for _ in 0..3 {
            assert_eq!(whoami(socket).await, *owner);
        }
    }
    let owners: BTreeSet<&str> = sockets.iter().map(|(owner, _)| owner.as_str()).collect();
    assert_eq!(owners.len(), 3, "an open socket counts as load");
}

#[tokio::test]
async fn a_server_that_refuses_the_upgrade_passes_its_word() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.fault_next(1, Fault::Status(401, r#"{"who":"are you"}"#.into()));
    let request = format!(
        "GET /mcp HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n",
        gate.address()
    );
    a.fault_next(
        1,
        Fault::ExtraHeader("WWW-Authenticate".into(), "Bearer".into()),
    );
    let mut refused = gate.client().raw(request.as_bytes()).await.expect("a head");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(refused.json().await["who"], "are you");

    let refused = WebSocket::connect(&gate.client()).await;
    assert_eq!(refused.map(drop).map_err(|head| head.status), Err(406));
    a.until("both are over", |e| e.in_flight() == 0).await;
}

#[tokio::test]
async fn close_codes_pass_both_ways() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let socket = connect(&gate.client()).await;
    assert_eq!(a.close_websockets(4001), 1);
    assert_eq!(socket.next().await, Ok(Frame::Close(Some(4001))));
    assert_eq!(socket.close(4001).await, Some(4001));

    let socket = connect(&gate.client()).await;
    assert_eq!(socket.close(3000).await, Some(3000));
    a.until("both are gone", |e| e.streams_open() == 0).await;
    assert!(a.disconnects().is_empty(), "both were closed in good order");
}

#[tokio::test]
async fn a_client_that_vanishes_ends_it_at_the_server() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let socket = connect(&gate.client()).await;
    assert_eq!(whoami(&socket).await, "a");
    socket.reset();
    a.until("its end", |e| e.streams_open() == 0).await;
    gate.metrics_when(|m| m.sum("tidegate_streams") == 0.0)
        .await;
}

#[tokio::test]
async fn a_server_that_dies_ends_it_at_the_client() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let socket = connect(&gate.client()).await;
    assert_eq!(whoami(&socket).await, "a");
    a.kill().await;
    // Going away, or the bare end of the connection: not silence.
    match socket.next().await {
        Ok(Frame::Close(_)) => {
            let _ = socket.next().await.expect_err("the connection's end");
        }
        Ok(frame) => panic!("{frame:?}"),
        Err(end) => assert!(matches!(end, NoHead::Closed | NoHead::Reset)),
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let (a, b) = (endpoint("a").await, endpoint("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    a.kill().await;
    for _ in 0..6 {
        let socket = connect(&gate.client()).await;
        assert_eq!(whoami(&socket).await, "b");
    }
    b.kill().await;
    let refused = WebSocket::connect(&gate.client()).await;
    assert_eq!(refused.map(drop).map_err(|head| head.status), Err(502));
}

#[tokio::test]
async fn a_shutdown_says_going_away_to_both_sides() {
    let a = endpoint("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let (one, two) = (connect(&gate.client()).await, connect(&gate.client()).await);
    assert_eq!(whoami(&one).await, "a");
    gate.signal("TERM");
    for socket in [one, two] {
        assert_eq!(socket.next().await, Ok(Frame::Close(Some(1001))));
        assert_eq!(socket.next().await, Err(NoHead::Closed));
    }
    assert!(gate.wait_exit(Duration::from_secs(5)).await.success());
    a.until("both are gone", |e| e.streams_open() == 0).await;
    assert!(a.disconnects().is_empty(), "the server was told as well");
}

/// Servers that know no WebSocket take the upgrade for a bare GET, and some open a session over it.
#[tokio::test]
async fn an_upgrade_that_is_not_understood_leaves_no_session() {
    let a = Endpoint::named("a").leaky().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for _ in 0..5 {
        let client = gate.client().with_header("mcp-session-id", "not-ours");
        let refused = WebSocket::connect(&client).await;
        let head = refused.map(drop).expect_err("it knows no WebSocket");
        assert!(!head.headers.has("mcp-session-id"));
    }
    a.until("the sessions are given back", |e| e.sessions().is_empty())
        .await;
    assert_eq!(a.sessions_opened(), 5);
    assert!(
        a.requests()
            .iter()
            .filter(|r| r.method == "GET")
            .all(|r| r.header("mcp-session-id").is_none())
    );
}

#[tokio::test]
async fn data_before_the_upgrade_is_refused() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let request = format!(
        "GET /mcp HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n\
         GET /admin HTTP/1.1\r\nhost: x\r\n\r\n",
        gate.address()
    );
    let mut refused = gate.client().raw(request.as_bytes()).await.expect("a head");
    assert_eq!(refused.status, 400);
    refused.json().await;
    let (rest, _) = refused.into_connection().rest().await;
    assert!(rest.is_empty(), "nothing more is answered");
    assert_eq!(a.connections_accepted(), 0);
}

#[tokio::test]
async fn a_foreign_page_gets_no_socket() {
    let a = endpoint("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let foreign = gate.client().with_header("origin", "https://evil.example");
    let refused = WebSocket::connect(&foreign).await;
    assert_eq!(refused.map(drop).map_err(|head| head.status), Err(403));
    assert_eq!(a.connections_accepted(), 0);
}
