//! How many calls an endpoint may have in flight, and how many hold a place for it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

/// The places of one endpoint, on a cache line of their own. They outlive a reload with it.
///
/// Ordering: who gives a place back looks for those that wait afterwards, and who begins to wait looks
/// for a free place afterwards. All four are sequentially consistent, so that one of the two sees the
/// other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Places {
    /// 0 is no limit.
    max: AtomicU32,
    /// Never above `max`, but after that was lowered.
    taken: AtomicU32,
}

impl Places {
    /// Sets how many there are; `None` for no limit. Those that are taken stay taken.
    pub fn limit(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(0), Relaxed);
    }

    /// How many there are, if that has a limit.
    pub fn max(&self) -> Option<u32> {
        match self.max.load(Relaxed) {
            0 => None,
            max => Some(max),
        }
    }

    /// Places taken now. Counted only in pools where an endpoint has a limit.
    pub fn taken(&self) -> u32 {
        self.taken.load(SeqCst)
    }

    /// Is there one left at this moment?
    pub(super) fn is_free(&self) -> bool {
        self.taken() < self.max().unwrap_or(u32::MAX)
    }

    pub(super) fn take(&self) -> bool {
        let max = self.max().unwrap_or(u32::MAX);
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        self.taken.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        let before = self.taken.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "each place was taken once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_taken_than_there_are() {
        let places = Places::default();
        assert!((0..1000).all(|_| places.take()), "no limit");
        (0..1000).for_each(|_| places.give_back());
        places.limit(Some(2));
        assert!(places.take() && places.is_free() && places.take());
        assert!(!places.take() && !places.is_free());
        places.limit(Some(1));
        places.give_back();
        assert!(!places.take(), "one is still out");
        places.give_back();
        assert!(places.take());
        assert_eq!((places.taken(), places.max()), (1, Some(1)));
    }
}
