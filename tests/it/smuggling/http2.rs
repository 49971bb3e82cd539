//! The same over HTTP/2, whose fields could become lines of HTTP/1.1 on their way to the server.

use super::Lane;
use super::corpus::{self, Class};
use crate::support::frames::{
    self, DATA, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Raw, block, frame, head,
};

type Field = (&'static [u8], &'static [u8]);

/// How the end of the body is told.
#[derive(Clone, Copy)]
enum Sent {
    /// The body in one frame that ends the stream.
    Whole,
    /// No body: the head ends the stream.
    Nothing,
    /// The body, and then fields.
    Trailers(&'static [Field]),
}

/// A case: its name, what becomes of it, fields before those of a call, what takes the place of the
/// call's pseudo-fields, fields behind, and how it is sent.
struct Case {
    name: &'static str,
    class: Class,
    pseudo: &'static [Field],
    more: &'static [Field],
    sent: Sent,
}

const PSEUDO: &[Field] = &[
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"HOST"),
    (b":path", b"/mcp"),
];

const CALL: &[Field] = &[
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (b"mcp-protocol-version", b"2026-07-28"),
    (b"mcp-method", b"tools/list"),
];

/// Another field beside those of a call.
const fn field(name: &'static str, class: Class, more: &'static [Field]) -> Case {
    Case {
        name,
        class,
        pseudo: PSEUDO,
        more,
        sent: Sent::Whole,
    }
}

/// Other pseudo-fields.
const fn pseudo(name: &'static str, class: Class, pseudo: &'static [Field]) -> Case {
    Case {
        name,
        class,
        pseudo,
        more: &[],
        sent: Sent::Whole,
    }
}

use Class::{Refused, Whole};

#[rustfmt::skip]
const CASES: &[Case] = &[
    field("a call", Whole, &[]),
    Case { name: "a call with trailers", class: Whole, pseudo: PSEUDO, more: &[], sent: Sent::Trailers(&[(b"x-t", b"1")]) },
    // Fields of a connection (RFC 9113 section 8.2.2).
    field("transfer-encoding", Refused, &[(b"transfer-encoding", b"chunked")]),
    field("transfer-encoding of identity", Refused, &[(b"transfer-encoding", b"identity")]),
    field("connection", Refused, &[(b"connection", b"close")]),
    field("connection that names a field", Refused, &[(b"connection", b"mcp-method")]),
    field("keep-alive", Refused, &[(b"keep-alive", b"timeout=5")]),
    field("proxy-connection", Refused, &[(b"proxy-connection", b"keep-alive")]),
    field("upgrade", Refused, &[(b"upgrade", b"h2c")]),
    field("TE of anything", Refused, &[(b"te", b"gzip")]),
    field("TE of trailers", Whole, &[(b"te", b"trailers")]),
    // Lengths.
    field("a length that is right", Whole, &[(b"content-length", b"235")]),
    field("a length that is too small", Refused, &[(b"content-length", b"5")]),
    field("a length that is too large", Refused, &[(b"content-length", b"900")]),
    field("a length of nothing", Refused, &[(b"content-length", b"0")]),
    field("two lengths that differ", Refused, &[(b"content-length", b"235"), (b"content-length", b"5")]),
    field("a list of lengths that differ", Refused, &[(b"content-length", b"235, 5")]),
    field("a length with a plus", Refused, &[(b"content-length", b"+235")]),
    field("a length in hexadecimal", Refused, &[(b"content-length", b"0xeb")]),
    field("a length of forty digits", Refused, &[(b"content-length", b"1000000000000000000000000000000000000235")]),
    field("an empty length", Refused, &[(b"content-length", b"")]),
    Case { name: "a length and no body", class: Refused, pseudo: PSEUDO, more: &[(b"content-length", b"235")], sent: Sent::Nothing },
    // Names and values that would be more than one line.
    field("a name in capitals", Refused, &[(b"X-Case", b"1")]),
    field("a name with a line end", Refused, &[(b"x\r\nhost: evil", b"1")]),
    field("a name with a colon", Refused, &[(b"x: y", b"1")]),
    field("a name with a space", Refused, &[(b"x y", b"1")]),
    field("a name with a NUL", Refused, &[(b"x\0", b"1")]),
    field("a name over ASCII", Refused, &[(b"x\xe9", b"1")]),
    field("no name", Refused, &[(b"", b"1")]),
    field("a value with a line end", Refused, &[(b"x", b"1\r\nTransfer-Encoding: chunked")]),
    field("a value with a bare LF", Refused, &[(b"x", b"1\nTransfer-Encoding: chunked")]),
    field("a value with a bare CR", Refused, &[(b"x", b"1\rTransfer-Encoding: chunked")]),
    field("a value with a NUL", Refused, &[(b"x", b"1\0")]),
    field("a value with a whole request", Refused, &[(b"x", b"1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")]),
    field("a value over ASCII", Whole, &[(b"x", b"\xe9\xff")]),
    // Pseudo-fields.
    pseudo("no method", Refused, &[(b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("no scheme", Refused, &[(b":method", b"POST"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("no path", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST")]),
    pseudo("an empty path", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"")]),
    pseudo("no authority", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/mcp")]),
    pseudo("two methods", Refused, &[(b":method", b"POST"), (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("two paths", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp"), (b":path", b"/smuggled")]),
    pseudo("two authorities", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("a pseudo-field that nobody knows", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp"), (b":x", b"y")]),
    pseudo("a status", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp"), (b":status", b"200")]),
    field("a pseudo-field behind fields", Refused, &[(b":path", b"/mcp")]),
    Case { name: "a pseudo-field in trailers", class: Whole, pseudo: PSEUDO, more: &[], sent: Sent::Trailers(&[(b":path", b"/x")]) },
    pseudo("a method with a space", Refused, &[(b":method", b"POST /smuggled HTTP/1.1"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("a method with a line end", Refused, &[(b":method", b"GET / HTTP/1.1\r\nX: y"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("a path with a space", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp HTTP/1.1")]),
    pseudo("a path with a line end", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp HTTP/1.1\r\nX: y")]),
    pseudo("a path with a bare LF", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp\nX")]),
    pseudo("a path with a tab", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp\tX")]),
    pseudo("a path with a NUL", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp\0")]),
    pseudo("a path over ASCII", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp?\xc3\xa9")]),
    // The fragment is left behind, and so are the trailers.
    pseudo("a path with a fragment", Whole, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp#x")]),
    pseudo("a path that is absolute", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"http://evil.example/mcp")]),
    pseudo("a path without a slash", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"mcp")]),
    pseudo("a star that is no OPTIONS", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"*")]),
    pseudo("an authority with a user", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"evil@HOST"), (b":path", b"/mcp")]),
    pseudo("an authority with a path", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST/x"), (b":path", b"/mcp")]),
    pseudo("an authority with a line end", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST\r\nX: y"), (b":path", b"/mcp")]),
    pseudo("an authority with a space", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"HOST x"), (b":path", b"/mcp")]),
    pseudo("an authority with a port that is no number", Refused, &[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost:x"), (b":path", b"/mcp")]),
    field("a host other than the authority", Refused, &[(b"host", b"evil.example")]),
    field("two hosts", Refused, &[(b"host", b"HOST"), (b"host", b"HOST")]),
    field("a host like the authority", Whole, &[(b"host", b"HOST")]),
    // CONNECT (RFC 9113 section 8.5, RFC 8441).
    Case { name: "CONNECT", class: Refused, pseudo: &[(b":method", b"CONNECT"), (b":authority", b"HOST")], more: &[], sent: Sent::Whole },
    pseudo("CONNECT with a path", Refused, &[(b":method", b"CONNECT"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
    pseudo("CONNECT with a protocol", Refused, &[(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":authority", b"HOST"), (b":path", b"/mcp")]),
];

impl Case {
    fn bytes(&self, host: &str) -> Vec<u8> {
        let host = host.as_bytes();
        let put = |(name, value): &Field| {
            let at = value.windows(4).position(|part| part == b"HOST");
            let value = match at {
                Some(at) => [&value[..at], host, &value[at + 4..]].concat(),
                None => value.to_vec(),
            };
            (*name, value)
        };
        let fields: Vec<(&[u8], Vec<u8>)> = [self.pseudo, CALL, self.more]
            .into_iter()
            .flatten()
            .map(put)
            .collect();
        let fields: Vec<(&[u8], &[u8])> = fields.iter().map(|(n, v)| (*n, &v[..])).collect();
        let block = block(&fields);
        match self.sent {
            Sent::Nothing => head(1, END_STREAM, &block),
            Sent::Whole => [
                head(1, 0, &block),
                frame(DATA, END_STREAM, 1, corpus::body()),
            ]
            .concat(),
            Sent::Trailers(trailers) => [
                head(1, 0, &block),
                frame(DATA, 0, 1, corpus::body()),
                head(1, END_STREAM, &frames::block(trailers)),
            ]
            .concat(),
        }
    }
}

/// What the client is told of stream 1: a status, or that it was reset or the connection ended.
async fn told(raw: &mut Raw) -> Option<u16> {
    let about = |frame: &Frame| {
        (frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM)) || frame.kind == GOAWAY
    };
    raw.until(about).await.and_then(|frame| frame.status())
}

fn is_empty(seen: &super::reader::Seen) -> bool {
    seen.body.is_empty() && seen.all("content-length").eq(["0"])
}

#[tokio::test]
async fn nothing_is_smuggled_through_http2_into_http1() {
    let mut wrong = Vec::new();
    for mut lane in [Lane::mcp().await, Lane::plain().await] {
        let host = lane.gate.address().to_string();
        let (mut refused, mut forwarded) = (0, 0);
        for case in CASES {
            let mut raw = Raw::connect(lane.gate.address(), &[]).await;
            raw.send(&case.bytes(&host)).await;
            let status = told(&mut raw).await;
            let mut seen = lane.recorder.take();
            // A head that says there is no body may have gone on its way before there was one.
            seen.retain(|reading| {
                !reading.requests.iter().all(is_empty) || !reading.rest.is_empty()
            });
            let whole: Vec<_> = seen.iter().flat_map(|reading| &reading.requests).collect();
            let right = match case.class {
                Whole => {
                    forwarded += 1;
                    let one = whole.len() == 1 && seen.iter().all(|r| r.rest.is_empty());
                    let good = whole
                        .iter()
                        .all(|seen| super::check(seen, corpus::body()).is_ok());
                    status == Some(200) && one && good
                }
                _ => {
                    refused += 1;
                    let mild =
                        status.is_none_or(|status| (400..500).contains(&status) || status == 501);
                    mild && whole.is_empty()
                }
            };
            if !right {
                let lane = if lane.is_mcp { "mcp" } else { "http" };
                wrong.push(format!("{lane}: {}: {status:?} {seen:?}", case.name));
            }
        }
        let kind = if lane.is_mcp { "MCP" } else { "plain HTTP" };
        eprintln!("HTTP/2, route of {kind}: {refused} refused, {forwarded} forwarded as one");
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
