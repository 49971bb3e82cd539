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

/// Compiles a configuration.
///
/// # Errors
/// A pool with more endpoints than the balancer can hold.
pub(super) fn compile(config: Config) -> Result<Snapshot, PoolError> {
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

fn compile_pool(config: &config::Pool) -> Result<PoolState, PoolError> {
    let endpoints: Vec<Arc<Endpoint>> = config
        .endpoints
        .iter()
        .map(|endpoint| compile_endpoint(config, endpoint))
        .collect();
    let dial = endpoints
        .iter()
        .zip(&config.endpoints)
        .map(|(endpoint, as_written)| {
            let facts = DialFacts {
                authority: as_written.address.to_string(),
                group: NameHash::of(&format!("{}/{}", config.name, as_written.name)).get(),
                http2: as_written.http2,
            };
            (endpoint.id(), facts)
        })
        .collect::<HashMap<_, _>>();
    let balance = match config.balance {
        config::Balance::LeastLoad => pool::Balance::LeastLoad,
        config::Balance::PeakEwma => pool::Balance::PeakEwma,
        config::Balance::RoundRobin => pool::Balance::RoundRobin,
        config::Balance::ConsistentHash(_) => pool::Balance::ConsistentHash,
    };
    let pool = pool::Pool::new(&config.name, balance, endpoints)?
        .with_protection(protection(config))
        .with_queue_max(config.queue.max);
    for (endpoint, config) in pool.endpoints().iter().zip(&config.endpoints) {
        pool.limit(endpoint, config.max_in_flight);
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
