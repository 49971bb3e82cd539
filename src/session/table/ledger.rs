//! How many sessions there are, in total and of whom, and whether one more may come.
//!
//! Counts are raised before a session enters its shard and lowered after it left, under the shard's
//! lock, so a cap is never exceeded, not even for a moment. The locks here are taken when a session
//! begins or ends, never for a request within one.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Live, lock};
use crate::session::hash::{NameHash, PrincipalHash};

/// Locks over which principals are spread: there may be as many of them as sessions.
const PRINCIPAL_SHARDS: usize = 64;

/// The most sessions a table holds. At a cap nothing is evicted: the newcomer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In the whole table.
    pub total: usize,
    /// In any one pool.
    pub per_pool: usize,
    /// Of any one principal over all pools. Anonymous clients are not one principal, so this does
    /// not apply to them.
    pub per_principal: usize,
}

/// Which cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// [`Caps::total`].
    Total,
    /// [`Caps::per_pool`].
    Pool,
    /// [`Caps::per_principal`].
    Principal,
}

impl Cap {
    /// The cap as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Pool => "pool",
            Self::Principal => "principal",
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// There is no room for one more session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {cap} cap on sessions is reached")]
pub struct Refused {
    /// The cap that is reached.
    pub cap: Cap,
}

pub(super) struct Ledger {
    total_cap: AtomicUsize,
    pool_cap: AtomicUsize,
    principal_cap: AtomicUsize,
    principals: Box<[Mutex<HashMap<PrincipalHash, usize>>]>,
    totals: Mutex<Totals>,
}

/// Entries are removed at zero, so the maps are bounded by the sessions there are.
#[derive(Default)]
struct Totals {
    all: usize,
    pools: HashMap<NameHash, usize>,
    endpoints: HashMap<(NameHash, NameHash), usize>,
}

impl Ledger {
    pub(super) fn new(caps: Caps) -> Self {
        let ledger = Self {
            total_cap: AtomicUsize::new(0),
            pool_cap: AtomicUsize::new(0),
            principal_cap: AtomicUsize::new(0),
            principals: (0..PRINCIPAL_SHARDS).map(|_| Mutex::default()).collect(),
            totals: Mutex::default(),
        };
        ledger.set_caps(caps);
        ledger
    }

    pub(super) fn set_caps(&self, caps: Caps) {
        self.total_cap.store(caps.total, Relaxed);
        self.pool_cap.store(caps.per_pool, Relaxed);
        self.principal_cap.store(caps.per_principal, Relaxed);
    }

    pub(super) fn room(&self, pool: NameHash, principal: PrincipalHash) -> Result<(), Refused> {
        self.principal_room(principal, self.principal(principal))?;
        self.totals_room(&lock(&self.totals), pool)
    }

    /// Counts one more session, if there is room for it.
    pub(super) fn enter(
        &self,
        pool: NameHash,
        endpoint: NameHash,
        principal: PrincipalHash,
    ) -> Result<(), Refused> {
        // Held to the end, so that nobody sees the principal counted and the rest not.
        let mut principals = lock(self.principals_of(principal));
        let held = principals.get(&principal).copied().unwrap_or(0);
        self.principal_room(principal, held)?;
        let mut totals = lock(&self.totals);
        self.totals_room(&totals, pool)?;

        totals.all += 1;
        *totals.pools.entry(pool).or_default() += 1;
        *totals.endpoints.entry((pool, endpoint)).or_default() += 1;
        if principal != PrincipalHash::ANONYMOUS {
            *principals.entry(principal).or_default() += 1;
        }
        Ok(())
    }

    /// Counts one session less.
    pub(super) fn leave(&self, pool: NameHash, endpoint: NameHash, principal: PrincipalHash) {
        if principal != PrincipalHash::ANONYMOUS {
            lower(&mut lock(self.principals_of(principal)), principal);
        }
        let mut totals = lock(&self.totals);
        debug_assert!(totals.all > 0, "a session left that never came");
        totals.all = totals.all.saturating_sub(1);
        lower(&mut totals.pools, pool);
        lower(&mut totals.endpoints, (pool, endpoint));
    }

    /// Counts a session for another endpoint of its pool.
    pub(super) fn rebind(&self, pool: NameHash, from: NameHash, to: NameHash) {
        let mut totals = lock(&self.totals);
        lower(&mut totals.endpoints, (pool, from));
        *totals.endpoints.entry((pool, to)).or_default() += 1;
    }

    pub(super) fn total(&self) -> usize {
        lock(&self.totals).all
    }

    pub(super) fn pool(&self, pool: NameHash) -> usize {
        lock(&self.totals).pools.get(&pool).copied().unwrap_or(0)
    }

    pub(super) fn endpoint(&self, pool: NameHash, endpoint: NameHash) -> usize {
        lock(&self.totals)
            .endpoints
            .get(&(pool, endpoint))
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn principal(&self, principal: PrincipalHash) -> usize {
        lock(self.principals_of(principal))
            .get(&principal)
            .copied()
            .unwrap_or(0)
    }

    /// Asserts that the counts are those of `sessions`, which are all there are.
    pub(super) fn check_invariants<'a, T: 'a>(&self, sessions: impl Iterator<Item = &'a Live<T>>) {
        let mut truth = Totals::default();
        let mut held = HashMap::new();
        for live in sessions {
            truth.all += 1;
            *truth.pools.entry(live.pool).or_default() += 1;
            *truth
                .endpoints
                .entry((live.pool, live.endpoint))
                .or_default() += 1;
            if live.principal != PrincipalHash::ANONYMOUS {
                *held.entry(live.principal).or_default() += 1;
            }
        }
        let mut counted = HashMap::new();
        for principals in &self.principals {
            counted.extend(
                lock(principals)
                    .iter()
                    .map(|(principal, count)| (*principal, *count)),
            );
        }
        assert_eq!(counted, held, "sessions per principal");
        let totals = lock(&self.totals);
        assert_eq!(totals.all, truth.all, "sessions in total");
        assert_eq!(totals.pools, truth.pools, "sessions per pool");
        assert_eq!(totals.endpoints, truth.endpoints, "sessions per endpoint");
    }

    fn principals_of(&self, principal: PrincipalHash) -> &Mutex<HashMap<PrincipalHash, usize>> {
        &self.principals[principal.0 as usize % PRINCIPAL_SHARDS]
    }

    fn principal_room(&self, principal: PrincipalHash, held: usize) -> Result<(), Refused> {
        match principal != PrincipalHash::ANONYMOUS && held >= self.principal_cap.load(Relaxed) {
            true => Err(Refused {
                cap: Cap::Principal,
            }),
            false => Ok(()),
        }
    }

    fn totals_room(&self, totals: &Totals, pool: NameHash) -> Result<(), Refused> {
        if totals.all >= self.total_cap.load(Relaxed) {
            return Err(Refused { cap: Cap::Total });
        }
        let in_pool = totals.pools.get(&pool).copied().unwrap_or(0);
        if in_pool >= self.pool_cap.load(Relaxed) {
            return Err(Refused { cap: Cap::Pool });
        }
        Ok(())
    }
}

fn lower<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        found => {
            debug_assert!(found.is_some(), "a session left that never came");
            counts.remove(&key);
        }
    }
}
