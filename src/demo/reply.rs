//! An answer as a value: everything that the client will be told, and nothing written yet.

use serde_json::{Value, json};

use super::feed::Feed;
use super::session::{Lease, SessionId};
use crate::mcp::{Era, RawId, Revision, answer};

/// What one exchange is answered with.
#[derive(Debug)]
pub(super) enum Reply {
    /// A status and a body that is known as a whole.
    Whole(Whole),
    /// An event stream.
    Stream(Opened),
}

/// An answer without a stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Whole {
    /// The HTTP status.
    pub(super) status: u16,
    /// The session to name in `Mcp-Session-Id`.
    pub(super) session: Option<SessionId>,
    /// The value of `Allow`, which a 405 must carry (RFC 9110 section 15.5.6).
    pub(super) allow: Option<&'static str>,
    pub(super) body: Body,
}

/// The body of a [`Whole`] answer.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Body {
    #[default]
    None,
    /// A JSON-RPC answer.
    Json(Vec<u8>),
    /// Plain text, where no JSON-RPC is spoken.
    Text(&'static str),
}

/// An answer with an event stream.
#[derive(Debug)]
pub(super) struct Opened {
    /// The stream's place in its session; `None` in the stateless era.
    pub(super) lease: Option<Lease>,
    /// What is said on it.
    pub(super) feed: Feed,
}

impl Whole {
    /// A notification or an answer of the client was taken.
    pub(super) fn accepted() -> Self {
        Self::empty(202)
    }

    /// A status without a body.
    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Plain text, outside of the protocol.
    pub(super) fn text(status: u16, text: &'static str) -> Self {
        Self {
            status,
            body: Body::Text(text),
            ..Self::default()
        }
    }

    /// The result of a request.
    pub(super) fn result(era: Era, id: &RawId, result: Value) -> Self {
        Self {
            status: 200,
            body: Body::Json(answer::result(id, &result_text(era, result))),
            ..Self::default()
        }
    }

    /// A JSON-RPC error with an HTTP status.
    pub(super) fn error(status: u16, id: Option<&RawId>, code: i64, message: &str) -> Self {
        Self {
            status,
            body: Body::Json(answer::error(id, code, message, None)),
            ..Self::default()
        }
    }

    /// The parameters of an otherwise good request do not fit. HTTP 200, as for everything that a
    /// handler finds.
    pub(super) fn invalid_params(id: &RawId, message: &str) -> Self {
        Self::error(200, Some(id), answer::INVALID_PARAMS, message)
    }

    /// The HTTP method means nothing here.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::error(405, None, answer::INVALID_REQUEST, "method not allowed")
        }
    }

    /// The revision in `MCP-Protocol-Version` is not served, by the rules of the stateless era.
    pub(super) fn unsupported_version(id: Option<&RawId>, requested: &str) -> Self {
        let data = answer::supported_versions(&STATELESS_REVISIONS, requested);
        let text = "unsupported protocol version";
        Self {
            body: Body::Json(answer::error(
                id,
                answer::UNSUPPORTED_VERSION,
                text,
                Some(&data),
            )),
            ..Self::empty(400)
        }
    }

    /// The same answer, within a session.
    pub(super) fn within(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }
}

impl From<Whole> for Reply {
    fn from(whole: Whole) -> Self {
        Self::Whole(whole)
    }
}

/// The revisions of the session era that are served, oldest first.
pub(super) const SESSION_REVISIONS: [Revision; 3] = [
    Revision::V2025_03_26,
    Revision::V2025_06_18,
    Revision::V2025_11_25,
];

/// The revisions of the stateless era that are served.
pub(super) const STATELESS_REVISIONS: [Revision; 1] = [Revision::V2026_07_28];

/// What the server calls itself. Every copy says the same, so that an answer of one may be cached
/// for all; the tool `whoami` tells them apart.
pub(super) fn server_info() -> Value {
    json!({
        "name": "tidegate-demo",
        "title": "Tidegate demo server",
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// What the server can do. The list of tools never changes; that changes would be told is declared
/// so that clients open the streams on which they would be.
pub(super) fn capabilities() -> Value {
    json!({"logging": {}, "tools": {"listChanged": true}})
}

/// What a model should know of the server.
pub(super) const INSTRUCTIONS: &str = "One of several copies behind a balancer. `whoami` names the \
    copy that answers, `counter` counts its calls in a session, `ticks` streams.";

/// A result as JSON text. The stateless era wants each marked as complete and signed.
pub(super) fn result_text(era: Era, mut result: Value) -> String {
    if let (Era::Stateless, Value::Object(members)) = (era, &mut result) {
        members.insert("resultType".to_owned(), json!("complete"));
        if let Value::Object(meta) = members.entry("_meta").or_insert_with(|| json!({})) {
            meta.insert(SERVER_INFO.to_owned(), server_info());
        }
    }
    result.to_string()
}

/// The result of a tool: one text.
pub(super) fn tool_result(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// The key in `_meta` under which a result names the server.
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
