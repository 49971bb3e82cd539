//! What was found in one JSON-RPC message: enough to route it, judge it and answer it, and no more.
//!
//! A [`Message`] never holds a body. It holds the few members that the balancer acts on, each with
//! a bound, and flags for those whose mere presence matters.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use super::text::{Name, Word};
use super::trace::TraceContext;

/// The kind of JSON value that a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Nothing but whitespace so far.
    #[default]
    Unknown,
    /// An object: one message.
    Object,
    /// An array: a batch of messages. Only revision 2025-03-26 has them.
    Batch,
    /// Anything else; never a message.
    Scalar,
}

/// What a message is, by the members that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A method and an id: it must be answered.
    Request,
    /// A method and no id.
    Notification,
    /// A result or an error: the answer to an earlier request.
    Response,
    /// An array with at least one element.
    Batch,
    /// No JSON-RPC message: no method and no result, a method that is no string, a request whose id
    /// is null, a method beside a result, a result without an id, or no object at all.
    Invalid,
}

/// What is known of a message. While its bytes still arrive, an absent member may yet come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The kind of JSON value. For a batch only `batch` is of use; the other members then pass
    /// through with the element that is being read.
    pub shape: Shape,
    /// The id exactly as sent; `null` counts as an id. At most [`ID_BYTES_MAX`] bytes.
    pub id: Option<RawId>,
    /// The method, decoded. At most [`METHOD_BYTES_MAX`] bytes.
    pub method: Option<Word>,
    /// The object that the method acts on: `params.name`, `.uri` or `.taskId`, whichever the
    /// method's facts say, decoded. Absent for methods that name nothing.
    pub name: Option<Name>,
    /// There was such a name, longer than [`NAME_BYTES_MAX`]; `name` is then absent.
    pub name_too_long: bool,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, decoded, cut off after
    /// [`VERSION_BYTES_MAX`] bytes (which no known revision reaches).
    pub meta_version: Option<Word>,
    /// `params.protocolVersion` as `initialize` has it, decoded and cut off likewise.
    pub init_version: Option<Word>,
    /// `params._meta.traceparent`, if it is one. Nothing is decided by it, so of several the last counts.
    pub trace: Option<TraceContext>,
    /// There is a `result`, of whatever value.
    pub has_result: bool,
    /// There is an `error`, of whatever value.
    pub has_error: bool,
    /// The `result` is an object with the member `isError`, whose value is `true`: a tool was called
    /// and has failed. Of several such members the last one counts, as it does for clients; nothing
    /// is decided by it here, so this is no duplicate to refuse. Only final once the whole `result`
    /// has been read.
    pub is_tool_error: bool,
    /// The `error` is an object whose `code` is this number. Of several the last one counts.
    pub error_code: Option<i32>,
    /// There is a `params.requestState` that is not null: a further round of an earlier request,
    /// which the server that began it may have to serve.
    pub has_request_state: bool,
    /// There is a `method` that is not a string, so the message is invalid.
    pub has_odd_method: bool,
    /// For an array: its elements so far. At most [`BATCH_ITEMS_MAX`].
    pub batch: Vec<BatchItem>,
}

/// One element of a batch. An element that is no object has none of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchItem {
    /// The element's id, as in [`Message::id`].
    pub id: Option<RawId>,
    /// The element's method, as in [`Message::method`].
    pub method: Option<Word>,
    /// The element's name, as in [`Message::name`].
    pub name: Option<Name>,
    /// The element is the answer to an earlier request.
    pub is_response: bool,
}

/// The longest id, in bytes of JSON text including quotes.
pub const ID_BYTES_MAX: usize = 256;
/// The longest method, in bytes after decoding.
pub const METHOD_BYTES_MAX: usize = 256;
/// The longest name that is kept, in bytes after decoding.
pub const NAME_BYTES_MAX: usize = 1024;
/// How much of a version is kept, in bytes after decoding.
pub const VERSION_BYTES_MAX: usize = 64;
/// The longest batch, in elements.
pub const BATCH_ITEMS_MAX: usize = 128;

impl Message {
    /// What the message is. Only final once the whole message has been read: a method may yet be
    /// joined by a `result`, which makes it invalid.
    pub fn class(&self) -> Class {
        match self.shape {
            Shape::Unknown | Shape::Scalar => return Class::Invalid,
            Shape::Batch if self.batch.is_empty() => return Class::Invalid,
            Shape::Batch => return Class::Batch,
            Shape::Object => {}
        }
        let answers = self.has_result || self.has_error;
        match (&self.method, &self.id) {
            _ if self.has_odd_method => Class::Invalid,
            (Some(_), _) if answers => Class::Invalid,
            (Some(_), Some(id)) if id.is_null() => Class::Invalid,
            (Some(_), Some(_)) => Class::Request,
            (Some(_), None) => Class::Notification,
            // An error may have no id, or a null one: the server could not read the request's.
            (None, _) if self.has_error => Class::Response,
            (None, Some(id)) if self.has_result && !id.is_null() => Class::Response,
            (None, _) => Class::Invalid,
        }
    }
}

/// A request id as JSON text, exactly as it was sent: a number, a string with its quotes, or
/// `null`.
///
/// Two ids are equal when a client would take one for the other: strings by their decoded value,
/// numbers by their text, and `1` is never `"1"`.
#[derive(Clone, Debug)]
pub struct RawId(Name);

impl RawId {
    /// The id of a JSON text, if the text is a number, a string or `null`, has nothing around it,
    /// and is no longer than [`ID_BYTES_MAX`].
    pub fn parse(json: &str) -> Option<Self> {
        let mut peek = super::peek::Peek::new();
        peek.feed(b"{\"id\":").ok()?;
        peek.feed(json.as_bytes()).ok()?;
        peek.feed(b"}").ok()?;
        peek.finish().ok()?;
        let id = peek.message().id.clone()?;
        (id.as_json() == json).then_some(id)
    }

    /// The id of a number of ours.
    pub fn number(number: u64) -> Self {
        Self(Name::new(&number.to_string()))
    }

    /// The id `null`, which answers a request whose id could not be read.
    pub fn null() -> Self {
        Self(Name::constant("null"))
    }

    /// Takes over a number or `null` that the scanner has already checked.
    pub(super) fn checked(json: &[u8]) -> Self {
        debug_assert!(json.len() <= ID_BYTES_MAX);
        Self(Name::joined([json]))
    }

    /// The same for a string, given without its quotes.
    pub(super) fn quoted(inner: &[u8]) -> Self {
        debug_assert!(inner.len() + 2 <= ID_BYTES_MAX);
        Self(Name::joined([b"\"", inner, b"\""]))
    }

    /// The JSON text, to be written where an id stands.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        self.0.as_bytes() == b"null"
    }

    /// The decoded text of a string id; `None` for numbers and `null`.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(if inner.contains('\\') {
            Cow::Owned(unescape(inner))
        } else {
            Cow::Borrowed(inner)
        })
    }
}

impl PartialEq for RawId {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || matches!((self.text(), other.text()), (Some(mine), Some(theirs)) if mine == theirs)
    }
}

impl Eq for RawId {}

impl Hash for RawId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.text() {
            Some(text) => (true, text).hash(state),
            None => (false, &self.0).hash(state),
        }
    }
}

/// The text between the quotes of a checked JSON string. A surrogate without its other half, which
/// the lenient scan lets pass, becomes U+FFFD.
fn unescape(text: &str) -> String {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        let plain = match char {
            '\\' => match rest.next() {
                Some('u') => {
                    let hex = rest.as_str().get(..4).unwrap_or_default();
                    units.push(u16::from_str_radix(hex, 16).unwrap_or(0xfffd));
                    rest = rest.as_str().get(4..).unwrap_or_default().chars();
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(same) => same,
                None => break,
            },
            plain => plain,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id(json: &str) -> RawId {
        RawId::parse(json).expect(json)
    }

    #[test]
    fn ids_are_equal_when_a_client_would_think_so() {
        assert_eq!(id("1"), RawId::number(1));
        assert_eq!(id("null"), RawId::null());
        assert_eq!(id(r#""a""#), id(r#""\u0061""#));
        assert_eq!(id(r#""\ud83c\udf0a\n""#), id("\"🌊\\u000a\""));
        assert_ne!(id("1"), id(r#""1""#));
        assert_ne!(id("1"), id("1.0"));
        assert_ne!(id("null"), id(r#""null""#));
        let set: HashSet<_> = [id(r#""a""#), id(r#""\u0061""#), id("1"), id(r#""1""#)].into();
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn only_numbers_strings_and_null_are_ids() {
        let long = format!("\"{}\"", "a".repeat(255));
        for json in [
            "",
            " 1",
            "1 ",
            "true",
            "{}",
            "[]",
            "01",
            "\"",
            "1,\"id\":2",
            "1}{",
            &long,
        ] {
            assert!(RawId::parse(json).is_none(), "{json}");
        }
        assert_eq!(id("-1.5e3").as_json(), "-1.5e3");
    }

    #[test]
    fn class_follows_from_the_members_present() {
        let rows = [
            (r#"{"id":1,"method":"ping"}"#, Class::Request),
            (r#"{"id":"","method":"x"}"#, Class::Request),
            (r#"{"method":"ping"}"#, Class::Notification),
            (r#"{"id":1,"result":{}}"#, Class::Response),
            (r#"{"id":1,"result":null}"#, Class::Response),
            (r#"{"id":null,"error":{}}"#, Class::Response),
            (r#"{"error":{}}"#, Class::Response),
            (r#"[{"id":1,"method":"ping"}]"#, Class::Batch),
            (r#"[1]"#, Class::Batch),
            (r#"[]"#, Class::Invalid),
            (r#"{"result":{}}"#, Class::Invalid),
            (r#"{"id":null,"result":{}}"#, Class::Invalid),
            (r#"{"id":null,"method":"ping"}"#, Class::Invalid),
            (r#"{"id":1,"method":"ping","result":{}}"#, Class::Invalid),
            (r#"{"id":1,"method":null,"result":{}}"#, Class::Invalid),
            (r#"{"id":1,"method":5}"#, Class::Invalid),
            (r#"{"id":1}"#, Class::Invalid),
            (r#"{}"#, Class::Invalid),
            (r#""ping""#, Class::Invalid),
            ("", Class::Invalid),
        ];
        for (body, class) in rows {
            let mut peek = super::super::peek::Peek::new();
            peek.feed(body.as_bytes()).expect(body);
            assert_eq!(peek.message().class(), class, "{body}");
        }
    }

    proptest! {
        #[test]
        fn string_ids_decode_as_a_json_parser_does(text in "\\PC{0,20}|[\u{0}-\u{ff}]{0,20}") {
            let json = serde_json::to_string(&text).expect("a string");
            prop_assert_eq!(id(&json).text().map(Cow::into_owned), Some(text));
        }
    }
}
