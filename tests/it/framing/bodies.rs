//! Request bodies: of every size, with a length or in chunks, with the id wherever it stands.

use serde_json::{Value, json};

use super::call;
use crate::support::wire::NoHead;
use crate::support::{
    BodyEnd, Client, Endpoint, Mcp, NoAnswer, Outgoing, Response, Tidegate, text_of,
};

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
            Ok(mut answer) => {
                assert_eq!(answer.status, 400, "{what}");
                // Nobody knows where another request would begin, so there is none.
                assert_eq!(answer.header("connection"), Some("close"), "{what}");
                answer.json().await;
                let (rest, _) = answer.into_connection().rest().await;
                assert!(rest.is_empty(), "{what}: more was answered");
            }
            Err(NoAnswer::Head(NoHead::Closed)) => panic!("{what}: no answer"),
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
    assert!(a.requests().is_empty(), "{:?}", a.requests());
}
