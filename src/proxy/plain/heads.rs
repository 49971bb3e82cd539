//! What routes say of heads, on Pingora's.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::proxy::trace::Tells;
use crate::transport::Headers;
use crate::transport::dress::More;
use crate::transport::fields::{Name, Names, TRACEPARENT, is_nominated};

const EVENTS: &[u8] = b"text/event-stream";

/// Tells a server of the client, in the place of what the client has said of itself.
pub(super) fn tell(
    head: &mut RequestHeader,
    (fields, left): &(Vec<(&'static str, HeaderValue)>, Names),
) -> Result<()> {
    let names = head.headers.keys();
    let names = names.filter(|name| left.has(Name::new(name.as_str().as_bytes())));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        head.remove_header(&name);
    }
    for (name, value) in fields {
        head.insert_header(*name, value)?;
    }
    Ok(())
}

/// Tells a server of the trace that the request belongs to.
pub(super) fn trace(head: &mut RequestHeader, tells: &Tells) -> Result<()> {
    let parent = HeaderValue::from_bytes(&tells.parent);
    let told = parent.map(|parent| (TRACEPARENT.as_str(), parent));
    tell(head, &(told.into_iter().collect(), tells.left))
}

/// Does the client ask for an event stream?
pub(super) fn wants_events(head: &impl Headers) -> bool {
    let accept = head.get("accept");
    accept.is_some_and(|accept| accept.windows(EVENTS.len()).any(|part| part == EVENTS))
}

/// Leaves these cookies and no others.
pub(super) fn leave_cookies(head: &mut RequestHeader, others: &str) -> Result<()> {
    head.remove_header(&http::header::COOKIE);
    match others.is_empty() {
        true => Ok(()),
        false => head.insert_header(http::header::COOKIE, others),
    }
}

/// Changes the head of a request on its way to a server.
pub(super) fn change_request(head: &mut RequestHeader, more: &More<'_>) -> Result<()> {
    for name in left(&head.headers, more) {
        head.remove_header(&name);
    }
    bring(more, |name, value| head.append_header(name, value))?;
    let mut wrong = None;
    more.host(&mut |host| wrong = head.insert_header(http::header::HOST, host).err());
    wrong.map_or(Ok(()), Err)
}

/// Changes the head of a response on its way to a client.
pub(super) fn change_response(head: &mut ResponseHeader, more: &More<'_>) -> Result<()> {
    for name in left(&head.headers, more) {
        head.remove_header(&name);
    }
    bring(more, |name, value| head.append_header(name, value))
}

/// Appends every field that comes in; the last error, if one could not be.
fn bring(more: &More<'_>, mut append: impl FnMut(String, &[u8]) -> Result<bool>) -> Result<()> {
    let mut wrong = None;
    more.each(&mut |name, value| {
        if let Err(error) = append(name.to_owned(), value) {
            wrong = Some(error);
        }
    });
    wrong.map_or(Ok(()), Err)
}

fn left(fields: &HeaderMap, more: &More<'_>) -> Vec<HeaderName> {
    let names = fields.keys();
    let left = names.filter(|name| more.fields.leaves(Name::new(name.as_str().as_bytes())));
    left.cloned().collect()
}

/// Leaves behind what belongs to the endpoint's connection (RFC 9110 section 7.6.1), which Pingora
/// does for requests only. Framing is Pingora's.
pub(super) fn strip_hop_by_hop(response: &mut ResponseHeader) {
    let stays = |name: &str| matches!(name, "content-length" | "transfer-encoding");
    let left: Vec<HeaderName> = response
        .headers
        .keys()
        .filter(|name| !stays(name.as_str()))
        .filter(|name| {
            let bytes = name.as_str().as_bytes();
            Name::new(bytes).is_hop_by_hop() || is_nominated(&response.headers, bytes)
        })
        .cloned()
        .collect();
    for name in left {
        response.remove_header(&name);
    }
}
