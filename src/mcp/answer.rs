//! The JSON-RPC answers that come from us, as bytes ready to be a body or the data of an event.
//!
//! A client waits for the answer to *its* id. So each answer repeats the id exactly as it was sent,
//! and has `null` there only when none could be read.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::message::RawId;
use super::version::Revision;

/// The body is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The body is JSON and not a JSON-RPC message.
pub const INVALID_REQUEST: i64 = -32600;
/// The method does not exist here. With HTTP 404 in the stateless era.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not fit the method, or name something that does not exist.
pub const INVALID_PARAMS: i64 = -32602;
/// Everything that is the server's or our own failure.
pub const INTERNAL: i64 = -32603;
/// Is this error, in an answer with HTTP 200, the server's own fault, by which it may be judged?
///
/// Only [`INTERNAL`] is: what JSON-RPC has for a failure of the server itself, and what the SDKs
/// answer for it. The others of the reserved range (-32700 to -32600) blame the request. -32000 to
/// -32099 are each server's own, and mean as many things as there are servers: a session that is
/// gone, a resource that is not there, a limit on the caller. What a tool could not do is a result
/// with `isError`, and no error at all.
pub const fn is_server_fault(code: i32) -> bool {
    code as i64 == INTERNAL
}

/// The session is unknown or gone; with HTTP 404. Session era only, and a custom of its SDKs: the
/// status is what clients act on.
pub const SESSION_NOT_FOUND: i64 = -32001;
/// Headers and body contradict each other; with HTTP 400. Stateless era.
pub const HEADER_MISMATCH: i64 = -32020;
/// The request needs a capability that the client did not declare. Stateless era.
pub const MISSING_CAPABILITY: i64 = -32021;
/// The revision is not served here; with HTTP 400 and [`supported_versions`]. Stateless era.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// An error answer. `data` is JSON text that is written as it stands; the caller vouches for it.
pub fn error(id: Option<&RawId>, code: i64, message: &str, data: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + message.len() + data.map_or(0, str::len));
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.map_or("null", RawId::as_json).as_bytes());
    out.extend_from_slice(br#","error":{"code":"#);
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(br#","message":"#);
    write_string(&mut out, message);
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

/// An answer with a result. `raw_result` is JSON text that is written as it stands; the caller
/// vouches for it.
pub fn result(id: &RawId, raw_result: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + id.as_json().len() + raw_result.len());
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_json().as_bytes());
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(raw_result.as_bytes());
    out.push(b'}');
    out
}

/// The `data` of an [`UNSUPPORTED_VERSION`] error: what is served, and what was asked for.
pub fn supported_versions(served: &[Revision], requested: &str) -> String {
    let mut out = Vec::with_capacity(64 + requested.len());
    out.extend_from_slice(br#"{"supported":["#);
    for (index, revision) in served.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(&mut out, revision.as_str());
    }
    out.extend_from_slice(br#"],"requested":"#);
    write_string(&mut out, requested);
    out.push(b'}');
    String::from_utf8(out).expect("only whole strings were written")
}

/// Appends a text as a JSON string with its quotes (RFC 8259, section 7).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Can this answer to a tool call be told at a glance to be neither an error nor a result that is
/// marked as one? Where in doubt it cannot: then a scan has to read it.
///
/// A glance finds the two words that matter, `error` and `isError`, anywhere in the text. An answer
/// in which a backslash stands may spell them otherwise.
pub fn is_plainly_good(answer: &[u8]) -> bool {
    let answer = answer.trim_ascii();
    let is_object = answer.first() == Some(&b'{') && answer.last() == Some(&b'}');
    if !is_object || memchr::memchr(b'\\', answer).is_some() {
        return false;
    }
    memchr::memchr_iter(b'E', answer)
        .filter(|at| answer[..*at].ends_with(b"\"is") && answer[*at..].starts_with(b"Error\""))
        .all(|at| {
            let behind = answer[at + b"Error\"".len()..].trim_ascii_start();
            let value = behind.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            value.is_some_and(|value| value.starts_with(b"false"))
        })
        && !may_be_error(answer)
}

/// Does the key of an error stand somewhere in this answer? Where it does not, the answer is none,
/// unless a backslash spells it otherwise.
pub fn may_be_error(answer: &[u8]) -> bool {
    // Made once: making a search ready costs more than searching a small answer.
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
    KEY.find(answer).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("an answer is JSON")
    }

    #[test]
    fn answers_repeat_the_id_with_its_type() {
        for raw in ["7", r#""7""#, r#""\u0041""#, "1.50"] {
            let id = RawId::parse(raw).expect(raw);
            for answer in [result(&id, "{}"), error(Some(&id), INTERNAL, "lost", None)] {
                let text = String::from_utf8(answer).expect("UTF-8");
                assert!(text.contains(&format!(r#""id":{raw},"#)), "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_id_is_null() {
        assert_eq!(
            value(&error(None, SESSION_NOT_FOUND, "Session not found", None)),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32001, "message": "Session not found"}})
        );
    }

    #[test]
    fn unsupported_version_names_what_is_served() {
        let data = supported_versions(&Revision::ALL[3..], "2031-\"01");
        let answer = error(
            Some(&RawId::number(1)),
            UNSUPPORTED_VERSION,
            "no",
            Some(&data),
        );
        assert_eq!(
            value(&answer)["error"]["data"],
            json!({"supported": ["2025-11-25", "2026-07-28"], "requested": "2031-\"01"})
        );
    }

    proptest! {
        #[test]
        fn any_text_survives_as_a_string(text in any::<String>(), control in "[\u{0}-\u{24}\\\\]{0,9}") {
            for text in [text, control] {
                let answer = value(&error(None, -1, &text, None));
                prop_assert_eq!(answer["error"]["message"].as_str(), Some(text.as_str()));
            }
        }
    }

    #[test]
    fn only_an_answer_without_the_words_is_plainly_good() {
        for good in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"Error"}]}}"#,
            r#" {"result":{"isError" : false}} "#,
        ] {
            assert!(is_plainly_good(good.as_bytes()), "{good}");
        }
        for doubtful in [
            r#"{"error":{"code":1}}"#,
            r#"{"result":{"isError":true}}"#,
            r#"{"result":{"isError": true}}"#,
            r#"{"result":{"isError":false,"isError":true}}"#,
            r#"{"result":{"is\u0045rror":true}}"#,
            r#"{"result":{"text":"say \"error\""}}"#,
            r#"{"result":"#,
            "<html>",
            "",
        ] {
            assert!(!is_plainly_good(doubtful.as_bytes()), "{doubtful}");
        }
    }
}
