//! What is open and lasts, for operators to look at: streams of MCP, WebSockets, and event streams on
//! plain routes.
//!
//! Each thread keeps a list of its own, under a lock that is taken when something of it begins, moves or
//! ends, and when somebody looks: never by a call, and never by what passes on a stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ctx::Ctx;
use super::flight::{SHARDS, own_shard};
use super::state::PoolState;
use crate::pool::Endpoint;
use crate::telemetry::SessionTag;

/// Something that is open.
#[derive(Clone)]
pub struct Open {
    /// The pool it belongs to.
    pub pool: Arc<PoolState>,
    /// Where it is open now.
    pub endpoint: Arc<Endpoint>,
    /// What it is, as metrics have it; `http` for an event stream on a plain route.
    pub kind: &'static str,
    /// When it began to last.
    pub since: Instant,
    /// Its session in the words of the log, if it has one.
    pub session: Option<SessionTag>,
}

impl Open {
    /// What an exchange has become at an endpoint; `None` if it has no pool.
    pub fn of(ctx: &Ctx, endpoint: &Arc<Endpoint>, kind: &'static str) -> Option<Self> {
        Some(Self {
            pool: Arc::clone(ctx.snapshot.pool(ctx.pool?)),
            endpoint: Arc::clone(endpoint),
            kind,
            since: ctx.started,
            session: ctx.session,
        })
    }
}

/// All that is open.
#[derive(Default)]
pub struct OpenList {
    shards: [Arc<Mutex<Slots<Open>>>; SHARDS],
}

/// Places that are used again.
struct Slots<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            free: Vec::new(),
        }
    }
}

/// Keeps something on the list until dropped.
pub struct Listed {
    shard: Arc<Mutex<Slots<Open>>>,
    at: u32,
}

impl OpenList {
    /// Puts something on the list of this thread.
    pub fn enter(&self, open: Open) -> Listed {
        let shard = Arc::clone(&self.shards[own_shard()]);
        let at = locked(&shard).put(open);
        Listed { shard, at }
    }

    /// At most `max` of those that `is` wanted, in no meaningful order.
    pub fn some(&self, max: usize, is: impl Fn(&Open) -> bool) -> Vec<Open> {
        let mut some = Vec::new();
        for shard in &self.shards {
            let slots = locked(shard);
            let open = slots.all.iter().flatten().filter(|open| is(open));
            some.extend(open.take(max - some.len()).cloned());
        }
        some
    }
}

impl Listed {
    /// It goes on at another endpoint.
    pub fn moves_to(&self, endpoint: &Arc<Endpoint>) {
        if let Some(Some(open)) = locked(&self.shard).all.get_mut(self.at as usize) {
            open.endpoint = Arc::clone(endpoint);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let gone = locked(&self.shard).take(self.at);
        // Not under the lock: it may be the last to hold what it belongs to.
        drop(gone);
    }
}

impl<T> Slots<T> {
    fn put(&mut self, open: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.all[at as usize] = Some(open);
            return at;
        }
        self.all.push(Some(open));
        (self.all.len() - 1) as u32
    }

    fn take(&mut self, at: u32) -> Option<T> {
        let gone = self.all.get_mut(at as usize)?.take();
        self.free.push(at);
        if self.free.len() == self.all.len() {
            // What thousands needed is given back when the last of them is gone.
            *self = Self::default();
        }
        gone
    }
}

fn locked(shard: &Mutex<Slots<Open>>) -> MutexGuard<'_, Slots<Open>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_given_back_with_the_last() {
        let mut slots = Slots::default();
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut held, mut most) = (Vec::new(), 0);
        for n in 0..10_000 {
            if held.is_empty() || rng.bool() {
                held.push((slots.put(n), n));
            } else {
                let (at, n) = held.swap_remove(rng.usize(..held.len()));
                assert_eq!(slots.take(at), Some(n));
            }
            most = most.max(held.len());
            assert_eq!(slots.all.iter().flatten().count(), held.len());
            assert!(slots.all.len() <= most, "no more than were held at once");
        }
        for (at, n) in held {
            assert_eq!(slots.take(at), Some(n));
        }
        assert_eq!(slots.all.capacity(), 0);
    }
}
