//! The last events of a stream, kept for a client that comes back for them.
//!
//! A client whose connection breaks names the last event it has seen, and is to have every later one
//! once and in order. So each event has a number, and the ring holds the bytes of the latest ones as
//! they were sent. It is bounded by their count and their bytes, and all rings together by a
//! [`Budget`]: at a bound the oldest events of the ring go, and whoever comes back for those is told
//! that some are missing ([`Missed::gap`]).
//!
//! An event arrives in pieces. The piece of one that is not complete yet is held as well
//! ([`Ring::open`]), since a client that comes back in its middle needs it from the beginning.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What an event costs beside its bytes.
pub const EVENT_COST: usize = 64;

/// How much a ring holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingBounds {
    /// Complete events, at least 1.
    pub events: usize,
    /// Bytes of events, the open one included.
    pub bytes: usize,
}

/// Memory that all rings share.
#[derive(Debug)]
pub struct Budget {
    max: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max),
            used: AtomicUsize::new(0),
        })
    }

    /// Sets how many there are, as a reload does. What is taken stays taken.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Takes so many bytes until the share is dropped; `None` if there are not as many.
    pub fn share(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        self.take(bytes).then(|| Share {
            budget: Arc::clone(self),
            bytes,
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let max = self.max.load(Relaxed);
        let taken = self.used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= max)
        });
        taken.is_ok()
    }

    fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "what is given back was taken");
    }
}

/// Bytes of a budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

/// The last events of one stream.
#[derive(Debug)]
pub struct Ring {
    bounds: RingBounds,
    budget: Arc<Budget>,
    /// The number of the first event in `events`, or of the next one if there is none.
    first: u64,
    events: VecDeque<Box<[u8]>>,
    /// Bytes of `events`.
    bytes: usize,
    /// What has come of the event that is not complete.
    open: Vec<u8>,
    /// There was no room for the open event.
    open_lost: bool,
}

/// What a client has missed.
#[derive(Debug)]
pub struct Missed<'a> {
    /// Some of it is not here any more.
    pub gap: bool,
    /// What is, in order.
    pub events: Vec<&'a [u8]>,
}

impl Ring {
    /// A ring before the first event. It holds no memory.
    pub fn new(bounds: RingBounds, budget: Arc<Budget>) -> Self {
        Self {
            bounds,
            budget,
            first: 1,
            events: VecDeque::new(),
            bytes: 0,
            open: Vec::new(),
            open_lost: false,
        }
    }

    /// The number of the event that is open, or that comes next.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Takes more bytes of the open event. Where the budget has none left, `more` may free some and
    /// say so; then the oldest events go. False if there is no room all the same: the event is lost.
    pub fn collect(&mut self, bytes: &[u8], more: &mut dyn FnMut() -> bool) -> bool {
        if self.open_lost {
            return true;
        }
        while self.open.len() + bytes.len() + self.bytes > self.bounds.bytes {
            if !self.forget_oldest() {
                self.lose_open();
                return false;
            }
        }
        while !self.budget.take(bytes.len()) {
            if !more() && !self.forget_oldest() {
                self.lose_open();
                return false;
            }
        }
        self.open.extend_from_slice(bytes);
        true
    }

    /// The open event is complete. False if there was no room for it, and all before it are gone.
    pub fn complete(&mut self, more: &mut dyn FnMut() -> bool) -> bool {
        let mut kept = !std::mem::take(&mut self.open_lost);
        while kept && !self.budget.take(EVENT_COST) {
            kept = more() || self.forget_oldest();
        }
        if !kept {
            self.budget.give(self.open.len());
            self.open = Vec::new();
            while self.forget_oldest() {}
            self.first += 1;
        } else {
            // A copy, so that it takes no more than its length.
            let event: Box<[u8]> = self.open.as_slice().into();
            self.bytes += event.len();
            self.events.push_back(event);
            self.open.clear();
            self.open.shrink_to(1024);
            if self.events.len() > self.bounds.events {
                self.forget_oldest();
            }
        }
        self.check_invariants();
        kept
    }

    /// What has come of the open event is no part of any.
    pub fn drop_open(&mut self) {
        self.budget.give(self.open.len());
        self.open.clear();
        self.open_lost = false;
    }

    /// What has come of the open event; `None` if it is lost.
    pub fn open(&self) -> Option<&[u8]> {
        (!self.open_lost).then_some(&self.open)
    }

    /// What came after the event with this number. `None` if there never was such an event.
    pub fn after(&self, number: u64) -> Option<Missed<'_>> {
        if number >= self.next() {
            return None;
        }
        let skip = (number + 1).saturating_sub(self.first);
        Some(Missed {
            gap: number + 1 < self.first,
            events: self
                .events
                .iter()
                .skip(skip as usize)
                .map(|e| &**e)
                .collect(),
        })
    }

    /// Asserts what must be true between any two calls.
    ///
    /// # Panics
    /// If it is not, in builds with debug assertions.
    pub fn check_invariants(&self) {
        debug_assert!(self.events.len() <= self.bounds.events);
        debug_assert!(self.bytes + self.open.len() <= self.bounds.bytes);
        debug_assert_eq!(
            self.bytes,
            self.events.iter().map(|e| e.len()).sum::<usize>()
        );
        debug_assert!(self.budget.used() >= self.bytes + self.open.len());
    }

    fn lose_open(&mut self) {
        self.budget.give(self.open.len());
        self.open = Vec::new();
        self.open_lost = true;
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else {
            return false;
        };
        self.first += 1;
        self.bytes -= event.len();
        self.budget.give(event.len() + EVENT_COST);
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let events = self.events.len() * EVENT_COST;
        self.budget.give(self.bytes + self.open.len() + events);
    }
}

#[cfg(test)]
mod tests;
