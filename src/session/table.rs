//! The sessions known to be alive, bounded.
//!
//! Sealed ids carry the affinity, so this table decides nothing about where a request goes. It
//! answers the questions that an id cannot: how many sessions does an endpoint hold, which have
//! been idle for too long, who holds too many, which are lost with this endpoint. After a restart
//! it is empty and fills again as requests arrive ([`Table::touch`]). A session that finds no room
//! is served all the same and is merely not counted.
//!
//! An open stream is activity: a client that listens for hours sends nothing, and is not idle.
//!
//! The table stores an opaque guard with each session and drops or returns it with the session. It
//! does not know what the guard releases, nor any clock: time comes in as `now`.
//!
//! Locks: 64 shards by key, so that threads rarely meet. A shard's lock is taken before those of
//! the ledger of counts, never the other way, and no caller's code runs under any of them except the
//! closures of [`Table::with`] and [`Table::list`].

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hash::{NameHash, PrincipalHash, session_digest};

mod ended;
mod ledger;
mod live;
mod page;
mod stream;

use ended::Ended;
use ledger::Ledger;
pub use ledger::{Cap, Caps, Refused};
pub use live::{Live, NewSession, Pulse, Revision};
pub use stream::StreamGuard;

/// Shards of the table.
const SHARDS: usize = 64;
/// Sessions that one [`Table::reap`] looks at before it stops, to the end of a shard.
pub const REAP_SCAN_MAX: usize = 32 * 1024;

/// Names a session in the table: a stable hash of its pool, its endpoint and the server's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u128);

impl Key {
    /// The key of the session that `endpoint` of `pool` calls `server_id`.
    pub fn of(pool: NameHash, endpoint: NameHash, server_id: &str) -> Self {
        Self(session_digest(pool, endpoint, server_id))
    }

    /// Wraps a value that [`Self::number`] once gave out.
    pub const fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// The key as a number that no other session's has.
    pub const fn number(self) -> u128 {
        self.0
    }

    /// The top bits choose the shard, the low 64 the place in its map.
    const fn shard(self) -> usize {
        (self.0 >> 64) as usize % SHARDS
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:032x})", self.0)
    }
}

/// A [`Key`] is a hash already; hashing it again would be waste.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        // Not reached for a `Key`, and still a hash if it ever is.
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What [`Table::touch`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// The session was in the table.
    Known,
    /// It was not, and is now: the table was lost, or another process had the session until now.
    Adopted,
    /// It was not, and a cap leaves no room. Serve it all the same.
    Untracked(Refused),
    /// It was ended here, whatever its server thinks of it.
    Ended,
}

/// Sessions are boxed: a map has room for up to twice of what it holds, and what it outgrows stays with
/// the allocator.
type Shard<T> = HashMap<Key, Box<Live<T>>, BuildHasherDefault<AsIs>>;

/// The bounded table of live sessions. `T` is what the caller keeps with each.
pub struct Table<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    ledger: Ledger,
    ended: Ended,
    /// The number of the next session, so that a stream of a closed session is never counted
    /// against a later one of the same key.
    next_serial: AtomicU64,
    /// When the table was made. `shown` counts from here.
    base: Instant,
    /// The latest time that [`Self::reap`] or [`Self::stream`] was shown, in nanoseconds since
    /// `base`: what a [`StreamGuard`] that is simply dropped takes for the end of its stream.
    shown: AtomicU64,
    /// The shard where the next [`Self::reap`] begins.
    cursor: AtomicUsize,
}

impl<T: Send> Table<T> {
    /// An empty table.
    pub fn new(caps: Caps, now: Instant) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            ledger: Ledger::new(caps),
            ended: Ended::default(),
            next_serial: AtomicU64::new(0),
            base: now,
            shown: AtomicU64::new(0),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Sets new caps, as a reload does. Sessions above a lowered cap stay; new ones are refused.
    pub fn set_caps(&self, caps: Caps) {
        self.ledger.set_caps(caps);
    }

    /// Would a new session find room now? Asked before an `initialize` goes upstream, because a
    /// session that is refused afterwards has to be deleted there again. Reserves nothing.
    pub fn room(&self, pool: NameHash, principal: PrincipalHash) -> Result<(), Refused> {
        self.ledger.room(pool, principal)
    }

    /// Enters the session that a 2xx answer to `initialize` has begun.
    ///
    /// A session of the same key is replaced: the server has given out its id anew. If a cap leaves
    /// no room, `new` is dropped, guard and all.
    pub fn open(&self, key: Key, new: NewSession<T>, now: Instant) -> Result<(), Refused> {
        self.ended.forget(key);
        let old; // Dropped after the lock, like everything that holds a caller's guard.
        let result;
        {
            let mut shard = self.shard(key);
            old = self.remove(&mut shard, key);
            result = self.insert(&mut shard, key, new, now);
        }
        drop(old);
        result.map_err(|(refused, _new)| refused)
    }

    /// Notes activity of a session, entering it with `adopt` if it is not here.
    ///
    /// `adopt` runs without any lock and its guard is dropped again if there is no room.
    pub fn touch(&self, key: Key, now: Instant, adopt: impl FnOnce() -> NewSession<T>) -> Touched {
        if let Some(live) = self.shard(key).get(&key) {
            live.pulse.note(now);
            return Touched::Known;
        }
        if self.ended.has(key) {
            return Touched::Ended;
        }
        let new = adopt();
        let mut shard = self.shard(key);
        if let Some(live) = shard.get(&key) {
            // Another request of the session was quicker.
            live.pulse.note(now);
            drop(shard);
            return Touched::Known;
        }
        let result = self.insert(&mut shard, key, new, now);
        drop(shard);
        match result {
            Ok(()) => Touched::Adopted,
            Err((refused, _new)) => Touched::Untracked(refused),
        }
    }

    /// The pulse of a session in the table: until it leaves, its requests need only move that.
    pub fn pulse(&self, key: Key) -> Option<Arc<Pulse>> {
        self.shard(key)
            .get(&key)
            .map(|live| Arc::clone(&live.pulse))
    }

    /// Takes a session out: the client sent DELETE, or the server said 404.
    pub fn close(&self, key: Key) -> Option<Live<T>> {
        let mut shard = self.shard(key);
        self.remove(&mut shard, key)
    }

    /// Binds a session to another endpoint of its pool, which knows it as `server_id`. Its key stays,
    /// for the client's id stays. What was kept with it is returned; `None` if the session is not in
    /// the table, and `guard` is dropped then.
    ///
    /// Whoever holds the session's pulse sees it end and looks here again.
    pub fn rebind(
        &self,
        key: Key,
        endpoint: NameHash,
        server_id: Arc<str>,
        guard: T,
        now: Instant,
    ) -> Option<T> {
        let mut shard = self.shard(key);
        let live = shard.get_mut(&key)?;
        self.ledger.rebind(live.pool, live.endpoint, endpoint);
        live.endpoint = endpoint;
        live.server_id = server_id;
        live.pulse.end();
        live.pulse = live.pulse.again(now);
        Some(std::mem::replace(&mut live.guard, guard))
    }

    /// What `look` reads of a session in the table, under the lock of its shard: it is short and does
    /// not call the table.
    pub fn look<R>(&self, key: Key, look: impl FnOnce(&Live<T>) -> R) -> Option<R> {
        self.shard(key).get(&key).map(|live| look(live))
    }

    /// Takes out every session of an endpoint that is lost, removed or drained to its deadline, but
    /// for those that `keep` accepts, which runs under the lock of their shard.
    ///
    /// Walks the whole table, one shard's lock at a time, unless the endpoint has no session: about
    /// 20 ms at a million. Better not on a thread that serves requests.
    pub fn close_endpoint(
        &self,
        pool: NameHash,
        endpoint: NameHash,
        keep: impl Fn(&Live<T>) -> bool,
    ) -> Vec<Live<T>> {
        let count = self.endpoint_len(pool, endpoint);
        if count == 0 {
            return Vec::new(); // Asked again and again while clients of a lost endpoint come back.
        }
        let mut closed = Vec::with_capacity(count);
        for shard in &self.shards {
            let mut shard = lock(shard);
            let from = closed.len();
            let lost = |_: &Key, live: &mut Box<Live<T>>| {
                live.endpoint == endpoint && live.pool == pool && !keep(live)
            };
            closed.extend(shard.extract_if(lost).map(|(_, live)| *live));
            self.forget(&mut shard, &closed[from..]);
        }
        closed
    }

    /// Takes out at most `max` sessions that have had no request for `idle_ttl` and have no open
    /// stream. The caller sends DELETE upstream for each.
    ///
    /// To be called every second or so. Each call looks at [`REAP_SCAN_MAX`] sessions, to the end
    /// of a shard, some 2 ms, and the next one goes on from there: a table of a million is walked
    /// in half a minute, a small one at every call.
    pub fn reap(&self, now: Instant, idle_ttl: Duration, max: usize) -> Vec<Live<T>> {
        self.show(now);
        let (mut reaped, mut seen) = (Vec::new(), 0);
        for _ in 0..SHARDS {
            if reaped.len() >= max || seen >= REAP_SCAN_MAX {
                break;
            }
            let at = self.cursor.load(Relaxed) % SHARDS;
            let mut shard = lock(&self.shards[at]);
            seen += shard.len();
            let (from, room) = (reaped.len(), max - reaped.len());
            let idle = |_: &Key, live: &mut Box<Live<T>>| live.is_idle(now, idle_ttl);
            reaped.extend(shard.extract_if(idle).take(room).map(|(_, live)| *live));
            self.forget(&mut shard, &reaped[from..]);
            if reaped.len() < max {
                // Otherwise this shard may hold more, and is the next call's first.
                self.cursor.store(at + 1, Relaxed);
            }
        }
        reaped
    }

    /// Runs `f` on a session's guard, under the lock of its shard: `f` is short and does not call
    /// the table.
    pub fn with<R>(&self, key: Key, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.shard(key).get_mut(&key).map(|live| f(&mut live.guard))
    }

    /// Up to `max` sessions that `keep` accepts, in no order, for the status page. `keep` runs
    /// under a lock and does not call the table.
    pub fn list(&self, max: usize, mut keep: impl FnMut(&Live<T>) -> bool) -> Vec<Live<()>> {
        let mut listed = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let room = max - listed.len();
            listed.extend(
                shard
                    .values()
                    .filter(|live| keep(live))
                    .take(room)
                    .map(|live| live.without_guard()),
            );
            if listed.len() == max {
                break;
            }
        }
        listed
    }

    /// Sessions in the table.
    pub fn len(&self) -> usize {
        self.ledger.total()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions of a pool.
    pub fn pool_len(&self, pool: NameHash) -> usize {
        self.ledger.pool(pool)
    }

    /// Sessions of an endpoint.
    pub fn endpoint_len(&self, pool: NameHash, endpoint: NameHash) -> usize {
        self.ledger.endpoint(pool, endpoint)
    }

    /// Sessions of a principal. Always 0 for [`PrincipalHash::ANONYMOUS`], which is not counted.
    pub fn principal_len(&self, principal: PrincipalHash) -> usize {
        self.ledger.principal(principal)
    }

    /// Asserts that every count equals what the shards hold. Takes all locks: for tests, the
    /// simulation and the fuzzers.
    ///
    /// # Panics
    ///
    /// If a count is wrong, which is a bug of this module.
    pub fn check_invariants(&self) {
        let shards: Vec<_> = self.shards.iter().map(lock).collect();
        for (at, shard) in shards.iter().enumerate() {
            for (key, live) in shard.iter() {
                assert_eq!(key.shard(), at, "{key:?} lies in the wrong shard");
                assert_eq!(*key, live.key, "a session carries another session's key");
                assert!(
                    live.last_used() >= live.created,
                    "{key:?} was used before it began"
                );
            }
        }
        self.ledger.check_invariants(
            shards
                .iter()
                .flat_map(|shard| shard.values())
                .map(Box::as_ref),
        );
    }

    fn insert(
        &self,
        shard: &mut Shard<T>,
        key: Key,
        new: NewSession<T>,
        now: Instant,
    ) -> Result<(), (Refused, NewSession<T>)> {
        if let Err(refused) = self.ledger.enter(new.pool, new.endpoint, new.principal) {
            return Err((refused, new));
        }
        let serial = self.next_serial.fetch_add(1, Relaxed);
        let pulse = Pulse::new(self.base, now);
        let live = Box::new(Live::new(key, serial, new, pulse, now));
        let replaced = shard.insert(key, live);
        debug_assert!(replaced.is_none(), "the caller looked under the same lock");
        Ok(())
    }

    fn remove(&self, shard: &mut Shard<T>, key: Key) -> Option<Live<T>> {
        let live = *shard.remove(&key)?;
        live.pulse.end();
        self.ledger.leave(live.pool, live.endpoint, live.principal);
        Some(live)
    }

    /// Settles the ledger for sessions that were just taken out of `shard`, and gives memory back
    /// when most of a shard has gone.
    fn forget(&self, shard: &mut Shard<T>, gone: &[Live<T>]) {
        for live in gone {
            live.pulse.end();
            self.ledger.leave(live.pool, live.endpoint, live.principal);
        }
        if !gone.is_empty() && shard.capacity() / 4 > shard.len() {
            shard.shrink_to(shard.len() * 2);
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard<T>> {
        lock(&self.shards[key.shard()])
    }

    fn show(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.base).as_nanos();
        self.shown
            .fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} sessions)", self.ledger.total())
    }
}

/// A shard is valid between any two statements, so a panic elsewhere under its lock is no reason to
/// stop serving.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
