//! What a reply teaches about sessions: opened and bound, ended, set up, or nobody's and to be deleted.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use super::call::{Call, Rules};
use super::clients::ClientName;
use super::contexts;
use super::ctx::Ctx;
use super::decide::{Aim, Bound, claims, new_session};
use super::fault::Fault;
use super::forward::Reply;
use super::limits;
use super::memo::Known;
use super::origin::Origin;
use super::recovery;
use super::state::{Orphan, PoolState, Shared};
use crate::mcp::HttpMethod;
use crate::mcp::headers::session_id_is_valid;
use crate::session::{IdKind, Key, NameHash, Revision, fresh_nonce};
use crate::telemetry::{self, Limit, SessionEnd};
use crate::transport::fields::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use crate::transport::{RequestHead, Upstream};

/// Draws from a reply's head what it says about sessions, and returns the id to show the client.
pub fn settle_session<'a>(
    worker: &Worker,
    head: &dyn RequestHead,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &Call,
    aim: &'a Aim,
    reply: &Reply,
) -> Result<Option<Cow<'a, str>>, Fault> {
    let status = reply.up.head().status();
    let issued = reply
        .up
        .head()
        .known(MCP_SESSION_ID)
        .filter(|id| session_id_is_valid(id));
    match aim {
        Aim::Bound(bound) => {
            note_said(worker, pool, call, bound, status);
            note_revision(worker, head, call, bound);
            let end = match (call.http, status) {
                (HttpMethod::Delete, _) => Some(SessionEnd::Deleted),
                (_, 404) => Some(SessionEnd::Forgotten),
                _ => None,
            };
            if let Some(end) = end {
                let closed = worker.shared.sessions.close(bound.key);
                worker.memo.forget(bound);
                if closed.is_some() && !(bound.adopted && status == 404) {
                    telemetry::session_ended(end);
                }
            }
            if issued.is_some_and(|id| id != bound.server_id.as_bytes()) {
                log::warn!(endpoint = reply.endpoint().name(); "a server changed the id of a session; the first one stays");
            }
            Ok(issued.map(|_| Cow::Borrowed(&*bound.sealed)))
        }
        Aim::Any { .. } if call.rules == Rules::Handshake && (200..300).contains(&status) => {
            reply.endpoint().facts.speaks_session_era.learn(true);
            reply
                .endpoint()
                .facts
                .issues_sessions
                .learn(issued.is_some());
            let text = |id| String::from_utf8_lossy(id).into_owned();
            issued
                .map(|id| bind(worker, head, ctx, pool, call, reply, text(id)).map(Cow::Owned))
                .transpose()
        }
        Aim::Any { .. } => {
            if let Some(id) = issued {
                let server_id = String::from_utf8_lossy(id).into_owned();
                worker
                    .shared
                    .chores
                    .delete(orphan(head, pool, reply, server_id.into()));
            }
            Ok(None)
        }
    }
}

/// Gives a session back to its server whose opening the client will never hear of.
pub fn disown(worker: &Worker, head: &dyn RequestHead, pool: &Arc<PoolState>, reply: &Reply) {
    if let Some(orphan) = shown_session(head, pool, reply) {
        give_back(&worker.shared, orphan);
    }
}

/// The session that a reply's head shows, as one to be deleted.
pub fn shown_session(
    head: &dyn RequestHead,
    pool: &Arc<PoolState>,
    reply: &Reply,
) -> Option<Orphan> {
    let id = reply.up.head().known(MCP_SESSION_ID)?;
    let server_id = String::from_utf8_lossy(id).into_owned();
    Some(orphan(head, pool, reply, server_id.into()))
}

/// Has a session deleted that may be in the table by now.
pub fn give_back(shared: &Shared, orphan: Orphan) {
    let endpoint = NameHash::from_u64(orphan.endpoint.id());
    let key = Key::of(orphan.pool.hash, endpoint, &orphan.server_id);
    if shared.sessions.close(key).is_some() {
        telemetry::session_ended(SessionEnd::Closed);
    }
    shared.chores.delete(orphan);
}

/// Binds the session that a server has opened to the endpoint, in the id itself.
fn bind(
    worker: &Worker,
    head: &dyn RequestHead,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &Call,
    reply: &Reply,
    server_id: String,
) -> Result<String, Fault> {
    let endpoint = reply.endpoint();
    let claims = claims(IdKind::Session, pool, ctx, endpoint, server_id);
    let keys = worker.memo.keys();
    let Ok(sealed) = worker.shared.keyring.load().seal(&claims, fresh_nonce()) else {
        log::warn!(endpoint = endpoint.name(); "a server issued a session id that is too long to be sealed");
        worker
            .shared
            .chores
            .delete(orphan(head, pool, reply, claims.server_id));
        return Err(Fault::UpstreamMalformed);
    };
    let known = Known::new(pool, endpoint, claims, sealed.as_str().into(), keys);
    let (key, tag) = (known.key, known.tag);
    let mut new = new_session(&known, head);
    new.guard.origin = origin(&worker.shared, pool, call);
    new.guard.counted = limits::take_session(ctx);
    new.guard.client = client(&worker.shared, call);
    match worker.shared.sessions.open(key, new, Instant::now()) {
        Ok(()) => telemetry::session_opened(),
        // Another request took the last place meanwhile: served, but not counted.
        Err(refused) => Fault::from(refused).count(),
    }
    ctx.session = Some(tag);
    let pulse = worker.shared.sessions.pulse(key);
    if ctx.snapshot.config.sessions.context_sizes > 0 {
        contexts::follow(&worker.shared, ctx, key, tag, pulse.clone());
    }
    if pulse.is_some() {
        // Its first request comes at once, and need not open what was sealed just now.
        known.pulse.store(pulse);
        worker.memo.keep(&Arc::new(known));
    }
    Ok(sealed)
}

/// What it would take to begin the session again, in a pool that does so.
fn origin(shared: &Shared, pool: &PoolState, call: &Call) -> Option<Arc<Origin>> {
    if !recovery::is_on(pool) || !call.body.is_whole() {
        return None;
    }
    let origin = shared
        .origins
        .keep(call.body.chunks.iter().map(|chunk| &**chunk));
    if origin.is_none() {
        telemetry::limit_hit(Limit::Origins);
    }
    origin
}

/// What the client calls itself, if its `initialize` is here as a whole.
fn client(shared: &Shared, call: &Call) -> Option<Arc<ClientName>> {
    let body = Some(&call.body).filter(|body| body.is_whole())?;
    shared
        .clients
        .learn(body.chunks.iter().map(|chunk| &**chunk))
}

/// Notes the revision that a session speaks, of which its `initialize` only asked for one.
fn note_revision(worker: &Worker, head: &dyn RequestHead, call: &Call, bound: &Bound) {
    if !call.is("notifications/initialized") {
        return;
    }
    let said = head.known(MCP_PROTOCOL_VERSION).map(str::from_utf8);
    if let Some(Ok(revision)) = said {
        let sessions = &worker.shared.sessions;
        sessions.speaks(bound.key, Revision::of(revision));
    }
}

/// Notes what a session has set on its server, should it have to be set on another.
fn note_said(worker: &Worker, pool: &PoolState, call: &Call, bound: &Bound, status: u16) {
    let lasts = |method: &&str| Origin::lasts(method);
    let Some(method) = call.method.as_deref().filter(lasts) else {
        return;
    };
    if status != 200 || !recovery::is_on(pool) || !call.body.is_whole() {
        return;
    }
    let sessions = &worker.shared.sessions;
    let origin = sessions.look(bound.key, |live| live.guard.origin.clone());
    let pieces: Vec<&[u8]> = call.body.chunks.iter().map(|chunk| &**chunk).collect();
    if let Some(origin) = origin.flatten()
        && !origin.note(method, &pieces.concat())
    {
        telemetry::limit_hit(Limit::Origins);
    }
}

fn orphan(
    head: &dyn RequestHead,
    pool: &Arc<PoolState>,
    reply: &Reply,
    server_id: Arc<str>,
) -> Orphan {
    Orphan {
        pool: Arc::clone(pool),
        endpoint: Arc::clone(reply.endpoint()),
        server_id,
        path: head.onward().into(),
    }
}
