//! Sending a call to an endpoint and waiting for the head of its reply: pick, connect, send, wait,
//! and try again where that is safe.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Worker;
use super::call::{Call, Rules};
use super::ctx::Ctx;
use super::decide::Aim;
use super::fault::Fault;
use super::forwarded::{self, Set, Told};
use super::hedge::{self, Hedge, Instead};
use super::outcome::{self, Timed};
use super::retry::{self, Stage, Tries};
use super::shortage;
use super::state::PoolState;
use super::termination::Step;
use super::tool;
use super::waiting;
use super::watch::Watch;
use crate::config::Config;
use crate::mcp::HttpMethod;
use crate::pool::{CallPermit, Endpoint, Moment};
use crate::session::IdKind;
use crate::telemetry::{self, RetryOutcome};
use crate::transport::dial::Up;
use crate::transport::fields::{
    ACCEPT_ENCODING, LAST_EVENT_ID, MCP_SESSION_ID, Names, ORIGIN, TRACEPARENT,
};
use crate::transport::{Downstream, Edits, Error, Outgoing, RequestHead, Upstream};

/// A reply whose head has been read.
pub struct Reply {
    /// The exchange with the endpoint.
    pub up: Up,
    /// Counts the call on the endpoint until dropped.
    pub permit: CallPermit,
}

impl Reply {
    /// The endpoint that replied.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.permit.endpoint()
    }
}

/// Why an attempt failed.
struct Failed {
    fault: Fault,
    stage: Stage,
}

/// DELETE is answered at once by any server.
const QUICK_HEAD: Duration = Duration::from_secs(30);
/// How long an early answer may take after the endpoint stopped reading the request.
const EARLY_ANSWER: Duration = Duration::from_secs(1);
/// Pause before the owner of a session is tried again.
const SAME_ENDPOINT_PAUSE: Duration = Duration::from_millis(100);

/// Sends the call where it aims and returns the reply, its head read.
///
/// # Errors
/// What the client is to be told.
pub async fn forward<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
) -> Result<Reply, Fault> {
    let mut tried: Vec<u64> = Vec::new();
    let (mut attempts, mut tries) = (0, Tries::default());
    let mut last = None;
    // Who is asked again, on a new connection: whose idle one broke under the call, or who alone may
    // see it twice.
    let mut again: Option<CallPermit> = None;
    let bound = matches!(aim, Aim::Bound(_));
    loop {
        let lane = match again {
            Some(_) => Lane::New,
            None => Lane::Any,
        };
        // Nothing is waited for between here and the attempt, unless a place is.
        let mut asked = Instant::now();
        let mut permit = match again.take() {
            Some(permit) => permit,
            None => {
                let aim = (aim, last);
                admit(worker, down, ctx, pool, call, aim, &mut tried, &mut asked).await?
            }
        };
        let endpoint = Arc::clone(permit.endpoint());
        let now = worker.shared.moment(asked);
        attempts += 1;
        ctx.asks(asked);
        if attempts == 1 {
            pool.count_call(now);
        }
        ctx.endpoint = Some(endpoint.id());
        call.tells = ctx.tells();
        let whole = call.body.ended;
        let to = (&endpoint, lane);
        let attempted = attempt(worker, down, ctx, pool, call, aim, to, &mut tried);
        let failed = match attempted.await {
            Ok((up, instead)) => {
                ctx.replied(Instant::now());
                if instead.is_none() {
                    outcome::answered(ctx, call, &endpoint);
                }
                if let Some(Instead {
                    permit: other,
                    broken,
                }) = instead
                {
                    let said = broken.and_then(outcome::of_fault);
                    outcome::report(&worker.shared, pool, &mut permit, said);
                    ctx.endpoint = Some(other.endpoint().id());
                    permit = other;
                }
                let said = outcome::of_head(call, up.head().status());
                outcome::report(&worker.shared, pool, &mut permit, said);
                if attempts > 1 {
                    telemetry::retried(pool.pool.name(), RetryOutcome::Success);
                }
                return Ok(Reply { up, permit });
            }
            Err(failed) => failed,
        };
        ctx.gives_up(failed.fault.row().label);
        let whole = whole || failed.stage == Stage::Connect;
        let safety = tool::safety(pool, call, ctx);
        // Says more about the connection than about the endpoint, and other idle ones of it may be no
        // better: so it is no attempt where another one can be made, on a new connection.
        let stale = failed.stage == Stage::Sent { reused: true };
        tries.attempts += u32::from(!stale);
        tries.sent += u32::from(matches!(failed.stage, Stage::Sent { .. }));
        let may = retry::may(safety, failed.stage, whole, bound, tries);
        if !(stale && may) {
            let said = outcome::of_fault(failed.fault);
            outcome::report(&worker.shared, pool, &mut permit, said);
        }
        if may && stale {
            again = Some(permit);
        } else if may && !bound && retry::stays(safety, failed.stage) {
            again = Some(again_at(pool, permit, now).ok_or(failed.fault)?);
        } else {
            drop(permit);
        }
        if failed.stage == Stage::Connect && failed.fault != Fault::Exhausted {
            worker.shared.chores.suspect(&endpoint);
        }
        if !may {
            return Err(failed.fault);
        }
        if !retry::is_free(failed.stage, attempts) && !pool.may_retry(now) {
            telemetry::retried(pool.pool.name(), RetryOutcome::OverBudget);
            return Err(failed.fault);
        }
        last = Some(failed.fault);
        if stale {
            continue;
        }
        match bound || again.is_some() {
            true => tokio::time::sleep(SAME_ENDPOINT_PAUSE).await,
            false => tried.push(endpoint.id()),
        }
    }
}

/// Finds an endpoint that lets the call in. `last` is why it failed before: that says more than that
/// there is no other endpoint. `now` is moved on by what was waited for.
async fn admit<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &PoolState,
    call: &Call,
    (aim, mut last): (&Aim, Option<Fault>),
    tried: &mut Vec<u64>,
    now: &mut Instant,
) -> Result<CallPermit, Fault> {
    loop {
        let placed = waiting::place(&worker.shared, down, ctx, pool, call, aim, tried, now).await;
        let (endpoint, place) = placed.map_err(|fault| match fault {
            Fault::ClientGone | Fault::Draining => fault,
            _ => last.unwrap_or(fault),
        })?;
        let moment = worker.shared.moment(*now);
        match (pool.pool.enter(&endpoint, moment), aim) {
            (Ok(mut permit), _) => {
                permit.hold(place);
                return Ok(permit);
            }
            (Err(tripped), Aim::Bound(_)) => return Err(last.unwrap_or_else(|| tripped.into())),
            (Err(tripped), Aim::Any { .. }) => {
                // Somebody else took the last trial.
                last = last.or_else(|| Some(tripped.into()));
                tried.push(endpoint.id());
            }
        }
    }
}

/// Another permit of the same endpoint, with the place of the one that is over; none if its breaker has
/// opened.
fn again_at(pool: &PoolState, mut over: CallPermit, now: Moment) -> Option<CallPermit> {
    let mut permit = pool.pool.enter(over.endpoint(), now).ok()?;
    permit.hold(over.take_place());
    Some(permit)
}

/// Which connection an attempt may be made on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// One that lay idle, if there is one.
    Any,
    /// One that is made for it.
    New,
}

async fn attempt<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
    (endpoint, lane): (&Arc<Endpoint>, Lane),
    tried: &mut Vec<u64>,
) -> Result<(Up, Option<Instead>), Failed> {
    let before = |fault| Failed {
        fault,
        stage: Stage::Connect,
    };
    let address = endpoint.address().ok_or_else(|| before(Fault::Connect))?;
    let client = forwarded::announced(ctx.client, down.info());
    let dialed = pool.target(endpoint.id(), address, client);
    let (mut target, authority) = dialed.ok_or_else(|| before(Fault::Connect))?;
    target.reuse = lane == Lane::Any;
    let dialing = worker.dialer.open(target, Some(down.alarm()));
    let dialed = dialing.await;
    let mut up = dialed.map_err(|error| before(not_reached(pool, endpoint, &error)))?;
    endpoint.note_reached(true);
    let reused = up.reused();
    ctx.connected(endpoint, reused, Instant::now);
    // The request is not over before it has been sent.
    ctx.step = Step::Request;
    let is_here = call.body.ended;
    let sent = |fault| Failed {
        fault,
        stage: Stage::Sent { reused },
    };
    let sending = send(
        down,
        &ctx.snapshot.config,
        pool,
        call,
        aim,
        authority,
        &mut up,
    );
    let sending = sending.await;
    if !is_here {
        ctx.sent(Instant::now());
    }
    match sending {
        Ok(()) => ctx.step = Step::Header,
        Err(Sending::Client(fault)) => {
            return Err(Failed {
                fault,
                stage: Stage::Answered,
            });
        }
        // It may have answered early and closed: that answer is what the client should see.
        Err(Sending::Server) => {
            ctx.step = Step::Header;
            return match timeout(EARLY_ANSWER, up.read_head()).await {
                Ok(Ok(())) => Ok((up, None)),
                _ => Err(sent(Fault::UpstreamClosed)),
            };
        }
    }
    ctx.bytes_in = call.body.read;
    if ctx.id.is_none() {
        // It stood behind the part that was looked at before.
        call.note_id(ctx);
    }
    call.was_sent();
    let timed = Timed::begin(pool, call);
    let limit = head_timeout(pool, call);
    let waited = match hedge::after(pool, call, aim) {
        None => {
            let waited = await_head(worker, down, &mut up, endpoint, limit).await;
            waited.map(|()| None)
        }
        // Boxed, because every exchange would otherwise hold the room for it.
        Some(after) => {
            let hedge = Hedge {
                worker,
                config: &ctx.snapshot.config,
                pool,
                call,
                aim,
                after,
                limit,
            };
            Box::pin(hedge.first_head(down, &mut up, endpoint, tried)).await
        }
    };
    if let Ok(None) = waited {
        timed.end(&worker.shared, endpoint);
    }
    let instead = waited.map_err(|fault| match fault {
        Fault::UpstreamClosed => sent(fault),
        _ => Failed {
            fault,
            stage: Stage::Answered,
        },
    })?;
    Ok((up, instead))
}

/// What it is to the client that no connection was made, and to the endpoint, if it is to blame.
pub(super) fn not_reached(pool: &PoolState, endpoint: &Endpoint, error: &Error) -> Fault {
    log::debug!(pool = pool.pool.name(), endpoint = endpoint.name(); "cannot connect: {error}");
    shortage::tell(error);
    if let Error::Lacking(_) = error {
        return Fault::Exhausted;
    }
    endpoint.note_reached(false);
    Fault::Connect
}

fn head_timeout(pool: &PoolState, call: &Call) -> Duration {
    let header = call.answer_limit(pool.config.timeouts.header);
    match call.http {
        // Some servers send no head before the first event, however late that is.
        HttpMethod::Get => Duration::MAX,
        HttpMethod::Delete => header.min(QUICK_HEAD),
        HttpMethod::Post | HttpMethod::Other => header,
    }
}

/// Which side a request could not be sent because of.
enum Sending {
    Client(Fault),
    Server,
}

async fn send<D: Downstream>(
    down: &mut D,
    config: &Config,
    pool: &PoolState,
    call: &mut Call,
    aim: &Aim,
    authority: &str,
    up: &mut Up,
) -> Result<(), Sending> {
    put_head(down, config, pool, call, aim, authority, up).map_err(|_| Sending::Server)?;
    for chunk in &call.body.chunks {
        up.send_body(chunk).await.map_err(|_| Sending::Server)?;
    }
    while !call.body.ended {
        let next = call.body.next(down).await.map_err(Sending::Client)?;
        call.body.ended = next.is_none() || down.body_ended();
        if call.body.ended {
            call.check_whole(down.head()).map_err(Sending::Client)?;
        }
        if let Some(chunk) = next {
            up.send_body(&chunk).await.map_err(|_| Sending::Server)?;
        }
    }
    up.finish().await.map_err(|_| Sending::Server)
}

/// Not async, so that nothing of what is put together here is held while the request waits.
pub(super) fn put_head<D: Downstream>(
    down: &D,
    config: &Config,
    pool: &PoolState,
    call: &Call,
    aim: &Aim,
    authority: &str,
    up: &mut Up,
) -> Result<(), Error> {
    let head = down.head();
    let told = Told::of(
        &config.proxies,
        pool.config.client_headers,
        head,
        down.info(),
    );
    // The events of a stream are read on their way, so they must not come compressed; and the
    // server is asked by us, not by the page that the client may be.
    let left = match call.rules {
        Rules::Handshake => const { Names::of(&[ORIGIN, ACCEPT_ENCODING, MCP_SESSION_ID]) },
        Rules::Session if call.afresh => {
            const { Names::of(&[ORIGIN, ACCEPT_ENCODING, LAST_EVENT_ID]) }
        }
        Rules::Session if matches!(aim, Aim::Bound(bound) if bound.kind == IdKind::Session) => {
            const { Names::of(&[ORIGIN, ACCEPT_ENCODING]) }
        }
        // Without a session of ours what the client says of one means nothing.
        Rules::Session | Rules::Stateless => {
            const { Names::of(&[ORIGIN, ACCEPT_ENCODING, MCP_SESSION_ID, LAST_EVENT_ID]) }
        }
    };
    // What the server knows the session by: an id, or in HTTP+SSE an address of its own.
    let (id, target) = match aim {
        Aim::Any { .. } => (None, head.onward()),
        Aim::Bound(bound) => match bound.kind {
            IdKind::Session => (Some(bound.server_id.as_bytes()), head.onward()),
            IdKind::Sse => (None, &*bound.server_id),
        },
    };
    let mut set = Set::new();
    set.extend(id.map(|id| (MCP_SESSION_ID.as_str(), id)));
    told.set(&mut set);
    let mut left = left.and(told.drop());
    if let Some(tells) = &call.tells {
        set.push((TRACEPARENT.as_str(), &tells.parent));
        left = left.and(tells.left);
    }
    let out = Outgoing {
        head,
        method: head.method(),
        target,
        authority,
        edits: Edits {
            set: &set,
            drop: left,
            more: down.dress().request(head, down.info()),
        },
        length: call.body.outgoing_length(),
    };
    up.put_head(&out)
}

async fn await_head<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    up: &mut Up,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<(), Fault> {
    let mut watch = Watch::new(endpoint, &worker.shared.phases, limit);
    let mut reading = std::pin::pin!(up.read_head());
    let read = watch.wait(down, |context| reading.as_mut().poll(context));
    of_read(read.await?)
}

/// What came of reading the head of a reply.
pub(super) fn of_read(read: Result<(), Error>) -> Result<(), Fault> {
    match read {
        Ok(()) => Ok(()),
        Err(Error::Malformed(what)) => {
            log::warn!("an endpoint sent a malformed response head: {what}");
            Err(Fault::UpstreamMalformed)
        }
        Err(_) => Err(Fault::UpstreamClosed),
    }
}
