//! Responses: heads, and bodies up to where the connection may be used again.

use std::future::poll_fn;

use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use proptest::prelude::*;
use tidegate::transport::h1::answer::Answer;
use tidegate::transport::h1::conn::Conn;
use tidegate::transport::h1::framing::Framing;
use tidegate::transport::h1::head::EndOfHead;
use tidegate::transport::wire::Wire;
use tidegate::transport::{Error, ResponseHead};

use crate::mutate::{cuts, damaged, framed};
use crate::wire::{End, Message, arriving, assert_agree, our_fields, rest, run, their_fields};

const HEAD_MAX: usize = 64 * 1024;
const INFORMATIONAL_MAX: usize = 16;

/// What became of a response.
#[derive(Debug)]
enum Outcome {
    Nothing,
    /// Ours refuse with a reason, and the head that they refuse.
    Refused(Option<(&'static str, Vec<u8>)>),
    Read(Box<Message>),
}

/// Reads as an exchange with an endpoint does.
async fn ours(bytes: &[u8], cuts: &[usize], method: &str) -> Outcome {
    let stream = arriving(bytes, cuts);
    let mut conn = Conn::new(Wire::Layered(Box::new(stream)), None, None);
    let mut answer = Answer::default();
    let mut informational = 0;
    let mut framing = loop {
        let mut seen = EndOfHead::default();
        let head = poll_fn(|context| conn.poll_head(context, &mut seen, HEAD_MAX)).await;
        let Ok(length) = head else {
            return Outcome::Nothing;
        };
        let head = conn.take_head(length);
        let copy = head.filled().to_vec();
        if let Err(why) = answer.fill(head) {
            return Outcome::Refused(Some((why, copy)));
        }
        match answer.status() {
            101 => return Outcome::Refused(Some(("101", copy))),
            ..200 if informational < INFORMATIONAL_MAX => informational += 1,
            ..200 => return Outcome::Refused(Some(("too many 1xx", copy))),
            _ => match answer.framing(method) {
                Ok(framing) => break framing,
                Err(why) => return Outcome::Refused(Some((why, copy))),
            },
        }
    };
    let has_end = framing != Framing::ToClose;
    let mut body = Vec::new();
    let end = loop {
        match poll_fn(|context| conn.poll_piece(context, &mut framing)).await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break End::Whole,
            Err(Error::Malformed(_)) => break End::Broken,
            Err(_) => break End::Cut,
        }
    };
    let keeps = has_end && end == End::Whole && answer.keeps() && conn.ahead().is_empty();
    let mut behind = conn.ahead().to_vec();
    if let (Wire::Layered(stream), _) = conn.into_parts() {
        behind.extend_from_slice(&rest(stream).await);
    }
    Outcome::Read(Box::new(Message {
        line: [answer.status().to_string(), String::new()],
        fields: our_fields(&answer),
        body,
        end,
        behind: Some(behind),
        keeps,
    }))
}

async fn theirs(bytes: &[u8], cuts: &[usize], method: &str) -> Outcome {
    let mut session = HttpSession::new(Box::new(arriving(bytes, cuts)));
    let request = RequestHeader::build(method, b"/", None).unwrap();
    session
        .write_request_header(Box::new(request))
        .await
        .unwrap();
    loop {
        if session.read_response().await.is_err() {
            return Outcome::Refused(None);
        }
        match session.get_status().unwrap().as_u16() {
            101 => return Outcome::Refused(None),
            ..200 => {}
            _ => break,
        }
    }
    let head = session.resp_header().unwrap();
    let line = [head.status.as_u16().to_string(), String::new()];
    let fields = head.case_header_iter();
    let fields = their_fields(fields.map(|(name, value)| (name.as_slice(), value.as_bytes())));
    let mut body = Vec::new();
    let end = loop {
        match session.read_body_bytes().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break End::Whole,
            Err(error) if error.etype().as_str() == "ConnectionClosed" => break End::Cut,
            Err(_) => break End::Broken,
        }
    };
    session.respect_keepalive();
    let reused = session.reuse().await;
    let keeps = reused.is_some();
    let behind = match reused {
        Some(stream) => Some(rest(stream).await),
        None => None,
    };
    Outcome::Read(Box::new(Message {
        line,
        fields,
        body,
        end,
        behind,
        keeps,
    }))
}

fn lower(head: &[u8]) -> String {
    head.to_ascii_lowercase()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}

fn values(head: &str, name: &str) -> Vec<String> {
    head.split('\n')
        .filter_map(|line| line.split_once(':'))
        .filter(|(other, _)| *other == name)
        .map(|(_, value)| value.trim_matches([' ', '\t', '\r']).to_owned())
        .collect()
}

/// Is the reason for which we refuse what Pingora accepts really there?
fn is_owed(why: &str, head: &[u8]) -> bool {
    let head = lower(head);
    let lengths = values(&head, "content-length");
    let codings = values(&head, "transfer-encoding");
    match why {
        "repeated Content-Length or Transfer-Encoding" => lengths.len() > 1 || codings.len() > 1,
        "both Content-Length and Transfer-Encoding" => !lengths.is_empty() && !codings.is_empty(),
        "Content-Length is not a number" => lengths.iter().any(|length| {
            length.is_empty() || length.len() > 19 || !length.bytes().all(|b| b.is_ascii_digit())
        }),
        "Transfer-Encoding other than chunked" => codings.iter().any(|coding| coding != "chunked"),
        "Transfer-Encoding in HTTP/1.0" => head.contains("http/1.0") && !codings.is_empty(),
        "too many header fields" => head.matches('\n').count() > 128,
        "too many 1xx" => true,
        // Pingora takes a folded line, spaces before a colon, and empty lines before the head.
        "not an HTTP response head" => {
            head.trim().is_empty()
                || head.contains("\n ")
                || head.contains("\n\t")
                || head.contains(" :")
                || head.contains("\t:")
        }
        _ => false,
    }
}

/// Where Pingora refuses, and we know better: a response with 1xx has no body whatever its fields
/// say (RFC 9112 section 6.3), so there is no framing in it that could be wrong.
fn may_be_refused(bytes: &[u8]) -> bool {
    lower(bytes).contains("http/1.1 1") || lower(bytes).contains("http/1.0 1")
}

pub(crate) fn compare(bytes: &[u8], cuts: &[usize], method: &str) {
    let both = async {
        (
            ours(bytes, cuts, method).await,
            theirs(bytes, cuts, method).await,
        )
    };
    match run(both) {
        (Outcome::Read(ours), Outcome::Read(theirs)) => {
            assert_agree(&ours, &theirs);
            // Pingora does not look for keep-alive among others, which matters in HTTP/1.0 alone.
            let is_old = lower(bytes).contains("http/1.0");
            let more_came = ours
                .behind
                .as_ref()
                .is_some_and(|behind| !behind.is_empty());
            if ours.keeps && !is_old && !more_came {
                assert!(theirs.keeps, "Pingora would not use the connection again");
            }
        }
        (Outcome::Read(ours), theirs) => {
            assert!(
                may_be_refused(bytes),
                "accepted {ours:?}\nrefused {theirs:?}\n{}",
                bytes.escape_ascii()
            );
        }
        (Outcome::Refused(Some((why, head))), Outcome::Read(_)) => {
            assert!(
                is_owed(why, &head),
                "refused without need: {why}\n{}",
                bytes.escape_ascii()
            );
        }
        (Outcome::Nothing, Outcome::Read(theirs)) => panic!("not seen: {theirs:?}"),
        _ => {}
    }
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    const LINES: &[&str] = &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 202 Accepted\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 304 Not Modified\r\n",
        "HTTP/1.1 404 Not Found\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 200\r\n",
        "HTTP/1.1 200 \r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 199 X\r\n",
        "HTTP/1.1 999 X\r\n",
        "HTTP/1.1 099 X\r\n",
        "HTTP/1.1 20 X\r\n",
        "HTTP/1.1 2000 X\r\n",
        "HTTP/2 200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 200 O\u{e9}\r\n",
        "HTTP/1.1 200 O\0\r\n",
        "HTTP/1.1 200 OK\n",
        "ICY 200 OK\r\n",
    ];
    const BEFORE: &[&str] = &[
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc",
        "\r\n",
        "\n",
        "x",
    ];
    const OTHERS: &[&str] = &[
        "X-A: 1\r\n",
        "x-a: 2\r\n",
        "Content-Type: application/json\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Connection: x, keep-alive\r\n",
        "Connection: Keep-Alive, Close\r\n",
        "Connection: keep-alive\r\nConnection: close\r\n",
        "Keep-Alive: timeout=5\r\n",
        "X: a\r\n b\r\n",
        "X : a\r\n",
        "X: a\rb\r\n",
        "X: a\n",
        "X: a\0\r\n",
        "X: \u{e9}\r\n",
        ": v\r\n",
        "X\r\n",
        "X:\r\n",
        "\u{e9}: a\r\n",
        "Trailer: a\r\n",
    ];
    const BEHIND: &[&str] = &[
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\r\n",
        "x",
    ];
    let mostly = |of: &'static [&'static str]| prop_oneof![3 => Just(of[0]), 2 => proptest::sample::select(of)];
    let others = proptest::collection::vec(proptest::sample::select(OTHERS), 0..3);
    let parts = (
        mostly(BEFORE),
        mostly(LINES),
        others,
        framed(),
        mostly(BEHIND),
    );
    damaged(parts.prop_map(|(before, line, others, framed, behind)| {
        let head = format!("{before}{line}{}", others.concat());
        [head.as_bytes(), &framed, behind.as_bytes()].concat()
    }))
}

#[cfg(test)]
mod properties {
    use super::*;
    use crate::budget::spend;

    #[test]
    fn what_we_read_of_a_response_is_what_pingora_reads() {
        spend(20_000, |config| {
            proptest!(config, |(bytes in response(), cuts in cuts(), method in proptest::sample::select(&["POST", "GET", "HEAD"][..]))| {
                compare(&bytes, &cuts, method);
            });
        });
    }
}

#[test]
fn a_flood_of_1xx_is_refused_and_a_few_are_not() {
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (count, accepted) in [(INFORMATIONAL_MAX, true), (INFORMATIONAL_MAX + 1, false)] {
        let text = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count) + last;
        compare(text.as_bytes(), &[30], "POST");
        let read = run(ours(text.as_bytes(), &[30], "POST"));
        assert_eq!(matches!(read, Outcome::Read(_)), accepted, "{count}");
    }
}
