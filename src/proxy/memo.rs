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
//! Only ids that have opened are remembered, so a place in here cannot be guessed at. What is remembered is
//! true for one compiled pool, and for the keys of its time: once a key is taken out, nothing counts that was
//! known before.

use std::array;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::state::{Held, PoolState};
use crate::pool::Endpoint;
use crate::session::{Claims, IdKind, Key, Live, PrincipalHash, Pulse};
use crate::telemetry::SessionTag;

mod sets;

use sets::Sets;

/// Sets that a thread has at most: 4,096 places in 64 KiB.
const OWN_SETS_MAX: usize = 1024;
/// Shards that all threads share, so that they rarely meet.
const SHARDS: usize = 64;
/// Sets of a shard at most: 65,536 places in all, in 1 MiB. Ids of UUIDs that they point to take 20 MiB, of
/// names of 512 bytes 80 MiB. Beyond that, ids are opened more often.
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
    /// The keys that it was opened with.
    pub keys: Keys,
}

/// Which keys were in force: a number that grows when one is taken out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys(u32);

// With the counts before it, what the allocator gives out at a time.
const _: () = assert!(size_of::<Known>() <= 96);

impl Known {
    /// A session that is not known to be in the table yet.
    pub fn new(
        pool: &Arc<PoolState>,
        endpoint: &Arc<Endpoint>,
        claims: Claims,
        sealed: Box<str>,
        keys: Keys,
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
            keys,
        }
    }

    /// Is this where the session is?
    pub fn is_at(&self, live: &Live<Held>) -> bool {
        live.guard.endpoint.id() == self.endpoint.id() && live.server_id == self.server_id
    }

    /// Has the session left the table, or never been there? One that found no room in it is opened anew now
    /// and then.
    fn is_over(&self) -> bool {
        let pulse = self.pulse.load();
        pulse.as_ref().is_none_or(|pulse| pulse.is_over())
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

    /// The keys in force. To be asked for before the keyring is.
    pub fn keys(&self) -> Keys {
        Keys(self.shared.keys.load(Acquire))
    }

    /// What is known of an id, for requests of this principal to this pool.
    pub fn find(
        &self,
        pool: &Arc<PoolState>,
        id: &[u8],
        kind: IdKind,
        principal: PrincipalHash,
    ) -> Option<Arc<Known>> {
        let keys = self.keys();
        let same = |known: &Known| {
            known.sealed.as_bytes() == id
                && known.keys == keys
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
    /// See [`Keys`].
    keys: AtomicU32,
}

impl Default for SharedMemo {
    fn default() -> Self {
        Self {
            shards: array::from_fn(|_| Mutex::new(Sets::new(SHARD_SETS_MAX))),
            next: AtomicUsize::new(0),
            keys: AtomicU32::new(0),
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

    /// A key was taken out of the keyring: what was opened before does not count any more.
    pub fn keys_changed(&self) {
        self.keys.fetch_add(1, Release);
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use base64::Engine as _;

    use super::*;

    #[test]
    fn ids_spread_over_shards_and_sets() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut shards, mut sets, mut places) = (HashSet::new(), HashSet::new(), HashSet::new());
        for _ in 0..OWN_SETS_MAX {
            let tag: Vec<u8> = (0..16).map(|_| rng.u8(..)).collect();
            let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag);
            let mark = mark(text.as_bytes());
            let (shard, set) = ((mark >> 58) as usize % SHARDS, (mark >> 32) as usize);
            shards.insert(shard);
            sets.insert(set % OWN_SETS_MAX);
            places.insert((shard, set % SHARD_SETS_MAX));
        }
        assert_eq!(shards.len(), SHARDS);
        // Thrown at random, 63 % of the sets are hit, and of sixteen times as many 97 % by one alone.
        assert!(sets.len() > OWN_SETS_MAX * 6 / 10, "{}", sets.len());
        assert!(places.len() > OWN_SETS_MAX * 9 / 10, "{}", places.len());
    }
}
