//! What takes long on routes of plain HTTP: uploads, streams, WebSockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::build;
use crate::support::client::Body;
use crate::support::tidegate::Builder;
use crate::support::wire::NoHead;
use crate::support::ws::{Frame, WebSocket};
use crate::support::{BodyEnd, Endpoint, PATIENCE, Tidegate};

/// More than the limit that does not apply.
const LONG: Duration = Duration::from_millis(1500);
const LIMIT: &str = "500ms";

/// A server that answers each connection by `answer`, once it has read so many bytes.
async fn scripted(at_least: usize, answer: &'static [(&'static str, u64)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = vec![0; at_least];
                client.read_exact(&mut seen).await?;
                for (piece, pause) in answer {
                    sleep(Duration::from_millis(*pause)).await;
                    client.write_all(piece.as_bytes()).await?;
                }
                client.read_to_end(&mut Vec::new()).await
            });
        }
    });
    address
}

fn in_front_of(address: SocketAddr, timeouts: &str) -> Builder {
    build(&[])
        .also_at("far", address)
        .health("{ check: none }")
        .pool(&format!("timeouts: {timeouts}"))
}

async fn websocket(gate: &Tidegate) -> WebSocket {
    match WebSocket::connect(&gate.client().with_path("/any")).await {
        Ok(socket) => socket,
        Err(head) => panic!("{head:?}"),
    }
}

#[tokio::test]
async fn a_websocket_may_be_silent() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build(&[&a])
        .config(&format!("limits: {{ head_timeout: {LIMIT} }}"))
        .pool(&format!("timeouts: {{ header: {LIMIT} }}"))
        .start()
        .await;
    let socket = websocket(&gate).await;
    sleep(LONG).await;
    socket.send_text("still").await;
    assert_eq!(socket.next_text().await, "still");
}

#[tokio::test]
async fn a_websocket_ends_after_silence_where_that_is_wanted() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = build(&[&a])
        .pool(&format!("timeouts: {{ stream_idle: {LIMIT} }}"))
        .start()
        .await;
    let socket = websocket(&gate).await;
    for _ in 0..4 {
        sleep(Duration::from_millis(200)).await;
        socket.send_text("x").await;
        assert_eq!(socket.next_text().await, "x");
    }
    assert_eq!(socket.next().await, Ok(Frame::Close(Some(1001))));
    gate.logged(|line| line["end_reason"] == "timeout").await;
}

#[tokio::test]
async fn a_websocket_is_told_when_the_process_or_its_endpoint_goes() {
    let a = Endpoint::named("a").websocket().start().await;
    let mut gate = build(&[&a]).start().await;
    let withdrawn = websocket(&gate).await;
    assert!(gate.verb(&["maint", "main/a"]).await.status.success());
    assert_eq!(withdrawn.next().await, Ok(Frame::Close(Some(1001))));
    assert!(gate.verb(&["ready", "main/a"]).await.status.success());
    let socket = websocket(&gate).await;
    gate.signal("TERM");
    assert_eq!(socket.next().await, Ok(Frame::Close(Some(1001))));
    assert_eq!(socket.next().await, Err(NoHead::Closed));
    assert!(gate.wait_exit(PATIENCE).await.success());
    a.until("all are gone", |e| e.streams_open() == 0).await;
}

#[tokio::test]
async fn a_server_gets_the_origin_and_a_client_its_cookie_with_a_websocket() {
    let (a, b) = (
        Endpoint::named("a").websocket().start().await,
        Endpoint::named("b").websocket().start().await,
    );
    let gate = build(&[&a, &b])
        .pool("affinity: { cookie: TIDEGATE }")
        .start()
        .await;
    let client = gate.client().with_path("/any");
    let first = client.clone().with_header("origin", "https://page.example");
    let socket = WebSocket::connect(&first).await.expect("an upgrade");
    let cookie = socket.head.headers.get("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    assert_eq!(
        socket.head.headers.get("cache-control"),
        Some("private"),
        "caches keep it from others"
    );
    let (owner, other) = match a.requests().is_empty() {
        true => (&b, &a),
        false => (&a, &b),
    };
    let seen = owner.requests().pop().expect("a request");
    assert_eq!(seen.header("origin"), Some("https://page.example"));
    for _ in 0..6 {
        let cookies = format!("x=1; {cookie}; y=2");
        let client = client.clone().with_header("cookie", &cookies);
        let socket = WebSocket::connect(&client).await.expect("an upgrade");
        assert_eq!(socket.head.headers.get("set-cookie"), None);
        let seen = owner.requests().pop().expect("a request");
        assert_eq!(seen.header("cookie"), Some("x=1; y=2"), "ours stays here");
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_websocket_that_cannot_be_had_is_told_in_words() {
    let gate = build(&[]).also_at("gone", reserved().await).start().await;
    let client = gate.client().with_path("/any");
    let request = format!(
        "GET /any HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n",
        gate.address()
    );
    let mut refused = client.raw(request.as_bytes()).await.expect("a head");
    assert!(matches!(refused.status, 502 | 503), "{}", refused.status);
    let kind = refused.header("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"));
    assert!(!refused.text().await.contains("jsonrpc"));
}

async fn reserved() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("its address")
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                      transfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_event_stream_may_be_silent() {
    let far = scripted(1, &[(EVENTS, 0), ("8\r\ndata: x\n\r\n0\r\n\r\n", 1500)]).await;
    let gate = in_front_of(far, &format!("{{ header: {LIMIT} }}"));
    let gate = gate.start().await;
    let mut answer = gate.client().request("GET", "/events", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text().await, "data: x\n");
}

#[tokio::test]
async fn an_answer_ends_after_silence_or_in_all_where_that_is_wanted() {
    const PIECE: (&str, u64) = ("1\r\nx\r\n", 200);
    const CLOSED: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let silent = scripted(1, &[(EVENTS, 0), PIECE, PIECE, PIECE, PIECE, ("", 60_000)]).await;
    let endless = scripted(1, &[(EVENTS, 0), PIECE, PIECE, PIECE, PIECE, PIECE, PIECE]).await;
    let without_length = scripted(1, &[(CLOSED, 0), ("xx", 0), ("", 60_000)]).await;
    for (far, limits, pieces) in [
        (silent, "{ stream_idle: 500ms }", 4),
        (endless, "{ total: 500ms }", 2),
        (without_length, "{ stream_idle: 500ms }", 2),
    ] {
        let gate = in_front_of(far, limits).start().await;
        let mut answer = gate.client().request("GET", "/long", &[], b"").await;
        assert_eq!(answer.status, 200);
        let Body { bytes: body, end } = answer.read_to_end().await;
        assert_eq!(body.len(), pieces, "{limits}");
        assert_ne!(end, BodyEnd::Complete, "it does not look whole");
        gate.logged(|line| line["end_reason"] == "timeout").await;
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_answer_to_it() {
    let answer = &[("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 0)];
    let far = scripted(1200, answer).await;
    let gate = in_front_of(far, &format!("{{ header: {LIMIT} }}"));
    let gate = gate.start().await;
    let mut wire = TcpStream::connect(gate.address()).await.expect("connected");
    let head = "POST /up HTTP/1.1\r\nhost: h\r\ncontent-length: 1200\r\n\r\n";
    wire.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..6 {
        sleep(Duration::from_millis(250)).await;
        wire.write_all(&[b'u'; 200]).await.expect("sent");
    }
    let mut seen = vec![0; 15];
    wire.read_exact(&mut seen).await.expect("an answer");
    assert_eq!(seen, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_waited_for_so_long() {
    let far = scripted(1, &[("", 60_000)]).await;
    let gate = in_front_of(far, &format!("{{ header: {LIMIT} }}"));
    let gate = gate.start().await;
    for method in ["GET", "POST"] {
        let since = Instant::now();
        let answer = gate.client().request(method, "/never", &[], b"").await;
        assert_eq!(answer.status, 504, "{method}");
        assert!(since.elapsed() >= Duration::from_millis(500));
        assert!(since.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn an_event_stream_ends_when_its_endpoint_is_taken_out() {
    let far = scripted(1, &[(EVENTS, 0), ("", 60_000)]).await;
    let gate = in_front_of(far, "{}").start().await;
    let mut answer = gate.client().request("GET", "/events", &[], b"").await;
    assert!(gate.verb(&["maint", "main/far"]).await.status.success());
    let Body { bytes: body, end } = answer.read_to_end().await;
    assert!(body.is_empty());
    assert_ne!(end, BodyEnd::Complete);
    gate.logged(|line| line["end_reason"] == "withdrawn").await;
}
