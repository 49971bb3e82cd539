//! Choosing an endpoint together with a place at it, in pools where calls in flight are limited.
//!
//! Whether an endpoint is full is asked last: a backup does not help out because the primaries are
//! busy, and a busy endpoint is no worse than an idle one but for having no place. Calls wait for what
//! would be chosen if there were room.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::line::Priority;
use super::queue::{Full, Place, Queue, Waiting};
use super::{NoEndpoint, PickContext, Pool};

/// There is no place to be had at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Nor would waiting help.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
    /// Every endpoint that could take the call has as many as it may have.
    #[error("every endpoint that could take the call is busy")]
    Busy,
}

impl Pool {
    /// Counts calls in flight against what endpoints have in [`Endpoint::places`], and lets at most
    /// `max` calls wait. A pool in which no endpoint has a limit needs no queue.
    #[must_use]
    pub fn with_queue(self, max: usize) -> Self {
        let pool = self.with_queue_max(max);
        pool.count_places();
        pool
    }

    /// Lets at most `max` calls wait, should an endpoint ever get a limit.
    #[must_use]
    pub fn with_queue_max(mut self, max: usize) -> Self {
        self.queue_max = max;
        self
    }

    /// Sets how many calls an endpoint of this pool may have in flight; `None` for any number. Calls
    /// that were sent before any endpoint of the pool had a limit are not counted against it.
    pub fn limit(&self, endpoint: &Endpoint, max: Option<u32>) {
        endpoint.places.limit(max);
        if max.is_some() {
            self.count_places();
        }
    }

    fn count_places(&self) {
        self.queue
            .get_or_init(|| Queue::new(&self.endpoints, self.queue_max));
    }

    /// Those that wait, where calls in flight are limited.
    pub fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.get()
    }

    /// Chooses like [`Pool::pick`] among those with a place left, and takes it.
    ///
    /// # Errors
    /// [`NoPlace::Busy`] if there is none; then [`Pool::wait`].
    pub fn pick_place(
        &self,
        context: &PickContext<'_>,
        priority: Priority,
        rng: &mut fastrand::Rng,
    ) -> Result<(Arc<Endpoint>, Option<Place>), NoPlace> {
        let Some(queue) = self.queue() else {
            return Ok((self.pick(context, rng)?, None));
        };
        let mut candidates = self.candidates(context)?;
        let among = candidates.0;
        for at in among.iter().filter(|at| !queue.is_free(*at)) {
            candidates.0.remove(at);
        }
        while let Some(at) = self.choose(&candidates, context, rng) {
            if let Some(place) = queue.take(at, priority) {
                return Ok((Arc::clone(&self.endpoints[at]), Some(place)));
            }
            candidates.0.remove(at);
        }
        Err(NoPlace::Busy)
    }

    /// Takes a place at one endpoint; `Ok(None)` where none is needed.
    ///
    /// # Errors
    /// [`NoPlace::Busy`] if there is none; then [`Pool::wait_for`].
    pub fn place_at(&self, endpoint: u64, priority: Priority) -> Result<Option<Place>, NoPlace> {
        let (Some(queue), Some(at)) = (self.queue(), self.position(endpoint)) else {
            return Ok(None);
        };
        queue.take(at, priority).map(Some).ok_or(NoPlace::Busy)
    }

    /// Waits for a place at any endpoint that may take the call. `None` where no place is needed.
    ///
    /// # Errors
    /// [`NoPlace::NoEndpoint`], or [`NoPlace::Busy`] if as many wait as may.
    pub fn wait(
        &self,
        context: &PickContext<'_>,
        priority: Priority,
    ) -> Result<Option<Waiting>, NoPlace> {
        let Some(queue) = self.queue() else {
            return Ok(None);
        };
        let (among, _) = self.candidates(context)?;
        let waiting = queue.wait_any(among, priority);
        waiting.map(Some).map_err(|Full| NoPlace::Busy)
    }

    /// Waits for a place at one endpoint. `None` where no place is needed.
    ///
    /// # Errors
    /// [`NoPlace::Busy`] if as many wait as may.
    pub fn wait_for(&self, endpoint: u64, priority: Priority) -> Result<Option<Waiting>, NoPlace> {
        let (Some(queue), Some(at)) = (self.queue(), self.position(endpoint)) else {
            return Ok(None);
        };
        let waiting = queue.wait_only(at, priority);
        waiting.map(Some).map_err(|Full| NoPlace::Busy)
    }

    /// Looks anew which endpoints may take a call that waits for any. To be called a few times a
    /// second, since nobody tells those that wait that an endpoint has gone or come.
    ///
    /// # Errors
    /// That none may any more.
    pub fn look_again(
        &self,
        waiting: &mut Waiting,
        context: &PickContext<'_>,
    ) -> Result<(), NoEndpoint> {
        let (among, _) = self.candidates(context)?;
        waiting.turn_to(among);
        Ok(())
    }
}
