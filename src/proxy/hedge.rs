//! A second endpoint that is asked for a list when the first one takes its time; the first answer
//! counts, and the other is let go.
//!
//! Only for what may be sent twice, is there as a whole and may be asked of any endpoint; and the
//! second request is charged to the pool's budget like any other second attempt.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Worker;
use super::call::Call;
use super::decide::Aim;
use super::fault::Fault;
use super::forward::{await_head, of_read, send};
use super::forwarded;
use super::shortage;
use super::state::PoolState;
use super::watch::{Stop, Watch};
use crate::config::Config;
use crate::mcp::method;
use crate::pool::{CallPermit, Endpoint, PickContext, Priority};
use crate::telemetry::{self, RetryOutcome};
use crate::transport::dial::Up;
use crate::transport::{Downstream, Upstream};

/// After which time a second endpoint is asked as well, if that is wanted and may be done.
pub fn after(pool: &PoolState, call: &Call, aim: &Aim) -> Option<Duration> {
    let after = pool.config.retries.as_ref()?.hedge_after?;
    let method = call.method.as_deref()?;
    let is_list = method::facts(method).is_some_and(|facts| facts.listable);
    let anywhere = matches!(aim, Aim::Any { .. });
    (is_list && anywhere && call.body.is_whole()).then_some(after)
}

/// Waits for the head of the first answer. The permit of the endpoint whose answer it is, if it is
/// not the one that was asked first.
pub async fn first_head<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    config: &Config,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
    first: (&mut Up, &Arc<Endpoint>),
    times: (Duration, Duration),
) -> Result<Option<CallPermit>, Fault> {
    let (up, endpoint) = first;
    let (after, limit) = times;
    let phases = &worker.shared.phases;
    {
        let mut watch = Watch::new(endpoint, phases, after.min(limit));
        let mut reading = std::pin::pin!(up.read_head());
        let read = watch.wait(down, |context| reading.as_mut().poll(context));
        match read.await {
            Ok(read) => return of_read(read).map(|()| None),
            Err(Stop::Timeout) if after < limit => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    let left = limit.saturating_sub(after);
    let Some((mut other, permit)) = second(worker, down, config, pool, call, aim, endpoint).await
    else {
        return await_head(worker, down, up, endpoint, left)
            .await
            .map(|()| None);
    };
    let is_second = {
        let mut watch = Watch::new(endpoint, phases, left);
        let mut readings = (
            std::pin::pin!(up.read_head()),
            std::pin::pin!(other.read_head()),
        );
        let mut failures = (None, None);
        let waited = watch.wait(down, |context| {
            if failures.0.is_none()
                && let Poll::Ready(read) = readings.0.as_mut().poll(context)
            {
                match of_read(read) {
                    Ok(()) => return Poll::Ready(Ok(false)),
                    Err(fault) => failures.0 = Some(fault),
                }
            }
            if failures.1.is_none()
                && let Poll::Ready(read) = readings.1.as_mut().poll(context)
            {
                match of_read(read) {
                    Ok(()) => return Poll::Ready(Ok(true)),
                    Err(fault) => failures.1 = Some(fault),
                }
            }
            match failures {
                (Some(fault), Some(_)) => Poll::Ready(Err(fault)),
                _ => Poll::Pending,
            }
        });
        waited.await.map_err(Fault::from)??
    };
    let outcome = if is_second {
        RetryOutcome::Success
    } else {
        RetryOutcome::Failed
    };
    telemetry::retried(pool.pool.name(), outcome);
    Ok(is_second.then(|| {
        *up = other;
        permit
    }))
}

/// Sends the call to another endpoint. `None` if there is none, or the budget is used up.
async fn second<D: Downstream>(
    worker: &Worker,
    down: &mut D,
    config: &Config,
    pool: &Arc<PoolState>,
    call: &mut Call,
    aim: &Aim,
    first: &Endpoint,
) -> Option<(Up, CallPermit)> {
    let Aim::Any { need, key } = aim else {
        return None;
    };
    let now = worker.shared.moment(Instant::now());
    let context = PickContext {
        key: *key,
        exclude: &[first.id()],
        need: *need,
        now,
    };
    // It does not wait for a place: the first one is on its way.
    let rng = &mut fastrand::Rng::new();
    let picked = pool.pool.pick_place(&context, Priority::Ordinary, rng);
    let (endpoint, place) = picked.ok()?;
    if !pool.may_retry(now) {
        telemetry::retried(pool.pool.name(), RetryOutcome::OverBudget);
        return None;
    }
    let mut permit = pool.pool.enter(&endpoint, now).ok()?;
    permit.hold(place);
    let client = forwarded::client(&config.proxies, down.head(), down.info());
    let client = forwarded::announced(client, down.info());
    let (target, authority) = pool.target(endpoint.id(), endpoint.address()?, client)?;
    let dialed = worker.dialer.open(target, Some(down.alarm())).await;
    let mut up = dialed.inspect_err(shortage::tell).ok()?;
    send(down, config, pool, call, aim, authority, &mut up)
        .await
        .ok()?;
    Some((up, permit))
}
