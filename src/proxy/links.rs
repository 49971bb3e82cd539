//! Open HTTP+SSE streams (2024-11-05) and the answers owed on them.
//!
//! In that transport a request is a POST of its own, answered 202, and the response comes on the
//! stream. If the server dies, the client would wait for those responses for ever. So each stream
//! that this process carries remembers the ids posted to it, and answers them when it is lost.
//! A stream carried by another process is unknown here: its POSTs are forwarded all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::CallHolds;
use crate::mcp::RawId;
use crate::session::Key;

/// Answers that may be owed on one stream; a request over it is refused.
const OWED_MAX: usize = 256;

/// The streams of this process.
#[derive(Default)]
pub struct Links {
    open: Mutex<HashMap<Key, Arc<Link>>>,
}

/// The answers owed on one stream.
#[derive(Default)]
pub struct Link {
    owed: Mutex<Vec<Owed>>,
}

/// An answer that is owed, and what its call holds until it has come.
struct Owed {
    id: RawId,
    holds: CallHolds,
}

/// Keeps a stream findable until dropped.
pub struct LinkGuard {
    links: Arc<Links>,
    key: Key,
    /// The stream's ledger.
    pub link: Arc<Link>,
}

impl Links {
    /// Enters a stream.
    pub fn enter(self: &Arc<Self>, key: Key) -> LinkGuard {
        let link = Arc::new(Link::default());
        self.lock().insert(key, Arc::clone(&link));
        LinkGuard {
            links: Arc::clone(self),
            key,
            link,
        }
    }

    /// The stream of this key, if this process carries it.
    pub fn find(&self, key: Key) -> Option<Arc<Link>> {
        self.lock().get(&key).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Link>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Notes answers that will come on the stream. False if there is no room for them.
    pub fn owe(&self, ids: &[RawId]) -> bool {
        let mut owed = self.lock();
        if owed.len() + ids.len() > OWED_MAX {
            return false;
        }
        owed.extend(ids.iter().map(|id| Owed {
            id: id.clone(),
            holds: CallHolds::default(),
        }));
        true
    }

    /// Leaves with a call that was accepted what it holds, until its answer has come. If it has come
    /// already, that is given back at once.
    pub fn hold(&self, id: &RawId, holds: CallHolds) {
        let mut owed = self.lock();
        if let Some(owed) = owed.iter_mut().find(|owed| owed.id == *id) {
            owed.holds = holds;
        }
    }

    /// Strikes off an answer that came, or a request that was refused.
    pub fn settle(&self, id: &RawId) {
        let mut owed = self.lock();
        let at = owed.iter().position(|owed| owed.id == *id);
        let settled = at.map(|at| owed.swap_remove(at));
        // Giving back what it held may wake another call.
        drop(owed);
        drop(settled);
    }

    /// Is any answer still to come?
    pub fn is_owing(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Takes all that is still owed.
    pub fn take(&self) -> Vec<RawId> {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().map(|owed| owed.id).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.links.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::NameHash;

    #[test]
    fn what_is_owed_is_found_until_it_is_settled_or_the_stream_ends() {
        let links = Arc::new(Links::default());
        let key = Key::of(NameHash::of("p"), NameHash::of("e"), "/messages?id=1");
        let ids: Vec<RawId> = (0..2).map(RawId::number).collect();
        let guard = links.enter(key);
        let found = links.find(key).unwrap();
        assert!(found.owe(&ids));
        guard.link.settle(&ids[0]);
        assert!(guard.link.is_owing());
        assert_eq!(guard.link.take(), vec![ids[1].clone()]);
        assert!(!guard.link.is_owing());
        drop(guard);
        assert!(links.find(key).is_none());
    }

    #[test]
    fn the_ledger_is_bounded() {
        let link = Link::default();
        let ids: Vec<RawId> = (0..OWED_MAX as u64).map(RawId::number).collect();
        assert!(link.owe(&ids));
        assert!(!link.owe(&ids[..1]));
    }
}
