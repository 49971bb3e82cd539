//! Whether every worker thread takes its turns.
//!
//! A thread that is stuck, in a loop or in a system call that does not return, serves nobody of those
//! whom it has accepted, while the others go on as if nothing were wrong. So each thread leaves a sign
//! with every turn, and whoever vouches for the process towards systemd looks for one of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Nothing was heard of the thread since it was last looked for, or since the start.
const SILENT: u8 = 0;
/// It has taken a turn.
const AWAKE: u8 = 1;
/// It has ended, as it should.
const GONE: u8 = 2;

/// The signs of all worker threads.
pub(super) struct Vigil {
    threads: Box<[AtomicU8]>,
}

/// Where one thread leaves its sign. Dropped, the thread has ended and is not waited for.
pub(super) struct Sign {
    vigil: Arc<Vigil>,
    index: usize,
}

impl Vigil {
    /// Nothing was heard of anybody yet.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let threads = (0..threads).map(|_| AtomicU8::new(SILENT)).collect();
        Arc::new(Self { threads })
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
        let silent = |thread: &AtomicU8| thread.load(Relaxed) == SILENT;
        if let Some(index) = self.threads.iter().position(silent) {
            return Err(index);
        }
        for thread in &self.threads {
            // One that ends meanwhile stays gone.
            let _ = thread.compare_exchange(AWAKE, SILENT, Relaxed, Relaxed);
        }
        Ok(())
    }
}

impl Sign {
    /// The thread takes a turn.
    pub(super) fn leave(&self) {
        self.vigil.threads[self.index].store(AWAKE, Relaxed);
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        self.vigil.threads[self.index].store(GONE, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_thread_is_enough_to_be_worried() {
        let vigil = Vigil::new(3);
        let signs = vigil.signs();
        assert_eq!(vigil.take(), Err(0), "nobody has begun");
        signs.iter().for_each(Sign::leave);
        assert_eq!(vigil.take(), Ok(()));
        assert_eq!(vigil.take(), Err(0), "signs are good for once");
        signs[0].leave();
        signs[1].leave();
        assert_eq!(vigil.take(), Err(2));
        signs[2].leave();
        assert_eq!(vigil.take(), Ok(()), "earlier signs of the others count");
    }

    #[test]
    fn a_thread_that_has_ended_is_not_waited_for() {
        let vigil = Vigil::new(2);
        let mut signs = vigil.signs();
        drop(signs.pop());
        assert_eq!(vigil.take(), Err(0));
        for _ in 0..3 {
            signs[0].leave();
            assert_eq!(vigil.take(), Ok(()));
        }
    }
}
