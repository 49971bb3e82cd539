//! Requests: heads, and bodies up to where the next request begins.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::protocols::http::ServerSession;
use proptest::prelude::*;
use tidegate::transport::h1::conn::Conn;
use tidegate::transport::h1::down::H1Down;
use tidegate::transport::h1::head::{EndOfHead, Head, Refusal};
use tidegate::transport::timer::Wheel;
use tidegate::transport::wire::Wire;
use tidegate::transport::{ConnInfo, Downstream, Error, Http, RequestHead};

use crate::corpus::SMUGGLING;
use crate::mutate::{cuts, damaged, framed, mostly_first};
use crate::wire::{End, Message, arriving, assert_agree, our_fields, rest, run, their_fields};

const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 100;

/// What became of a request.
#[derive(Debug)]
enum Outcome {
    /// The connection ended before its head did.
    Nothing,
    /// Ours refuse with a reason, and the head that they refuse.
    Refused(Option<(Refusal, Vec<u8>)>),
    Read(Box<Message>),
}

fn down(bytes: &[u8], cuts: &[usize]) -> H1Down {
    let stream = arriving(bytes, cuts);
    let address = "127.0.0.1:1".parse().unwrap();
    let info = ConnInfo {
        client: address,
        local: address,
        listener: "test".into(),
        tls: None,
        place: None,
    };
    let conn = Conn::new(Wire::Layered(Box::new(stream)), None, None);
    let alarm = Wheel::new(Instant::now()).alarm();
    H1Down::new(conn, alarm, Arc::new(info), Duration::from_secs(60))
}

/// Reads as [`tidegate::server`] does.
async fn ours(bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut down = down(bytes, cuts);
    let mut seen = EndOfHead::default();
    let head = poll_fn(|context| {
        let conn = down.conn();
        loop {
            let reading = conn.poll_head(context, &mut seen, HEAD_MAX);
            if !conn.ahead().starts_with(b"\r\n") {
                break reading;
            }
            conn.skip(2);
            seen = EndOfHead::default();
        }
    });
    let Ok(length) = head.await else {
        return Outcome::Nothing;
    };
    let head = down.conn().ahead()[..length].to_vec();
    if let Err(refusal) = down.begin(length, FIELDS_MAX) {
        return Outcome::Refused(Some((refusal, head)));
    }
    let line = [down.head().method(), down.head().target()].map(str::to_owned);
    let fields = our_fields(down.head());
    let mut body = Vec::new();
    let end = loop {
        match down.read_body().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break End::Whole,
            Err(Error::Malformed(_)) => break End::Broken,
            Err(_) => break End::Cut,
        }
    };
    let mut behind = down.conn().ahead().to_vec();
    let (conn, ..) = down.into_conn();
    if let (Wire::Layered(stream), _) = conn.into_parts() {
        behind.extend_from_slice(&rest(stream).await);
    }
    Outcome::Read(Box::new(Message {
        line,
        fields,
        body,
        end,
        behind: Some(behind),
        keeps: true,
    }))
}

async fn theirs(bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut session = ServerSession::new_http1(Box::new(arriving(bytes, cuts)));
    session.set_pipelining_enabled(true);
    match session.read_request().await {
        Ok(true) => {}
        Ok(false) => return Outcome::Nothing,
        Err(_) => return Outcome::Refused(None),
    }
    session.set_keepalive(Some(60));
    let head = session.req_header();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let line = [head.method.as_str(), path].map(str::to_owned);
    let fields = head.case_header_iter();
    let fields = their_fields(fields.map(|(name, value)| (name.as_slice(), value.as_bytes())));
    let mut body = Vec::new();
    let end = loop {
        match session.read_request_body().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break End::Whole,
            Err(error) if error.etype().as_str() == "ConnectionClosed" => break End::Cut,
            Err(_) => break End::Broken,
        }
    };
    let mut behind = None;
    if let ServerSession::H1(session) = session
        && end == End::Whole
        && let Some(reused) = session.reuse().await.unwrap()
    {
        let (stream, prefix) = reused.into_parts();
        let prefix = prefix.map_or_else(Vec::new, |prefix| prefix.to_vec());
        behind = Some([prefix, rest(stream).await].concat());
    }
    Outcome::Read(Box::new(Message {
        line,
        fields,
        body,
        end,
        behind,
        keeps: true,
    }))
}

/// Lines of a head, without their ends.
fn lines(head: &[u8]) -> Vec<String> {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    text.split("\r\n").map(str::to_owned).collect()
}

/// The values under a name.
fn values(head: &[u8], name: &str) -> Vec<String> {
    lines(head)
        .iter()
        .filter_map(|line| line.split_once(':'))
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim_matches([' ', '\t']).to_owned())
        .collect()
}

/// Is this no name or address, with a port behind it or none?
fn is_odd(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let inner = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let allowed = if inner.is_some() { ".-_%~:" } else { ".-_%~" };
    let name = inner.unwrap_or(name);
    name.is_empty()
        || name.contains(|c: char| !c.is_ascii_alphanumeric() && !allowed.contains(c))
        || port.len() > 5
        || port.contains(|c: char| !c.is_ascii_digit())
}

/// Is the reason for which we refuse what Pingora accepts really there?
fn is_owed(refusal: Refusal, head: &[u8]) -> bool {
    let lengths = values(head, "content-length");
    let codings = values(head, "transfer-encoding");
    let hosts = values(head, "host");
    let first = lines(head)[0].clone();
    let target = first.split_once(' ').map_or("", |(_, rest)| rest);
    let target = target.rsplit_once(' ').map_or("", |(target, _)| target);
    match refusal {
        Refusal::Syntax("bare LF") => {
            (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r'))
        }
        // Pingora brings a target that is not one into shape.
        Refusal::Syntax("method or target" | "HTTP version") | Refusal::Target(_)
            if target
                .bytes()
                .any(|byte| !(b'!'..=b'~').contains(&byte) || byte == b'#') =>
        {
            true
        }
        Refusal::Syntax(_) => false,
        Refusal::TooManyFields => lines(head).len() - 3 > FIELDS_MAX,
        Refusal::Framing("both Content-Length and Transfer-Encoding") => {
            !lengths.is_empty() && !codings.is_empty()
        }
        Refusal::Framing("repeated Content-Length or Transfer-Encoding") => {
            lengths.len() > 1 || codings.len() > 1
        }
        Refusal::Framing("Content-Length is not a number") => {
            let is_number = |value: &String| {
                (1..20).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit())
            };
            !lengths.iter().all(is_number)
        }
        Refusal::Framing("Transfer-Encoding other than chunked") => codings
            .iter()
            .any(|coding| !coding.eq_ignore_ascii_case("chunked")),
        Refusal::Framing("Connection names an end-to-end field") => {
            let named = values(head, "connection").concat().to_ascii_lowercase();
            ["host", "mcp-"].iter().any(|name| named.contains(name))
        }
        Refusal::Framing(_) => false,
        Refusal::Host("missing") => hosts.is_empty(),
        Refusal::Host("not a host name") => {
            let named = target.split('/').nth(2);
            hosts.iter().any(|host| is_odd(host)) || named.is_some_and(is_odd)
        }
        // Where the path is missing, and what is taken for it is in the query.
        Refusal::Host("differs from the absolute target") => target
            .split('/')
            .nth(2)
            .is_some_and(|named| named.contains('?')),
        Refusal::Host(_) => false,
        Refusal::Target("CONNECT") => first.starts_with("CONNECT "),
        Refusal::Target("an absolute URI without a path") => target.matches('/').count() == 2,
        Refusal::Target("neither a path nor an absolute URI") => {
            let lower = target.to_ascii_lowercase();
            !target.starts_with('/')
                && !lower.starts_with("http://")
                && !lower.starts_with("https://")
        }
        Refusal::Target(_) => false,
    }
}

/// Where Pingora refuses what we pass on as it is.
fn may_be_refused(bytes: &[u8]) -> bool {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let target = text.split(' ').nth(1).unwrap_or("");
    let host = values(bytes, "host").into_iter().next().unwrap_or_default();
    let named = target.split('/').nth(2).unwrap_or("");
    // Its type for URIs has no room for these, which RFC 3986 leaves out too; they do not decide
    // where anything ends.
    let is_odd = target.contains(['<', '>', '`', '"']);
    // Of an authority the case does not matter (RFC 9110 section 4.2.3). Pingora compares bytes.
    let is_absolute = !target.starts_with('/');
    let other_case = named != host && named.eq_ignore_ascii_case(&host);
    // Colons and brackets in odd places are no separators to us: the host is what does not match.
    let is_no_uri = http::uri::Authority::try_from(named).is_err();
    is_odd || (is_absolute && (other_case || is_no_uri))
}

pub(crate) fn compare(bytes: &[u8], cuts: &[usize]) {
    let (ours, theirs) = run(async { (ours(bytes, cuts).await, theirs(bytes, cuts).await) });
    match (ours, theirs) {
        (Outcome::Read(ours), Outcome::Read(theirs)) => assert_agree(&ours, &theirs),
        (Outcome::Read(ours), theirs) => {
            assert!(
                may_be_refused(bytes),
                "accepted {ours:?}\nrefused {theirs:?}\n{}",
                bytes.escape_ascii()
            );
        }
        (Outcome::Refused(Some((refusal, head))), Outcome::Read(_)) => {
            assert!(
                is_owed(refusal, &head),
                "refused without need: {refusal:?}\n{}",
                bytes.escape_ascii()
            );
        }
        (Outcome::Nothing, Outcome::Read(theirs)) => panic!("not seen: {theirs:?}"),
        _ => {}
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    const METHODS: &[&str] = &[
        "POST",
        "GET",
        "HEAD",
        "DELETE",
        "OPTIONS",
        "PUT",
        "CONNECT",
        "post",
        "M-SEARCH",
        "!#$%&'*+.^_`|~",
        "PRI",
        "PO ST",
        "",
        "G\tT",
        "P\u{e9}T",
    ];
    const TARGETS: &[&str] = &[
        "/mcp",
        "/mcp?a=b",
        "/",
        "//x/y",
        "/\\x",
        "/%00%zz",
        "/a|b^c`{}\"<>",
        "/a?b?c",
        "/;a",
        "*",
        "http://h/mcp",
        "http://H/x?y",
        "HTTPS://h:1/x",
        "http://h",
        "http://h?x/y",
        "http://h#x/",
        "http:///x",
        "http://u@h/",
        "http://[::1]/",
        "http://h::1/",
        "http://h%41/",
        "http://h\\x/",
        "http:/h/x",
        "http:h/x",
        "ws://h/x",
        "ftp://h/x",
        "h:1",
        "h",
        "?x",
        "",
        "/\u{e9}",
        "/#f",
        "/a b",
        "/a\tb",
        "/a\0b",
        "/\u{7f}",
    ];
    const VERSIONS: &[&str] = &[
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "http/1.1",
        "HTTP/1.1 ",
        "HTTP/01.1",
        "",
    ];
    const HOSTS: &[&str] = &[
        "Host: h\r\n",
        "host:h\r\n",
        "",
        "Host: H\r\n",
        "Host: h:1\r\n",
        "Host:\r\n",
        "Host: [::1]\r\n",
        "Host: u@h\r\n",
        "Host: a/b\r\n",
        "Host: h\r\nHost: h\r\n",
        "Host : h\r\n",
        "Host: h h\r\n",
        "Host: h::1\r\n",
        "Host: h%41\r\n",
    ];
    const OTHERS: &[&str] = &[
        "X-A: 1\r\n",
        "x-a: 2\r\n",
        "X-B:  a \t\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: mcp-method\r\n",
        "Mcp-Method: tools/call\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        "Expect: 100-continue\r\n",
        "TE: trailers\r\n",
        "X: a\r\n b\r\n",
        "X : a\r\n",
        "X: a\rb\r\n",
        "X: a\nb\r\n",
        "X: a\0\r\n",
        "X: \u{7f}\r\n",
        "X: \u{e9}\r\n",
        ": v\r\n",
        "X\r\n",
        " X: a\r\n",
        "X:\r\n",
        "X;Y: a\r\n",
        "\u{e9}: a\r\n",
        "\"X\": a\r\n",
        "X: a\r\r\n",
    ];
    const BEFORE: &[&str] = &["", "\r\n", "\r\n\r\n", "\n", "\r", " "];
    const BEHIND: &[&str] = &[
        "",
        "GET /two HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n",
        "\0",
        "x",
    ];
    let mostly = |of: &'static [&'static str]| prop_oneof![6 => Just(of[0]), 1 => proptest::sample::select(of)];
    let line = (
        mostly_first(METHODS),
        mostly_first(TARGETS),
        mostly(VERSIONS),
    );
    let others = proptest::collection::vec(proptest::sample::select(OTHERS), 0..3);
    let parts = (
        mostly(BEFORE),
        line,
        mostly(HOSTS),
        others,
        framed(),
        mostly_first(BEHIND),
    );
    let whole = parts.prop_map(
        |(before, (method, target, version), host, others, framed, behind)| {
            let head = format!(
                "{before}{method} {target} {version}\r\n{host}{}",
                others.concat()
            );
            [head.as_bytes(), &framed, behind.as_bytes()].concat()
        },
    );
    damaged(whole)
}

#[cfg(test)]
mod properties {
    use super::*;
    use crate::budget::spend;

    #[test]
    fn what_we_read_of_a_request_is_what_pingora_reads() {
        spend(20_000, |config| {
            proptest!(config, |(bytes in request(), cuts in cuts())| {
                compare(&bytes, &cuts);
            });
        });
    }
}

#[test]
fn what_is_smuggled_means_nothing_else_to_pingora() {
    for (_, text) in SMUGGLING {
        for cut in 0..text.len() {
            compare(text.as_bytes(), &[cut]);
        }
    }
}

#[test]
fn many_and_long_fields_are_read_alike() {
    for count in [FIELDS_MAX - 1, FIELDS_MAX] {
        let fields = "X-A: 1\r\n".repeat(count);
        compare(
            format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(),
            &[],
        );
    }
    let long = "x".repeat(20_000);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{long}: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"),
    ] {
        compare(head.as_bytes(), &[17_000]);
    }
}

#[test]
fn a_right_request_is_accepted() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let text = format!("POST /mcp {version}\r\nHost: h\r\nContent-Length: 2\r\n\r\nabGET");
        let Outcome::Read(message) = run(ours(text.as_bytes(), &[5])) else {
            panic!("{version} was refused");
        };
        assert_eq!(message.body, b"ab");
        assert_eq!(message.behind.as_deref(), Some(&b"GET"[..]));
    }
    let head = Head::parse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", FIELDS_MAX).unwrap();
    assert_eq!(head.version(), Http::V11);
}
