//! What one client may have of a route, of a tool, of sessions and streams, and what all may have
//! together.
//!
//! A client is counted by its address, and where that is limited as well by who it has proved to be: its
//! principal, which may come from many addresses, as many may come from one.
//!
//! Rates are looked at once a request is understood, before anything is decided about it, so that they
//! hold for answers of ours as well, and the refusal carries the request's id. What never waits for a
//! token: `server/discover`, by whose answer clients choose an era for good; `ping`, without which they
//! give a session up; and DELETE, which gives something back.
//!
//! Numbers at once are held by the exchange ([`Holds`] in its [`Ctx`]) and given back with it, however
//! it ends; those of sessions go into the table with the session.

use std::sync::Arc;

use smallvec::SmallVec;

use super::call::Call;
use super::ctx::Ctx;
use super::fault::{Capped, Fault};
use super::state::{Shared, Snapshot};
use super::tool::{self, Policy};
use crate::config::PoolId;
use crate::limit::{CapGuard, Counted, Counts};
use crate::mcp::{Class, HttpMethod};
use crate::pool::Place;
use crate::route::RouteId;
use crate::session::Key;

mod rates;

pub use rates::Limits;
use rates::{Asker, Of, Tool};

/// How much of something clients have, over all configurations.
pub struct Having {
    /// Sessions that a client, or a principal, has opened in this process.
    sessions: Arc<Counts>,
    /// Standing streams of a client, or of a principal.
    streams: Arc<Counts>,
    /// GET streams of a session.
    session_streams: Arc<Counts>,
}

/// What an exchange has of what is limited, until it ends.
#[derive(Debug, Default)]
pub struct Holds {
    session: Box<[Counted]>,
    streams: SmallVec<[Counted; 1]>,
    tools: SmallVec<[CapGuard; 1]>,
}

/// What a call holds that goes on when its exchange has ended.
#[derive(Debug, Default)]
pub struct CallHolds {
    /// Its place at the endpoint.
    _place: Option<Place>,
    tools: SmallVec<[CapGuard; 1]>,
}

/// Lets a request of a route pass that counts as so many, or says when it may come again.
///
/// # Errors
/// [`Fault::Limited`].
pub fn admit(ctx: &Ctx, route: RouteId, requests: u32) -> Result<(), Fault> {
    let limits = &ctx.snapshot.limits;
    let Some(rates) = limits.routes.get(route.0).and_then(Option::as_ref) else {
        return Ok(());
    };
    let taken = limits.take(rates, Asker::of(ctx), requests, ctx.started);
    taken.map_err(|short| {
        let capped = match short.of {
            Of::Client => Capped::Rate,
            Of::Principal => Capped::RatePrincipal,
            Of::All => Capped::RateTotal,
        };
        Fault::Limited(capped, short.seconds)
    })
}

/// The same for a call that was understood, or at least looked at, and the tools that it calls.
///
/// # Errors
/// [`Fault::Limited`], [`Fault::ToolDenied`].
pub fn admit_call(
    snapshot: &Snapshot,
    route: RouteId,
    pool: PoolId,
    ctx: &mut Ctx,
    call: &mut Call,
) -> Result<(), Fault> {
    let limits = &snapshot.limits;
    let tools = &limits.tools[pool.0];
    if limits.routes[route.0].is_none() && tools.is_empty() || always_passes(call) {
        return Ok(());
    }
    let message = call.body.peek.message();
    // An array is as many requests as it holds.
    let requests = u32::try_from(message.batch.len()).map_or(1, |items| items.max(1));
    admit(ctx, route, requests)?;
    if tools.is_empty() {
        return Ok(());
    }
    let denied = Fault::ToolDenied(tool::status_of_denial(snapshot, route, call));
    if message.class() == Class::Batch {
        let mut policies = tool::OfBatch::default();
        for item in &message.batch {
            let is_call = item.method.as_deref() == Some("tools/call");
            let policy = match is_call {
                true => admit_tool(limits, tools, ctx, item.name.as_deref(), denied)?,
                false => Policy::default(),
            };
            if item.method.is_some() && item.id.is_some() {
                policies.add(policy);
            }
        }
        call.policy = policies.together();
    } else if call.is("tools/call") {
        let name = ctx.tool.clone();
        call.policy = admit_tool(limits, tools, ctx, name.as_deref(), denied)?;
    }
    Ok(())
}

fn always_passes(call: &Call) -> bool {
    call.http == HttpMethod::Delete || call.is("server/discover") || call.is("ping")
}

/// What holds for a call of the tool of this name that is let through.
fn admit_tool(
    limits: &Limits,
    tools: &[Tool],
    ctx: &mut Ctx,
    name: Option<&str>,
    denied: Fault,
) -> Result<Policy, Fault> {
    let found = match name {
        Some(name) => tools.iter().find(|tool| tool.name.matches(name)),
        // A server might make out a name that we could not.
        None => tools.iter().find(|tool| tool.deny),
    };
    let Some(tool) = found else {
        return Ok(Policy::default());
    };
    if tool.deny {
        return Err(denied);
    }
    // A place first: a call that finds none has used no token.
    let place = match &tool.concurrent {
        Some(cap) => {
            let place = cap.enter();
            Some(place.ok_or(Fault::Limited(Capped::ToolConcurrency, 1))?)
        }
        None => None,
    };
    limits
        .take(&tool.rates, Asker::of(ctx), 1, ctx.started)
        .map_err(|short| Fault::Limited(Capped::ToolRate, short.seconds))?;
    if let Some(place) = place {
        ctx.holds().tools.push(place);
    }
    Ok(tool.policy)
}

/// Whether a WebSocket may be opened to a pool: what is called in it is not looked at.
///
/// # Errors
/// [`Fault::UnwatchedCalls`].
pub fn admit_socket(snapshot: &Snapshot, pool: PoolId) -> Result<(), Fault> {
    match snapshot.limits.tools[pool.0].iter().any(|tool| tool.deny) {
        true => Err(Fault::UnwatchedCalls),
        false => Ok(()),
    }
}

impl Having {
    /// Nobody has anything.
    pub fn new() -> Self {
        Self {
            sessions: Counts::new(),
            streams: Counts::new(),
            session_streams: Counts::new(),
        }
    }
}

impl Default for Having {
    fn default() -> Self {
        Self::new()
    }
}

/// Reserves a session for the client before its server opens it. The exchange holds it, until
/// [`take_session`].
///
/// # Errors
/// [`Fault::Limited`] if the client, or its principal, has as many as it may.
pub fn reserve_session(shared: &Shared, ctx: &mut Ctx) -> Result<(), Fault> {
    let limits = &ctx.snapshot.config.sessions;
    let counted = enter(
        &shared.having.sessions,
        Asker::of(ctx),
        (limits.max_per_client, Capped::SessionsPerClient),
        (limits.max_per_principal, Capped::SessionsPerPrincipal),
    )?;
    if !counted.is_empty() {
        ctx.holds().session = counted.into_boxed_slice();
    }
    Ok(())
}

/// Counts one more for who asks, by address and by principal where they are limited.
fn enter(
    counts: &Arc<Counts>,
    asker: Asker,
    (per_client, client_has): (Option<u32>, Capped),
    (per_principal, principal_has): (Option<u32>, Capped),
) -> Result<SmallVec<[Counted; 2]>, Fault> {
    let mut counted = SmallVec::new();
    let address = per_client.map(|max| (asker.address, max, client_has));
    let principal = asker.principal.zip(per_principal);
    let principal = principal.map(|(client, max)| (client, max, principal_has));
    for (client, max, capped) in address.into_iter().chain(principal) {
        let one = counts.enter(client.number(), max);
        counted.push(one.ok_or(Fault::Limited(capped, 0))?);
    }
    Ok(counted)
}

/// The reservation, which from now on lasts as long as the session.
pub fn take_session(ctx: &mut Ctx) -> Box<[Counted]> {
    let held = ctx.held.as_mut();
    held.map_or_else(Box::default, |held| std::mem::take(&mut held.session))
}

/// The call of this exchange is over, and a session that it has not opened by now it never will.
pub fn end_call(ctx: &mut Ctx) {
    drop(ctx.held.take());
}

/// Counts the exchange as a standing stream of its client, to its end.
///
/// # Errors
/// [`Fault::Limited`] if the client, or its principal, has as many as it may.
pub fn reserve_stream(shared: &Shared, ctx: &mut Ctx) -> Result<(), Fault> {
    let limits = &ctx.snapshot.config.streams;
    let counted = enter(
        &shared.having.streams,
        Asker::of(ctx),
        (limits.max_per_client, Capped::StreamsPerClient),
        (limits.max_per_principal, Capped::StreamsPerPrincipal),
    )?;
    if !counted.is_empty() {
        ctx.holds().streams.extend(counted);
    }
    Ok(())
}

/// The same for a GET stream of a session.
///
/// # Errors
/// [`Fault::Limited`] if the session has as many as it may.
pub fn reserve_session_stream(shared: &Shared, ctx: &mut Ctx, session: Key) -> Result<(), Fault> {
    let max = ctx.snapshot.config.streams.max_per_session;
    let counted = shared.having.session_streams.enter(session.number(), max);
    let counted = counted.ok_or(Fault::Limited(Capped::StreamsPerSession, 0))?;
    ctx.holds().streams.push(counted);
    Ok(())
}

/// What the call of this exchange holds, for one that is answered elsewhere.
pub fn take_call(ctx: &mut Ctx, place: Option<Place>) -> CallHolds {
    let held = ctx.held.as_mut();
    CallHolds {
        _place: place,
        tools: held.map_or_else(SmallVec::new, |held| std::mem::take(&mut held.tools)),
    }
}

/// Has this exchange go on with a call that was begun by another.
pub fn take_over(ctx: &mut Ctx, call: CallHolds) {
    if !call.tools.is_empty() {
        ctx.holds().tools.extend(call.tools);
    }
}

#[cfg(test)]
mod tests;
