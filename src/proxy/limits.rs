//! What one client may have of a route, of a tool, of sessions and streams, and what all may have
//! together.
//!
//! Rates are looked at once a request is understood, before anything is decided about it, so that they
//! hold for answers of ours as well, and the refusal carries the request's id. What never waits for a
//! token: `server/discover`, by whose answer clients choose an era for good; `ping`, without which they
//! give a session up; and DELETE, which gives something back.
//!
//! Numbers at once are held by the exchange ([`Holds`] in its [`Ctx`]) and given back with it, however
//! it ends; those of sessions go into the table with the session.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::call::Call;
use super::ctx::Ctx;
use super::fault::{Capped, Fault};
use super::state::{Shared, Snapshot};
use crate::config::{self, Config, PoolId};
use crate::limit::buckets::BUCKETS_MAX;
use crate::limit::{Bucket, Buckets, Cap, CapGuard, Client, Counted, Counts, Pattern, Rate, Taken};
use crate::mcp::{Class, HttpMethod};
use crate::pool::Place;
use crate::route::RouteId;
use crate::session::Key;
use crate::telemetry::{Limit, limit_hit};

/// The limits of a configuration, ready to be asked.
pub struct Limits {
    /// In the order of the configuration's routes.
    routes: Box<[Option<Rates>]>,
    /// In the order of the configuration's pools.
    tools: Box<[Box<[Tool]>]>,
    /// Only where some rate is per client.
    buckets: Option<Buckets>,
    /// When the clock of the buckets began to run.
    base: Instant,
}

/// Rates of one rule.
struct Rates {
    /// Tells the rule's buckets from those of others.
    rule: u32,
    per_client: Option<Rate>,
    total: Option<Bucket>,
}

/// The limits of some tools of a pool.
struct Tool {
    name: Pattern,
    rates: Rates,
    concurrent: Option<Arc<Cap>>,
}

/// How much of something clients have, over all configurations.
pub struct Having {
    /// Sessions that a client has opened in this process.
    sessions: Arc<Counts>,
    /// Standing streams of a client.
    streams: Arc<Counts>,
    /// GET streams of a session.
    session_streams: Arc<Counts>,
}

/// What an exchange has of what is limited, until it ends.
#[derive(Debug, Default)]
pub struct Holds {
    session: Option<Counted>,
    streams: SmallVec<[Counted; 2]>,
    tools: SmallVec<[CapGuard; 1]>,
}

/// What a call holds that goes on when its exchange has ended.
#[derive(Debug, Default)]
pub struct CallHolds {
    /// Its place at the endpoint.
    _place: Option<Place>,
    _tools: SmallVec<[CapGuard; 1]>,
}

impl Limits {
    /// The limits of `config`. The clock of the rates begins at `now`.
    pub fn new(config: &Config, now: Instant) -> Self {
        // 0 is what an empty slot of the table looks like.
        let mut rule = 0;
        let mut rates = |per_client: Option<config::Rate>, total: Option<config::Rate>| {
            rule += 1;
            let rate = |rate: config::Rate| Rate::new(rate.count, rate.per, rate.burst);
            Rates {
                rule,
                per_client: per_client.map(rate),
                total: total.map(|total| Bucket::new(rate(total))),
            }
        };
        let routes: Box<[Option<Rates>]> = config
            .routes
            .iter()
            .map(|route| {
                let rate = route.rate.as_ref()?;
                Some(rates(rate.per_client, rate.total))
            })
            .collect();
        let mut tool = |tool: &config::ToolLimit| Tool {
            name: Pattern::new(&tool.name),
            rates: rates(tool.per_client, tool.total),
            concurrent: tool.concurrent.map(Cap::new),
        };
        let tools: Box<[Box<[Tool]>]> = config
            .pools
            .iter()
            .map(|pool| pool.tools.iter().map(&mut tool).collect())
            .collect();
        let by_client = |rates: &Rates| rates.per_client.is_some();
        let any = routes.iter().flatten().any(by_client)
            || tools.iter().flatten().any(|tool| by_client(&tool.rates));
        Self {
            routes,
            tools,
            buckets: any.then(|| Buckets::new(BUCKETS_MAX, [fastrand::u64(..), fastrand::u64(..)])),
            base: now,
        }
    }

    fn take(&self, rates: &Rates, client: Client, tokens: u32, now: Instant) -> Result<(), Short> {
        let now = nanos(self.base, now);
        if let (Some(rate), Some(buckets)) = (rates.per_client, &self.buckets) {
            match buckets.take(rates.rule, client, rate, tokens, now) {
                Taken::Yes => {}
                Taken::Forgetting => limit_hit(Limit::RateClients),
                Taken::NotFor(wait) => {
                    return Err(Short {
                        of_all: false,
                        seconds: seconds(wait),
                    });
                }
            }
        }
        let Some(total) = &rates.total else {
            return Ok(());
        };
        total.take(tokens, now).map_err(|wait| {
            // It was not the client that has used up what there is.
            if let (Some(rate), Some(buckets)) = (rates.per_client, &self.buckets) {
                buckets.give_back(rates.rule, client, rate, tokens);
            }
            Short {
                of_all: true,
                seconds: seconds(wait),
            }
        })
    }
}

/// There are no tokens.
struct Short {
    of_all: bool,
    /// Whole seconds until there are.
    seconds: u32,
}

fn nanos(base: Instant, now: Instant) -> u64 {
    let nanos = now.saturating_duration_since(base).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn seconds(wait: std::time::Duration) -> u32 {
    let whole = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// Who asks, as limits count it; all whose address is not known are one.
fn client(address: Option<IpAddr>) -> Client {
    Client::at(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
}

/// Lets a request of a route pass that counts as so many, or says when it may come again.
///
/// # Errors
/// [`Fault::Limited`].
pub fn admit(
    snapshot: &Snapshot,
    route: RouteId,
    address: Option<IpAddr>,
    requests: u32,
    now: Instant,
) -> Result<(), Fault> {
    let limits = &snapshot.limits;
    let Some(rates) = limits.routes.get(route.0).and_then(Option::as_ref) else {
        return Ok(());
    };
    let taken = limits.take(rates, client(address), requests, now);
    taken.map_err(|short| {
        let capped = match short.of_all {
            true => Capped::RateTotal,
            false => Capped::Rate,
        };
        Fault::Limited(capped, short.seconds)
    })
}

/// The same for a call that was understood, or at least looked at, and the tools that it calls.
///
/// # Errors
/// [`Fault::Limited`].
pub fn admit_call(
    snapshot: &Snapshot,
    route: RouteId,
    pool: PoolId,
    ctx: &mut Ctx,
    call: &Call,
) -> Result<(), Fault> {
    let limits = &snapshot.limits;
    let tools = &limits.tools[pool.0];
    if limits.routes[route.0].is_none() && tools.is_empty() || always_passes(call) {
        return Ok(());
    }
    let message = call.body.peek.message();
    // An array is as many requests as it holds.
    let requests = u32::try_from(message.batch.len()).map_or(1, |items| items.max(1));
    admit(snapshot, route, ctx.client, requests, ctx.started)?;
    if tools.is_empty() {
        return Ok(());
    }
    if message.class() == Class::Batch {
        let calls = message.batch.iter().filter(|item| {
            let method = item.method.as_deref();
            method == Some("tools/call")
        });
        for name in calls.filter_map(|item| item.name.as_deref()) {
            admit_tool(limits, tools, ctx, name)?;
        }
        return Ok(());
    }
    match ctx.tool.clone() {
        Some(name) => admit_tool(limits, tools, ctx, &name),
        None => Ok(()),
    }
}

fn always_passes(call: &Call) -> bool {
    call.http == HttpMethod::Delete || call.is("server/discover") || call.is("ping")
}

fn admit_tool(limits: &Limits, tools: &[Tool], ctx: &mut Ctx, name: &str) -> Result<(), Fault> {
    let Some(tool) = tools.iter().find(|tool| tool.name.matches(name)) else {
        return Ok(());
    };
    // A place first: a call that finds none has used no token.
    let place = match &tool.concurrent {
        Some(cap) => {
            let place = cap.enter();
            Some(place.ok_or(Fault::Limited(Capped::ToolConcurrency, 1))?)
        }
        None => None,
    };
    limits
        .take(&tool.rates, client(ctx.client), 1, ctx.started)
        .map_err(|short| Fault::Limited(Capped::ToolRate, short.seconds))?;
    if let Some(place) = place {
        ctx.holds().tools.push(place);
    }
    Ok(())
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
/// [`Fault::Limited`] if the client has as many as it may.
pub fn reserve_session(shared: &Shared, ctx: &mut Ctx) -> Result<(), Fault> {
    let Some(max) = ctx.snapshot.config.sessions.max_per_client else {
        return Ok(());
    };
    let counted = shared
        .having
        .sessions
        .enter(client(ctx.client).number(), max);
    let counted = counted.ok_or(Fault::Limited(Capped::SessionsPerClient, 0))?;
    ctx.holds().session = Some(counted);
    Ok(())
}

/// The reservation, which from now on lasts as long as the session.
pub fn take_session(ctx: &mut Ctx) -> Option<Counted> {
    ctx.held.as_mut()?.session.take()
}

/// The call of this exchange is over, and a session that it has not opened by now it never will.
pub fn end_call(ctx: &mut Ctx) {
    drop(ctx.held.take());
}

/// Counts the exchange as a standing stream of its client, to its end.
///
/// # Errors
/// [`Fault::Limited`] if the client has as many as it may.
pub fn reserve_stream(shared: &Shared, ctx: &mut Ctx) -> Result<(), Fault> {
    let Some(max) = ctx.snapshot.config.streams.max_per_client else {
        return Ok(());
    };
    let counted = shared
        .having
        .streams
        .enter(client(ctx.client).number(), max);
    let counted = counted.ok_or(Fault::Limited(Capped::StreamsPerClient, 0))?;
    ctx.holds().streams.push(counted);
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
        _tools: held.map_or_else(SmallVec::new, |held| std::mem::take(&mut held.tools)),
    }
}

#[cfg(test)]
mod tests;
