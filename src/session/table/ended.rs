//! Sessions that somebody ended here, so that their ids are not adopted again.
//!
//! A sealed id is good for as long as its server knows the session, and not every server takes a
//! DELETE. What was ended by an operator has to stay so all the same, until this process restarts or
//! so many others were ended since.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Key, Live, Table, lock};

/// Ended sessions that are remembered; the oldest go first.
pub(super) const ENDED_MAX: usize = 10_000;

impl<T: Send> Table<T> {
    /// Takes a session out for good: its id is not adopted again, for as long as this is remembered.
    pub fn end(&self, key: Key) -> Option<Live<T>> {
        // Before it is out, so that nobody adopts it in between.
        self.ended.note(key);
        self.close(key)
    }

    /// Was it taken out for good?
    pub fn is_ended(&self, key: Key) -> bool {
        self.ended.has(key)
    }
}

#[derive(Default)]
pub(super) struct Ended {
    /// Was there ever one? Most processes never end any.
    any: AtomicBool,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: HashSet<Key>,
    /// In the order in which they came. One that was forgotten may still stand here.
    order: VecDeque<Key>,
}

impl Ended {
    pub(super) fn note(&self, key: Key) {
        self.any.store(true, Relaxed);
        let mut keys = lock(&self.keys);
        if !keys.known.insert(key) {
            return;
        }
        keys.order.push_back(key);
        if keys.order.len() > ENDED_MAX
            && let Some(oldest) = keys.order.pop_front()
        {
            keys.known.remove(&oldest);
        }
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.any.load(Relaxed) && lock(&self.keys).known.contains(&key)
    }

    /// The server has given the same id to a new session.
    pub(super) fn forget(&self, key: Key) {
        if self.any.load(Relaxed) {
            lock(&self.keys).known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::NameHash;

    fn key(number: usize) -> Key {
        Key::of(NameHash::of("p"), NameHash::of("e"), &number.to_string())
    }

    #[test]
    fn the_latest_are_remembered_and_a_new_session_of_the_same_id_is_none_of_them() {
        let ended = Ended::default();
        assert!(!ended.has(key(0)));
        (0..=ENDED_MAX).for_each(|n| ended.note(key(n)));
        assert!(!ended.has(key(0)), "one too many");
        assert!(ended.has(key(1)) && ended.has(key(ENDED_MAX)));
        ended.forget(key(1));
        assert!(!ended.has(key(1)));
        ended.note(key(2));
        assert_eq!(lock(&ended.keys).order.len(), ENDED_MAX, "noted once");
    }
}
