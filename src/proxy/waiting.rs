//! An endpoint for a call, and a place at it: at once, or after a wait.
//!
//! In pools with a `max_in_flight` a call that finds every place taken waits for one, first come first
//! served: for any endpoint if it may go anywhere, for the one that owns its session otherwise. What
//! goes before others, and why:
//!
//! - DELETE frees what its session holds on the server;
//! - `server/discover` and `ping` are answered at once, and clients that hear nothing take a server for
//!   an old one, or for dead.
//!
//! What takes no place at all: standing streams (GET, `subscriptions/listen`), which would hold one for
//! hours; and messages that ask for no answer, notifications and a client's responses. A call in flight
//! may be waiting for just those: were they to wait for it, both would wait for ever.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::call::Call;
use super::ctx::Ctx;
use super::decide::Aim;
use super::fault::Fault;
use super::state::{Phase, PoolState, Shared};
use super::termination::Step;
use crate::mcp::HttpMethod;
use crate::pool::{Endpoint, HealthState, NoPlace, PickContext, Place, Priority, Waiting};
use crate::telemetry;
use crate::transport::Downstream;

/// How often one that waits looks whether its endpoint is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Where a call is to go, and its place there if it takes one.
pub type Placed = (Arc<Endpoint>, Option<Place>);

/// Finds the call an endpoint, and waits for a place where it takes one. `now` is moved on by what it
/// has waited.
///
/// # Errors
/// [`Fault::NoEndpoint`]; [`Fault::QueueFull`], [`Fault::QueueTimeout`]; what else may happen to one
/// that waits.
pub async fn place<D: Downstream>(
    shared: &Shared,
    down: &mut D,
    ctx: &mut Ctx,
    pool: &PoolState,
    call: &Call,
    aim: &Aim,
    tried: &[u64],
    now: &mut Instant,
) -> Result<Placed, Fault> {
    let priority = match takes_place(pool, call) {
        true => Some(priority(call)),
        false => None,
    };
    match aim {
        Aim::Bound(bound) => {
            let endpoint = Arc::clone(&bound.endpoint);
            let Some(priority) = priority else {
                return Ok((endpoint, None));
            };
            let found = pool.pool.place_at(endpoint.id(), priority);
            if let Ok(place) = found {
                return Ok((endpoint, place));
            }
            let waiting = pool.pool.wait_for(endpoint.id(), priority);
            let wait = Wait::new(shared, pool, waiting, Wanted::Only(&endpoint))?;
            let place = waited(ctx, wait, down, call, now).await?;
            Ok((endpoint, Some(place)))
        }
        Aim::Any { need, key } => {
            let context = PickContext {
                key: *key,
                exclude: tried,
                need: *need,
                now: shared.moment(*now),
            };
            let Some(priority) = priority else {
                let picked = pool.pool.pick(&context, &mut fastrand::Rng::new());
                return Ok((picked?, None));
            };
            if let Some(placed) = at_once(pool, &context, priority)? {
                return Ok(placed);
            }
            let waiting = pool.pool.wait(&context, priority);
            let wait = Wait::new(shared, pool, waiting, Wanted::Any(&context))?;
            let place = waited(ctx, wait, down, call, now).await?;
            Ok((Arc::clone(place.endpoint()), Some(place)))
        }
    }
}

async fn waited<D: Downstream>(
    ctx: &mut Ctx,
    wait: Wait<'_>,
    down: &mut D,
    call: &Call,
    now: &mut Instant,
) -> Result<Place, Fault> {
    ctx.step = Step::Queue;
    let since = *now;
    // Boxed: calls that find a place should not hold the room for it.
    let place = Box::pin(wait.with(down, call.body.ended)).await;
    *now = Instant::now();
    ctx.queued(now.saturating_duration_since(since));
    place
}

/// The same where there is no client that could be watched meanwhile: for a request of a plain route,
/// and for a session that is begun again.
///
/// # Errors
/// As [`place`].
pub async fn place_alone(
    shared: &Shared,
    pool: &PoolState,
    context: &PickContext<'_>,
) -> Result<Placed, Fault> {
    if let Some(placed) = at_once(pool, context, Priority::Ordinary)? {
        return Ok(placed);
    }
    let waiting = pool.pool.wait(context, Priority::Ordinary);
    let wait = Wait::new(shared, pool, waiting, Wanted::Any(context))?;
    let place = Box::pin(wait.alone()).await?;
    Ok((Arc::clone(place.endpoint()), Some(place)))
}

/// The same at the endpoint that the client's cookie names.
///
/// # Errors
/// As [`place`].
pub async fn place_plain_at(
    shared: &Shared,
    pool: &PoolState,
    endpoint: &Arc<Endpoint>,
) -> Result<Option<Place>, Fault> {
    if let Ok(place) = pool.pool.place_at(endpoint.id(), Priority::Ordinary) {
        return Ok(place);
    }
    let waiting = pool.pool.wait_for(endpoint.id(), Priority::Ordinary);
    let wait = Wait::new(shared, pool, waiting, Wanted::Only(endpoint))?;
    Box::pin(wait.alone()).await.map(Some)
}

fn at_once(
    pool: &PoolState,
    context: &PickContext<'_>,
    priority: Priority,
) -> Result<Option<Placed>, Fault> {
    let picked = pool
        .pool
        .pick_place(context, priority, &mut fastrand::Rng::new());
    match picked {
        Ok(placed) => Ok(Some(placed)),
        Err(NoPlace::Busy) => Ok(None),
        Err(NoPlace::NoEndpoint(reason)) => Err(reason.into()),
    }
}

/// Does this call count as one in flight?
fn takes_place(pool: &PoolState, call: &Call) -> bool {
    let asks = || !call.body.ended || !call.owed.is_empty();
    pool.pool.queue().is_some()
        && match call.http {
            HttpMethod::Get => false,
            HttpMethod::Post => asks() && !call.is("subscriptions/listen"),
            HttpMethod::Delete | HttpMethod::Other => true,
        }
}

fn priority(call: &Call) -> Priority {
    let urgent = call.http == HttpMethod::Delete || call.is("server/discover") || call.is("ping");
    match urgent {
        true => Priority::Urgent,
        false => Priority::Ordinary,
    }
}

/// What is waited for.
enum Wanted<'a> {
    Any(&'a PickContext<'a>),
    Only(&'a Endpoint),
}

/// A wait for a place.
struct Wait<'a> {
    shared: &'a Shared,
    pool: &'a PoolState,
    waiting: Waiting,
    wanted: Wanted<'a>,
    began: Instant,
    deadline: Instant,
}

/// However it ends, and be it that nobody waits for it any more.
impl Drop for Wait<'_> {
    fn drop(&mut self) {
        telemetry::queue_waited(self.pool.pool.name(), self.began.elapsed());
    }
}

impl<'a> Wait<'a> {
    fn new(
        shared: &'a Shared,
        pool: &'a PoolState,
        waiting: Result<Option<Waiting>, NoPlace>,
        wanted: Wanted<'a>,
    ) -> Result<Self, Fault> {
        let waiting = match waiting {
            Ok(Some(waiting)) => waiting,
            Ok(None) => return Err(Fault::NoEndpoint),
            Err(NoPlace::NoEndpoint(reason)) => return Err(reason.into()),
            Err(NoPlace::Busy) if pool.config.queue.max == 0 => return Err(Fault::InFlight),
            Err(NoPlace::Busy) => return Err(Fault::QueueFull),
        };
        let began = Instant::now();
        Ok(Self {
            shared,
            pool,
            waiting,
            wanted,
            began,
            deadline: began + pool.config.queue.timeout,
        })
    }

    /// Waits on behalf of a client, which may leave: that is noticed once all of its request is here.
    async fn with<D: Downstream>(mut self, down: &mut D, is_whole: bool) -> Result<Place, Fault> {
        let mut armed = false;
        poll_fn(|context| {
            if let Poll::Ready(place) = self.waiting.poll(context) {
                return Poll::Ready(Ok(place));
            }
            if is_whole && down.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Fault::ClientGone));
            }
            if self.shared.phase() == Phase::Ending {
                return Poll::Ready(Err(Fault::Draining));
            }
            if !std::mem::replace(&mut armed, true) {
                down.alarm().at(self.next_look(Instant::now()));
            }
            while down.alarm().poll(context).is_ready() {
                let now = Instant::now();
                if let Err(fault) = self.look(now) {
                    return Poll::Ready(Err(fault));
                }
                if let Poll::Ready(place) = self.waiting.poll(context) {
                    return Poll::Ready(Ok(place));
                }
                down.alarm().at(self.next_look(now));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits without anybody to watch.
    async fn alone(mut self) -> Result<Place, Fault> {
        loop {
            let left = self.next_look(Instant::now());
            let left = left.saturating_duration_since(Instant::now());
            let place = poll_fn(|context| self.waiting.poll(context));
            if let Ok(place) = timeout(left, place).await {
                return Ok(place);
            }
            if self.shared.phase() == Phase::Ending {
                return Err(Fault::Draining);
            }
            self.look(Instant::now())?;
        }
    }

    fn next_look(&self, now: Instant) -> Instant {
        self.deadline.min(now + LOOK)
    }

    /// Has the time run out, or the wait lost its sense?
    fn look(&mut self, now: Instant) -> Result<(), Fault> {
        if now >= self.deadline {
            return Err(Fault::QueueTimeout);
        }
        match self.wanted {
            Wanted::Any(context) => {
                let context = PickContext {
                    now: self.shared.moment(now),
                    ..*context
                };
                let looked = self.pool.pool.look_again(&mut self.waiting, &context);
                looked.map_err(Fault::from)
            }
            // What becomes of its session is for the next request to find out.
            Wanted::Only(endpoint) if endpoint.health() == HealthState::Down => {
                Err(Fault::NoEndpoint)
            }
            Wanted::Only(_) => {
                self.waiting.look_again();
                Ok(())
            }
        }
    }
}
