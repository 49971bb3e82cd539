//! Waiting for a server without forgetting everything else that may happen meanwhile: the client
//! leaves, time runs out, the process is told to end, the endpoint is found dead by its checks.
//!
//! All of it hangs on one alarm per exchange, which also comes up when the phase of the process
//! changes; so a wait costs no timer and no subscription of its own.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::state::Phases;
use crate::pool::{Endpoint, HealthState};
use crate::transport::Downstream;

/// How long a call may wait on an endpoint that its checks have found down. An endpoint that is
/// only slow may still answer; one that vanished without a reset never will.
pub const LAST_HOPE: Duration = Duration::from_secs(30);
/// How often a wait looks whether its endpoint is still up.
const LOOK: Duration = Duration::from_secs(5);

/// What ended a wait that did not get what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The client went away.
    ClientGone,
    /// The process is ending its exchanges.
    Draining,
    /// Time ran out.
    Timeout,
    /// The endpoint has been down for so long that no answer can be hoped for.
    Vanished,
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::ClientGone => Self::ClientGone,
            Stop::Draining => Self::Draining,
            Stop::Timeout | Stop::Vanished => Self::UpstreamTimeout,
        }
    }
}

/// What to look out for while waiting on one endpoint.
pub struct Watch<'a> {
    endpoint: &'a Endpoint,
    phases: &'a Phases,
    limit: Duration,
    /// When the limit ends; not known before there was anything to wait for, which often there is
    /// not.
    deadline: Option<Option<Instant>>,
    down_since: Option<Instant>,
    /// When it has to end because of what the operator does, once that is known.
    leaves: Option<Instant>,
    /// Draws that moment; 0 while there is none to be drawn.
    lot: u64,
}

impl<'a> Watch<'a> {
    /// A watch that ends with `limit`, counted from the first wait; [`Duration::MAX`] is no limit.
    pub fn new(endpoint: &'a Endpoint, phases: &'a Phases, limit: Duration) -> Self {
        Self {
            endpoint,
            phases,
            limit,
            deadline: None,
            down_since: None,
            leaves: None,
            lot: 0,
        }
    }

    /// Begins the limit anew.
    pub fn again(&mut self) {
        self.deadline = None;
    }

    /// Waits for what `ready` waits for.
    ///
    /// # Errors
    /// What happened instead.
    pub async fn wait<D: Downstream, T>(
        &mut self,
        down: &mut D,
        mut ready: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Stop> {
        let mut armed = false;
        poll_fn(|context| {
            if let Poll::Ready(value) = ready(context) {
                return Poll::Ready(Ok(value));
            }
            if down.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Stop::ClientGone));
            }
            let leaves = self.is_to_leave();
            if leaves && self.leaves.is_some_and(|at| Instant::now() >= at) {
                return Poll::Ready(Err(Stop::Draining));
            }
            if !std::mem::replace(&mut armed, true) || leaves {
                self.arm(down, Instant::now());
            }
            while down.alarm().poll(context).is_ready() {
                let now = Instant::now();
                if let Some(stop) = self.look(now) {
                    return Poll::Ready(Err(stop));
                }
                self.arm(down, now);
            }
            Poll::Pending
        })
        .await
    }

    /// Is there a moment at which it has to end? Then it is in `leaves`.
    fn is_to_leave(&mut self) -> bool {
        self.leaves = self
            .phases
            .leaves_call(self.endpoint, self.lot)
            .map(|(at, _)| at);
        if self.leaves.is_some() && self.lot == 0 {
            self.lot = fastrand::u64(1..);
            return self.is_to_leave();
        }
        self.leaves.is_some()
    }

    /// Sets the alarm for the next look.
    fn arm<D: Downstream>(&mut self, down: &D, now: Instant) {
        let limit = self.limit;
        let deadline = *self.deadline.get_or_insert_with(|| now.checked_add(limit));
        let look = now + LOOK;
        let next = [deadline, self.leaves].into_iter().flatten().min();
        down.alarm().at(next.map_or(look, |next| next.min(look)));
    }

    fn look(&mut self, now: Instant) -> Option<Stop> {
        let deadline = self.deadline.flatten();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Stop::Timeout);
        }
        if self.endpoint.health() != HealthState::Down {
            self.down_since = None;
            return None;
        }
        let since = *self.down_since.get_or_insert(now);
        (now.saturating_duration_since(since) >= LAST_HOPE).then_some(Stop::Vanished)
    }
}

/// Resolves when an endpoint has been down for so long that no answer can be hoped for. For tunnels,
/// which have no alarm.
pub async fn vanished(endpoint: &Endpoint) {
    let mut down_for = Duration::ZERO;
    while down_for < LAST_HOPE {
        tokio::time::sleep(LOOK).await;
        down_for = match endpoint.health() {
            HealthState::Down => down_for + LOOK,
            HealthState::Up | HealthState::Unchecked | HealthState::Unwell => Duration::ZERO,
        };
    }
}
