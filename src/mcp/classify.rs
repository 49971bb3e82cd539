//! Which rules does this request follow?
//!
//! Servers of the two eras live on the same path, and they do not agree on how to tell requests
//! apart: some trust the version header, some the envelope in the body. A request that says one
//! thing in its head and another in its body would then pass our policy as the one and be served as
//! the other. So the answer is found here, once, in a fixed order, and a contradiction is refused
//! before it reaches anybody.
//!
//! The function is pure. It works with the head alone where that is enough, asks for the body where
//! it is not, and when it is given the body it checks it: knowing more never turns a refusal into
//! consent.

use super::headers::decode_value;
use super::message::{Class, Message};
use super::method::{Facts, Kind, facts};
use super::version::{Era, Revision};

/// The methods of HTTP that mean something on an MCP path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// Opens or resumes an event stream; session era only.
    Get,
    /// Carries a message.
    Post,
    /// Ends a session; session era only.
    Delete,
    /// Anything else. It carries no message, and the caller answers it with 405.
    Other,
}

/// What the classifier looks at. Header values are given without whitespace around them; a header
/// that came more than once has been refused before.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The HTTP method.
    pub method: HttpMethod,
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a [u8]>,
    /// Is there an `Mcp-Session-Id`?
    pub session: bool,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a [u8]>,
    /// `Mcp-Name`, not decoded.
    pub mcp_name: Option<&'a [u8]>,
    /// The body, once it is settled (see [`super::peek::Peek::settled`]): from then on an absent
    /// member counts as absent. `None` while it is not.
    pub body: Option<&'a Message>,
}

/// The rules to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Those of the stateless era. A session id, if there is one, means nothing.
    Stateless,
    /// Those of the session era, with the revision that the header names, or else
    /// [`Revision::ASSUMED`]; what is stored with the session is better than the assumption.
    Session {
        /// The revision of the request.
        revision: Revision,
    },
    /// Those of the session era, for an `initialize` outside of any session.
    Handshake,
    /// The head alone does not tell: settle the body and ask again.
    NeedBody,
    /// None: answer with an error.
    Refuse(Refusal),
}

/// Why a request is refused. All are answered with HTTP 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Head and body contradict each other, or a required header is missing: JSON-RPC error
    /// [`super::answer::HEADER_MISMATCH`] with this text.
    HeaderMismatch(&'static str),
    /// The header names a revision that nobody knows: JSON-RPC error
    /// [`super::answer::UNSUPPORTED_VERSION`] with the revisions that are served.
    UnsupportedVersion,
    /// The same within a session: an error in the shape of the session era.
    UnsupportedVersionLegacy,
}

/// Finds the rules that a request follows.
pub fn classify(seen: &Seen<'_>) -> Verdict {
    let named = seen.version.map(Revision::parse);
    if seen.method != HttpMethod::Post {
        let revision = named
            .flatten()
            .filter(|revision| revision.era() == Era::Session);
        return session(revision);
    }
    match named {
        Some(Some(revision)) if revision.era() == Era::Stateless => stateless(seen, revision),
        Some(Some(revision)) => with_session_header(seen, revision),
        Some(None) if seen.session => Verdict::Refuse(Refusal::UnsupportedVersionLegacy),
        Some(None) => Verdict::Refuse(Refusal::UnsupportedVersion),
        None => without_header(seen),
    }
}

fn session(revision: Option<Revision>) -> Verdict {
    Verdict::Session {
        revision: revision.unwrap_or(Revision::ASSUMED),
    }
}

fn mismatch(text: &'static str) -> Verdict {
    Verdict::Refuse(Refusal::HeaderMismatch(text))
}

fn is_initialize(body: &Message) -> bool {
    body.method.as_deref() == Some("initialize")
}

/// The era that the envelope in the body claims. A version that nobody knows is a claim to the era
/// that has envelopes.
fn envelope_era(body: &Message) -> Option<Era> {
    let version = body.meta_version.as_ref()?;
    Some(Revision::parse(version.as_bytes()).map_or(Era::Stateless, Revision::era))
}

/// The header names a revision of the session era.
fn with_session_header(seen: &Seen<'_>, revision: Revision) -> Verdict {
    match seen.body {
        Some(body) if envelope_era(body) == Some(Era::Stateless) => {
            mismatch("MCP-Protocol-Version and the protocol version in _meta are of different eras")
        }
        Some(body) if !seen.session && is_initialize(body) => Verdict::Handshake,
        // Outside of a session only the body tells a handshake from a call.
        None if !seen.session => Verdict::NeedBody,
        _ => session(Some(revision)),
    }
}

/// There is no version header.
fn without_header(seen: &Seen<'_>) -> Verdict {
    let enveloped = seen.body.is_some_and(|body| body.meta_version.is_some());
    match seen.body {
        _ if seen.session && !enveloped => session(None),
        _ if !seen.session && seen.mcp_method.is_some() => {
            mismatch("Mcp-Method is present and MCP-Protocol-Version is missing")
        }
        None => Verdict::NeedBody,
        Some(body) if !seen.session && is_initialize(body) => Verdict::Handshake,
        Some(_) if enveloped => {
            mismatch("_meta has a protocol version and MCP-Protocol-Version is missing")
        }
        Some(_) => session(None),
    }
}

/// The header names a revision of the stateless era.
fn stateless(seen: &Seen<'_>, revision: Revision) -> Verdict {
    let head = seen
        .mcp_method
        .and_then(|method| facts(str::from_utf8(method).ok()?));
    let head = head.filter(|facts| facts.name_header_required());
    if head.is_some()
        && seen
            .mcp_name
            .is_some_and(|name| decode_value(name).is_err())
    {
        return mismatch("Mcp-Name is not properly encoded");
    }
    match seen.body {
        Some(body) => match contradiction(seen, revision, body) {
            Some(text) => mismatch(text),
            None => Verdict::Stateless,
        },
        // A required header is missing, unless this is a notification. The body tells, and it has
        // the id that a refusal should carry.
        None if seen.mcp_method.is_none() => Verdict::NeedBody,
        None if head.is_some() && seen.mcp_name.is_none() => Verdict::NeedBody,
        None => Verdict::Stateless,
    }
}

/// What in the body contradicts the head of a stateless request.
fn contradiction(seen: &Seen<'_>, revision: Revision, body: &Message) -> Option<&'static str> {
    // With an envelope of this era it is one more unknown method, for the server to refuse.
    if is_initialize(body) && body.meta_version.is_none() {
        return Some("initialize does not exist in the revision that MCP-Protocol-Version names");
    }
    match &body.meta_version {
        Some(version) if version != revision.as_str() => {
            return Some("MCP-Protocol-Version and the protocol version in _meta differ");
        }
        _ => {}
    }
    match body.class() {
        Class::Batch | Class::Response => {
            Some("the body is a message of another era than MCP-Protocol-Version names")
        }
        // An invalid message is the server's to refuse. But a lenient server may find a request in
        // it, and that must be the request that the headers speak of.
        Class::Request | Class::Notification | Class::Invalid => method_contradiction(seen, body),
    }
}

fn method_contradiction(seen: &Seen<'_>, body: &Message) -> Option<&'static str> {
    let method = body.method.as_deref()?;
    let is_request = body.id.is_some();
    match seen.mcp_method {
        Some(header) if header != method.as_bytes() => {
            return Some("Mcp-Method and the method of the body differ");
        }
        None if is_request => return Some("Mcp-Method is missing"),
        _ => {}
    }
    // The protocol asks notifications for no header but the version.
    let named = facts(method).filter(|facts| facts.name_header_required() && is_request);
    named.and_then(|facts| name_contradiction(seen, body, facts))
}

fn name_contradiction(seen: &Seen<'_>, body: &Message, facts: &Facts) -> Option<&'static str> {
    debug_assert!(facts.kind == Kind::Request);
    let Some(header) = seen.mcp_name else {
        return Some("Mcp-Name is missing");
    };
    match (decode_value(header), &body.name) {
        (Err(_), _) => Some("Mcp-Name is not properly encoded"),
        (Ok(header), Some(name)) if header == name.as_str() => None,
        _ if body.name_too_long => Some("the name in the body is too long to be compared"),
        _ => Some("Mcp-Name and the name in the body differ"),
    }
}

#[cfg(test)]
mod tests;
