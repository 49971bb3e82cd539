//! The wires: HTTP/1.1 byte for byte, HTTP/2, WebSocket, and the reading of event streams.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::h2::H2Client;
use crate::support::wire::NoHead;
use crate::support::ws::{Frame, WebSocket};
use crate::support::{BodyEnd, Client, Endpoint, Fault, Mcp, NoAnswer, eventually, text_of};

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let mut connection = client.connect().await.expect("a connection");
    for n in 0..3 {
        let path = format!("/plain/{n}?q=1");
        let sent = client.try_request_on(connection, "PUT", &path, &[("X-A", "b")], b"body");
        let mut response = sent.await.expect("an answer");
        let received = response.json().await;
        assert_eq!(received["path"], path.as_str());
        assert_eq!(received["body_bytes"], 4);
        connection = response.into_connection();
    }
    assert_eq!(endpoint.connections_accepted(), 1);
    let head = client
        .try_request_on(connection, "HEAD", "/plain", &[], b"")
        .await;
    let mut head = head.expect("an answer");
    assert!(
        head.header("content-length")
            .is_some_and(|length| length != "0")
    );
    assert_eq!(head.text().await, "");
}

#[tokio::test]
async fn request_bodies_come_in_chunks_and_in_pieces() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let connection = client.connect().await.expect("a connection");
    for piece in [
        "POST /plain HTTP/1.1\r\nhost: x\r\nTransfer-Enc",
        "oding: chunked\r\nexpect: 100-continue\r\n\r\n3\r\nabc\r",
        "\n2;ext=1\r\nde\r\n0\r\ntrailer: 1\r\n",
        "\r\nGET /plain/next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        connection.raw(piece.as_bytes()).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut first = connection.response(false).await.expect("an answer");
    assert_eq!(first.interim[0].status, 100);
    assert_eq!(first.json().await["body_bytes"], 5);
    let second = first.into_connection().response(false).await;
    let mut second = second.expect("the pipelined request is answered");
    assert_eq!(second.json().await["path"], "/plain/next");
    let (rest, end) = second.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
}

#[tokio::test]
async fn a_request_that_is_given_up_is_never_seen() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let head = b"POST /plain HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let connection = client.connect().await.expect("a connection");
    connection.raw(head).await.expect("sent");
    connection.reset();
    let answer = client.raw(b"this is not HTTP\r\n\r\n").await;
    assert_eq!(answer.map(drop).err(), Some(NoAnswer::Head(NoHead::Closed)));
    endpoint
        .until("both are gone", |e| e.connections_open() == 0)
        .await;
    assert!(endpoint.requests().is_empty());
}

#[tokio::test]
async fn a_half_closed_connection_is_a_client_that_left() {
    let endpoint = Endpoint::start("a").await;
    let client = Client::of(&endpoint);
    let connection = client.connect().await.expect("a connection");
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let session = client.initialize().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": slow});
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", &session.0),
    ];
    let bytes = client.encode("POST", "/mcp", &headers, call.to_string().as_bytes());
    connection.raw(&bytes).await.expect("sent");
    endpoint
        .until("it is running", |e| e.in_flight() == 1)
        .await;
    connection.half_close();
    endpoint
        .until("it is over", |e| e.disconnects().len() == 1)
        .await;
    assert_eq!(connection.rest().await.1, BodyEnd::Closed);
}

#[tokio::test]
async fn events_are_read_in_every_spelling() {
    let (server, address) = one_answer(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         : hello\n\nid: 7\r\nretry: 30\r\ndata:\r\n\r\nevent: message\rdata: {\rdata: \"a\":1}\r\r\
         data: half",
    )
    .await;
    let mut response = Client::new(address).request("GET", "/", &[], b"").await;
    let mut events = response.events();
    let first = events.next().await.expect("the priming event");
    assert_eq!((first.id.as_deref(), first.retry), (Some("7"), Some(30)));
    assert_eq!(first.data.as_deref(), Some(""));
    assert_eq!(first.raw, "id: 7\r\nretry: 30\r\ndata:\r\n\r\n");
    assert_eq!(events.comments[0].text, "hello");
    assert_eq!(events.next_json().await, json!({"a": 1}));
    assert!(events.next().await.is_none());
    assert_eq!(events.end, Some(BodyEnd::Closed));
    assert_eq!(events.unfinished(), "data: half");
    server.await.expect("the server is done");
}

#[tokio::test]
async fn a_comment_can_be_waited_for() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: one\n\n: two\n\n";
    let (_server, address) = one_answer(head).await;
    let mut response = Client::new(address).request("GET", "/", &[], b"").await;
    let mut events = response.events();
    assert_eq!(events.next_comment().await.text, "one");
    assert_eq!(events.next_comment().await.text, "two");
    assert!(events.next().await.is_none());
}

/// Answers one connection with these bytes and closes it.
async fn one_answer(bytes: &'static str) -> (tokio::task::JoinHandle<()>, std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let wire = crate::support::wire::Wire::new(stream);
        wire.request_head().await.expect("a request");
        wire.write(bytes.as_bytes()).await.expect("sent");
    });
    (task, address)
}

#[tokio::test]
async fn http2_carries_both_eras() {
    let endpoint = Endpoint::named("a").http2().start().await;
    let client = H2Client::connect(endpoint.address()).await.expect("HTTP/2");
    let session = client.initialize().await;
    assert_eq!(client.whoami(&session).await, "a");
    assert_eq!(text_of(&client.modern_call("whoami", json!({})).await), "a");
    let mut stream = client.get_stream(&session, None).await;
    let ticks = client.call(&session, "ticks", json!({"n": 2})).await;
    assert_eq!(text_of(&ticks), "2 ticks");
    let big = client
        .call(&session, "big", json!({"bytes": 300_000}))
        .await;
    assert_eq!(text_of(&big).len(), 300_000);
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(endpoint.push(&session.0, &note));
    assert_eq!(stream.events().next_json().await, note);
    assert_eq!(endpoint.connections_accepted(), 1);

    stream.reset();
    endpoint
        .until("the stream's end", |e| e.disconnects().len() == 1)
        .await;
    assert_eq!(client.delete(&session).await.status, 200);
    let other = Client::of(&endpoint);
    let refused = other.try_request("GET", "/plain", &[], b"").await;
    assert!(refused.is_err(), "HTTP/2 is all it speaks");
}

#[tokio::test]
async fn http2_streams_are_cut_and_connections_killed() {
    let endpoint = Endpoint::named("a").http2().start().await;
    let client = H2Client::connect(endpoint.address()).await.expect("HTTP/2");
    let session = client.initialize().await;
    endpoint.fault_next(1, Fault::ResetBeforeHead);
    let broken = client.try_request("GET", "/plain", &[], b"").await;
    assert!(matches!(broken, Err(NoAnswer::H2(_))));
    endpoint.fault_next(1, Fault::CloseMidEvent(30));
    let mut cut = client.start_call(&session, "ticks", json!({"n": 2})).await;
    let body = cut.read_to_end().await;
    assert!(body.bytes.len() <= 30);
    assert_eq!(body.end, BodyEnd::Reset);
    assert_eq!(client.whoami(&session).await, "a", "the connection lives");

    let mut stream = client.get_stream(&session, None).await;
    endpoint.kill().await;
    assert_eq!(stream.read_to_end().await.end, BodyEnd::Truncated);
    assert!(eventually(Duration::from_secs(5), || client.is_closed()).await);
}

#[tokio::test]
async fn a_websocket_echoes_answers_and_closes() {
    let endpoint = Endpoint::named("a").websocket().start().await;
    let client = Client::of(&endpoint);
    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    assert_eq!(
        socket.head.headers.get("sec-websocket-protocol"),
        Some("mcp")
    );
    for length in [5, 200, 70_000] {
        let text = "x".repeat(length);
        socket.send_text(&text).await;
        assert_eq!(socket.next_text().await, text);
    }
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami"}});
    socket.send_text(&call.to_string()).await;
    let answer: Value = serde_json::from_str(&socket.next_text().await).expect("JSON");
    assert_eq!(text_of(&answer), "a");
    socket.send(&Frame::Ping(b"p".to_vec())).await;
    assert_eq!(socket.next().await, Ok(Frame::Pong(b"p".to_vec())));
    assert_eq!(endpoint.push_websockets("news"), 1);
    assert_eq!(socket.next_text().await, "news");
    assert_eq!(socket.close(1000).await, Some(1000));
    assert!(endpoint.disconnects().is_empty());

    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    assert_eq!(endpoint.close_websockets(1001), 1);
    assert_eq!(socket.next().await, Ok(Frame::Close(Some(1001))));
    socket.reset();
    endpoint
        .until("it has seen that", |e| e.disconnects().len() == 1)
        .await;

    let socket = WebSocket::connect(&client).await.expect("a WebSocket");
    endpoint.kill().await;
    assert_eq!(socket.next().await, Err(NoHead::Reset));
}

#[tokio::test]
async fn a_server_without_websockets_refuses_the_handshake() {
    let endpoint = Endpoint::start("a").await;
    let refused = WebSocket::connect(&Client::of(&endpoint)).await;
    assert_eq!(refused.map(drop).map_err(|head| head.status), Err(406));
}
