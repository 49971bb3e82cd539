//! From a checked configuration to the state that requests run on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use crate::config::{self, Check, Config, Eras};
use crate::pool::{
    self, Admin, Budget, Endpoint, EndpointSpec, HealthState, PoolError, Protection, breaker,
    ejection,
};
use crate::proxy::limits::Limits;
use crate::proxy::state::{DialFacts, PoolState, Snapshot};
use crate::session::NameHash;
use crate::transport::tls;

/// Why a configuration cannot be used that was found right.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A pool with more endpoints than the balancer can hold.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// TLS to an endpoint.
    #[error("TLS to endpoint {endpoint}: {why}")]
    Tls {
        /// The endpoint's name.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
}

/// Compiles a configuration.
///
/// # Errors
/// A pool with more endpoints than the balancer can hold, or rules of TLS that cannot be followed.
pub(super) fn compile(config: Config) -> Result<Snapshot, CompileError> {
    let pools = config
        .pools
        .iter()
        .map(|pool| compile_pool(pool).map(Arc::new))
        .collect::<Result<_, _>>()?;
    let limits = Limits::new(&config, Instant::now());
    Ok(Snapshot {
        config,
        pools,
        limits,
    })
}

fn compile_pool(config: &config::Pool) -> Result<PoolState, CompileError> {
    let endpoints: Vec<Arc<Endpoint>> = config
        .endpoints
        .iter()
        .map(|endpoint| compile_endpoint(config, endpoint))
        .collect();
    let mut dial = HashMap::new();
    let mut rules = Vec::new();
    for (endpoint, as_written) in endpoints.iter().zip(&config.endpoints) {
        let tls = as_written.tls.as_ref();
        let tls = tls.map(|tls| compile_tls(tls, &mut rules)).transpose();
        let tls = tls.map_err(|why| CompileError::Tls {
            endpoint: as_written.name.clone(),
            why,
        })?;
        let group = NameHash::of(&format!("{}/{}", config.name, as_written.name)).get();
        // Connections that were made by other rules are not to be used by these.
        let by_rules = tls.as_ref().map_or(0, |tls| spread(tls.rules().id()));
        let facts = DialFacts {
            authority: as_written.address.to_string(),
            group: group ^ by_rules,
            http2: as_written.http2,
            tls,
        };
        dial.insert(endpoint.id(), facts);
    }
    let balance = match config.balance {
        config::Balance::LeastLoad => pool::Balance::LeastLoad,
        config::Balance::PeakEwma => pool::Balance::PeakEwma,
        config::Balance::RoundRobin => pool::Balance::RoundRobin,
        config::Balance::ConsistentHash(_) => pool::Balance::ConsistentHash,
    };
    let mut pool =
        pool::Pool::new(&config.name, balance, endpoints)?.with_protection(protection(config));
    if config.endpoints.iter().any(|e| e.max_in_flight.is_some()) {
        pool = pool.with_queue(config.queue.max);
    }
    Ok(PoolState {
        pool,
        hash: NameHash::of(&config.name),
        discover: ArcSwapOption::empty(),
        budget: Budget::default(),
        repeatable: ArcSwapOption::empty(),
        dial,
        config: config.clone(),
    })
}

/// A small number as one whose bits are all over.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Rules of a pool, with what they were made of.
type Known<'a> = (&'a config::Trust, Option<&'a config::Proof>, tls::Rules);

/// How TLS is spoken to an endpoint; by rules that are there already, if another of its pool has the
/// same.
fn compile_tls<'a>(
    config: &'a config::EndpointTls,
    known: &mut Vec<Known<'a>>,
) -> Result<tls::Client, String> {
    let (trust, proof) = (&config.trust, config.proof.as_ref());
    let same = |(of, by, _): &&Known<'_>| *of == trust && *by == proof;
    let rules = match known.iter().find(same) {
        Some((_, _, rules)) => rules.clone(),
        None => {
            let shown = proof.map(|proof| tls::Proof {
                chain: &proof.identity.certified().cert,
                key: proof.identity.key(),
            });
            let trusted = match trust {
                config::Trust::File(_, these) => tls::Trust::These(these.as_slice()),
                config::Trust::System(these) => tls::Trust::System(these.as_slice()),
                config::Trust::Anybody => tls::Trust::Anybody,
            };
            let rules = tls::Rules::new(trusted, shown).map_err(|error| error.to_string())?;
            known.push((trust, proof, rules.clone()));
            rules
        }
    };
    tls::Client::new(rules, &config.server_name).map_err(|error| error.to_string())
}

fn protection(pool: &config::Pool) -> Protection {
    Protection {
        ejection: pool.ejection.as_ref().map(|config| ejection::Settings {
            failures: config.failures,
            base_time: config.base_time,
            max_time: config.max_time,
            max_share: config.max_share,
        }),
        breaker: pool.breaker.as_ref().map(|config| breaker::Settings {
            failure_ratio: config.failure_ratio,
            min_calls: config.min_calls,
            window: config.window,
            open_time: config.open_time,
            trials: config.trials,
        }),
        slow_start: pool.slow_start,
    }
}

fn compile_endpoint(pool: &config::Pool, endpoint: &config::Endpoint) -> Arc<Endpoint> {
    let health = match pool.health.check {
        Check::None => HealthState::Up,
        Check::Mcp { .. } | Check::Http { .. } | Check::Tcp => HealthState::Unchecked,
    };
    let compiled = Endpoint::new(EndpointSpec {
        name: endpoint.name.clone(),
        id: NameHash::of(&endpoint.name).get(),
        weight: u32::from(endpoint.weight),
        backup: endpoint.backup,
        address: endpoint.address.socket_addr(),
        health,
    });
    compiled.places.limit(endpoint.max_in_flight);
    compiled.set_admin(match endpoint.state {
        config::State::Up => Admin::Up,
        config::State::Drain => Admin::Drain,
        config::State::Maint => Admin::Maint,
    });
    match pool.eras {
        Eras::Auto | Eras::Both => {}
        Eras::Session => compiled.facts.speaks_stateless_era.learn(false),
        Eras::Stateless => compiled.facts.speaks_session_era.learn(false),
    }
    compiled
}
