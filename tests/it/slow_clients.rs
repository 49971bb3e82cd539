//! Clients that are slow to send, or send too much, over HTTP/1.1: each bound is kept on both kinds of
//! route, answered, and counted.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Endpoint, Mcp, Outgoing, Tidegate, eventually, text_of, within};

const LIMITS: &str = "limits: { head_timeout: 200ms, write_timeout: 1s, body: 64KiB }";

/// A gate with a route of MCP, and one with a route of plain HTTP.
async fn gates(a: &Endpoint) -> [Tidegate; 2] {
    let mcp = Tidegate::build(&[a]).config(LIMITS).start().await;
    let plain = Tidegate::build(&[a])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .config(LIMITS)
        .start()
        .await;
    [mcp, plain]
}

fn call() -> Outgoing {
    let params = json!({"name": "whoami", "arguments": {}});
    Outgoing::stateless(&json!(1), "tools/call", Some("whoami"), params)
}

fn call_bytes(client: &Client) -> (Vec<u8>, usize) {
    let call = call();
    let bytes = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
    let head = bytes.len() - call.body.len();
    (bytes, head)
}

async fn counted(gate: &Tidegate, limit: &str, times: f64) {
    gate.metrics_when(|metrics| {
        metrics.with("tidegate_limits_hit_total", &[("limit", limit)]) == times
    })
    .await;
}

/// Sends `start`, then a byte at a time, until there is an answer; its status, and how long that took.
async fn trickle(client: &Client, start: &[u8], rest: &[u8], pause: Duration) -> (u16, Duration) {
    let connection = client.connect().await.expect("a connection");
    let started = Instant::now();
    connection.raw(start).await.expect("sent");
    let wire = connection.into_wire();
    let mut rest = rest.iter().cycle();
    let answer = async {
        loop {
            tokio::select! {
                biased;
                head = wire.response_head() => break head,
                () = tokio::time::sleep(pause) => {
                    let byte = *rest.next().expect("there is more");
                    let _ = wire.write(&[byte]).await;
                }
            }
        }
    };
    let head = within("the refusal", answer).await.expect("an answer");
    wire.shutdown_write();
    within("the end", wire.closed()).await;
    (head.status, started.elapsed())
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up_and_counted() {
    let a = Endpoint::start("a").await;
    for gate in gates(&a).await {
        let start = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ";
        let pause = Duration::from_millis(30);
        let (status, time) = trickle(&gate.client(), start, b"x", pause).await;
        assert_eq!(status, 408);
        assert!(time < Duration::from_secs(2), "{time:?}");
        counted(&gate, "head_time", 1.0).await;
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_and_counted() {
    let a = Endpoint::start("a").await;
    for gate in gates(&a).await {
        let (bytes, head) = call_bytes(&gate.client());
        let pause = Duration::from_secs(60);
        let (status, time) = trickle(&gate.client(), &bytes[..head + 5], b"x", pause).await;
        assert_eq!(status, 408);
        assert!(time < Duration::from_secs(2), "{time:?}");
        counted(&gate, "body_time", 1.0).await;
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_although_something_always_comes() {
    let a = Endpoint::start("a").await;
    for gate in gates(&a).await {
        let (bytes, head) = call_bytes(&gate.client());
        let pause = Duration::from_millis(100);
        let (start, rest) = bytes.split_at(head);
        let (status, time) = trickle(&gate.client(), start, rest, pause).await;
        assert_eq!(status, 408);
        assert!(time > Duration::from_millis(900), "{time:?}");
        assert!(time < Duration::from_secs(4), "{time:?}");
        counted(&gate, "body_time", 1.0).await;
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_comes_in_many_pieces_is_not_slow() {
    let a = Endpoint::start("a").await;
    for gate in gates(&a).await {
        let client = gate.client();
        let mut call = call();
        call.body.extend(std::iter::repeat_n(b' ', 30_000));
        let bytes = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
        let connection = client.connect().await.expect("a connection");
        // Two seconds in all, ten times what a single wait may take.
        for piece in bytes.chunks(bytes.len() / 20) {
            connection.raw(piece).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut answer = connection.response(false).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(text_of(&answer.json().await), "a");
    }
}

#[tokio::test]
async fn sizes_that_are_over_are_counted() {
    let a = Endpoint::start("a").await;
    let [gate, plain] = gates(&a).await;
    let client = gate.client();
    let long = call().with("x-long", &"x".repeat(40_000));
    assert_eq!(client.send(long.clone()).await.status, 431);
    assert_eq!(plain.client().send(long).await.status, 431);
    let mut many = call();
    for number in 0..200 {
        many = many.with(&format!("x-{number}"), "1");
    }
    assert_eq!(client.send(many.clone()).await.status, 431);
    assert_eq!(plain.client().send(many).await.status, 431);
    counted(&gate, "head_bytes", 2.0).await;
    counted(&plain, "head_bytes", 2.0).await;
    let mut large = call();
    large.body.extend(std::iter::repeat_n(b' ', 70_000));
    assert_eq!(client.send(large).await.status, 413);
    counted(&gate, "body_bytes", 1.0).await;
}

#[tokio::test]
async fn many_slow_clients_keep_nobody_waiting() {
    let a = Endpoint::start("a").await;
    for gate in gates(&a).await {
        let client = gate.client();
        let (bytes, head) = call_bytes(&client);
        let mut slow = Vec::new();
        for number in 0..300 {
            let connection = client.connect().await.expect("a connection");
            let part = if number % 2 == 0 { 20 } else { head + 5 };
            connection.raw(&bytes[..part]).await.expect("sent");
            slow.push(connection);
        }
        let started = Instant::now();
        let mut answer = client.send(call()).await;
        assert_eq!(text_of(&answer.json().await), "a");
        assert!(started.elapsed() < Duration::from_secs(2));
        drop(slow);
    }
    assert!(eventually(Duration::from_secs(5), || a.in_flight() == 0).await);
}
