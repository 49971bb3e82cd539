//! Where an understood call goes: to the endpoint that owns its session, to any endpoint of the
//! pool, or nowhere, with an answer of ours.
//!
//! What cannot belong to a session never reaches a server that issues sessions: some servers open
//! one even for a request that they refuse, and nobody would ever close it. And an id whose
//! endpoint is gone is never shown to another endpoint, which might take it for nothing and
//! answer as if all were well.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Worker;
use super::call::{Call, Rules};
use super::contexts;
use super::ctx::Ctx;
use super::fault::Fault;
use super::hashing::hash_key;
use super::memo::{Keys, Known};
use super::recovery;
use super::state::{Held, PoolState, Shared};
use crate::mcp::HttpMethod;
use crate::pool::{Endpoint, Fact, Need};
use crate::session::{
    Claims, IdKind, Live, NameHash, NewSession, Pulse, Reason, Revision, Touched,
};
use crate::telemetry::{self, RefusedId};
use crate::transport::RequestHead;
use crate::transport::fields::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};

/// Where a call goes.
pub enum Aim {
    /// To any endpoint that can serve it, hashed on `key` if the pool balances so.
    Any {
        /// Which era the endpoint must speak.
        need: Need,
        /// What the consistent hash goes by.
        key: Option<u64>,
    },
    /// To the endpoint that owns the session, and to no other.
    Bound(Bound),
}

/// A session that was opened, checked and found alive.
pub struct Bound {
    /// What its id says.
    pub known: Arc<Known>,
    /// This very request has entered the session in the table. If the server then does not know
    /// it, it was over before, and its end was counted before.
    pub adopted: bool,
    /// Its endpoint is down, and it is to be begun again elsewhere first.
    pub lost: bool,
}

impl Deref for Bound {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// Decides where a call goes.
///
/// # Errors
/// The answer of ours, if it goes nowhere.
pub fn decide(
    worker: &Worker,
    pool: &Arc<PoolState>,
    call: &Call,
    head: &dyn RequestHead,
    ctx: &mut Ctx,
    now: Instant,
) -> Result<Aim, Fault> {
    match call.rules {
        Rules::Stateless => {
            if !pool.speaks_stateless_era() {
                return Err(Fault::OnlySessionEra);
            }
            Ok(Aim::Any {
                need: Need::StatelessEra,
                key: hash_key(pool, head, ctx.client),
            })
        }
        Rules::Handshake => {
            if !pool.speaks_session_era() {
                return Err(Fault::OnlyStatelessEra);
            }
            room(&worker.shared, pool, ctx)?;
            Ok(Aim::Any {
                need: Need::SessionEra,
                key: hash_key(pool, head, ctx.client),
            })
        }
        Rules::Session => within_session(worker, pool, call, head, ctx, now),
    }
}

fn within_session(
    worker: &Worker,
    pool: &Arc<PoolState>,
    call: &Call,
    head: &dyn RequestHead,
    ctx: &mut Ctx,
    now: Instant,
) -> Result<Aim, Fault> {
    if let Some(id) = head.known(MCP_SESSION_ID) {
        let mut bound = open(worker, pool, id, IdKind::Session, ctx)?;
        recovery::follow(worker, pool, &mut bound, now);
        if let Err(fault) = alive(&bound) {
            if !recovery::is_possible(&worker.shared, pool, &bound.known) {
                return Err(fault);
            }
            bound.lost = true;
            return Ok(Aim::Bound(bound));
        }
        touch(&worker.shared, &mut bound, head, now)?;
        if ctx.snapshot.config.sessions.context_sizes > 0 {
            let pulse = bound.pulse.load_full();
            contexts::follow(&worker.shared, ctx, bound.key, bound.tag, pulse);
        }
        return Ok(Aim::Bound(bound));
    }
    if call.http != HttpMethod::Post && !pool.speaks_session_era() {
        return Err(Fault::Method("POST"));
    }
    if !pool.speaks_session_era() {
        return Err(Fault::OnlyStatelessEra);
    }
    match pool.issues_sessions() {
        Fact::No => Ok(Aim::Any {
            need: Need::SessionEra,
            key: hash_key(pool, head, ctx.client),
        }),
        // With every server down nothing is known, and the client is not to blame.
        Fact::Unknown if !pool.is_usable() => Err(Fault::NoEndpoint),
        Fact::Yes | Fact::Unknown => Err(Fault::SessionRequired),
    }
}

/// Opens a sealed id. Everything that is wrong with one is the same unknown session to the client.
pub fn open(
    worker: &Worker,
    pool: &Arc<PoolState>,
    id: &[u8],
    kind: IdKind,
    ctx: &mut Ctx,
) -> Result<Bound, Fault> {
    let known = match worker.memo.find(pool, id, kind, ctx.principal) {
        Some(known) => known,
        None => {
            let keys = worker.memo.keys();
            let known = Arc::new(unseal(&worker.shared, pool, id, kind, ctx, keys)?);
            worker.memo.keep(&known);
            known
        }
    };
    ctx.session = Some(known.tag);
    Ok(Bound {
        known,
        adopted: false,
        lost: false,
    })
}

fn unseal(
    shared: &Shared,
    pool: &Arc<PoolState>,
    id: &[u8],
    kind: IdKind,
    ctx: &Ctx,
    keys: Keys,
) -> Result<Known, Fault> {
    let refuse = |reason: RefusedId| {
        telemetry::id_refused(reason);
        Fault::SessionUnknown
    };
    let claims = shared.keyring.load().open(id, kind).map_err(|unknown| {
        refuse(match unknown.reason {
            Reason::Malformed => RefusedId::Malformed,
            Reason::UnknownKey => RefusedId::UnknownKey,
            Reason::Forged | Reason::WrongKind => RefusedId::Forged,
        })
    })?;
    if claims.pool != pool.hash {
        return Err(refuse(RefusedId::UnknownPool));
    }
    if claims.principal != ctx.principal {
        return Err(refuse(RefusedId::Principal));
    }
    let Some(endpoint) = pool.pool.find(claims.endpoint.get()).cloned() else {
        return Err(refuse(RefusedId::UnknownEndpoint));
    };
    let sealed = String::from_utf8_lossy(id).into_owned();
    Ok(Known::new(pool, &endpoint, claims, sealed.into(), keys))
}

/// A session whose endpoint is down, or was taken out, is lost: the client is told so and can start
/// over. One whose endpoint merely failed once is not, and its request is tried.
pub fn alive(bound: &Bound) -> Result<(), Fault> {
    if bound.endpoint.has_lost_sessions() {
        return Err(Fault::SessionUnknown);
    }
    Ok(())
}

/// Notes activity, taking in a session that another process, or this one before a restart, opened.
///
/// # Errors
/// [`Fault::SessionUnknown`]: an operator has ended it.
pub fn touch(
    shared: &Shared,
    bound: &mut Bound,
    head: &dyn RequestHead,
    now: Instant,
) -> Result<(), Fault> {
    let beats = |pulse: &Arc<Pulse>| pulse.beat(now);
    if bound.pulse.load().as_ref().is_some_and(beats) {
        return Ok(());
    }
    let touched = shared
        .sessions
        .touch(bound.key, now, || new_session(&bound.known, head));
    match touched {
        Touched::Known | Touched::Adopted => {}
        Touched::Untracked(refused) => Fault::from(refused).count(),
        Touched::Ended => {
            telemetry::id_refused(RefusedId::Ended);
            return Err(Fault::SessionUnknown);
        }
    }
    bound.adopted = touched == Touched::Adopted;
    // Where the session has moved just now, its pulse is none of this place's.
    let here = |live: &Live<Held>| bound.is_at(live).then(|| Arc::clone(&live.pulse));
    let pulse = shared.sessions.look(bound.key, here).flatten();
    bound.pulse.store(pulse);
    Ok(())
}

/// What the id of a session says, minted now for whoever asked.
pub fn claims(
    kind: IdKind,
    pool: &PoolState,
    ctx: &Ctx,
    endpoint: &Endpoint,
    server_id: String,
) -> Claims {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    Claims {
        kind,
        pool: pool.hash,
        endpoint: NameHash::from_u64(endpoint.id()),
        server_id: server_id.into(),
        minted_at: age.map_or(0, |age| age.as_secs()),
        principal: ctx.principal,
    }
}

/// The table entry for a session.
pub fn new_session(known: &Known, head: &dyn RequestHead) -> NewSession<Held> {
    let revision = head
        .known(MCP_PROTOCOL_VERSION)
        .and_then(|value| std::str::from_utf8(value).ok());
    NewSession {
        pool: known.pool.hash,
        endpoint: NameHash::from_u64(known.endpoint.id()),
        server_id: Arc::clone(&known.server_id),
        principal: known.principal,
        revision: revision.map_or(Revision::UNKNOWN, Revision::of),
        guard: Held {
            guard: known.endpoint.session(),
            endpoint: Arc::clone(&known.endpoint),
            pool: Arc::clone(&known.pool),
            path: head.onward().into(),
            origin: None,
            counted: Box::default(),
            tag: Some(known.tag),
            client: None,
        },
    }
}

/// A session over a cap is refused before the server has opened it.
///
/// # Errors
/// [`Fault::SessionsFull`].
pub fn room(shared: &Shared, pool: &PoolState, ctx: &Ctx) -> Result<(), Fault> {
    Ok(shared.sessions.room(pool.hash, ctx.principal)?)
}
