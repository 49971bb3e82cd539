//! The streams that a client can come back to.
//!
//! Entered when a stream turns out to last, and found again by the session and the stream's number. The
//! lock is for all threads, and held for as long as it takes to look into a map: once when a stream
//! begins, ends or is come back to, and never with an event.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::linger::Lingering;
use crate::session::{Budget, Key, Ring, StreamOf};

/// Streams of one session that are read on without a client.
pub const LINGERING_MAX: usize = 16;

/// The streams of this process.
pub struct Rings {
    budget: Arc<Budget>,
    streams: Mutex<HashMap<Key, Vec<Arc<Slot>>>>,
    /// Streams that have ended and are still kept, in the order in which they go.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    until: Instant,
    key: Key,
    slot: Arc<Slot>,
}

/// One stream.
pub struct Slot {
    stream: u64,
    kind: StreamOf,
    state: Mutex<State>,
}

enum State {
    /// Some task reads it.
    Read {
        /// Nobody is sent what is read.
        lingers: bool,
        /// Where a client waits that has come back.
        wanted: Option<oneshot::Sender<Box<Lingering>>>,
        waker: Option<Waker>,
    },
    /// It has ended with its answer.
    Ended(Ring),
}

impl Rings {
    /// No streams; all rings may take so many bytes.
    pub fn new(memory: usize) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(memory),
            streams: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// The memory of all rings.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Streams there are.
    pub fn len(&self) -> usize {
        lock(&self.streams).values().map(Vec::len).sum()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        lock(&self.streams).is_empty()
    }

    /// Enters a stream of a session.
    pub fn enter(&self, key: Key, stream: u64, kind: StreamOf) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            stream,
            kind,
            state: Mutex::new(State::Read {
                lingers: false,
                wanted: None,
                waker: None,
            }),
        });
        let mut streams = lock(&self.streams);
        streams.entry(key).or_default().push(Arc::clone(&slot));
        slot
    }

    /// The stream of a session that has this number.
    pub fn find(&self, key: Key, stream: u64) -> Option<Arc<Slot>> {
        let streams = lock(&self.streams);
        let found = streams.get(&key)?.iter().find(|slot| slot.stream == stream);
        found.cloned()
    }

    /// The standing stream of a session, if it is read on without a client.
    pub fn lingering(&self, key: Key) -> Option<Arc<Slot>> {
        let streams = lock(&self.streams);
        let lingers = |slot: &&Arc<Slot>| slot.kind == StreamOf::Session && slot.lingers();
        streams.get(&key)?.iter().find(lingers).cloned()
    }

    /// May one more stream of the session be read on?
    pub fn room(&self, key: Key) -> bool {
        let streams = lock(&self.streams);
        let lingering = streams.get(&key).map_or(0, |slots| {
            slots.iter().filter(|slot| slot.lingers()).count()
        });
        lingering < LINGERING_MAX
    }

    /// A stream is over.
    pub fn leave(&self, key: Key, slot: &Arc<Slot>) {
        // A client that waits for it need not wait any longer.
        drop(slot.take_wanted());
        let mut streams = lock(&self.streams);
        if let Some(slots) = streams.get_mut(&key) {
            slots.retain(|other| !Arc::ptr_eq(other, slot));
            if slots.is_empty() {
                streams.remove(&key);
            }
        }
    }

    /// A stream is over, and its events are kept for a while.
    pub fn keep(&self, key: Key, slot: &Arc<Slot>, ring: Ring, time: Duration) {
        *lock(&slot.state) = State::Ended(ring);
        lock(&self.kept).push_back(Kept {
            until: Instant::now() + time,
            key,
            slot: Arc::clone(slot),
        });
    }

    /// Forgets the streams whose time is over.
    pub fn sweep(&self, now: Instant) {
        loop {
            let over = {
                let mut kept = lock(&self.kept);
                if kept.front().is_none_or(|first| first.until > now) {
                    return;
                }
                kept.pop_front()
            };
            self.forget(over);
        }
    }

    /// Forgets the stream that ended first, to make room. False if there is none.
    pub fn forget_oldest(&self) -> bool {
        let oldest = lock(&self.kept).pop_front();
        self.forget(oldest)
    }

    fn forget(&self, kept: Option<Kept>) -> bool {
        let Some(kept) = kept else {
            return false;
        };
        self.leave(kept.key, &kept.slot);
        true
    }
}

impl Slot {
    /// Ready when a client has come back.
    pub fn poll_wanted(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        let State::Read { wanted, waker, .. } = &mut *state else {
            return Poll::Pending;
        };
        if wanted.is_some() {
            return Poll::Ready(());
        }
        let same = |waker: &Waker| waker.will_wake(context.waker());
        if !waker.as_ref().is_some_and(same) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Asks for the stream; whoever reads it hands it over. `None` if it has ended.
    pub fn want(&self) -> Option<oneshot::Receiver<Box<Lingering>>> {
        let (sender, receiver) = oneshot::channel();
        let waker = match &mut *lock(&self.state) {
            State::Read { wanted, waker, .. } => {
                // Whoever wanted it before has no client any more, or it would not be wanted again.
                *wanted = Some(sender);
                waker.take()
            }
            State::Ended(_) => return None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(receiver)
    }

    /// Where the stream is to be handed, if it is wanted.
    pub fn take_wanted(&self) -> Option<oneshot::Sender<Box<Lingering>>> {
        match &mut *lock(&self.state) {
            State::Read { wanted, .. } => wanted.take(),
            State::Ended(_) => None,
        }
    }

    /// Notes whether it is read without a client.
    pub fn set_lingers(&self, now: bool) {
        if let State::Read { lingers, .. } = &mut *lock(&self.state) {
            *lingers = now;
        }
    }

    /// The events of a stream that has ended, from behind this one, and whether some are missing.
    pub fn replay(&self, number: u64) -> Option<(Vec<u8>, bool)> {
        match &*lock(&self.state) {
            State::Ended(ring) => {
                let missed = ring.after(number)?;
                Some((missed.events.concat(), missed.gap))
            }
            State::Read { .. } => None,
        }
    }

    fn lingers(&self) -> bool {
        matches!(&*lock(&self.state), State::Read { lingers: true, .. })
    }
}

/// What is behind these locks is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
