//! Sessions that this thread has served lately.
//!
//! A client sends one session's requests one after the other, and opening its sealed id each time
//! would say the same thing each time. What an id says is remembered with the session's pulse, so
//! that the next request finds its endpoint and shows that it lives without any cryptography and
//! without a lock that other threads take.
//!
//! Only ids that have opened are remembered, so a place in here cannot be guessed at; and what is
//! remembered is true for one compiled pool, so a reload leaves nothing stale behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::state::PoolState;
use crate::pool::Endpoint;
use crate::session::{Claims, IdKind, Key, PrincipalHash, Pulse};
use crate::telemetry::SessionTag;

/// Sessions remembered per thread; with the claims of a UUID some 2 MiB.
const PLACES: usize = 4096;

/// What a sealed id was found to say.
pub struct Known {
    /// The pool that it was opened for.
    pub pool: Arc<PoolState>,
    /// The endpoint that owns the session.
    pub endpoint: Arc<Endpoint>,
    /// The claims in the id.
    pub claims: Claims,
    /// The session's key in the table.
    pub key: Key,
    /// The id as the client knows it.
    pub sealed: Box<str>,
    /// Its hash, for the log.
    pub tag: SessionTag,
    /// The session's sign of life, while it is in the table.
    pub pulse: ArcSwapOption<Pulse>,
}

/// Places that one [`Memo::sweep`] looks at; all of them take some 3 s at a tick of 50 ms.
const SWEPT: usize = 64;

/// A direct-mapped table: a session has one place, and whoever needs it last has it.
#[derive(Default)]
pub struct Memo(Mutex<Places>);

#[derive(Default)]
struct Places {
    all: Vec<Option<Arc<Known>>>,
    /// Where the next sweep begins.
    next: usize,
}

impl Memo {
    /// What is known of an id, for requests of this principal to this pool.
    pub fn find(
        &self,
        pool: &Arc<PoolState>,
        id: &[u8],
        kind: IdKind,
        principal: PrincipalHash,
    ) -> Option<Arc<Known>> {
        let places = self.lock();
        let known = places.all.get(place(id))?.as_ref()?;
        let same = known.sealed.as_bytes() == id
            && known.claims.kind == kind
            && known.claims.principal == principal
            && Arc::ptr_eq(&known.pool, pool);
        same.then(|| Arc::clone(known))
    }

    /// Remembers an id that has opened.
    pub fn keep(&self, known: &Arc<Known>) {
        let mut places = self.lock();
        if places.all.is_empty() {
            places.all.resize_with(PLACES, || None);
        }
        let old = places.all[place(known.sealed.as_bytes())].replace(Arc::clone(known));
        drop(places);
        drop(old);
    }

    /// Forgets sessions that are over, in a part of the places: to be called now and then, so that
    /// what has been does not take memory until something else needs its place.
    pub fn sweep(&self) {
        let mut places = self.lock();
        let from = places.next.min(places.all.len());
        let end = (from + SWEPT).min(places.all.len());
        places.next = if end == places.all.len() { 0 } else { end };
        for place in &mut places.all[from..end] {
            let is_over = |known: &Arc<Known>| {
                let pulse = known.pulse.load();
                pulse.as_ref().is_some_and(|pulse| pulse.is_over())
            };
            if place.as_ref().is_some_and(is_over) {
                *place = None;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a sealed id is its authentication tag, as good as random in every id that opens.
fn place(id: &[u8]) -> usize {
    let tail = id.last_chunk::<8>().copied().unwrap_or_default();
    // Six bits to a character, and the last one may carry fewer: a product mixes them.
    let mixed = u64::from_be_bytes(tail).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_spread_over_the_places() {
        use base64::Engine as _;
        let mut rng = fastrand::Rng::with_seed(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..PLACES {
            let tag: Vec<u8> = (0..16).map(|_| rng.u8(..)).collect();
            let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag);
            seen.insert(place(text.as_bytes()));
        }
        // Thrown at random, 63 % of the places are hit.
        assert!(seen.len() > PLACES * 6 / 10, "{}", seen.len());
    }
}
