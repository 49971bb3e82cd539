//! How many calls there were lately, and how many of them failed, without a lock.
//!
//! The window is cut into slots. A slot is one word that holds whose turn it is and two counts, so
//! that any thread can add to it, or take it for a new turn, in one step. What it covers ends with
//! now and is seven to eight eighths of the window long.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::Moment;

/// A power of two, so that turns and slots stay in step when the number of a turn overflows.
const SLOTS: usize = 8;
const COUNT_BITS: u32 = 18;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// A slot that nobody has touched for exactly so many turns would be taken for a fresh one: with the
/// shortest window that is after two weeks, for an eighth of it.
const TURN_MASK: u64 = (1 << (u64::BITS - 2 * COUNT_BITS)) - 1;

/// Calls of one endpoint and what came of them. On a cache line of its own, which is written with
/// every call while some have failed.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Window {
    slots: [AtomicU64; SLOTS],
}

/// Sums over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Calls, failed or not.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    turn: u64,
    calls: u64,
    failures: u64,
}

impl Slot {
    const fn unpack(word: u64) -> Self {
        Self {
            turn: word >> (2 * COUNT_BITS),
            calls: (word >> COUNT_BITS) & COUNT_MAX,
            failures: word & COUNT_MAX,
        }
    }

    const fn pack(self) -> u64 {
        (self.turn << (2 * COUNT_BITS)) | (self.calls << COUNT_BITS) | self.failures
    }
}

fn turn_of(now: Moment, length: Duration) -> u64 {
    let slot = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) / SLOTS as u64;
    (now.nanos() / slot.max(1)) & TURN_MASK
}

impl Window {
    /// Counts a call. `length` is that of the whole window; calls counted under another length are
    /// lost. A slot that is full counts no more, so that the ratio in it stays.
    pub fn record(&self, failed: bool, length: Duration, now: Moment) {
        let turn = turn_of(now, length);
        let slot = &self.slots[turn as usize % SLOTS];
        let add = |word| {
            let mut slot = Slot::unpack(word);
            // Another thread may have read its clock a moment later and been here first.
            let is_older = turn.wrapping_sub(slot.turn) & TURN_MASK <= TURN_MASK / 2;
            if slot.turn != turn && is_older {
                slot = Slot {
                    turn,
                    calls: 0,
                    failures: 0,
                };
            }
            if slot.calls < COUNT_MAX {
                slot.calls += 1;
                slot.failures += u64::from(failed);
            }
            Some(slot.pack())
        };
        // It always has something to store.
        let _ = slot.fetch_update(Relaxed, Relaxed, add);
    }

    /// What the window holds at this moment.
    pub fn totals(&self, length: Duration, now: Moment) -> Totals {
        let turn = turn_of(now, length);
        let mut totals = Totals::default();
        for slot in &self.slots {
            let slot = Slot::unpack(slot.load(Relaxed));
            if turn.wrapping_sub(slot.turn) & TURN_MASK < SLOTS as u64 {
                totals.calls += slot.calls;
                totals.failures += slot.failures;
            }
        }
        totals
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(8);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1).after(Duration::from_millis(millis))
    }

    fn totals(calls: u64, failures: u64) -> Totals {
        Totals { calls, failures }
    }

    #[test]
    fn what_is_older_than_the_window_is_gone() {
        let window = Window::default();
        assert_eq!(window.totals(LENGTH, at(0)), totals(0, 0));
        window.record(true, LENGTH, at(500));
        window.record(false, LENGTH, at(1500));
        assert_eq!(window.totals(LENGTH, at(1500)), totals(2, 1));
        assert_eq!(window.totals(LENGTH, at(7900)), totals(2, 1));
        assert_eq!(window.totals(LENGTH, at(8100)), totals(1, 0));
        assert_eq!(window.totals(LENGTH, at(9100)), totals(0, 0));
        window.record(true, LENGTH, at(8600));
        assert_eq!(
            window.totals(LENGTH, at(8600)),
            totals(2, 1),
            "its slot is taken again"
        );
        window.clear();
        assert_eq!(window.totals(LENGTH, at(8600)), totals(0, 0));
    }

    #[test]
    fn a_thread_that_is_a_little_late_adds_to_the_newer_slot() {
        let window = Window::default();
        window.record(false, LENGTH, at(8100));
        window.record(true, LENGTH, at(100));
        assert_eq!(window.totals(LENGTH, at(8100)), totals(2, 1));
    }

    #[test]
    fn a_full_slot_keeps_its_ratio() {
        let window = Window::default();
        for n in 0..COUNT_MAX + 100 {
            window.record(n % 4 == 0, LENGTH, at(1));
        }
        let Totals { calls, failures } = window.totals(LENGTH, at(1));
        assert_eq!((calls, failures), (COUNT_MAX, COUNT_MAX.div_ceil(4)));
    }

    #[test]
    fn threads_lose_no_count() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let window = &window;
                scope.spawn(move || {
                    (0..1000).for_each(|_| window.record(thread == 0, LENGTH, at(5)));
                });
            }
        });
        assert_eq!(window.totals(LENGTH, at(5)), totals(4000, 1000));
    }
}
