//! So many at once, whoever they are of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A number of places that all threads share.
#[derive(Debug)]
pub struct Cap {
    taken: AtomicU32,
    max: u32,
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
            max,
        })
    }

    /// Takes a place, if one is free.
    pub fn enter(self: &Arc<Self>) -> Option<CapGuard> {
        let more = |taken: u32| (taken < self.max).then(|| taken + 1);
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
    }
}
