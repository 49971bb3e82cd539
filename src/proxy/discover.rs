//! `server/discover`, the most delicate exchange there is: clients decide by its answer which era
//! the whole origin speaks, some of them for good, and one 503 demotes them to sessions.
//!
//! So it is never refused while there is anything to say. An endpoint answers if one can; else the
//! last good answer of the pool is given, which the protocol allows; and when nothing is known
//! yet, the request waits a few seconds for a server to come up, or for one to answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::ctx::Ctx;
use super::decide::Aim;
use super::fault::Fault;
use super::flight::InFlight;
use super::forward::{Reply, forward};
use super::local;
use super::relay::relay;
use super::state::{DISCOVER_HOLD, PoolState};
use super::{Next, Worker};
use crate::mcp::answer;
use crate::transport::{Downstream, Upstream};

/// How often a waiting probe looks for an endpoint.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a server may take where an earlier answer is at hand.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long all of it may take where none is.
const ANSWER_TIME: Duration = Duration::from_secs(8);
/// A server that keeps within its time is not to be cut off because a timer is coarse, nor one that
/// does not to go unnoticed: what bounds the server comes first, what bounds all else a little later.
const GRAIN: Duration = Duration::from_millis(250);

/// Serves a `server/discover` request.
///
/// # Errors
/// [`Fault::NoEndpoint`] and its kin only when nothing is known and no endpoint came up, or answered,
/// in time.
pub async fn serve<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
    flight: &mut InFlight,
) -> Result<Next, Fault> {
    let began = Instant::now();
    let deadline = began + DISCOVER_HOLD;
    let over = began + ANSWER_TIME;
    // What the first attempt streams past us is not here for another one.
    let whole = call.body.ended;
    loop {
        let last = !whole || Instant::now() >= deadline;
        let until = match pool.discover.load().is_some() {
            true => over.min(Instant::now() + PATIENCE),
            false => over,
        };
        call.answer_within = left(until);
        let asked = forward(worker, down, ctx, pool, call, aim);
        let asked = timeout_at(until + GRAIN, asked).await;
        let fault = match asked.unwrap_or(Err(Fault::UpstreamTimeout)) {
            Ok(reply) if is_of_use(&reply) || (last && pool.discover.load().is_none()) => {
                call.answer_within = left(until);
                match relay(worker, down, ctx, pool, call, aim, reply, flight).await {
                    Ok(next) => return Ok(next),
                    // Nothing was sent to the client yet.
                    Err(fault) => fault,
                }
            }
            Ok(_) => Fault::UpstreamFailed,
            Err(fault) => fault,
        };
        if fault == Fault::ClientGone {
            return Err(fault);
        }
        if let Some(known) = pool.discover.load_full()
            && let Some(id) = ctx.id.clone()
        {
            ctx.endpoint = None;
            local::json(down, ctx, answer::result(&id, &known)).await;
            return Ok(Next::Done);
        }
        if last || fault == Fault::Draining || Instant::now() >= over {
            return Err(match fault {
                // 504 is a word about the server, and there may be others soon.
                Fault::UpstreamTimeout => Fault::NoEndpoint,
                fault => fault,
            });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = down.gone() => return Err(Fault::ClientGone),
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// A server in trouble answers 5xx; everything else is its word.
fn is_of_use(reply: &Reply) -> bool {
    reply.up.head().status() < 500
}
