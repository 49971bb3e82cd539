//! From a head and a body to a call: everything that can be refused without knowing any session.
//!
//! The order of the checks is fixed, from the cheapest to the one that needs most of the body, and
//! a refusal repeats the request's id from the point on where it is known.

use serde_json::{Map, Value};

use super::reply::{SESSION_REVISIONS, Whole};
use crate::mcp::classify::{HttpMethod, Refusal, Seen, Verdict, classify};
use crate::mcp::headers::{MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use crate::mcp::message::{Class, Message, Shape};
use crate::mcp::{Era, Peek, PeekError, RawId, Revision, answer};
use crate::transport::RequestHead;

/// An understood exchange. The session ids are as the client sent them, known or not.
#[derive(Debug)]
pub(super) enum Call {
    /// GET: open the session's own event stream.
    Open(Option<String>),
    /// DELETE: end the session.
    End(Option<String>),
    /// `initialize`, outside of any session.
    Initialize(Ask),
    /// A message by the rules of the session era.
    Session { session: Option<String>, said: Said },
    /// A message by the rules of the stateless era. Its headers and its envelope have been checked.
    Stateless(Said),
}

/// One JSON-RPC message.
#[derive(Debug)]
pub(super) enum Said {
    Request(Ask),
    Notification {
        method: String,
        params: Map<String, Value>,
    },
    /// An answer. The server never asks, so whatever it answers is not looked at.
    Response {
        id: Option<RawId>,
    },
}

impl Said {
    /// The id that an error about this message repeats.
    pub(super) fn id(&self) -> Option<&RawId> {
        match self {
            Self::Request(ask) => Some(&ask.id),
            Self::Response { id } => id.as_ref(),
            Self::Notification { .. } => None,
        }
    }
}

/// A JSON-RPC request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: RawId,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

impl Ask {
    /// A member of `params._meta`.
    pub(super) fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(key)
    }
}

/// Understands an exchange.
///
/// `Err` is the answer to one that no session is needed for: a refusal, or one outside of `/mcp`.
pub(super) fn understand(head: &dyn RequestHead, body: &[u8]) -> Result<Call, Whole> {
    if head.path() != MCP_PATH {
        return Err(elsewhere(head));
    }
    check_origin(head)?;
    let session = one(head, MCP_SESSION_ID)?;
    let session = session.map(|id| String::from_utf8_lossy(id).into_owned());
    match head.method() {
        "POST" => posted(head, body, session),
        "GET" | "DELETE" if asks_without_sessions(head)? => Err(Whole::method_not_allowed("POST")),
        "GET" => {
            check_session_version(head, None)?;
            check_accept(head, &["text/event-stream"])?;
            Ok(Call::Open(session))
        }
        "DELETE" => {
            check_session_version(head, None)?;
            Ok(Call::End(session))
        }
        _ => Err(Whole::method_not_allowed("GET, POST, DELETE")),
    }
}

/// The key in `_meta` for the revision of a stateless request.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key in `_meta` for what the client of a stateless request can do.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Where the protocol is spoken.
const MCP_PATH: &str = "/mcp";

fn elsewhere(head: &dyn RequestHead) -> Whole {
    match (head.path(), head.method()) {
        ("/health", "GET" | "HEAD") => Whole::text(200, "ok\n"),
        ("/health", _) => Whole {
            allow: Some("GET, HEAD"),
            ..Whole::text(405, "method not allowed\n")
        },
        // Plain text: a JSON-RPC error with 404 would tell a client that the method is unknown.
        _ => Whole::text(404, "not found: the MCP endpoint is /mcp\n"),
    }
}

/// A web page elsewhere must not reach a server on this machine through the reader's browser (DNS
/// rebinding), so an `Origin` that is there must name this machine.
fn check_origin(head: &dyn RequestHead) -> Result<(), Whole> {
    match head.get("origin") {
        Some(origin) if !is_local(origin) => Err(refuse(403, None, "origin not allowed")),
        _ => Ok(()),
    }
}

fn is_local(origin: &[u8]) -> bool {
    let host = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| {
        let port = host.and_then(|host| host.strip_prefix(local.as_bytes()));
        port.is_some_and(|port| port.is_empty() || port.starts_with(b":"))
    })
}

/// Does a GET or DELETE come from a client of the stateless era, which has neither?
fn asks_without_sessions(head: &dyn RequestHead) -> Result<bool, Whole> {
    let version = one(head, MCP_PROTOCOL_VERSION)?;
    Ok(version.and_then(Revision::parse).map(Revision::era) == Some(Era::Stateless))
}

fn posted(head: &dyn RequestHead, body: &[u8], session: Option<String>) -> Result<Call, Whole> {
    check_content_type(head)?;
    check_accept(head, &["application/json", "text/event-stream"])?;
    let (message, members) = parse(body)?;
    let id = message.id.as_ref();
    let seen = Seen {
        method: HttpMethod::Post,
        version: one(head, MCP_PROTOCOL_VERSION)?,
        session: session.is_some(),
        mcp_method: one(head, MCP_METHOD)?,
        mcp_name: one(head, MCP_NAME)?,
        body: Some(&message),
    };
    let verdict = if is_stateless_initialize(&seen, &message) {
        Verdict::Stateless
    } else {
        classify(&seen)
    };
    let named = head.get(MCP_PROTOCOL_VERSION).unwrap_or_default();
    let named = String::from_utf8_lossy(named.trim_ascii());
    match verdict {
        Verdict::Refuse(Refusal::HeaderMismatch(text)) => {
            Err(Whole::error(400, id, answer::HEADER_MISMATCH, text))
        }
        Verdict::Refuse(Refusal::UnsupportedVersion) => Err(Whole::unsupported_version(id, &named)),
        Verdict::Refuse(Refusal::UnsupportedVersionLegacy) => {
            Err(refuse(400, id, "unsupported protocol version"))
        }
        // Only asked for while there is no body, and there is one.
        Verdict::NeedBody => Err(refuse(400, id, "the request cannot be understood")),
        Verdict::Stateless => {
            let said = said(message, members)?;
            check_envelope(&said)?;
            Ok(Call::Stateless(said))
        }
        Verdict::Handshake => match said(message, members)? {
            Said::Request(ask) => Ok(Call::Initialize(ask)),
            Said::Notification { .. } | Said::Response { .. } => {
                Err(refuse(400, None, "initialize needs an id"))
            }
        },
        Verdict::Session { .. } => {
            check_session_version(head, id)?;
            let said = said(message, members)?;
            Ok(Call::Session { session, said })
        }
    }
}

/// The classifier refuses every `initialize` that names a stateless revision, because some server
/// might take it for a handshake. This one does not: where head and envelope agree, it is a method
/// that the era does not have.
fn is_stateless_initialize(seen: &Seen<'_>, message: &Message) -> bool {
    let version = seen.version.and_then(Revision::parse);
    let stateless = version.filter(|revision| revision.era() == Era::Stateless);
    stateless.is_some_and(|revision| message.meta_version.as_deref() == Some(revision.as_str()))
        && message.method.as_deref() == Some("initialize")
        && seen.mcp_method == Some(b"initialize")
}

/// Reads the body twice: once for the members that decide, which notices duplicates and keeps the
/// id as it was written, and once for the parameters.
fn parse(body: &[u8]) -> Result<(Message, Map<String, Value>), Whole> {
    let not_json = || Whole::error(400, None, answer::PARSE_ERROR, "the body is not JSON");
    let mut peek = Peek::new();
    if let Err(error) = peek.feed(body).and_then(|_| peek.finish()) {
        return Err(match error {
            PeekError::Malformed { .. } | PeekError::TooDeep { .. } => not_json(),
            _ if peek.message().shape == Shape::Batch => no_batches(),
            PeekError::DuplicateKey { .. }
            | PeekError::IdTooLong
            | PeekError::MethodTooLong
            | PeekError::BatchTooLong
            | PeekError::InvalidId { .. } => refuse(400, None, &error.to_string()),
        });
    }
    let message = peek.message().clone();
    if message.shape == Shape::Batch {
        return Err(no_batches());
    }
    // A number too large for any type passes the scan and fails here.
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok((message, members)),
        Ok(_) => Err(refuse(400, None, "the body is not a JSON-RPC message")),
        Err(_) => Err(not_json()),
    }
}

fn no_batches() -> Whole {
    refuse(400, None, "batches are not served")
}

fn said(message: Message, mut members: Map<String, Value>) -> Result<Said, Whole> {
    let invalid = |text| refuse(400, message.id.as_ref(), text);
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid("jsonrpc must be \"2.0\""));
    }
    let params = match members.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid("params must be an object")),
    };
    let class = message.class();
    let method = message.method.clone().map(String::from);
    match (class, method, message.id.clone()) {
        (Class::Request, Some(method), Some(id)) => Ok(Said::Request(Ask { id, method, params })),
        (Class::Notification, Some(method), _) => Ok(Said::Notification { method, params }),
        (Class::Response, _, id) => Ok(Said::Response { id }),
        _ => Err(invalid("the body is not a JSON-RPC message")),
    }
}

/// In the stateless era every request says which revision it follows and what its sender can do.
fn check_envelope(said: &Said) -> Result<(), Whole> {
    let Said::Request(ask) = said else {
        return Ok(());
    };
    let missing = if !ask.meta(META_VERSION).is_some_and(Value::is_string) {
        META_VERSION
    } else if !ask.meta(META_CAPABILITIES).is_some_and(Value::is_object) {
        META_CAPABILITIES
    } else {
        return Ok(());
    };
    let text = format!("params._meta must have {missing}");
    Err(Whole::error(
        400,
        Some(&ask.id),
        answer::INVALID_PARAMS,
        &text,
    ))
}

/// A session-era request may name its revision; if it does, it is one that is served.
fn check_session_version(head: &dyn RequestHead, id: Option<&RawId>) -> Result<(), Whole> {
    match one(head, MCP_PROTOCOL_VERSION)? {
        Some(name)
            if !SESSION_REVISIONS
                .iter()
                .any(|served| served.as_str().as_bytes() == name) =>
        {
            Err(refuse(400, id, "unsupported protocol version"))
        }
        _ => Ok(()),
    }
}

fn check_content_type(head: &dyn RequestHead) -> Result<(), Whole> {
    let is_json = head
        .get("content-type")
        .is_some_and(|value| media_type(value).eq_ignore_ascii_case(b"application/json"));
    if is_json {
        Ok(())
    } else {
        Err(refuse(415, None, "Content-Type must be application/json"))
    }
}

/// The client must take every type that the answer may have (RFC 9110 section 12.5.1). Whoever
/// does not say what he takes, takes everything. Weights are not looked at.
fn check_accept(head: &dyn RequestHead, types: &[&str]) -> Result<(), Whole> {
    if head.count("accept") == 0 {
        return Ok(());
    }
    let accepted = |wanted: &str| {
        let mut found = false;
        head.each(&mut |name, value| {
            found |= name.is("accept")
                && value
                    .split(|byte| *byte == b',')
                    .any(|range| covers(media_type(range), wanted));
        });
        found
    };
    if types.iter().all(|wanted| accepted(wanted)) {
        Ok(())
    } else {
        let text = format!("Accept must have {}", types.join(" and "));
        Err(refuse(406, None, &text))
    }
}

fn covers(range: &[u8], wanted: &str) -> bool {
    let tree = wanted.split('/').next().unwrap_or_default();
    range == b"*/*"
        || range.eq_ignore_ascii_case(wanted.as_bytes())
        || range
            .strip_suffix(b"/*")
            .is_some_and(|range| range.eq_ignore_ascii_case(tree.as_bytes()))
}

/// The type without its parameters.
fn media_type(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|byte| *byte == b';');
    value[..end.unwrap_or(value.len())].trim_ascii()
}

/// The value of a header that may stand once only: two readers of two lines may take different
/// ones.
fn one<'a>(head: &'a dyn RequestHead, name: &'static str) -> Result<Option<&'a [u8]>, Whole> {
    if head.count(name) > 1 {
        return Err(refuse(400, None, &format!("repeated header {name}")));
    }
    Ok(head.get(name).map(<[u8]>::trim_ascii))
}

fn refuse(status: u16, id: Option<&RawId>, text: &str) -> Whole {
    Whole::error(status, id, answer::INVALID_REQUEST, text)
}
