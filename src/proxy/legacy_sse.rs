//! HTTP+SSE of 2024-11-05: one event stream per session, and a POST for every message.
//!
//! The server's first event names the address for the POSTs. It is replaced by our own path with a
//! sealed id that holds the server's address and the endpoint, so the POSTs find the copy that owns
//! the stream, in whatever process they arrive. The id stands in a URL, as the protocol wants it;
//! it is a secret, and the log cuts queries off.

use std::sync::Arc;
use std::time::Instant;

use super::call::{Call, Owed};
use super::contexts;
use super::ctx::{Ctx, End};
use super::decide::{self, Aim};
use super::fault::Fault;
use super::flight::InFlight;
use super::forward::{Reply, forward};
use super::hashing::hash_key;
use super::intake::check_repeated;
use super::limits;
use super::links::LinkGuard;
use super::memo::Known;
use super::relay::{is_event_stream, relay, send_stream_head};
use super::state::{PoolState, Shared};
use super::stream::{Kind, Limits, Relay};
use super::streaming::Begun;
use super::watch::Watch;
use super::{Next, Worker};
use crate::mcp::sse::{Mode, endpoint_event};
use crate::mcp::{Class, Era, HttpMethod, Note, SseScan};
use crate::pool::Need;
use crate::route::RouteId;
use crate::session::{IdKind, Key, fresh_nonce};
use crate::telemetry::{self, OpenStream, StreamKind};
use crate::transport::{Downstream, RequestHead, Upstream};

/// The query parameter that carries the sealed id.
const PARAMETER: &str = "session";
/// The endpoint event must come within so many bytes, comments before it included.
const FIRST_EVENT_MAX: usize = 16 * 1024;

/// Serves an exchange on an HTTP+SSE route.
///
/// # Errors
/// Whatever is answered here.
pub async fn serve<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    pool: &Arc<PoolState>,
    route: RouteId,
) -> Result<Next, Fault> {
    ctx.era = Some(Era::Session);
    check_repeated(down.head())?;
    let method = down.head().method().to_owned();
    let sealed = sealed_id(down.head());
    match (method.as_str(), sealed) {
        ("GET", _) => {
            limits::admit(ctx, route, 1)?;
            open(worker, down, ctx, flight, pool).await
        }
        ("POST", Some(sealed)) => post(worker, down, ctx, flight, pool, route, &sealed).await,
        // A client that tries Streamable HTTP first falls back on exactly this answer.
        _ => Err(Fault::Method("GET")),
    }
}

fn sealed_id(head: &impl RequestHead) -> Option<String> {
    let query = head.query()?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
        .map(str::to_owned)
}

/// Opens the stream of a new session.
async fn open<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    pool: &Arc<PoolState>,
) -> Result<Next, Fault> {
    let aim = Aim::Any {
        need: Need::Any,
        key: hash_key(pool, down.head(), ctx.client),
    };
    let mut call = Call::new(HttpMethod::Get);
    decide::room(&worker.shared, pool, ctx)?;
    limits::reserve_session(&worker.shared, ctx)?;
    limits::reserve_stream(&worker.shared, ctx)?;
    let mut reply = forward(worker, down, ctx, pool, &mut call, &aim).await?;
    if !is_event_stream(reply.up.head()) {
        return relay(worker, down, ctx, pool, &call, &aim, reply, flight).await;
    }
    let limits = Limits::new(Kind::Sse, &ctx.snapshot.config.streams, None, None);
    let first = first_event(worker, down, pool, &mut reply).await?;
    let uri = first.uri(down.head(), pool, &reply)?;
    let claims = decide::claims(IdKind::Sse, pool, ctx, reply.endpoint(), uri);
    let keys = worker.memo.keys();
    let sealed = worker
        .shared
        .keyring
        .load()
        .seal(&claims, fresh_nonce())
        .map_err(|_| Fault::UpstreamMalformed)?;
    let known = Known::new(pool, reply.endpoint(), claims, sealed.as_str().into(), keys);
    let (key, tag) = (known.key, known.tag);
    ctx.session = Some(tag);
    let mut new = decide::new_session(&known, down.head());
    new.guard.counted = limits::take_session(ctx);
    let opened = worker.shared.sessions.open(key, new, Instant::now());
    let tracked = opened.is_ok();
    match opened {
        Ok(()) => telemetry::session_opened(),
        // Another request took the last place meanwhile: served, but not counted.
        Err(refused) => Fault::from(refused).count(),
    }
    flight.becomes_stream();
    if ctx.snapshot.config.sessions.context_sizes > 0 {
        let pulse = worker.shared.sessions.pulse(key);
        contexts::follow(&worker.shared, ctx, key, tag, pulse);
    }
    let counted = OpenStream::enter(StreamKind::Sse);
    let linked = worker.shared.links.enter(key);
    let activity = worker.shared.sessions.stream(key, Instant::now());
    let link = Arc::clone(&linked.link);
    let sse = SseSession {
        key,
        tracked,
        _linked: linked,
    };

    let begin = first.rewritten(down.head().path(), &sealed);
    let sent = match send_stream_head(down, ctx, &reply, None).await {
        Ok(()) => down.send_body(&begin).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        ctx.end = End::of_write(&error);
        down.abort().await;
        counted.end(ctx.end.of_stream());
        sse.end(&worker.shared);
        return Ok(Next::Done);
    }
    let endpoint = Arc::clone(reply.endpoint());
    let mut relay = Relay::new(Kind::Sse, endpoint, Owed::new(), Some(link), limits);
    relay.observe(first.behind());
    reply.up.release_head();
    Ok(Next::Stream(Box::new(Begun {
        relay,
        reply,
        counted,
        activity,
        orphan: None,
        is_tool_call: false,
        sse: Some(Box::new(sse)),
        revival: None,
    })))
}

/// The session that a stream of HTTP+SSE is.
pub struct SseSession {
    key: Key,
    /// It is in the table.
    tracked: bool,
    /// Keeps the stream findable for the POSTs of its session.
    _linked: LinkGuard,
}

impl SseSession {
    /// The stream is over, and the session with it.
    pub fn end(self, shared: &Shared) {
        if self.tracked && shared.sessions.close(self.key).is_some() {
            telemetry::session_ended(telemetry::SessionEnd::Closed);
        }
    }
}

/// The beginning of a stream up to the end of its endpoint event.
struct First {
    /// Everything read so far.
    bytes: Vec<u8>,
    /// Where the endpoint event begins and ends.
    event: std::ops::Range<usize>,
    /// Its data.
    uri: String,
}

async fn first_event<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    pool: &PoolState,
    reply: &mut Reply,
) -> Result<First, Fault> {
    let mut bytes = Vec::new();
    let mut scan = SseScan::new(Mode::Endpoint);
    let mut found = None;
    let Reply { up, permit } = reply;
    let limit = pool.config.timeouts.header;
    let mut watch = Watch::new(permit.endpoint(), &worker.shared.phases, limit);
    while found.is_none() {
        let piece = watch.wait(down, |context| up.poll_body(context)).await?;
        let piece = piece.map_err(|_| Fault::UpstreamClosed)?;
        let Some(piece) = piece else {
            return Err(Fault::UpstreamClosed);
        };
        let base = bytes.len();
        bytes.extend_from_slice(&piece);
        scan.feed(&piece, &mut |event| {
            if let Note::Endpoint(uri) = event.note {
                let end = base + event.end;
                let start = end.saturating_sub(event.size as usize);
                found = Some((start..end, uri.to_owned()));
            }
        });
        if found.is_none() && bytes.len() > FIRST_EVENT_MAX {
            return Err(Fault::UpstreamMalformed);
        }
    }
    let (event, uri) = found.ok_or(Fault::UpstreamMalformed)?;
    Ok(First { bytes, event, uri })
}

impl First {
    /// The address for POSTs as a target on the endpoint. An address on another host is refused:
    /// it would send the client's messages where the operator did not.
    fn uri(
        &self,
        head: &impl RequestHead,
        pool: &PoolState,
        reply: &Reply,
    ) -> Result<String, Fault> {
        let authority = pool.authority(reply.endpoint().id());
        resolve(&self.uri, head.path(), authority).ok_or_else(|| {
            log::warn!(endpoint = reply.endpoint().name(); "an endpoint event names another host");
            Fault::UpstreamMalformed
        })
    }

    /// What was read behind the endpoint event.
    fn behind(&self) -> &[u8] {
        &self.bytes[self.event.end..]
    }

    /// What was read, with our address in place of the server's.
    fn rewritten(&self, path: &str, sealed: &str) -> Vec<u8> {
        let ours = endpoint_event(&format!("{path}?{PARAMETER}={sealed}"));
        let mut out = Vec::with_capacity(self.bytes.len() + ours.len());
        out.extend_from_slice(&self.bytes[..self.event.start]);
        out.extend_from_slice(&ours);
        out.extend_from_slice(self.behind());
        out
    }
}

/// Resolves a URI reference against the path of the stream (RFC 3986 section 5.2, for the forms
/// that servers send). `None` if it leads elsewhere.
fn resolve(uri: &str, base: &str, authority: &str) -> Option<String> {
    if uri.is_empty() || uri.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
        return None;
    }
    if let Some(rest) = uri
        .strip_prefix("http://")
        .or_else(|| uri.strip_prefix("https://"))
    {
        let slash = rest.find('/')?;
        return rest[..slash]
            .eq_ignore_ascii_case(authority)
            .then(|| rest[slash..].to_owned());
    }
    if uri.starts_with("//")
        || uri
            .split(['/', '?'])
            .next()
            .is_some_and(|first| first.contains(':'))
    {
        return None;
    }
    if uri.starts_with('/') {
        return Some(uri.to_owned());
    }
    if uri.starts_with('?') {
        return Some(format!("{base}{uri}"));
    }
    let directory = base.rfind('/').map_or("/", |slash| &base[..=slash]);
    Some(format!("{directory}{uri}"))
}

/// Forwards one message of a session to the copy that owns its stream.
async fn post<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    pool: &Arc<PoolState>,
    route: RouteId,
    sealed: &str,
) -> Result<Next, Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let bounds = &snapshot.config.limits;
    let mut call = Call::new(HttpMethod::Post);
    call.body.peek(down, ctx, bounds, bounds.body).await?;
    let message = call.body.peek.message();
    ctx.mcp_method = message.method.as_deref().map_or("", crate::mcp::label);
    let owed: Owed = match message.class() {
        Class::Request => message.id.iter().cloned().collect(),
        Class::Invalid => return Err(Fault::Invalid("the body is not a JSON-RPC message")),
        Class::Batch | Class::Notification | Class::Response => Owed::new(),
    };
    let method = message.method.clone();
    if method.as_deref() == Some("tools/call") {
        ctx.tool = message.name.clone();
    }
    call.method.clone_from(&method);
    let pool_id = snapshot.config.routes[route.0].pool();
    let pool_id = pool_id.ok_or(Fault::NoRoute)?;
    limits::admit_call(&snapshot, route, pool_id, ctx, &mut call)?;
    let bound = decide::open(worker, pool, sealed.as_bytes(), IdKind::Sse, ctx)?;
    decide::alive(&bound)?;
    if worker.shared.sessions.is_ended(bound.key) {
        return Err(Fault::SessionUnknown);
    }
    if snapshot.config.sessions.context_sizes > 0 {
        let pulse = worker.shared.sessions.pulse(bound.key);
        contexts::follow(&worker.shared, ctx, bound.key, bound.tag, pulse);
    }
    let link = worker.shared.links.find(bound.key);
    if let Some(link) = &link
        && !link.owe(&owed)
    {
        return Err(Fault::Invalid("too many requests wait for their answers"));
    }
    call.method = method;
    call.owed.clone_from(&owed);
    let aim = Aim::Bound(bound);
    let mut reply = forward(worker, down, ctx, pool, &mut call, &aim).await;
    let accepted = reply
        .as_ref()
        .is_ok_and(|reply| (200..300).contains(&reply.up.head().status()));
    if !accepted && let Some(link) = &link {
        owed.iter().for_each(|id| link.settle(id));
    }
    if accepted && let (Some(link), [id], Ok(reply)) = (&link, owed.as_slice(), &mut reply) {
        // Its answer comes on the stream, and until then it is in flight.
        let holds = limits::take_call(ctx, reply.permit.take_place());
        link.hold(id, holds, call.due);
    }
    relay(worker, down, ctx, pool, &call, &aim, reply?, flight).await
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn an_address_is_resolved_against_the_stream() {
        let cases = [
            ("/messages?id=1", Some("/messages?id=1")),
            ("messages?id=1", Some("/a/messages?id=1")),
            ("?id=1", Some("/a/sse?id=1")),
            ("http://h:1/m?x", Some("/m?x")),
            ("HTTP://h:1/m", None),
            ("http://other/m", None),
            ("//other/m", None),
            ("ftp:x", None),
            ("/m\r\nx", None),
            ("", None),
        ];
        for (uri, target) in cases {
            assert_eq!(resolve(uri, "/a/sse", "h:1").as_deref(), target, "{uri:?}");
        }
    }
}
