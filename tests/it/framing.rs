//! HTTP/1.1 byte by byte: what is ambiguous is refused before anybody acts on it, and what is right
//! is understood in every way in which it may be cut.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::wire::NoHead;
use crate::support::{
    BodyEnd, Client, Connection, Endpoint, Mcp, NoAnswer, Outgoing, Response, Tidegate, text_of,
};

/// A call that any server of the stateless era answers.
fn call(id: u64) -> Outgoing {
    let params = json!({"name": "whoami", "arguments": {}});
    Outgoing::stateless(&json!(id), "tools/call", Some("whoami"), params)
}

/// The bytes of [`call`] on the wire.
fn call_bytes(client: &Client, id: u64) -> Vec<u8> {
    let call = call(id);
    client.encode("POST", "/mcp", &call.header_lines(), &call.body)
}

/// Requests that two parsers could understand differently, or that are no HTTP at all. `HOST` stands
/// for the right host.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "CL.TE",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        "TE.CL",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGET /admin HTTP/1.1\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, the second unknown",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE, twice the same",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE that is not quite chunked",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE with another coding before",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE with a tab in its value",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE in HTTP/1.0",
        "POST /mcp HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths that differ",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    ),
    (
        "two lengths that agree",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    (
        "a list of lengths",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4, 4\r\n\r\nabcd",
    ),
    (
        "a length with a sign",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: +4\r\n\r\nabcd",
    ),
    (
        "a length in hexadecimal",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x4\r\n\r\nabcd",
    ),
    (
        "a length below zero",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        "a length that overflows",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 18446744073709551617\r\n\r\n",
    ),
    (
        "an empty length",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length:\r\n\r\n",
    ),
    (
        "0.CL, hidden by a space before the colon",
        "GET /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length : 31\r\n\r\nGET /admin HTTP/1.1\r\nX: y\r\n\r\n",
    ),
    (
        "0.CL, hidden in a folded line",
        "GET /mcp HTTP/1.1\r\nHost: HOST\r\nX: y\r\n Content-Length: 31\r\n\r\nGET /admin HTTP/1.1\r\nX: y\r\n\r\n",
    ),
    (
        "a folded line",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n\t2\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a space before the first field",
        "POST /mcp HTTP/1.1\r\n X: y\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a bare LF behind the request line",
        "POST /mcp HTTP/1.1\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a bare LF behind a field",
        "POST /mcp HTTP/1.1\r\nHost: HOST\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a head of bare LFs",
        "POST /mcp HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n",
    ),
    (
        "an end of bare LFs",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\n\n",
    ),
    (
        "a bare CR in a field",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nX: a\rContent-Length: 5\r\n\r\n",
    ),
    (
        "a NUL in a value",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a NUL in a name",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nX\0: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a NUL in the target",
        "POST /mcp\0 HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a space in the target",
        "POST /mcp /x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a field without a colon",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nNonsense\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a field without a name",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\n: x\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "absolute form that names another host",
        "POST http://evil.example/mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "authority form",
        "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    ("no host", "POST /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    (
        "two hosts",
        "POST /mcp HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a path",
        "POST /mcp HTTP/1.1\r\nHost: HOST/x\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a user",
        "POST /mcp HTTP/1.1\r\nHost: evil@HOST\r\nContent-Length: 0\r\n\r\n",
    ),
    ("HTTP/0.9", "GET /mcp\r\n\r\n"),
    ("HTTP/3 in text", "GET /mcp HTTP/3.0\r\nHost: HOST\r\n\r\n"),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    (
        "early bytes behind an upgrade",
        "GET /mcp HTTP/1.1\r\nHost: HOST\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\nGET /admin HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "a GET with a body",
        "GET /mcp HTTP/1.1\r\nHost: HOST\r\nContent-Length: 31\r\n\r\nGET /admin HTTP/1.1\r\nX: y\r\n\r\n",
    ),
];

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_seen_by_nobody() {
    let a = Endpoint::named("a").websocket().start().await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let host = gate.address().to_string();
    // A route of plain HTTP has the same gate before it.
    let plain = Tidegate::build(&[&a])
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http")
        .start()
        .await;
    for (what, text) in AMBIGUOUS {
        let bytes = text.replace("HOST", &host);
        refused(&gate.client(), what, bytes.as_bytes()).await;
        let of_mcp_alone = *what == "a GET with a body" || *what == "early bytes behind an upgrade";
        if !of_mcp_alone {
            let bytes = text.replace("HOST", &plain.address().to_string());
            refused(&plain.client(), what, bytes.as_bytes()).await;
        }
        // The same behind a request that is right: the first is answered, the second is not.
        let connection = gate.client().connect().await.expect("a connection");
        let mut both = call_bytes(&gate.client(), 1);
        both.extend_from_slice(text.replace("HOST", &host).as_bytes());
        connection.raw(&both).await.expect("sent");
        let mut first = connection.response(false).await.expect("an answer");
        assert_eq!(first.status, 200, "{what}");
        assert_eq!(text_of(&first.json().await), "a", "{what}");
        let second = first.into_connection().response(false).await;
        let second = second.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(second.status, 400, "{what}");
    }
    let seen = a.requests();
    assert_eq!(seen.len(), AMBIGUOUS.len(), "the good ones alone");
    assert!(seen.iter().all(|r| r.tool() == Some("whoami")));
}

/// One answer, 400, and the end of the connection.
async fn refused(client: &Client, what: &str, bytes: &[u8]) {
    let started = Instant::now();
    let mut answer = match client.raw(bytes).await {
        Ok(answer) => answer,
        Err(e) => panic!("{what}: {e:?}"),
    };
    assert_eq!(answer.status, 400, "{what}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{what}: at once"
    );
    let message = answer.json().await;
    assert_eq!(message["jsonrpc"], "2.0", "{what}");
    let (rest, end) = answer.into_connection().rest().await;
    assert!(rest.is_empty(), "{what}: {rest:?}");
    assert!(matches!(end, BodyEnd::Closed | BodyEnd::Reset), "{what}");
}

#[tokio::test]
async fn an_absolute_target_that_names_our_host_is_served() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let call = call(1);
    let target = format!("http://{}/mcp", gate.address());
    let mut answer = client
        .request("POST", &target, &call.header_lines(), &call.body)
        .await;
    assert_eq!(text_of(&answer.json().await), "a");
    assert_eq!(a.requests()[0].path, "/mcp");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut bytes = Vec::new();
    for id in 0..12_u64 {
        let (tool, arguments) = match id % 3 {
            0 => ("slow", json!({"ms": 30})),
            1 => ("ticks", json!({"n": 2})),
            _ => ("whoami", json!({})),
        };
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let outgoing = Outgoing::in_session(&session, &message);
        let lines = outgoing.header_lines();
        bytes.extend(client.encode("POST", "/mcp", &lines, &outgoing.body));
    }
    let mut connection = client.connect().await.expect("a connection");
    connection.raw(&bytes).await.expect("sent");
    for id in 0..12 {
        let mut answer = connection.response(false).await.expect("an answer");
        assert_eq!(answer.status, 200);
        let (message, events) = if answer.is_stream() {
            let (events, end) = answer.events().rest().await;
            assert_eq!(end, BodyEnd::Complete);
            (events.last().expect("the answer").json(), events.len())
        } else {
            (answer.json().await, 0)
        };
        assert_eq!(message["id"], id);
        assert_eq!(events, if id % 3 == 1 { 3 } else { 0 });
        connection = answer.into_connection();
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let connection = client.connect().await.expect("a connection");
    // An empty line before the request is allowed too (RFC 9112, section 2.2).
    connection.raw(b"\r\n").await.expect("sent");
    for byte in call_bytes(&client, 1) {
        connection.raw(&[byte]).await.expect("sent");
    }
    let mut answer = connection.response(false).await.expect("an answer");
    assert_eq!(text_of(&answer.json().await), "a");
}

#[tokio::test]
async fn a_body_waits_for_the_word_to_continue() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let call = call(1).with("expect", "100-continue");
    let bytes = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
    let head = bytes.len() - call.body.len();
    let connection = client.connect().await.expect("a connection");
    connection.raw(&bytes[..head]).await.expect("sent");
    let wire = connection.into_wire();
    let go_on = wire.response_head().await.expect("the interim head");
    assert_eq!(go_on.status, 100);
    wire.write(&call.body).await.expect("sent");
    let answer = wire.response_head().await.expect("the answer");
    assert_eq!(answer.status, 200);
    assert!(!a.requests()[0].headers.has("expect"), "hop by hop");

    // One who does not wait is served as well.
    let mut hasty = client.send(call.clone()).await;
    assert_eq!(hasty.status, 200);
    assert_eq!(text_of(&hasty.json().await), "a");
}

#[tokio::test]
async fn a_body_that_is_refused_need_not_be_sent() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let call = call(1).with("expect", "100-continue");
    let length = (5_usize << 20).to_string();
    let lines = call.with("content-length", &length);
    let head = gate
        .client()
        .encode("POST", "/mcp", &lines.header_lines(), b"");
    let refused = gate.client().raw(&head).await.expect("an answer");
    assert_eq!(refused.status, 413);
    assert!(refused.interim.is_empty(), "nobody asked for the body");
}

/// How a body is sent.
#[derive(Clone, Copy, Debug)]
enum Sent {
    WithLength,
    InChunksOf(usize),
}

async fn send(client: &Client, outgoing: &Outgoing, sent: Sent) -> Response {
    let Sent::InChunksOf(size) = sent else {
        return client.send(outgoing.clone()).await;
    };
    let outgoing = outgoing.clone().with("transfer-encoding", "chunked");
    let mut body = Vec::new();
    for piece in outgoing.body.chunks(size) {
        body.extend_from_slice(format!("{:x};ext=\"v\"\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
    let lines = outgoing.header_lines();
    client.request("POST", client.path(), &lines, &body).await
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut wanted = Vec::new();
    for size in [65_535, 65_536, 65_537, 1 << 20, 4 << 20] {
        for sent in [Sent::WithLength, Sent::InChunksOf(10_007)] {
            for outgoing in [
                sized(Outgoing::in_session(&session, &echo()), size),
                sized(stateless_echo(), size),
            ] {
                assert_eq!(outgoing.body.len(), size);
                let mut answer = send(&client, &outgoing, sent).await;
                let (status, message) = (answer.status, answer.json().await);
                assert_eq!(status, 200, "{size} {sent:?} {}", message["error"]);
                assert_eq!(message["id"], 3, "{size} {sent:?}");
                assert!(text_of(&message).len() > size - 1000);
                wanted.push(outgoing.body);
            }
        }
    }
    let calls = a.calls("tools/call");
    assert_eq!(calls.len(), wanted.len());
    for (seen, wanted) in calls.iter().zip(&wanted) {
        assert!(
            seen.body == wanted.as_slice(),
            "unchanged, {}",
            wanted.len()
        );
    }
}

fn echo() -> Value {
    json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "PAD"}}})
}

fn stateless_echo() -> Outgoing {
    let params = json!({"name": "echo", "arguments": {"text": "PAD"}});
    Outgoing::stateless(&json!(3), "tools/call", Some("echo"), params)
}

/// The same with its text stretched until the body has exactly this size.
fn sized(mut outgoing: Outgoing, size: usize) -> Outgoing {
    let body = String::from_utf8(outgoing.body).expect("JSON");
    let pad = "p".repeat(size + 3 - body.len());
    outgoing.body = body.replacen("PAD", &pad, 1).into_bytes();
    outgoing
}

#[tokio::test]
async fn an_id_behind_a_large_body_is_still_answered_with() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    a.kill().await;
    for size in [1000, 70_000, 1 << 20] {
        let outgoing = id_last(sized(stateless_echo(), size));
        let mut refused = gate.client().send(outgoing).await;
        assert_eq!(refused.status, 502, "{size}");
        assert_eq!(refused.json().await["id"], 3, "{size}");
    }
}

#[tokio::test]
async fn a_stream_is_owed_its_answer_even_when_the_id_came_last() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    for size in [1000, 70_000, 1 << 20] {
        let params =
            json!({"name": "ticks", "arguments": {"n": 1000, "every_ms": 5, "text": "PAD"}});
        let outgoing = Outgoing::stateless(&json!(3), "tools/call", Some("ticks"), params);
        let mut stream = gate.client().send(id_last(sized(outgoing, size))).await;
        assert_eq!(stream.status, 200);
        stream.events().next_json().await;
        a.reset_connections().await;
        let (events, end) = stream.events().rest().await;
        assert_eq!(end, BodyEnd::Complete);
        let last = events.last().expect("the error").json();
        assert_eq!(last["id"], 3, "{size}");
        assert_eq!(last["error"]["code"], -32603);
    }
}

/// The same with its id behind everything else, so that the head is routed long before it is read.
fn id_last(mut outgoing: Outgoing) -> Outgoing {
    let text = String::from_utf8(outgoing.body).expect("JSON");
    let text = text.replacen("\"id\":3,", "", 1);
    outgoing.body = format!("{},\"id\":3}}", text.strip_suffix('}').expect("an object")).into();
    outgoing
}

#[tokio::test]
async fn a_connection_is_reused_for_whatever_comes() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut connection = client.connect().await.expect("a connection");
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let ticks = json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call",
        "params": {"name": "ticks", "arguments": {"n": 2}}});
    let unknown = crate::support::SessionId("unknown".into());
    let requests = [
        (Outgoing::in_session(&session, &note), 202),
        (Outgoing::in_session(&session, &ticks), 200),
        (Outgoing::in_session(&unknown, &ticks), 404),
        (call(1).without("mcp-method"), 400),
        (call(1), 200),
        (call(2), 200),
    ];
    for (outgoing, status) in requests.iter().cycle().take(18) {
        let lines = outgoing.header_lines();
        let answer = client
            .try_request_on(connection, "POST", "/mcp", &lines, &outgoing.body)
            .await;
        let mut answer = answer.expect("an answer on the same connection");
        assert_eq!(answer.status, *status);
        assert!(!answer.headers().has_token("connection", "close"));
        assert_eq!(answer.read_to_end().await.end, BodyEnd::Complete);
        connection = answer.into_connection();
    }
    // Upstream too: one connection did for all of them, and one before for the session.
    assert!(
        a.connections_accepted() <= 3,
        "{}",
        a.connections_accepted()
    );
}

#[tokio::test]
async fn a_client_may_ask_for_the_end_of_the_connection() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let outgoing = call(1).with("connection", "close");
    let mut answer = gate.client().send(outgoing).await;
    assert_eq!(text_of(&answer.json().await), "a");
    let (rest, end) = answer.into_connection().rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
}

/// Waits for the end of a connection and tells how long that took.
async fn time_to_close(connection: Connection) -> Duration {
    let started = Instant::now();
    let (rest, end) = connection.rest().await;
    assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    started.elapsed()
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    // Neither silence nor a trickle keeps the place.
    for trickle in [false, true] {
        let connection = client.connect().await.expect("a connection");
        let started = Instant::now();
        connection
            .raw(b"POST /mcp HTTP/1.1\r\nHost: x\r\n")
            .await
            .expect("sent");
        let wire = connection.into_wire();
        let answer = async {
            loop {
                tokio::select! {
                    biased;
                    head = wire.response_head() => break head,
                    () = tokio::time::sleep(Duration::from_millis(20)), if trickle => {
                        let _ = wire.write(b"x").await;
                    }
                }
            }
        };
        let answer = crate::support::within("the refusal", answer).await;
        assert_eq!(answer.expect("a head").status, 408);
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(250), "{waited:?}");
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        wire.shutdown_write();
        crate::support::within("the end", wire.closed()).await;
    }
    // A connection on which nothing ever came is closed without a word.
    let silent = client.connect().await.expect("a connection");
    assert!(time_to_close(silent).await < Duration::from_secs(3));
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_slow_second_head_is_given_up_as_well() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let mut first = gate.client().send(call(1)).await;
    first.json().await;
    let connection = first.into_connection();
    connection.raw(b"POST /mcp HT").await.expect("sent");
    let second = connection.response(false).await.expect("an answer");
    assert_eq!(second.status, 408);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    let bytes = call_bytes(&client, 1);
    let connection = client.connect().await.expect("a connection");
    connection
        .raw(&bytes[..bytes.len() - 10])
        .await
        .expect("sent");
    let mut refused = connection.response(false).await.expect("an answer");
    assert_eq!(refused.status, 408);
    refused.json().await;
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_stream_is_not_idle() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { idle_timeout: 300ms, head_timeout: 300ms }")
        .start()
        .await;
    let client = gate.client();
    let session = client.initialize().await;
    let mut stream = client.get_stream(&session, None).await;
    let mut answer = client.send(call(1)).await;
    answer.json().await;
    let waited = time_to_close(answer.into_connection()).await;
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    // By now the stream has been silent for longer than either limit.
    assert!(stream.silent_for(Duration::from_millis(400)).await);
    let own = a.sessions()[0].clone();
    let note = json!({"jsonrpc": "2.0", "method": "notifications/n"});
    assert!(a.push(&own, &note));
    assert_eq!(stream.events().next_json().await, note);
    // And so has a call that takes its time.
    let slow = client.call(&session, "slow", json!({"ms": 700})).await;
    assert_eq!(text_of(&slow), "done");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    for tool in ["whoami", "ticks"] {
        let params = json!({"name": tool, "arguments": {"n": 2}});
        let call = Outgoing::stateless(&json!(1), "tools/call", Some(tool), params);
        let text = client.encode("POST", "/mcp", &call.header_lines(), &call.body);
        let text = String::from_utf8(text).expect("text");
        let text = text.replacen("HTTP/1.1", "HTTP/1.0", 1);
        let mut answer = client.raw(text.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(!answer.headers().has("transfer-encoding"), "not in 1.0");
        let message = answer.rpc().await;
        assert_eq!(message["id"], 1);
        let rest = answer.read_to_end().await;
        assert!(matches!(rest.end, BodyEnd::Closed | BodyEnd::Complete));
        let (rest, end) = answer.into_connection().rest().await;
        assert_eq!((rest.len(), end), (0, BodyEnd::Closed));
    }
    // It need not know the host either.
    let mut answer = client
        .raw(b"GET /health HTTP/1.0\r\n\r\n")
        .await
        .expect("an answer");
    assert_eq!((answer.status, answer.text().await.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn chunks_that_make_no_sense_are_refused() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let client = gate.client();
    let lines = call(1).with("transfer-encoding", "chunked");
    let body = String::from_utf8(lines.body.clone()).expect("JSON");
    let size = format!("{:x}", body.len());
    for (what, body) in [
        ("no size", format!("zz\r\n{body}\r\n0\r\n\r\n")),
        ("a size below zero", format!("-1\r\n{body}\r\n0\r\n\r\n")),
        (
            "a size that overflows",
            format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "no end of the chunk",
            format!("{size}\r\n{body}XX0\r\n\r\n"),
        ),
    ] {
        let answer = client
            .try_request("POST", "/mcp", &lines.header_lines(), body.as_bytes())
            .await;
        match answer {
            Ok(answer) => assert_eq!(answer.status, 400, "{what}"),
            Err(NoAnswer::Head(NoHead::Closed)) => panic!("{what}: no answer"),
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
    assert!(a.requests().is_empty(), "{:?}", a.requests());
}
