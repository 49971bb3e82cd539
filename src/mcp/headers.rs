//! The protocol's HTTP headers: their names, and how values that are not plain ASCII travel in
//! them.
//!
//! A tool may be called `größe`, a header may not carry that. The stateless era therefore wraps
//! such values: `=?base64?` + standard Base64 of the UTF-8 text + `?=`. A sender may also wrap a
//! value that did not need it, so names are compared after decoding and never as raw bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Names the session of a request or of the answer to `initialize`; session era only.
pub const MCP_SESSION_ID: &str = "mcp-session-id";
/// Names the revision of the request.
pub const MCP_PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Repeats the method of the body; stateless era only. Never wrapped.
pub const MCP_METHOD: &str = "mcp-method";
/// Repeats the name, uri or task id of the body; stateless era only.
pub const MCP_NAME: &str = "mcp-name";
/// Begins the name of every header that repeats a tool argument; stateless era only.
pub const MCP_PARAM_PREFIX: &str = "mcp-param-";
/// Names the last event that a client saw before its stream broke; session era only.
pub const LAST_EVENT_ID: &str = "last-event-id";

/// The longest session id that we accept, in bytes. No revision sets a limit; this one leaves room
/// for a sealed id and keeps a header block small.
pub const SESSION_ID_BYTES_MAX: usize = 512;

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// Why a header value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderValueError {
    /// A byte stands in it that only a wrapped value may stand for.
    #[error("the value has a byte that is not printable ASCII")]
    NotPrintable,
    /// It is wrapped, and what is inside is not standard Base64 with its padding.
    #[error("the value is marked as Base64 and is not")]
    BadBase64,
    /// It is wrapped, and what is inside is not UTF-8.
    #[error("the value decodes to bytes that are not UTF-8")]
    NotUtf8,
}

/// The text that a value of `Mcp-Name` or `Mcp-Param-*` stands for.
///
/// Whitespace around the value does not belong to it (RFC 9110, section 5.5).
pub fn decode_value(value: &[u8]) -> Result<Cow<'_, str>, HeaderValueError> {
    let value = trim(value);
    if !value.iter().all(|&byte| is_plain(byte)) {
        return Err(HeaderValueError::NotPrintable);
    }
    let text = str::from_utf8(value).map_err(|_| HeaderValueError::NotPrintable)?;
    if !is_wrapped(text) {
        return Ok(Cow::Borrowed(text));
    }
    // In `=?base64?=` the marks share a byte. Readers disagree on what it means, so it means
    // nothing.
    let inner = text
        .strip_prefix(OPEN)
        .and_then(|rest| rest.strip_suffix(CLOSE))
        .ok_or(HeaderValueError::BadBase64)?;
    let bytes = STANDARD
        .decode(inner)
        .map_err(|_| HeaderValueError::BadBase64)?;
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| HeaderValueError::NotUtf8)
}

/// The value to send for a text: the text itself where a header can carry it, else wrapped.
pub fn encode_value(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let plain = bytes.iter().all(|&byte| is_plain(byte)) && trim(bytes).len() == bytes.len();
    if plain && !is_wrapped(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(text)))
    }
}

/// Is this a session id that the protocol allows (visible ASCII only) and that we carry (1 to
/// [`SESSION_ID_BYTES_MAX`] bytes)?
pub fn session_id_is_valid(id: &[u8]) -> bool {
    (1..=SESSION_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e)
}

fn is_wrapped(text: &str) -> bool {
    text.starts_with(OPEN) && text.ends_with(CLOSE)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_travel_as_they_are() {
        for text in [
            "",
            "add",
            "a b\tc",
            "file:///x?y=z",
            "=?base64?",
            "?=",
            "=?BASE64?YQ==?=",
        ] {
            assert!(
                matches!(encode_value(text), Cow::Borrowed(same) if same == text),
                "{text}"
            );
            assert_eq!(decode_value(text.as_bytes()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn values_that_a_header_cannot_carry_are_wrapped() {
        assert_eq!(encode_value("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(encode_value(" a"), "=?base64?IGE=?=");
        assert_eq!(encode_value("a\n"), "=?base64?YQo=?=");
        assert_eq!(
            encode_value("=?base64?YQ==?="),
            "=?base64?PT9iYXNlNjQ/WVE9PT89?="
        );
        assert_eq!(encode_value("=?base64?="), "=?base64?PT9iYXNlNjQ/PQ==?=");
    }

    #[test]
    fn needless_wrapping_is_understood() {
        assert_eq!(decode_value(b"=?base64?YWRk?=").as_deref(), Ok("add"));
        assert_eq!(decode_value(b" =?base64??=\t").as_deref(), Ok(""));
    }

    #[test]
    fn broken_values_are_refused() {
        let rows: [(&[u8], HeaderValueError); 7] = [
            (b"caf\xc3\xa9", HeaderValueError::NotPrintable),
            (b"a\x00b", HeaderValueError::NotPrintable),
            (b"a\x7f", HeaderValueError::NotPrintable),
            (b"=?base64?YQ?=", HeaderValueError::BadBase64),
            (b"=?base64?Y_-=?=", HeaderValueError::BadBase64),
            (b"=?base64?=", HeaderValueError::BadBase64),
            (b"=?base64?/w==?=", HeaderValueError::NotUtf8),
        ];
        for (value, error) in rows {
            assert_eq!(decode_value(value), Err(error), "{value:?}");
        }
    }

    #[test]
    fn session_ids_are_visible_ascii_of_bounded_length() {
        assert!(session_id_is_valid(b"!~0aZ"));
        assert!(session_id_is_valid(&[b'a'; SESSION_ID_BYTES_MAX]));
        assert!(!session_id_is_valid(&[b'a'; SESSION_ID_BYTES_MAX + 1]));
        for id in [b"".as_slice(), b"a b", b"a\x7f", b"\x1f", b"a\xc3\xa9"] {
            assert!(!session_id_is_valid(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in any::<String>()) {
            let value = encode_value(&text);
            prop_assert!(value.bytes().all(is_plain));
            let decoded = decode_value(value.as_bytes());
            prop_assert_eq!(decoded.as_deref(), Ok(text.as_str()));
        }

        #[test]
        fn decoding_never_panics(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_value(&value);
            let _ = decode_value(&[OPEN.as_bytes(), &value, CLOSE.as_bytes()].concat());
        }
    }
}
