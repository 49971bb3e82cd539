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
//! | as much of the body as it takes | [`body`] |
//! | era, method, id | [`call`] |
//! | session or any endpoint, or an answer of ours | [`decide`] |
//! | pick, connect, send, retry | [`forward`], [`retry`] |
//! | the reply, the sessions it opens and ends | [`relay`], [`stream`] |
//! | log, metrics | [`finish`] |
//!
//! HTTP+SSE takes its own turn in [`legacy_sse`]; WebSockets in [`tunnel`]; routes of plain HTTP
//! in [`plain`]. They pass the same intake and the same finish.

pub mod body;
pub mod call;
pub mod ctx;
pub mod decide;
pub mod discover;
pub mod fault;
pub mod finish;
pub mod forward;
pub mod intake;
pub mod legacy_sse;
pub mod links;
pub mod local;
pub mod plain;
pub mod relay;
pub mod retry;
pub mod state;
pub mod stream;
pub mod tunnel;

use std::sync::Arc;
use std::time::Instant;

use crate::config::Transport;
use crate::mcp::HttpMethod;
use crate::route::RouteId;
use crate::transport::Downstream;
use crate::transport::dial::Dialer;
use call::Call;
use ctx::Ctx;
use fault::Fault;
use intake::Admitted;
use state::{InFlight, PoolState, Shared};

/// What the requests of one thread share: the process's state and the thread's own connections.
pub struct Worker {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    /// This thread's connections to endpoints.
    pub dialer: Arc<Dialer>,
}

/// Serves one exchange of the MCP lane, whatever comes of it.
pub async fn serve<D: Downstream>(worker: &Worker, down: &mut D) {
    let snapshot = worker.shared.snapshot.load_full();
    let mut ctx = Ctx::begin(snapshot, down.head(), Instant::now());
    let mut flight = worker.shared.flight.enter();
    if let Err(fault) = exchange(worker, down, &mut ctx, &mut flight).await {
        local::refuse(down, &mut ctx, fault).await;
    }
    finish::finish(&worker.shared, &ctx, down.info());
}

async fn exchange<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
) -> Result<(), Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    match intake::admit(&snapshot.config, down.head(), down.info())? {
        Admitted::Builtin(which) => {
            local::builtin(&worker.shared, down, ctx, which).await;
            Ok(())
        }
        Admitted::Route(route) => mcp(worker, down, ctx, flight, route).await,
    }
}

async fn mcp<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    flight: &mut InFlight,
    route: RouteId,
) -> Result<(), Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let route = &snapshot.config.routes[route.0];
    let pool = snapshot.pool(route.pool);
    ctx.pool = Some(pool.pool.name().into());
    if route.transport == Transport::Sse {
        return legacy_sse::serve(worker, down, ctx, flight, pool).await;
    }
    let mut call = call::understand(down, ctx, &snapshot.config.limits).await?;
    let served = understood(worker, down, ctx, flight, pool, &mut call).await;
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
) -> Result<(), Fault> {
    let aim = decide::decide(
        &worker.shared,
        pool,
        call,
        down.head(),
        down.info(),
        ctx,
        Instant::now(),
    )?;
    if call.is("server/discover") {
        return discover::serve(worker, down, ctx, pool, call, &aim, flight).await;
    }
    let is_stream = call.http == HttpMethod::Get;
    if is_stream {
        // Some servers send no head before their first event: it is a stream all the same.
        flight.becomes_stream();
    }
    let reply = match forward::forward(worker, down, ctx, pool, call, &aim).await {
        Ok(reply) => reply,
        // Clients give a stream up after two failures; one that ended they open again.
        Err(Fault::Draining | Fault::UpstreamClosed) if is_stream => {
            local::ended_stream(down, ctx).await;
            return Ok(());
        }
        Err(fault) => return Err(fault),
    };
    relay::relay(worker, down, ctx, pool, call, &aim, reply, flight).await
}
