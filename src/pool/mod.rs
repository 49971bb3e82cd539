//! Which endpoint of the pool.
//!
//! A pool is a set of endpoints that can serve one another's calls. A call that belongs to a
//! session goes to the endpoint that owns it ([`Pool::find`], then [`Endpoint::reach`]). Everything
//! else is a choice ([`Pool::pick`]): first who may take it at all, by state and by what is known
//! of the server, then who should, by the pool's way of balancing.
//!
//! This module knows nothing of sessions, HTTP or sockets. An endpoint is known outside by a 64-bit
//! id, a stable hash of its name that the caller computes; what is done to find out whether it is
//! healthy, or to connect to it, happens elsewhere and is told here.

use std::fmt;
use std::sync::Arc;

pub mod balance;
pub mod endpoint;
pub mod facts;
pub mod health;
pub mod parting;

use balance::{Balancer, Candidates};

pub use balance::Balance;
pub use endpoint::{Admin, CallPermit, Endpoint, EndpointSpec, SessionGuard, Unreachable};
pub use facts::{Fact, FactCell, Facts};
pub use health::{Health, HealthState, Transition};
pub use parting::Parting;

/// Most endpoints in a pool.
pub const ENDPOINTS_MAX: usize = 1024;

/// Endpoints that can serve one another's calls, and how to choose among them.
///
/// Immutable but for the state of its endpoints. A reload builds a new pool from the endpoints that
/// stay (the same `Arc`s, with their counters) and those that are new.
pub struct Pool {
    name: Box<str>,
    endpoints: Vec<Arc<Endpoint>>,
    /// `(id, index)` sorted by id.
    by_id: Vec<(u64, usize)>,
    balancer: Balancer,
}

/// Why a pool could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// More than [`ENDPOINTS_MAX`] endpoints.
    #[error("{0} endpoints, at most {ENDPOINTS_MAX} are allowed")]
    TooMany(usize),
    /// Two endpoints have the same id, which for different names happens to nobody.
    #[error("endpoints {0} and {1} have the same name")]
    Duplicate(Box<str>, Box<str>),
}

/// What a call needs of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Need {
    /// Nothing in particular.
    #[default]
    Any,
    /// A server that may speak a session-era revision.
    SessionEra,
    /// A server that may speak a stateless-era revision.
    StatelessEra,
}

/// What is known about a call that needs an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// What [`Balance::ConsistentHash`] goes by; without a key it draws one. Ignored by the others.
    pub key: Option<u64>,
    /// Ids of endpoints that this call has tried already.
    pub exclude: &'a [u64],
    /// What the endpoint must be able to do. An endpoint of which this is unknown may.
    pub need: Need,
}

/// No endpoint can take the call. Of several reasons the one nearest to success is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// Every endpoint is down or was tried already, or the pool is empty.
    #[error("every endpoint is down")]
    AllDown,
    /// Those that are not down are in drain or maintenance, or have weight 0.
    #[error("every endpoint that is not down is draining or in maintenance")]
    AllDraining,
    /// Those that could take it have no address yet.
    #[error("no endpoint's address is resolved")]
    NoneResolved,
    /// Those that could take it do not speak a revision of the call's era.
    #[error("no endpoint speaks a revision of the call's era")]
    WrongEra,
}

impl NoEndpoint {
    /// How near to success.
    const fn rank(self) -> u8 {
        match self {
            Self::AllDown => 0,
            Self::AllDraining => 1,
            Self::NoneResolved => 2,
            Self::WrongEra => 3,
        }
    }
}

impl Pool {
    /// Builds a pool. An empty one is allowed and never has an endpoint to offer.
    pub fn new(
        name: &str,
        balance: Balance,
        endpoints: Vec<Arc<Endpoint>>,
    ) -> Result<Self, PoolError> {
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(PoolError::TooMany(endpoints.len()));
        }
        let mut by_id: Vec<_> = endpoints.iter().map(|e| e.id()).zip(0..).collect();
        by_id.sort_unstable();
        if let Some(twins) = by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let name = |at: usize| endpoints[twins[at].1].name().into();
            return Err(PoolError::Duplicate(name(0), name(1)));
        }
        let balancer = Balancer::new(balance, endpoints.len());
        Ok(Self {
            name: name.into(),
            endpoints,
            by_id,
            balancer,
        })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How this pool balances.
    pub fn balance(&self) -> Balance {
        self.balancer.kind()
    }

    /// The endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The place in [`Self::endpoints`] of the endpoint with this id.
    pub fn position(&self, id: u64) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.by_id[found].1)
    }

    /// The endpoint with this id, in whatever state it is.
    pub fn find(&self, id: u64) -> Option<&Arc<Endpoint>> {
        self.position(id).map(|at| &self.endpoints[at])
    }

    /// Chooses an endpoint for a call that no session binds.
    ///
    /// The first of these groups that is not empty is balanced over: primaries that are up, backups
    /// that are up, primaries not checked yet, backups not checked yet. Within it only endpoints
    /// that are in administrative state up, have a weight and an address, serve the needed era and
    /// were not tried yet.
    ///
    /// Takes no permit: [`Endpoint::call`] does. So calls that pick at the same moment may not see
    /// each other, which random choice tolerates. Allocates nothing; time is linear in the
    /// endpoints.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let candidates = self.candidates(context)?;
        let chosen = self
            .balancer
            .choose(&self.endpoints, &candidates, context.key, rng);
        chosen
            .map(|at| Arc::clone(&self.endpoints[at]))
            .ok_or(NoEndpoint::AllDown)
    }

    fn candidates(&self, context: &PickContext<'_>) -> Result<Candidates, NoEndpoint> {
        let mut tiers = [Candidates::EMPTY; Tier::COUNT];
        let mut nearest = NoEndpoint::AllDown;
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            if context.exclude.contains(&endpoint.id()) {
                continue;
            }
            match standing(endpoint, context.need) {
                Ok(tier) => tiers[tier as usize].add(at),
                Err(reason) if reason.rank() > nearest.rank() => nearest = reason,
                Err(_) => {}
            }
        }
        tiers
            .into_iter()
            .find(|tier| !tier.is_empty())
            .ok_or(nearest)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("balance", &self.balance())
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

/// The groups that `pick` goes through, best first.
#[derive(Clone, Copy)]
enum Tier {
    PrimaryUp,
    BackupUp,
    PrimaryUnchecked,
    BackupUnchecked,
}

impl Tier {
    const COUNT: usize = Self::BackupUnchecked as usize + 1;
}

/// May this endpoint take a call that no session binds, and in which group?
fn standing(endpoint: &Endpoint, need: Need) -> Result<Tier, NoEndpoint> {
    let tier = match (endpoint.health(), endpoint.is_backup()) {
        (HealthState::Up, false) => Tier::PrimaryUp,
        (HealthState::Up, true) => Tier::BackupUp,
        (HealthState::Unchecked, false) => Tier::PrimaryUnchecked,
        (HealthState::Unchecked, true) => Tier::BackupUnchecked,
        (HealthState::Down, _) => return Err(NoEndpoint::AllDown),
    };
    if endpoint.admin() != Admin::Up || endpoint.weight() == 0 {
        return Err(NoEndpoint::AllDraining);
    }
    if !endpoint.is_resolved() {
        return Err(NoEndpoint::NoneResolved);
    }
    let able = match need {
        Need::Any => Fact::Yes,
        Need::SessionEra => endpoint.facts.speaks_session_era.get(),
        Need::StatelessEra => endpoint.facts.speaks_stateless_era.get(),
    };
    match able {
        Fact::No => Err(NoEndpoint::WrongEra),
        Fact::Yes | Fact::Unknown => Ok(tier),
    }
}

#[cfg(test)]
mod tests;
