//! What is under way in this process, counted for whoever waits for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Exchanges in flight, told apart by whether a drain waits for them.
#[derive(Default)]
pub struct Flight {
    /// Each thread counts in a place of its own, so that they do not write to the same memory with
    /// every request.
    shards: [Arc<Shard>; SHARDS],
    doors: AtomicUsize,
    errands: AtomicUsize,
}

/// Threads beyond this many share places.
pub(super) const SHARDS: usize = 16;

/// On cache lines of its own. An exchange is counted off where it was counted.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    calls: AtomicUsize,
    streams: AtomicUsize,
}

/// A door or an errand, counted until dropped.
pub struct Counted {
    flight: Arc<Flight>,
    counter: fn(&Flight) -> &AtomicUsize,
}

/// Counts one exchange until dropped.
pub struct InFlight {
    shard: Arc<Shard>,
    stream: bool,
}

/// The place of this thread.
pub(super) fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

impl Flight {
    /// Counts a call: a drain waits for it to end by itself.
    pub fn enter(&self) -> InFlight {
        let shard = Arc::clone(&self.shards[own_shard()]);
        shard.calls.fetch_add(1, Ordering::Relaxed);
        InFlight {
            shard,
            stream: false,
        }
    }

    /// Calls running now.
    pub fn calls(&self) -> usize {
        self.sum(|shard| &shard.calls)
    }

    /// Streams open now that end only when told.
    pub fn streams(&self) -> usize {
        self.sum(|shard| &shard.streams)
    }

    fn sum(&self, counter: fn(&Shard) -> &AtomicUsize) -> usize {
        let counts = self.shards.iter().map(|shard| counter(shard));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Counts work that ends by itself once the process is ending, such as giving back the sessions
    /// of health checks. It does not hold up a drain, only the very end of it.
    pub fn errand(self: &Arc<Self>) -> Counted {
        self.count(|flight| &flight.errands)
    }

    /// Counts a way in by which a call may still come: a listener that accepts, a connection whose
    /// first request is on its way. A drain waits for it as for a call.
    pub fn door(self: &Arc<Self>) -> Counted {
        self.count(|flight| &flight.doors)
    }

    fn count(self: &Arc<Self>, counter: fn(&Self) -> &AtomicUsize) -> Counted {
        counter(self).fetch_add(1, Ordering::Relaxed);
        Counted {
            flight: Arc::clone(self),
            counter,
        }
    }

    /// Is no call running, and can none come any more?
    pub fn is_drained(&self) -> bool {
        self.calls() + self.doors.load(Ordering::Relaxed) == 0
    }

    /// Is nothing open any more?
    pub fn is_quiet(&self) -> bool {
        self.calls() + self.streams() == 0
    }

    /// Is nothing left to be done?
    pub fn is_over(&self) -> bool {
        self.calls() + self.streams() + self.errands.load(Ordering::Relaxed) == 0
    }
}

impl InFlight {
    /// From now on this exchange is a stream without an end of its own (GET, `listen`, tunnel);
    /// a drain does not wait for it but ends it.
    pub fn becomes_stream(&mut self) {
        if !std::mem::replace(&mut self.stream, true) {
            self.shard.streams.fetch_add(1, Ordering::Relaxed);
            self.shard.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.counter)(&self.flight).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let counter = if self.stream {
            &self.shard.streams
        } else {
            &self.shard.calls
        };
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}
