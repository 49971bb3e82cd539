//! `server/discover`, the most delicate exchange there is: clients decide by its answer which era
//! the whole origin speaks, some of them for good, and one 503 demotes them to sessions.
//!
//! So it is never refused while there is anything to say. An endpoint answers if one can; else the
//! last good answer of the pool is given, which the protocol allows; and when nothing is known
//! yet, the request waits a few seconds for a server to come up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

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

/// Serves a `server/discover` request.
///
/// # Errors
/// [`Fault::NoEndpoint`] and its kin only when nothing is known and no endpoint came up in time.
pub async fn serve<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
    flight: &mut InFlight,
) -> Result<Next, Fault> {
    let deadline = Instant::now() + DISCOVER_HOLD;
    // What the first attempt streams past us is not here for another one.
    let whole = call.body.ended;
    loop {
        let last = !whole || Instant::now() >= deadline;
        let asked = forward(worker, down, ctx, pool, call, aim);
        let asked = if pool.discover.load().is_some() {
            let answered = timeout(PATIENCE, asked).await;
            answered.unwrap_or(Err(Fault::UpstreamTimeout))
        } else {
            asked.await
        };
        let fault = match asked {
            Ok(reply) if is_of_use(&reply) || (last && pool.discover.load().is_none()) => {
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
        if last || fault == Fault::Draining {
            return Err(fault);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = down.gone() => return Err(Fault::ClientGone),
        }
    }
}

/// A server in trouble answers 5xx; everything else is its word.
fn is_of_use(reply: &Reply) -> bool {
    reply.up.head().status() < 500
}
