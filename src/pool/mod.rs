//! Which endpoint of the pool.
//!
//! A pool is a set of endpoints that can serve one another's calls. A call that belongs to a
//! session goes to the endpoint that owns it ([`Pool::find`], then [`Endpoint::reach`]). Everything
//! else is a choice ([`Pool::pick`]): first who may take it at all, by state and by what is known
//! of the server, then who should, by the pool's way of balancing. What came of a call is told with
//! [`Pool::record`], and may set its endpoint aside for a while.
//!
//! This module knows nothing of sessions, HTTP or sockets. An endpoint is known outside by a 64-bit
//! id, a stable hash of its name that the caller computes; what is done to find out whether it is
//! healthy, or to connect to it, happens elsewhere and is told here.

use std::fmt;
use std::sync::{Arc, OnceLock};

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod endpoint;
pub mod facts;
pub mod failures;
pub mod guard;
pub mod health;
pub mod latency;
pub mod lateness;
pub mod line;
pub mod moment;
pub mod parting;
pub mod places;
pub mod placing;
pub mod protect;
pub mod queue;
pub mod ramp;
pub mod timings;
pub mod verdict;
pub mod window;

use balance::{Balancer, Candidates, Scales};
use protect::Ejecting;

pub use balance::Balance;
pub use breaker::Outcome;
pub use budget::{Allowance, Budget};
pub use endpoint::{Admin, CallPermit, Endpoint, EndpointSpec, SessionGuard, Unreachable};
pub use facts::{Fact, FactCell, Facts};
pub use failures::{FailureKind, Failures};
pub use guard::Guard;
pub use health::{Finding, Health, HealthState, Intervals, Transition};
pub use line::Priority;
pub use moment::Moment;
pub use places::Places;
pub use placing::NoPlace;
pub use protect::{Changes, Ejection, Protection, Switched, Tripped};
pub use queue::{Full, Place, Queue, Waiting};
pub use timings::Timings;
pub use verdict::{Told, Verdict};

/// Endpoints from which on two of them are drawn instead of looking at all.
const SAMPLED_FROM: usize = 16;
/// Draws before all are looked at after all.
const DRAWS_MAX: usize = 16;
pub use parting::Parting;

/// Calls that may wait for a place, unless a pool says otherwise.
const QUEUE_MAX: usize = 1024;

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
    /// The greatest weight there was when the pool was built.
    heaviest: u32,
    protection: Protection,
    ejecting: Ejecting,
    /// Where an endpoint has, or has had, a limit to its calls in flight.
    queue: OnceLock<Arc<Queue>>,
    /// Calls that may wait in it.
    queue_max: usize,
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
    /// The time, which matters to ejected endpoints, breakers and those that have just come back.
    pub now: Moment,
}

/// No endpoint can take the call. Of several reasons the one nearest to success is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// Every endpoint is down or was tried already, or the pool is empty.
    #[error("every endpoint is down")]
    AllDown,
    /// Those that are not down are unwell, in drain or maintenance, or have weight 0.
    #[error("every endpoint that is not down is unwell, draining or in maintenance")]
    AllDraining,
    /// Those that could take it have no address yet.
    #[error("no endpoint's address is resolved")]
    NoneResolved,
    /// Those that could take it do not speak a revision of the call's era.
    #[error("no endpoint speaks a revision of the call's era")]
    WrongEra,
    /// Those that could take it are behind breakers that let nothing through.
    #[error("the breaker of every endpoint that could take it is open")]
    AllTripped,
}

impl NoEndpoint {
    /// How near to success.
    const fn rank(self) -> u8 {
        match self {
            Self::AllDown => 0,
            Self::AllDraining => 1,
            Self::NoneResolved => 2,
            Self::WrongEra => 3,
            Self::AllTripped => 4,
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
        let heaviest = endpoints.iter().map(|e| e.weight()).max().unwrap_or(0);
        Ok(Self {
            name: name.into(),
            endpoints,
            by_id,
            balancer,
            queue: OnceLock::new(),
            queue_max: QUEUE_MAX,
            heaviest,
            protection: Protection::default(),
            ejecting: Ejecting::default(),
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
    /// that are up, primaries not checked yet, backups not checked yet, and, rather than nobody, those
    /// that are ejected. Within it only endpoints that are in administrative state up, have a weight
    /// and an address, serve the needed era, have a breaker that lets something through, and were not
    /// tried yet.
    ///
    /// Takes no permit: [`Pool::enter`] does. So calls that pick at the same moment may not see
    /// each other, which random choice tolerates. Allocates nothing. In a large pool that is well,
    /// and is balanced by drawing, few endpoints are looked at; otherwise all are.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        if let Some(chosen) = self.sample(context, rng) {
            return Ok(Arc::clone(&self.endpoints[chosen]));
        }
        let candidates = self.candidates(context)?;
        let chosen = self.choose(&candidates, context, rng);
        chosen
            .map(|at| Arc::clone(&self.endpoints[at]))
            .ok_or(NoEndpoint::AllDown)
    }

    /// The better of two endpoints, or the one, that are drawn until they may take the call: what looking at all of
    /// them comes to, at the price of a few. `None` where that is not sure: then all are looked at.
    fn sample(&self, context: &PickContext<'_>, rng: &mut fastrand::Rng) -> Option<usize> {
        let draws = self.balancer.draws();
        if self.endpoints.len() < SAMPLED_FROM || draws == 0 {
            return None;
        }
        let mut first = None;
        for _ in 0..DRAWS_MAX {
            let at = rng.usize(..self.endpoints.len());
            let endpoint = &self.endpoints[at];
            let weight = endpoint.weight();
            if endpoint.guard.is_unsettled(context.now) || weight > self.heaviest {
                return None;
            }
            let is_drawn = rng.u32(..self.heaviest.max(1)) < weight;
            let is_new = first != Some(at) && !context.exclude.contains(&endpoint.id());
            if !is_drawn
                || !is_new
                || !matches!(standing(endpoint, context.need), Ok(Tier::PrimaryUp))
            {
                continue;
            }
            if draws == 1 {
                return Some(at);
            }
            let Some(first) = first else {
                first = Some(at);
                continue;
            };
            let scales = Scales {
                now: context.now,
                slow_start: None,
            };
            return Some(self.balancer.better(&self.endpoints, scales, first, at));
        }
        None
    }

    /// The one to use of those that may take the call.
    fn choose(
        &self,
        (candidates, is_unsettled): &(Candidates, bool),
        context: &PickContext<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let scales = Scales {
            now: context.now,
            slow_start: is_unsettled.then_some(self.protection.slow_start),
        };
        let endpoints = &self.endpoints;
        self.balancer
            .choose(endpoints, candidates, context.key, scales, rng)
    }

    /// Who may take the call, and whether something may be the matter with any endpoint.
    fn candidates(&self, context: &PickContext<'_>) -> Result<(Candidates, bool), NoEndpoint> {
        let mut tiers = [Candidates::EMPTY; Tier::COUNT];
        let mut is_unsettled = false;
        let mut nearest = NoEndpoint::AllDown;
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            if context.exclude.contains(&endpoint.id()) {
                continue;
            }
            let mut standing = standing(endpoint, context.need);
            if endpoint.guard.is_unsettled(context.now) {
                is_unsettled = true;
                standing = standing.and_then(|tier| self.set_aside(endpoint, tier, context.now));
            }
            match standing {
                Ok(tier) => tiers[tier as usize].add(at),
                Err(reason) if reason.rank() > nearest.rank() => nearest = reason,
                Err(_) => {}
            }
        }
        let best = tiers.iter().find(|tier| !tier.is_empty());
        best.map(|tier| (*tier, is_unsettled)).ok_or(nearest)
    }

    /// The group of an endpoint of which its calls may have shown something.
    fn set_aside(&self, endpoint: &Endpoint, tier: Tier, now: Moment) -> Result<Tier, NoEndpoint> {
        let Protection {
            ejection, breaker, ..
        } = &self.protection;
        if breaker.is_some() && endpoint.guard.refuses(now) {
            return Err(NoEndpoint::AllTripped);
        }
        match ejection.is_some() && endpoint.guard.is_ejected(now) {
            true => Ok(Tier::Ejected),
            false => Ok(tier),
        }
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
    Ejected,
}

impl Tier {
    const COUNT: usize = Self::Ejected as usize + 1;
}

/// May this endpoint take a call that no session binds, and in which group? What calls have shown of
/// it is not looked at here.
fn standing(endpoint: &Endpoint, need: Need) -> Result<Tier, NoEndpoint> {
    let tier = match (endpoint.health(), endpoint.is_backup()) {
        (HealthState::Up, false) => Tier::PrimaryUp,
        (HealthState::Up, true) => Tier::BackupUp,
        (HealthState::Unchecked, false) => Tier::PrimaryUnchecked,
        (HealthState::Unchecked, true) => Tier::BackupUnchecked,
        (HealthState::Down, _) => return Err(NoEndpoint::AllDown),
        (HealthState::Unwell, _) => return Err(NoEndpoint::AllDraining),
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
