//! Open HTTP+SSE streams (2024-11-05) and the answers owed on them.
//!
//! In that transport a request is a POST of its own, answered 202, and the response comes on the
//! stream. If the server dies, the client would wait for those responses for ever. So each stream
//! that this process carries remembers the ids posted to it, and answers them when it is lost.
//! A stream carried by another process is unknown here: its POSTs are forwarded all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

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
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    owed: Vec<Owed>,
    /// The stream, where it waits.
    stream: Option<Waker>,
    /// Until when it waits at most, as far as it was told here.
    told: Option<Instant>,
}

impl Ledger {
    fn next_due(&self) -> Option<Instant> {
        self.owed.iter().filter_map(|owed| owed.due).min()
    }
}

/// An answer that is owed, and what its call holds until it has come.
struct Owed {
    id: RawId,
    holds: CallHolds,
    /// When it is due at the latest, if that was said.
    due: Option<Instant>,
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Link>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Notes answers that will come on the stream. False if there is no room for them.
    pub fn owe(&self, ids: &[RawId]) -> bool {
        let owed = &mut self.lock().owed;
        if owed.len() + ids.len() > OWED_MAX {
            return false;
        }
        owed.extend(ids.iter().map(|id| Owed {
            id: id.clone(),
            holds: CallHolds::default(),
            due: None,
        }));
        true
    }

    /// Leaves with a call that was accepted what it holds, until its answer has come or is overdue. If it
    /// has come already, that is given back at once.
    pub fn hold(&self, id: &RawId, holds: CallHolds, due: Option<Instant>) {
        let mut ledger = self.lock();
        let Some(owed) = ledger.owed.iter_mut().find(|owed| owed.id == *id) else {
            return;
        };
        (owed.holds, owed.due) = (holds, due);
        if due.is_some()
            && let Some(stream) = ledger.stream.take()
        {
            stream.wake();
        }
    }

    /// Strikes off an answer that came, or a request that was refused.
    pub fn settle(&self, id: &RawId) {
        let mut ledger = self.lock();
        let at = ledger.owed.iter().position(|owed| owed.id == *id);
        let settled = at.map(|at| ledger.owed.swap_remove(at));
        // Giving back what it held may wake another call.
        drop(ledger);
        drop(settled);
    }

    /// Is any answer still to come?
    pub fn is_owing(&self) -> bool {
        !self.lock().owed.is_empty()
    }

    /// When the next answer is due that has its time, for a stream that is about to wait.
    pub fn next_due(&self) -> Option<Instant> {
        let mut ledger = self.lock();
        ledger.told = ledger.next_due();
        ledger.told
    }

    /// Is an answer due before the stream looks, which was owed since it began to wait? If none is, it is
    /// woken once there is one.
    pub fn poll_due(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ledger = self.lock();
        let is_sooner = |due: Instant| ledger.told.is_none_or(|told| due < told);
        if ledger.next_due().is_some_and(is_sooner) {
            return Poll::Ready(());
        }
        ledger.stream = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes what is overdue.
    pub fn take_overdue(&self, now: Instant) -> Vec<RawId> {
        let over = |owed: &mut Owed| owed.due.is_some_and(|due| due <= now);
        let overdue: Vec<Owed> = self.lock().owed.extract_if(.., over).collect();
        overdue.into_iter().map(|owed| owed.id).collect()
    }

    /// Takes all that is still owed.
    pub fn take(&self) -> Vec<RawId> {
        let all = std::mem::take(&mut self.lock().owed);
        all.into_iter().map(|owed| owed.id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.links.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

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
    fn a_stream_is_woken_for_an_answer_that_is_due_before_it_looks() {
        let link = Link::default();
        let ids: Vec<RawId> = (0..3).map(RawId::number).collect();
        assert!(link.owe(&ids));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(link.poll_due(&mut context).is_pending());
        link.hold(&ids[0], CallHolds::default(), None);
        assert_eq!((woken.times(), link.next_due()), (0, None));
        link.hold(&ids[1], CallHolds::default(), Some(at(5)));
        assert_eq!(woken.times(), 1);
        assert!(link.poll_due(&mut context).is_ready());
        assert_eq!(link.next_due(), Some(at(5)));
        assert!(link.poll_due(&mut context).is_pending());
        link.hold(&ids[2], CallHolds::default(), Some(at(6)));
        assert!(link.poll_due(&mut context).is_pending(), "it looks before");

        assert_eq!(link.take_overdue(at(4)), vec![]);
        assert_eq!(link.take_overdue(at(5)), vec![ids[1].clone()]);
        assert_eq!(link.next_due(), Some(at(6)));
        assert_eq!(link.take(), vec![ids[0].clone(), ids[2].clone()]);
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_ledger_is_bounded() {
        let link = Link::default();
        let ids: Vec<RawId> = (0..OWED_MAX as u64).map(RawId::number).collect();
        assert!(link.owe(&ids));
        assert!(!link.owe(&ids[..1]));
    }
}
