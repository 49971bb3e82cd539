//! The corpus: requests that somebody has smuggled something with, or could.
//!
//! Each row is right in everything but the one thing it is named for, so that nothing but a refusal
//! of that thing keeps it from the server. What stands in angle brackets is put in by [`bytes`]:
//!
//! - `<post>`: first line, host and the fields of a call, without framing; `<fields>` those alone
//! - `<te>`: `<post>`, chunked, with the end of the head
//! - `<body>`, `<len>`, `<hex>`: the body of the call and its length; `<chunked>` it in one chunk,
//!   `<tail>` all of it but the first byte
//! - `<all>`: a whole call that is right
//! - `<next>`: what is smuggled: a request for a path that no row has a right to
//! - `<host>`: the address of the listener
//! - `<x9000>`: so many of the letter

mod chunks;
mod framing;
mod heads;
mod targets;

/// What must become of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// One refusal, then the end of the connection. No server sees a byte.
    Refused,
    /// It arrives as exactly one request, and nothing behind it.
    Whole,
    /// It is answered with an error that is about its meaning, and no server sees a byte.
    Answered,
    /// No whole request arrives; the connection ends, with a refusal if nothing else was said.
    Cut,
    /// The first request arrives; what is behind it is refused, and the connection ends.
    First,
    /// Two requests arrive, both right.
    Two,
}

use Class::{Answered, Cut, First, Refused, Two, Whole};

/// A case: its name, what becomes of it on a route of MCP and on one of plain HTTP, and its bytes.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) mcp: Class,
    pub(super) plain: Class,
    text: &'static [u8],
}

/// The same on both kinds of route.
const fn case(name: &'static str, class: Class, text: &'static [u8]) -> Case {
    Case {
        name,
        mcp: class,
        plain: class,
        text,
    }
}

/// Something that is wrong in MCP alone, which has fewer methods and paths than HTTP.
const fn of_mcp(name: &'static str, mcp: Class, plain: Class, text: &'static [u8]) -> Case {
    Case {
        name,
        mcp,
        plain,
        text,
    }
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    let parts = [framing::CASES, chunks::CASES, heads::CASES, targets::CASES];
    parts.into_iter().flatten()
}

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"it","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

/// The body that a whole request of the corpus arrives with.
pub(super) const fn body() -> &'static [u8] {
    BODY.as_bytes()
}

const FIELDS: &str = "Content-Type: application/json\r\n\
    Accept: application/json, text/event-stream\r\n\
    MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n";

impl Case {
    /// The bytes that the client sends to `host`. The fields of its calls name the case.
    pub(super) fn bytes(&self, host: &str) -> Vec<u8> {
        let named = format!("{FIELDS}{}", self.mark());
        expand(self.text, host, &named)
    }

    /// The line by which it is known.
    pub(super) fn mark(&self) -> String {
        let name = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!("X-Case: {name}\r\n")
    }
}

fn expand(text: &[u8], host: &str, fields: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut rest = text;
    while let Some(open) = rest.iter().position(|b| *b == b'<') {
        let close = rest[open..].iter().position(|b| *b == b'>');
        let close = open + close.expect("a bracket closes");
        out.extend_from_slice(&rest[..open]);
        let word = std::str::from_utf8(&rest[open + 1..close]).expect("a word");
        let put = match word {
            "post" => "POST /mcp HTTP/1.1\r\nHost: <host>\r\n<fields>".into(),
            "te" => "<post>Transfer-Encoding: chunked\r\n\r\n".into(),
            "fields" => fields.into(),
            "body" => BODY.into(),
            "tail" => BODY[1..].into(),
            "len" => BODY.len().to_string(),
            "hex" => format!("{:x}", BODY.len()),
            "chunked" => "<hex>\r\n<body>\r\n0\r\n\r\n".into(),
            "all" => "<post>Content-Length: <len>\r\n\r\n<body>".into(),
            "next" => "GET /smuggled HTTP/1.1\r\nHost: <host>\r\n\r\n".into(),
            "host" => host.to_owned(),
            other => {
                let count = other.strip_prefix('x').and_then(|n| n.parse().ok());
                "x".repeat(count.unwrap_or_else(|| panic!("<{other}>")))
            }
        };
        out.extend(expand(put.as_bytes(), host, fields));
        rest = &rest[close + 1..];
    }
    out.extend_from_slice(rest);
    out
}
