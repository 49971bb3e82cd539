//! A second endpoint that is asked for a list, or for what it is (`server/discover`), when the first one
//! takes its time; the first answer counts, and the other is let go.
//!
//! Only for what may be sent twice, is there as a whole and may be asked of any endpoint; and the
//! second request is charged to the pool's budget like any other second attempt. The first answer is
//! listened for all the while, also while the second endpoint is being connected to: asking it may
//! gain time, and never costs any.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Worker;
use super::body::Body;
use super::call::Call;
use super::decide::Aim;
use super::fault::Fault;
use super::flight::own_shard;
use super::forward::{not_reached, of_read, put_head};
use super::forwarded;
use super::outcome;
use super::state::{Phases, PoolState};
use super::watch::{Stop, Watch};
use crate::config::Config;
use crate::mcp::method;
use crate::pool::{CallPermit, Endpoint, PickContext, Priority};
use crate::telemetry::{self, RetryOutcome};
use crate::transport::dial::Up;
use crate::transport::{Downstream, Error, Upstream};

/// When a second endpoint is asked for what it is, of which any server knows the answer at once.
const DISCOVER_AFTER: Duration = Duration::from_secs(1);

/// After which time a second endpoint is asked as well, if that is wanted and may be done.
pub fn after(pool: &PoolState, call: &Call, aim: &Aim) -> Option<Duration> {
    let retries = pool.config.retries.as_ref()?;
    let method = call.method.as_deref()?;
    let after = match method::facts(method) {
        Some(facts) if facts.listable => retries.hedge_after?,
        _ if method == "server/discover" => DISCOVER_AFTER,
        _ => return None,
    };
    let anywhere = matches!(aim, Aim::Any { .. });
    (anywhere && call.body.is_whole()).then_some(after)
}

/// A call that two endpoints may be asked for.
pub struct Hedge<'a> {
    /// Whose thread it is.
    pub worker: &'a Worker,
    /// What the request goes by.
    pub config: &'a Config,
    /// Where it goes.
    pub pool: &'a Arc<PoolState>,
    /// The call, of which all is here.
    pub call: &'a Call,
    /// [`Aim::Any`].
    pub aim: &'a Aim,
    /// When the second endpoint is asked.
    pub after: Duration,
    /// How long all of it may take.
    pub limit: Duration,
}

/// The second endpoint has answered first.
pub struct Instead {
    /// Its permit.
    pub permit: CallPermit,
    /// Why there is no answer of the first one, if that is known and says something of it.
    pub broken: Option<Fault>,
}

impl Hedge<'_> {
    /// Waits for the head of the first answer, which is that of `up` then. `tried` are the endpoints
    /// that were asked before; the second one is among them once it has failed.
    ///
    /// # Errors
    /// Why there is no answer of the first endpoint, nor of another.
    pub async fn first_head<D: Downstream>(
        &self,
        down: &mut D,
        up: &mut Up,
        endpoint: &Endpoint,
        tried: &mut Vec<u64>,
    ) -> Result<Option<Instead>, Fault> {
        let reused = up.reused();
        let won = {
            let mut first = First {
                reading: std::pin::pin!(up.read_head()),
                endpoint,
                phases: &self.worker.shared.phases,
                broken: None,
            };
            let deadline = Instant::now().checked_add(self.limit);
            match first.alone(down, self.after.min(self.limit)).await {
                Err(Stop::Timeout) if self.after < self.limit => {}
                read => return of_read(read?).map(|()| None),
            }
            self.race(down, &mut first, tried, deadline).await?
        };
        Ok(won.map(|(other, permit, broken)| {
            *up = other;
            Instead {
                permit,
                broken: broken.filter(|fault| !is_stale(*fault, reused)),
            }
        }))
    }

    /// Asks a second endpoint. What it has answered first with, and what became of the first one;
    /// `None` if the first one's answer counts.
    async fn race<D: Downstream, F: Future<Output = Result<(), Error>>>(
        &self,
        down: &mut D,
        first: &mut First<'_, F>,
        tried: &mut Vec<u64>,
        deadline: Option<Instant>,
    ) -> Result<Option<(Up, CallPermit, Option<Fault>)>, Fault> {
        let left = || {
            deadline.map_or(Duration::MAX, |at| {
                at.saturating_duration_since(Instant::now())
            })
        };
        let pool = &self.pool.pool;
        let Some(mut permit) = self.second(first.endpoint, tried) else {
            return of_read(first.alone(down, left()).await?).map(|()| None);
        };
        let failed = match self.ask(down, first, &permit, left).await? {
            None => None,
            Some(Ok(other)) => {
                telemetry::retried(pool.name(), RetryOutcome::Success);
                return Ok(Some((other, permit, first.broken)));
            }
            Some(Err(failed)) => Some(failed),
        };
        telemetry::retried(pool.name(), RetryOutcome::Failed);
        let Some((fault, is_stale)) = failed else {
            return Ok(None);
        };
        if !is_stale {
            let said = outcome::of_fault(fault);
            outcome::report(&self.worker.shared, self.pool, &mut permit, said);
        }
        tried.push(permit.endpoint().id());
        // Its place is another's while the first one is waited for.
        drop(permit);
        match first.broken {
            Some(fault) => Err(fault),
            None => of_read(first.alone(down, left()).await?).map(|()| None),
        }
    }

    /// Another endpoint, if there is one and the budget is not used up.
    fn second(&self, first: &Endpoint, tried: &[u64]) -> Option<CallPermit> {
        let Aim::Any { need, key } = self.aim else {
            return None;
        };
        let pool = self.pool;
        let now = self.worker.shared.moment(Instant::now());
        let mut exclude = tried.to_vec();
        exclude.push(first.id());
        let context = PickContext {
            key: *key,
            exclude: &exclude,
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
        Some(permit)
    }

    /// Connects to the second endpoint, sends the call and waits for the head of the answer, unless
    /// that of the first one comes before. Of a failure, whether it is a stale connection's.
    async fn ask<D: Downstream, F: Future<Output = Result<(), Error>>>(
        &self,
        down: &mut D,
        first: &mut First<'_, F>,
        permit: &CallPermit,
        left: impl Fn() -> Duration,
    ) -> Result<Option<Result<Up, (Fault, bool)>>, Fault> {
        let (pool, endpoint) = (self.pool, permit.endpoint());
        let client = forwarded::client(&self.config.proxies, down.head(), down.info());
        let client = forwarded::announced(client, down.info());
        let target = endpoint
            .address()
            .and_then(|address| pool.target(endpoint.id(), address, client));
        let Some((target, authority)) = target else {
            return Ok(Some(Err((Fault::Connect, false))));
        };
        // Without the alarm of the exchange, which the wait for both hangs on and which bounds them.
        let asked = Instant::now();
        let dialing = self.worker.dialer.open(target, None);
        let Some(dialed) = first.or(down, left(), dialing).await? else {
            return Ok(None);
        };
        let mut other = match dialed {
            Ok(other) => other,
            Err(error) => {
                let fault = not_reached(pool, endpoint, &error);
                if fault == Fault::Connect {
                    self.worker.shared.chores.suspect(endpoint);
                }
                return Ok(Some(Err((fault, false))));
            }
        };
        endpoint.note_reached(true);
        let connected = Instant::now();
        if !other.reused() {
            let took = connected.saturating_duration_since(asked);
            endpoint.timings.connected(took);
        }
        let put = put_head(
            down,
            self.config,
            pool,
            self.call,
            self.aim,
            authority,
            &mut other,
        );
        let asking = async {
            put.map_err(|_| Error::Closed)?;
            post(&mut other, &self.call.body).await
        };
        let Some(asked) = first.or(down, left(), asking).await? else {
            return Ok(None);
        };
        Ok(Some(match of_read(asked) {
            Ok(()) => {
                endpoint.timings.answered(own_shard(), connected.elapsed());
                Ok(other)
            }
            Err(fault) => Err((fault, is_stale(fault, other.reused()))),
        }))
    }
}

/// Sends the body behind the head, and reads the head of the answer.
async fn post(up: &mut Up, body: &Body) -> Result<(), Error> {
    for chunk in &body.chunks {
        up.send_body(chunk).await?;
    }
    up.finish().await?;
    up.read_head().await
}

/// Servers close idle connections at any time: that says nothing of them.
fn is_stale(fault: Fault, reused: bool) -> bool {
    reused && fault == Fault::UpstreamClosed
}

/// The first endpoint's answer, which may come at any time.
struct First<'a, F> {
    reading: Pin<&'a mut F>,
    endpoint: &'a Endpoint,
    phases: &'a Phases,
    /// Why it will not come.
    broken: Option<Fault>,
}

impl<F: Future<Output = Result<(), Error>>> First<'_, F> {
    /// Waits for it.
    async fn alone<D: Downstream>(
        &mut self,
        down: &mut D,
        limit: Duration,
    ) -> Result<Result<(), Error>, Stop> {
        let mut watch = Watch::new(self.endpoint, self.phases, limit);
        let read = watch.wait(down, |context| self.reading.as_mut().poll(context));
        read.await
    }

    /// Waits for it or for `other`; `None` if it is there first. Should it break, `other` is waited for.
    async fn or<D: Downstream, O: Future>(
        &mut self,
        down: &mut D,
        limit: Duration,
        other: O,
    ) -> Result<Option<O::Output>, Stop> {
        let mut other = std::pin::pin!(other);
        let mut watch = Watch::new(self.endpoint, self.phases, limit);
        let either = watch.wait(down, |context| {
            if self.broken.is_none()
                && let Poll::Ready(read) = self.reading.as_mut().poll(context)
            {
                match of_read(read) {
                    Ok(()) => return Poll::Ready(None),
                    Err(fault) => self.broken = Some(fault),
                }
            }
            other.as_mut().poll(context).map(Some)
        });
        either.await
    }
}
