//! Waiting for a place at an endpoint that has as many calls in flight as it may have.
//!
//! Whoever finds no place waits in a line, and a place that is given back goes straight to the
//! next in it: it is never free in between, so nobody who comes later can take it, and nobody is woken
//! in vain. While nobody waits in a pool, taking a place and giving it back are an addition each, and
//! no lock is taken.
//!
//! Everything is given back by being dropped: a [`Place`], and a [`Waiting`] whose owner has left,
//! with the place that it may have been given meanwhile.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use super::balance::Candidates;
use super::endpoint::Endpoint;
use super::health::HealthState;
use super::line::{Line, Priority, Turn, Want};

/// The places of a pool's endpoints, and those that wait for one.
pub struct Queue {
    endpoints: Box<[Arc<Endpoint>]>,
    /// How many wait. Written under the lock, read by whoever gives a place back.
    waiting: AtomicUsize,
    line: Mutex<Line<Arc<Slot>>>,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many calls wait for a place")]
pub struct Full;

/// Where a place is left for whoever waits.
#[derive(Default)]
struct Slot(Mutex<Left>);

#[derive(Default)]
struct Left {
    place: Option<Place>,
    waker: Option<Waker>,
}

/// A place at an endpoint, until dropped.
#[must_use = "the place is given back when this is dropped"]
pub struct Place {
    queue: Arc<Queue>,
    at: usize,
}

/// A turn in the line, given up when dropped.
#[must_use = "the turn is given up when this is dropped"]
pub struct Waiting {
    queue: Arc<Queue>,
    want: Want,
    turn: Turn,
    slot: Arc<Slot>,
}

/// Those to be woken once no lock is held.
type Woken = SmallVec<[Waker; 1]>;

impl Queue {
    /// The places of these endpoints, for which at most `max` calls wait at once.
    pub(super) fn new(endpoints: &[Arc<Endpoint>], max: usize) -> Arc<Self> {
        Arc::new(Self {
            endpoints: endpoints.into(),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(Line::new(max, endpoints.len())),
        })
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Is there a place at `at`? By the time it is wanted it may be gone.
    pub(super) fn is_free(&self, at: usize) -> bool {
        self.endpoints[at].places.is_free()
    }

    /// Takes a place at `at`, unless there is none or somebody's turn comes first.
    pub(super) fn take(self: &Arc<Self>, at: usize, priority: Priority) -> Option<Place> {
        let places = &self.endpoints[at].places;
        let taken = match self.waiting() {
            0 => places.take(),
            _ => {
                let line = self.lock();
                !line.is_wanted(at, priority) && places.take()
            }
        };
        taken.then(|| self.place(at))
    }

    /// Waits for a place at `at`.
    pub(super) fn wait_only(
        self: &Arc<Self>,
        at: usize,
        priority: Priority,
    ) -> Result<Waiting, Full> {
        self.wait(Want::Only(at), priority)
    }

    /// Waits for a place at any of these.
    pub(super) fn wait_any(
        self: &Arc<Self>,
        among: Candidates,
        priority: Priority,
    ) -> Result<Waiting, Full> {
        self.wait(Want::Any(among), priority)
    }

    fn wait(self: &Arc<Self>, want: Want, priority: Priority) -> Result<Waiting, Full> {
        let slot = Arc::new(Slot::default());
        let mut line = self.lock();
        let turn = line.join(want, priority, Arc::clone(&slot)).ok_or(Full)?;
        self.waiting.store(line.len(), SeqCst);
        // A place may have come free since it was looked for.
        let woken = self.fill(&mut line, want);
        drop(line);
        wake(woken);
        Ok(Waiting {
            queue: Arc::clone(self),
            want,
            turn,
            slot,
        })
    }

    /// Gives the free places at the wanted endpoints to whoever is next for them.
    fn fill(self: &Arc<Self>, line: &mut Line<Arc<Slot>>, want: Want) -> Woken {
        let mut woken = Woken::new();
        match want {
            Want::Only(at) => self.fill_at(line, at, &mut woken),
            Want::Any(among) => among
                .iter()
                .for_each(|at| self.fill_at(line, at, &mut woken)),
        }
        self.waiting.store(line.len(), SeqCst);
        woken
    }

    fn fill_at(self: &Arc<Self>, line: &mut Line<Arc<Slot>>, at: usize, woken: &mut Woken) {
        let endpoint = &self.endpoints[at];
        // Whoever waits for one that is lost is told so, or goes elsewhere, when it next looks.
        while line.is_wanted(at, Priority::Ordinary)
            && endpoint.health() != HealthState::Down
            && endpoint.places.take()
        {
            let Some(slot) = line.next(at) else {
                endpoint.places.give_back();
                return;
            };
            let mut left = slot.lock();
            left.place = Some(self.place(at));
            woken.extend(left.waker.take());
        }
    }

    fn place(self: &Arc<Self>, at: usize) -> Place {
        Place {
            queue: Arc::clone(self),
            at,
        }
    }

    fn give_back(self: &Arc<Self>, at: usize) {
        self.endpoints[at].places.give_back();
        if self.waiting() == 0 {
            return;
        }
        let mut line = self.lock();
        let woken = self.fill(&mut line, Want::Only(at));
        drop(line);
        wake(woken);
    }

    fn lock(&self) -> MutexGuard<'_, Line<Arc<Slot>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asserts that nobody waits for a place that is free, but at an endpoint that is down, and that those that wait are counted.
    ///
    /// # Panics
    /// If that is not so, which is a bug of this module.
    pub fn check_invariants(&self) {
        let line = self.lock();
        assert_eq!(line.len(), self.waiting(), "those that wait are counted");
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let free = endpoint.places.is_free() && endpoint.health() != HealthState::Down;
            let wanted = line.is_wanted(at, Priority::Ordinary);
            assert!(
                !(free && wanted),
                "a place at {} lies idle",
                endpoint.name()
            );
        }
    }
}

impl Place {
    /// The endpoint at which it is.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.queue.endpoints[self.at]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.give_back(self.at);
    }
}

impl Waiting {
    /// The place, once it is there. Not to be called again then.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Place> {
        let mut left = self.slot.lock();
        if let Some(place) = left.place.take() {
            return Poll::Ready(place);
        }
        match &mut left.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Looks for a place at any of these from now on, in place of those from before. The turn stays.
    pub(super) fn turn_to(&mut self, among: Candidates) {
        if matches!(self.want, Want::Any(_)) {
            self.want = Want::Any(among);
            self.queue.lock().turn_to(self.turn, among);
        }
        self.look_again();
    }

    /// Looks again for a place, of which nobody tells when an endpoint has come back.
    pub fn look_again(&mut self) {
        let mut line = self.queue.lock();
        let woken = self.queue.fill(&mut line, self.want);
        drop(line);
        wake(woken);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        line.leave(self.want, self.turn);
        self.queue.waiting.store(line.len(), SeqCst);
        drop(line);
        // Given to it meanwhile; it goes to the next.
        let left = self.slot.lock().place.take();
        drop(left);
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(woken: Woken) {
    woken.into_iter().for_each(Waker::wake);
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} wait)", self.waiting())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place(at {})", self.endpoint().name())
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiting({:?})", self.turn)
    }
}

#[cfg(test)]
mod tests;
