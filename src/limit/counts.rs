//! How many there are of each of many: connections of a client, streams of a session.
//!
//! A count is there only while it is above zero, so there are never more of them than of the things
//! that are counted, which have bounds of their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks over which the counts are spread.
const SHARDS: usize = 64;

/// Counts by a number that names what they are of.
pub struct Counts {
    shards: Box<[Mutex<HashMap<u128, u32>>]>,
}

/// One that is counted, until dropped.
#[must_use = "it is counted only while this lives"]
pub struct Counted {
    counts: Arc<Counts>,
    /// The upper and the lower half: every stream has one of these, and the whole would be aligned to
    /// 16 bytes and take 32 with its pointer.
    of: [u64; 2],
}

impl Counts {
    /// Nothing is counted yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Counts one more of `of`, unless there are `max` already.
    pub fn enter(self: &Arc<Self>, of: u128, max: u32) -> Option<Counted> {
        let mut shard = self.shard(of);
        let held = shard.get(&of).copied().unwrap_or(0);
        if held >= max {
            return None;
        }
        shard.insert(of, held + 1);
        drop(shard);
        Some(Counted {
            counts: Arc::clone(self),
            of: [(of >> 64) as u64, of as u64],
        })
    }

    /// How many there are of `of`.
    pub fn of(&self, of: u128) -> u32 {
        self.shard(of).get(&of).copied().unwrap_or(0)
    }

    /// Of how many there is at least one. Takes all locks in turn.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Is nothing counted?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, of: u128) -> MutexGuard<'_, HashMap<u128, u32>> {
        let folded = (of >> 64) as u64 ^ of as u64;
        let top = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        lock(&self.shards[top as usize])
    }
}

impl Counted {
    /// What it is one of.
    fn of(&self) -> u128 {
        let [upper, lower] = self.of;
        u128::from(upper) << 64 | u128::from(lower)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let of = self.of();
        let mut shard = self.counts.shard(of);
        match shard.get_mut(&of) {
            Some(count) if *count > 1 => *count -= 1,
            found => {
                debug_assert!(found.is_some(), "each was counted once");
                shard.remove(&of);
            }
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counts(of {})", self.len())
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted({:x})", self.of())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_count_of_its_own_that_goes_when_nothing_is_left() {
        let counts = Counts::new();
        let (one, two) = (counts.enter(1, 2), counts.enter(1, 2));
        assert!(one.is_some() && two.is_some());
        assert!(counts.enter(1, 2).is_none());
        assert!(counts.enter(1, 3).is_some(), "and is given back at once");
        let other = counts.enter(2, 1);
        assert!(other.is_some());
        assert_eq!((counts.of(1), counts.of(2), counts.len()), (2, 1, 2));
        drop((one, other));
        assert!(counts.enter(1, 2).is_some());
        drop(two);
        assert!(counts.is_empty());
    }
}
