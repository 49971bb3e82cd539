//! One request, from first byte to log line.
//!
//! [`serve`] is the straight line that every exchange on an MCP route goes down, whatever its
//! method, era or HTTP version: admit, understand, decide, forward, relay, finish. Each step takes
//! what it needs and returns a value or a [`fault::Fault`]; what fails before the response head is
//! out is answered in one place, what fails later is told in the stream.
//!
//! | step | module |
//! |---|---|
//! | sizes, route, host, origin | [`intake`] |
//! | who the client is | [`forwarded`] |
//! | as much of the body as it takes | [`body`] |
//! | era, method, id | [`call`] |
//! | rates, and numbers at once | [`limits`] |
//! | what else holds for a tool | [`tool`] |
//! | session or any endpoint, or an answer of ours | [`decide`] |
//! | an endpoint with a place for it | [`waiting`] |
//! | pick, connect, send, retry | [`forward`], [`retry`] |
//! | what it says of the endpoint | [`outcome`] |
//! | the reply | [`relay`], [`stream`] |
//! | the sessions it opens and ends | [`settle`] |
//! | a session begun again, a stream asked for again | [`recovery`], [`revival`] |
//! | a client that comes back to a stream | [`resume`] |
//! | log, metrics, traces | [`finish`], [`termination`], [`sampling`], [`trace`] |
//!
//! A reply that is an event stream may last for hours, and then most of what its request needed is
//! in the way: the exchange ends as a [`streaming::Streaming`] that holds what the stream needs and
//! nothing else.
//!
//! HTTP+SSE takes its own turn in [`legacy_sse`]; WebSockets in [`tunnel`]; routes of plain HTTP
//! in [`plain`]. They pass the same intake and the same finish.

mod affinity;
pub mod ask;
pub mod body;
pub mod call;
pub mod clients;
pub mod contexts;
pub mod cors;
pub mod ctx;
pub mod decide;
pub mod discover;
pub mod edge;
pub mod fault;
pub mod finish;
pub mod flight;
pub mod forward;
pub mod forwarded;
pub mod hashing;
pub mod hedge;
pub mod intake;
pub mod kept;
pub mod legacy_sse;
pub mod limits;
pub mod links;
pub mod listen;
pub mod local;
pub mod memo;
pub mod open;
pub mod origin;
pub mod outcome;
pub mod phases;
pub mod plain;
pub mod recovery;
pub mod relay;
pub mod resume;
pub mod retry;
pub mod revival;
pub mod sampling;
pub mod settle;
pub mod shortage;
pub mod state;
pub mod stream;
pub mod streaming;
pub mod termination;
pub mod tool;
pub mod trace;
pub mod tunnel;
pub mod waiting;
pub mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{PoolId, Transport};
use crate::mcp::HttpMethod;
use crate::pool::HealthState;
use crate::route::RouteId;
use crate::telemetry::{self, SessionEnd};
use crate::transport::dial::Dialer;
use crate::transport::{Downstream, RequestHead, Upstream};
use call::{Call, Rules};
use ctx::Ctx;
use decide::{Aim, Bound};
use fault::Fault;
use flight::InFlight;
use forward::Reply;
use intake::Admitted;
use kept::Kept;
use memo::Memo;
use state::{PoolState, Shared};
use streaming::{Begun, Streaming};

/// How long a call waits to know whether its server is down. Checks come faster where a connection was
/// refused, so few intervals are longer.
const DECIDED_WITHIN: Duration = Duration::from_secs(5);
/// How often it looks.
const DECIDED_PAUSE: Duration = Duration::from_millis(100);

/// What the requests of one thread share: the process's state and the thread's own connections.
pub struct Worker {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    /// This thread's connections to endpoints.
    pub dialer: Arc<Dialer>,
    /// The sessions that this thread has served lately.
    pub memo: Arc<Memo>,
}

/// How far an exchange has come when its request is dealt with.
pub enum Next {
    /// Answered to its end.
    Done,
    /// Its reply is a stream, of which nothing but the head was written.
    Stream(Box<Begun>),
}

/// What [`serve`] leaves.
pub enum Served<D> {
    /// The exchange is over.
    Done(D),
    /// It goes on as a stream.
    Lasts(Box<Streaming<D>>),
}

/// Serves one exchange of the MCP lane, whatever comes of it.
pub async fn serve<D: Downstream>(worker: &Worker, mut down: D) -> Served<D> {
    let snapshot = worker.shared.snapshot.load_full();
    let mut ctx = Ctx::begin(snapshot, down.head(), down.info(), Instant::now());
    let mut flight = worker.shared.flight.enter();
    match exchange(worker, &mut down, &mut ctx, &mut flight).await {
        Ok(Next::Done) => {}
        Ok(Next::Stream(begun)) => {
            let shared = Arc::clone(&worker.shared);
            return Served::Lasts(Box::new(Streaming::new(shared, down, ctx, flight, *begun)));
        }
        Err(fault) => {
            limits::end_call(&mut ctx);
            local::refuse(&mut down, &mut ctx, fault).await;
        }
    }
    finish::finish(&worker.shared, &ctx, down.info(), down.head());
    Served::Done(down)
}

async fn exchange<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
) -> Result<Next, Fault> {
    match intake::admit(&ctx.snapshot.config, down.head(), down.info())? {
        Admitted::Builtin(which) => {
            local::builtin(&worker.shared, down, ctx, which).await;
            Ok(Next::Done)
        }
        Admitted::Route(id) => {
            let snapshot = Arc::clone(&ctx.snapshot);
            let route = &snapshot.config.routes[id.0];
            if let Some(dress) = edge::dress(ctx, route, down.head(), down.info()) {
                *down.dress_mut() = dress;
            }
            if let Some(cors) = &route.cors
                && cors::is_preflight(down.head())
            {
                Box::pin(cors::answer(down, ctx, cors)).await?;
                return Ok(Next::Done);
            }
            if let Some(target) = edge::rewritten(route, down.head().target())? {
                down.send_onward(target);
            }
            match route.pool() {
                Some(pool) => mcp(worker, down, ctx, flight, id, pool).await,
                None => {
                    limits::admit(ctx, id, 1)?;
                    Box::pin(edge::answer(down, ctx, id)).await?;
                    Ok(Next::Done)
                }
            }
        }
    }
}

async fn mcp<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    id: RouteId,
    pool_id: PoolId,
) -> Result<Next, Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let route = &snapshot.config.routes[id.0];
    let pool = snapshot.pool(pool_id);
    (ctx.route, ctx.pool) = (Some(id), Some(pool_id));
    if route.transport == Transport::Sse {
        // Boxed, like what follows that is rare: every exchange would hold the room for it.
        return Box::pin(legacy_sse::serve(worker, down, ctx, flight, pool, id)).await;
    }
    let mut call = Call::new(HttpMethod::Post);
    let looked_at = call.understand(down, ctx, &snapshot.config.limits).await;
    // What could not be understood counts as well.
    let admitted = limits::admit_call(&snapshot, id, pool_id, ctx, &mut call);
    match looked_at {
        Ok(()) => {}
        Err(Fault::ClientGone) => return Err(Fault::ClientGone),
        Err(fault) => return Err(admitted.err().unwrap_or(fault)),
    }
    let served = match admitted {
        Ok(()) => understood(worker, down, ctx, flight, pool, &mut call).await,
        Err(limited) => Err(limited),
    };
    if served.is_err() {
        call.learn_id(down, ctx).await;
    }
    served
}

async fn understood<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    pool: &Arc<PoolState>,
    call: &mut Call,
) -> Result<Next, Fault> {
    let now = ctx.started;
    let mut aim = decide::decide(worker, pool, call, down.head(), ctx, now)?;
    reserve(worker, ctx, call, &aim)?;
    if let Aim::Bound(bound) = &mut aim
        && bound.lost
    {
        found_again(worker, down, ctx, pool, call, bound).await?;
    }
    if call.is("server/discover") {
        let discovered = discover::serve(worker, down, ctx, pool, call, &aim, flight);
        return Box::pin(discovered).await;
    }
    let is_stream = call.http == HttpMethod::Get;
    if let (true, Aim::Bound(bound)) = (is_stream, &aim) {
        // Boxed: no other exchange should hold the room for it.
        let back = Box::pin(resume::back::back(worker, down, ctx, call, bound, flight));
        if let Some(next) = back.await {
            return Ok(next);
        }
    }
    if is_stream {
        // Some servers send no head before their first event: it is a stream all the same.
        flight.becomes_stream();
    }
    let reply = match send(worker, down, ctx, pool, call, &mut aim).await {
        Ok(reply) => reply,
        // Clients give a stream up after two failures; one that ended they open again.
        Err(
            fault @ (Fault::Draining
            | Fault::UpstreamClosed
            | Fault::Connect
            | Fault::Exhausted
            | Fault::Tripped(_)),
        ) if is_stream => {
            // For the log alone.
            ctx.fault = Some(fault);
            local::ended_stream(down, ctx).await;
            return Ok(Next::Done);
        }
        Err(fault) => return Err(fault),
    };
    relay::relay(worker, down, ctx, pool, call, &aim, reply, flight).await
}

/// Counts what the call is about to open: a session, a standing stream.
fn reserve(worker: &Worker, ctx: &mut Ctx, call: &Call, aim: &Aim) -> Result<(), Fault> {
    let shared = &worker.shared;
    if call.rules == Rules::Handshake {
        return limits::reserve_session(shared, ctx);
    }
    let is_get = call.http == HttpMethod::Get;
    if is_get && let Aim::Bound(bound) = aim {
        limits::reserve_session_stream(shared, ctx, bound.key)?;
    }
    match is_get || call.is("subscriptions/listen") {
        true => limits::reserve_stream(shared, ctx),
        false => Ok(()),
    }
}

/// Sends the call where it aims; once more, if its server has forgotten the session and that can be
/// begun again.
async fn send<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &mut Aim,
) -> Result<Reply, Fault> {
    let mut sent = forward::forward(worker, down, ctx, pool, call, aim).await;
    if let Aim::Bound(bound) = &*aim
        && is_undecided(&sent, call, bound)
        && recovery::is_possible(&worker.shared, pool, &bound.known)
    {
        // Boxed, as what follows.
        sent = Box::pin(once_decided(worker, down, ctx, pool, call, aim)).await;
    }
    let reply = sent?;
    let Aim::Bound(bound) = aim else {
        return Ok(reply);
    };
    let forgotten = reply.up.head().status() == 404
        && call.http != HttpMethod::Delete
        && call.body.is_whole()
        && recovery::is_possible(&worker.shared, pool, &bound.known);
    if !forgotten {
        return Ok(reply);
    }
    drop(reply);
    found_again(worker, down, ctx, pool, call, bound).await?;
    forward::forward(worker, down, ctx, pool, call, aim).await
}

/// Waits until it is known what became of a server that cannot be reached: its checks find it down,
/// and the session is begun again elsewhere, or it is back. The call was not sent yet.
async fn once_decided<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &mut Aim,
) -> Result<Reply, Fault> {
    let until = Instant::now() + DECIDED_WITHIN;
    loop {
        tokio::time::sleep(DECIDED_PAUSE).await;
        if let Aim::Bound(bound) = aim
            && bound.endpoint.health() == HealthState::Down
        {
            found_again(worker, down, ctx, pool, call, bound).await?;
        }
        let sent = forward::forward(worker, down, ctx, pool, call, aim).await;
        let undecided = matches!(&*aim, Aim::Bound(bound) if is_undecided(&sent, call, bound));
        if !undecided || Instant::now() >= until {
            return sent;
        }
    }
}

/// Was the call not sent because nobody is there? The failures of others may have opened the breaker.
/// And a stream that has not begun loses nothing when it is asked for again.
fn is_undecided(sent: &Result<Reply, Fault>, call: &Call, bound: &Bound) -> bool {
    match sent {
        Err(Fault::Connect) => true,
        Err(Fault::UpstreamClosed) => call.http == HttpMethod::Get,
        Err(Fault::Tripped(_)) => bound.endpoint.is_unreachable(),
        _ => false,
    }
}

/// Begins a lost session again before its request is sent.
async fn found_again<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &Ctx,
    pool: &Arc<PoolState>,
    call: &Call,
    bound: &mut Bound,
) -> Result<(), Fault> {
    if call.http == HttpMethod::Delete {
        // It is what the client wants.
        if worker.shared.sessions.close(bound.key).is_some() {
            telemetry::session_ended(SessionEnd::Deleted);
        }
        worker.memo.forget(bound);
        return Err(Fault::SessionUnknown);
    }
    let kept = Kept::of(
        &ctx.snapshot.config,
        pool,
        down.head(),
        down.info(),
        down.dress(),
    );
    // Boxed: no other exchange should hold the room for it.
    Box::pin(recovery::recover_for(worker, pool, kept, bound)).await
}
