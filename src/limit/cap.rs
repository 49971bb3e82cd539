//! So many at once, whoever they are of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A number of places that all threads share.
#[derive(Debug)]
pub struct Cap {
    taken: AtomicU32,
    /// Never below 1; those that were taken under a higher one stay taken.
    max: AtomicU32,
}

/// One of the places, until dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct CapGuard(Arc<Cap>);

impl Cap {
    /// A number of free places.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU32::new(0),
            max: AtomicU32::new(max),
        })
    }

    /// Changes how many places there are. Those that are taken stay taken.
    pub fn limit(&self, max: u32) {
        self.max.store(max, Relaxed);
    }

    /// Takes a place, if one is free.
    pub fn enter(self: &Arc<Self>) -> Option<CapGuard> {
        let max = self.max.load(Relaxed);
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        let entered = self.taken.fetch_update(Relaxed, Relaxed, more);
        entered.is_ok().then(|| CapGuard(Arc::clone(self)))
    }

    /// Places taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }
}

impl Drop for CapGuard {
    fn drop(&mut self) {
        let before = self.0.taken.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "each place was taken once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_guard_is_dropped() {
        let cap = Cap::new(2);
        let (first, second) = (cap.enter(), cap.enter());
        assert!(first.is_some() && second.is_some() && cap.enter().is_none());
        drop(first);
        let third = cap.enter();
        assert!(third.is_some() && cap.enter().is_none());
        drop((second, third));
        assert_eq!(cap.taken(), 0);
        let first = cap.enter();
        cap.limit(1);
        assert!(cap.enter().is_none());
        cap.limit(2);
        assert!(cap.enter().is_some());
        drop(first);
    }
}
