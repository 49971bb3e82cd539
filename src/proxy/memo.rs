//! Sessions that were served lately.
//!
//! A client sends one session's requests one after the other, and opening its sealed id each time
//! would say the same thing each time. What an id says is remembered with the session's pulse, so
//! that the next request finds its endpoint and shows that it lives without any cryptography and
//! without a lock that other threads take.
//!
//! Each thread has its own [`Memo`]; behind them all is one [`SharedMemo`], where a thread looks for
//! a session that it has not served yet, or not for long, before it opens the id. All point to one and
//! the same [`Known`], so a session that many threads serve is kept once.
//!
//! Only ids that have opened are remembered, so a place in here cannot be guessed at; and what is
//! remembered is true for one compiled pool, so a reload leaves nothing stale behind.

use std::array;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::state::PoolState;
use crate::pool::Endpoint;
use crate::session::{Claims, IdKind, Key, PrincipalHash, Pulse};
use crate::telemetry::SessionTag;

mod sets;

use sets::Sets;

/// Sets that a thread has at most: 4,096 places in 64 KiB.
const OWN_SETS_MAX: usize = 1024;
/// Shards that all threads share, so that they rarely meet.
const SHARDS: usize = 64;
/// Sets of a shard at most: 65,536 places in all, in 1 MiB. With the claims of a UUID, what they point to
/// takes 20 MiB. Beyond that, ids are opened more often.
const SHARD_SETS_MAX: usize = 256;
/// Sweeps until every set was looked at: some 3 s at a tick of 50 ms.
const SWEEPS: usize = 64;
/// Shards that one [`SharedMemo::sweep`] looks at; all of them take 8 s.
const SHARDS_SWEPT: usize = 8;

/// What a sealed id was found to say.
pub struct Known {
    /// The pool that it was opened for.
    pub pool: Arc<PoolState>,
    /// The endpoint that owns the session.
    pub endpoint: Arc<Endpoint>,
    /// What the id may be used for.
    pub kind: IdKind,
    /// Who began the session.
    pub principal: PrincipalHash,
    /// The server's own id.
    pub server_id: Arc<str>,
    /// The session's key in the table.
    pub key: Key,
    /// The id as the client knows it.
    pub sealed: Box<str>,
    /// Its hash, for the log.
    pub tag: SessionTag,
    /// The session's sign of life, while it is in the table.
    pub pulse: ArcSwapOption<Pulse>,
}

// With the counts before it, what the allocator gives out at a time.
const _: () = assert!(size_of::<Known>() <= 96);

impl Known {
    /// A session that is not known to be in the table yet.
    pub fn new(
        pool: &Arc<PoolState>,
        endpoint: &Arc<Endpoint>,
        claims: Claims,
        sealed: Box<str>,
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            key: Key::of(claims.pool, claims.endpoint, &claims.server_id),
            kind: claims.kind,
            principal: claims.principal,
            server_id: claims.server_id,
            tag: SessionTag::of(&sealed),
            sealed,
            pulse: ArcSwapOption::empty(),
        }
    }

    /// Has the session left the table?
    fn is_over(&self) -> bool {
        let pulse = self.pulse.load();
        pulse.as_ref().is_some_and(|pulse| pulse.is_over())
    }
}

/// The sessions of one thread.
pub struct Memo {
    own: Mutex<Sets<Known>>,
    shared: Arc<SharedMemo>,
}

impl Memo {
    /// An empty one, before what all threads share.
    pub fn new(shared: Arc<SharedMemo>) -> Self {
        Self {
            own: Mutex::new(Sets::new(OWN_SETS_MAX)),
            shared,
        }
    }

    /// What is known of an id, for requests of this principal to this pool.
    pub fn find(
        &self,
        pool: &Arc<PoolState>,
        id: &[u8],
        kind: IdKind,
        principal: PrincipalHash,
    ) -> Option<Arc<Known>> {
        let same = |known: &Known| {
            known.sealed.as_bytes() == id
                && known.kind == kind
                && known.principal == principal
                && Arc::ptr_eq(&known.pool, pool)
        };
        let mark = mark(id);
        if let Some(known) = lock(&self.own).find(mark, same) {
            return Some(known);
        }
        let known = lock(self.shared.shard(mark)).find(mark, same)?;
        self.keep_here(mark, &known);
        Some(known)
    }

    /// Remembers an id that has opened.
    pub fn keep(&self, known: &Arc<Known>) {
        let mark = mark(known.sealed.as_bytes());
        let old = lock(self.shared.shard(mark)).keep(mark, Arc::clone(known));
        drop(old);
        self.keep_here(mark, known);
    }

    fn keep_here(&self, mark: u64, known: &Arc<Known>) {
        // What it takes the place of is dropped without the lock.
        let old = lock(&self.own).keep(mark, Arc::clone(known));
        drop(old);
    }

    /// Forgets a session that is over. Other threads do when they sweep.
    pub fn forget(&self, known: &Known) {
        let mark = mark(known.sealed.as_bytes());
        let same = |one: &Known| one.sealed == known.sealed;
        let own = lock(&self.own).forget(mark, same);
        let shared = lock(self.shared.shard(mark)).forget(mark, same);
        drop((own, shared));
    }

    /// Forgets sessions that are over, in a part of the places: to be called now and then, so that
    /// what has been does not take memory until something else needs its place.
    pub fn sweep(&self) {
        lock(&self.own).sweep(SWEEPS, Known::is_over);
    }
}

/// The sessions of all threads.
pub struct SharedMemo {
    shards: [Mutex<Sets<Known>>; SHARDS],
    /// Where the next sweep begins.
    next: AtomicUsize,
}

impl Default for SharedMemo {
    fn default() -> Self {
        Self {
            shards: array::from_fn(|_| Mutex::new(Sets::new(SHARD_SETS_MAX))),
            next: AtomicUsize::new(0),
        }
    }
}

impl SharedMemo {
    /// As [`Memo::sweep`].
    pub fn sweep(&self) {
        let first = self.next.fetch_add(SHARDS_SWEPT, Relaxed);
        for at in first..first + SHARDS_SWEPT {
            lock(&self.shards[at % SHARDS]).sweep(1, Known::is_over);
        }
    }

    /// The top bits choose the shard, others the set.
    fn shard(&self, mark: u64) -> &Mutex<Sets<Known>> {
        &self.shards[(mark >> 58) as usize % SHARDS]
    }
}

fn lock(sets: &Mutex<Sets<Known>>) -> MutexGuard<'_, Sets<Known>> {
    sets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a sealed id is its authentication tag, as good as random in every id that opens.
fn mark(id: &[u8]) -> u64 {
    let tail = id.last_chunk::<8>().copied().unwrap_or_default();
    // Six bits to a character, and the last one may carry fewer: a product mixes them.
    u64::from_be_bytes(tail).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
