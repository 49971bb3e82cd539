//! Fair shares of a listener's connections.
//!
//! With SO_REUSEPORT the kernel chooses a thread for each connection by a hash of its addresses, and
//! knows nothing of how many it has there already. Connections here last for hours, so a thread that
//! has drawn many more of them than the others would keep them, and keep drawing. Such a thread hands
//! a new connection on to the one that has fewest, before anything was read from it.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// Connections on their way from one thread to another; when they do not fit, they stay.
const HANDED_MAX: usize = 1024;
/// A thread may have so many connections more than the one with fewest, and an eighth of its number:
/// short connections even out by themselves, and handing one on costs a few system calls.
const SLACK: usize = 32;

/// One thread's part in a listener.
#[derive(Debug)]
pub(super) struct Share {
    index: usize,
    all: Arc<[Counted]>,
    /// Connections that other threads have handed on.
    pub(super) inbox: mpsc::Receiver<TcpStream>,
}

#[derive(Debug)]
struct Counted {
    open: AtomicUsize,
    handed: mpsc::Sender<TcpStream>,
}

/// Counts a connection of a thread until dropped.
#[derive(Debug)]
pub(super) struct Counting {
    index: usize,
    all: Arc<[Counted]>,
}

/// Shares for so many threads.
pub(super) fn shares(threads: usize) -> Vec<Share> {
    let (counted, inboxes): (Vec<_>, Vec<_>) = (0..threads)
        .map(|_| {
            let (handed, inbox) = mpsc::channel(HANDED_MAX);
            let open = AtomicUsize::new(0);
            (Counted { open, handed }, inbox)
        })
        .unzip();
    let all: Arc<[Counted]> = counted.into();
    let with = |(index, inbox)| Share {
        index,
        all: Arc::clone(&all),
        inbox,
    };
    inboxes.into_iter().enumerate().map(with).collect()
}

impl Share {
    /// The thread that a new connection should go to, if it is another one.
    pub(super) fn elsewhere(&self) -> Option<usize> {
        let counts = self
            .all
            .iter()
            .map(|counted| counted.open.load(Ordering::Relaxed));
        let own = self.all[self.index].open.load(Ordering::Relaxed);
        let (index, fewest) = counts.enumerate().min_by_key(|(_, open)| *open)?;
        (own > fewest + fewest / 8 + SLACK).then_some(index)
    }

    /// Hands a connection to another thread; gives it back if that has too many coming already.
    pub(super) fn hand(&self, to: usize, stream: TcpStream) -> Result<(), TcpStream> {
        self.all[to]
            .handed
            .try_send(stream)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Counts a connection of this thread.
    pub(super) fn count(&self) -> Counting {
        self.all[self.index].open.fetch_add(1, Ordering::Relaxed);
        Counting {
            index: self.index,
            all: Arc::clone(&self.all),
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.all[self.index].open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_many_more_sends_new_ones_to_the_one_with_fewest() {
        let shares = shares(3);
        let mut held: Vec<Counting> = (0..SLACK).map(|_| shares[0].count()).collect();
        assert_eq!(shares[0].elsewhere(), None, "within the slack");
        held.push(shares[0].count());
        assert_eq!(shares[0].elsewhere(), Some(1));
        held.push(shares[1].count());
        assert_eq!(shares[0].elsewhere(), Some(2));
        assert_eq!(shares[1].elsewhere(), None);
        drop(held);
        assert_eq!(shares[0].elsewhere(), None);
    }

    #[test]
    fn whatever_the_kernel_draws_no_thread_ends_with_far_more() {
        for seed in 0..64 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let shares = shares(4);
            let mut held = Vec::new();
            for _ in 0..4000 {
                // The worst draw: nearly all to one thread.
                let drawn = if rng.u8(0..10) < 9 {
                    0
                } else {
                    rng.usize(0..4)
                };
                let to = shares[drawn].elsewhere().unwrap_or(drawn);
                held.push((to, shares[to].count()));
                if rng.u8(0..4) == 0 {
                    held.swap_remove(rng.usize(..held.len()));
                }
            }
            let count = |thread| held.iter().filter(|(to, _)| *to == thread).count();
            let counts: Vec<usize> = (0..4).map(count).collect();
            let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            assert!(
                *most <= fewest + fewest / 4 + 2 * SLACK,
                "{counts:?}, seed {seed}"
            );
        }
    }
}
