//! Whether every worker thread takes its turns.
//!
//! A thread that is stuck, in a loop or in a system call that does not return, serves nobody of those
//! whom it has accepted, while the others go on as if nothing were wrong. So each thread leaves a sign
//! with every turn, and whoever vouches for the process towards systemd looks for one of each. How late
//! the turns were is told to whoever scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::transport::timer::TICK;

/// Nothing was heard of the thread since it was last looked for, or since the start.
const SILENT: u8 = 0;
/// It has taken a turn.
const AWAKE: u8 = 1;
/// It has ended, as it should.
const GONE: u8 = 2;

/// The signs of all worker threads.
pub(super) struct Vigil {
    threads: Box<[Thread]>,
    base: Instant,
}

/// On a cache line of its own: its thread writes it at every turn.
#[derive(Default)]
#[repr(align(64))]
struct Thread {
    state: AtomicU8,
    /// When it took its last turn, in nanoseconds since `base`; 0 if it has taken none.
    last: AtomicU64,
    /// The latest that a turn was since somebody asked, in nanoseconds.
    worst: AtomicU64,
}

/// Where one thread leaves its sign. Dropped, the thread has ended and is not waited for.
pub(super) struct Sign {
    vigil: Arc<Vigil>,
    index: usize,
}

impl Vigil {
    /// Nothing was heard of anybody yet.
    pub(super) fn new(threads: usize, now: Instant) -> Arc<Self> {
        let threads = (0..threads).map(|_| Thread::default()).collect();
        Arc::new(Self { threads, base: now })
    }

    /// Where each thread leaves its sign, in their order.
    pub(super) fn signs(self: &Arc<Self>) -> Vec<Sign> {
        let sign = |index| Sign {
            vigil: Arc::clone(self),
            index,
        };
        (0..self.threads.len()).map(sign).collect()
    }

    /// Begins to look for new signs, if every thread has left one since this was last so. Else a
    /// thread that has not.
    pub(super) fn take(&self) -> Result<(), usize> {
        let silent = |thread: &Thread| thread.state.load(Relaxed) == SILENT;
        if let Some(index) = self.threads.iter().position(silent) {
            return Err(index);
        }
        for thread in &self.threads {
            // One that ends meanwhile stays gone.
            let state = &thread.state;
            let _ = state.compare_exchange(AWAKE, SILENT, Relaxed, Relaxed);
        }
        Ok(())
    }

    /// How late each thread has taken a turn: the most since this was last asked, and at least as long
    /// as one is overdue that has not come yet. Nothing of threads that have not begun, or have ended.
    pub(super) fn take_lags(&self, now: Instant) -> Vec<Duration> {
        let now = self.nanos(now);
        let lag = |thread: &Thread| {
            let worst = Duration::from_nanos(thread.worst.swap(0, Relaxed));
            let last = thread.last.load(Relaxed);
            if last == 0 || thread.state.load(Relaxed) == GONE {
                return Duration::ZERO;
            }
            let silent = Duration::from_nanos(now.saturating_sub(last));
            worst.max(silent.saturating_sub(TICK))
        };
        self.threads.iter().map(lag).collect()
    }

    fn nanos(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }
}

impl Sign {
    /// The thread takes a turn that was `due`.
    pub(super) fn leave(&self, due: Instant, now: Instant) {
        let thread = &self.vigil.threads[self.index];
        let late = now.saturating_duration_since(due).as_nanos();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        thread.worst.fetch_max(late, Relaxed);
        thread.last.store(self.vigil.nanos(now), Relaxed);
        thread.state.store(AWAKE, Relaxed);
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        let thread = &self.vigil.threads[self.index];
        thread.state.store(GONE, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(sign: &Sign) {
        let now = Instant::now();
        sign.leave(now, now);
    }

    #[test]
    fn one_silent_thread_is_enough_to_be_worried() {
        let vigil = Vigil::new(3, Instant::now());
        let signs = vigil.signs();
        assert_eq!(vigil.take(), Err(0), "nobody has begun");
        signs.iter().for_each(turn);
        assert_eq!(vigil.take(), Ok(()));
        assert_eq!(vigil.take(), Err(0), "signs are good for once");
        turn(&signs[0]);
        turn(&signs[1]);
        assert_eq!(vigil.take(), Err(2));
        turn(&signs[2]);
        assert_eq!(vigil.take(), Ok(()), "earlier signs of the others count");
    }

    #[test]
    fn a_thread_that_has_ended_is_not_waited_for() {
        let vigil = Vigil::new(2, Instant::now());
        let mut signs = vigil.signs();
        drop(signs.pop());
        assert_eq!(vigil.take(), Err(0));
        for _ in 0..3 {
            turn(&signs[0]);
            assert_eq!(vigil.take(), Ok(()));
        }
    }

    #[test]
    fn the_latest_turn_is_told_once_and_one_that_is_overdue_as_long_as_it_is() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let millis =
            |lags: Vec<Duration>| -> Vec<u128> { lags.iter().map(Duration::as_millis).collect() };
        let vigil = Vigil::new(2, start);
        let mut signs = vigil.signs();
        assert_eq!(
            millis(vigil.take_lags(at(5000))),
            [0, 0],
            "nobody has begun"
        );
        signs[0].leave(at(5000), at(5040));
        signs[0].leave(at(5100), at(5101));
        signs[1].leave(at(5100), at(5100));
        assert_eq!(millis(vigil.take_lags(at(5101))), [40, 0]);
        assert_eq!(millis(vigil.take_lags(at(5101))), [0, 0], "it was told");
        let tick = TICK.as_millis();
        let overdue = [8101 - 5101 - tick, 8101 - 5100 - tick];
        assert_eq!(millis(vigil.take_lags(at(8101))), overdue);
        drop(signs.pop());
        assert_eq!(millis(vigil.take_lags(at(8101))), [overdue[0], 0]);
    }
}
