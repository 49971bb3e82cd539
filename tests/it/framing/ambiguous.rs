//! What two parsers could understand differently is refused, and seen by nobody.

use std::time::{Duration, Instant};

use super::call_bytes;
use crate::support::{BodyEnd, Client, Endpoint, Tidegate, text_of};

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
