//! From a checked configuration to the state that requests run on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use crate::config::{self, Check, Config, Eras};
use crate::pool::{
    self, Admin, Budget, ENDPOINTS_MAX, Endpoint, EndpointSpec, HealthState, PoolError, Protection,
    breaker, ejection,
};
use crate::proxy::limits::Limits;
use crate::proxy::state::{DialFacts, PoolState, Snapshot};
use crate::session::NameHash;

/// Compiles a configuration. What it has in common with the one before goes on: an endpoint of the same
/// pool and name is the same endpoint, with all that is known of it, and a pool of which nothing has
/// changed is the same pool. An endpoint that is no longer configured is kept as one that is leaving,
/// until it is in [`Admin::Maint`].
///
/// # Errors
/// A pool with more endpoints than the balancer can hold.
pub(super) fn compile(config: Config, before: Option<&Snapshot>) -> Result<Snapshot, PoolError> {
    for pool in before.into_iter().flat_map(Snapshot::all_pools) {
        // Before anything is changed.
        let count = endpoints_after(pool, &config);
        if count > ENDPOINTS_MAX {
            return Err(PoolError::TooMany(count));
        }
    }
    let old = |name: &str| before?.all_pools().find(|pool| pool.config.name == name);
    let pools: Vec<_> = config
        .pools
        .iter()
        .map(|pool| compile_pool(pool, old(&pool.name)))
        .collect::<Result<_, _>>()?;
    let is_gone = |pool: &&Arc<PoolState>| config.pool_named(&pool.config.name).is_none();
    let leaving = before.into_iter().flat_map(Snapshot::all_pools);
    let leaving = leaving.filter(is_gone).map(leaving_pool);
    let leaving = leaving.collect::<Result<Vec<_>, _>>()?;
    let limits = match before {
        Some(before) if has_same_limits(&before.config, &config) => Arc::clone(&before.limits),
        _ => Arc::new(Limits::new(&config, Instant::now())),
    };
    Ok(Snapshot {
        pools,
        leaving: leaving.into_iter().flatten().collect(),
        limits,
        config,
    })
}

/// How many endpoints a pool will have, with those that are leaving.
fn endpoints_after(before: &PoolState, config: &Config) -> usize {
    let now = config
        .pool_named(&before.config.name)
        .map(|id| &config.pools[id.0]);
    let count = now.map_or(0, |pool| pool.endpoints.len());
    let is_gone = |e: &&Arc<Endpoint>| now.is_none_or(|pool| configured(pool, e.name()).is_none());
    let leaving = before.pool.endpoints().iter().filter(is_gone);
    count + leaving.filter(|endpoint| is_leaving(endpoint)).count()
}

fn configured<'a>(pool: &'a config::Pool, name: &str) -> Option<&'a config::Endpoint> {
    pool.endpoints.iter().find(|endpoint| endpoint.name == name)
}

/// Do the limits stand at the same places? Then what has been used of them counts on.
fn has_same_limits(before: &Config, now: &Config) -> bool {
    let routes = |config: &Config| {
        config
            .routes
            .iter()
            .map(|route| route.rate.clone())
            .collect::<Vec<_>>()
    };
    let tools = |config: &Config| {
        config
            .pools
            .iter()
            .map(|pool| pool.tools.clone())
            .collect::<Vec<_>>()
    };
    routes(before) == routes(now) && tools(before) == tools(now)
}

fn compile_pool(
    config: &config::Pool,
    before: Option<&Arc<PoolState>>,
) -> Result<Arc<PoolState>, PoolError> {
    if let Some(before) = before
        && before.config == *config
        && before.leaving().iter().all(is_leaving)
    {
        return Ok(Arc::clone(before));
    }
    let configured = config.endpoints.iter();
    let endpoints = configured.map(|endpoint| compile_endpoint(config, endpoint, before));
    let endpoints = endpoints.collect();
    build(config, endpoints, before).map(Arc::new)
}

/// A pool that is no longer configured; `None` if nothing is left of it.
fn leaving_pool(before: &Arc<PoolState>) -> Result<Option<Arc<PoolState>>, PoolError> {
    let config = config::Pool {
        endpoints: Vec::new(),
        ..before.config.clone()
    };
    if before.config == config && before.leaving().iter().all(is_leaving) {
        return Ok(Some(Arc::clone(before)));
    }
    let pool = build(&config, Vec::new(), Some(before))?;
    Ok((!pool.leaving().is_empty()).then(|| Arc::new(pool)))
}

/// Has an endpoint that is no longer configured something left to do?
fn is_leaving(endpoint: &Arc<Endpoint>) -> bool {
    endpoint.admin() != Admin::Maint
}

/// A pool of these endpoints and of those that it had before and that are leaving.
fn build(
    config: &config::Pool,
    mut endpoints: Vec<Arc<Endpoint>>,
    before: Option<&Arc<PoolState>>,
) -> Result<PoolState, PoolError> {
    let facts = |endpoint: &config::Endpoint| DialFacts {
        authority: endpoint.address.to_string(),
        group: NameHash::of(&format!("{}/{}", config.name, endpoint.name)).get(),
        http2: endpoint.http2,
    };
    let mut dial: HashMap<u64, DialFacts> = endpoints
        .iter()
        .zip(&config.endpoints)
        .map(|(endpoint, as_written)| (endpoint.id(), facts(as_written)))
        .collect();
    for endpoint in before.iter().flat_map(|before| before.pool.endpoints()) {
        let is_gone = !dial.contains_key(&endpoint.id());
        let known = before.and_then(|before| before.dial.get(&endpoint.id()));
        if is_gone && is_leaving(endpoint) {
            dial.extend(known.map(|facts| (endpoint.id(), facts.clone())));
            endpoints.push(Arc::clone(endpoint));
        }
    }
    let balance = match config.balance {
        config::Balance::LeastLoad => pool::Balance::LeastLoad,
        config::Balance::PeakEwma => pool::Balance::PeakEwma,
        config::Balance::RoundRobin => pool::Balance::RoundRobin,
        config::Balance::ConsistentHash(_) => pool::Balance::ConsistentHash,
    };
    let limited = endpoints.iter().any(|e| e.places.max().is_some());
    let mut pool =
        pool::Pool::new(&config.name, balance, endpoints)?.with_protection(protection(config));
    if limited {
        pool = pool.with_queue(config.queue.max);
    }
    Ok(PoolState {
        pool,
        hash: NameHash::of(&config.name),
        discover: ArcSwapOption::new(before.and_then(|before| before.discover.load_full())),
        budget: Budget::default(),
        repeatable: ArcSwapOption::new(before.and_then(|before| before.repeatable.load_full())),
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

fn compile_endpoint(
    pool: &config::Pool,
    endpoint: &config::Endpoint,
    before: Option<&Arc<PoolState>>,
) -> Arc<Endpoint> {
    let id = NameHash::of(&endpoint.name).get();
    let known = before.and_then(|before| Some((before, before.pool.find(id)?)));
    match known {
        Some((before, known)) => {
            go_on(known, endpoint, configured(&before.config, &endpoint.name));
            know_eras(pool, known, before.config.eras != pool.eras);
            if pool.health.check == Check::None {
                known.set_health(HealthState::Up);
            }
            Arc::clone(known)
        }
        None => new_endpoint(pool, endpoint),
    }
}

/// Changes an endpoint to what is configured now. What the operator has set since stands where the
/// configuration says what it said before.
fn go_on(known: &Endpoint, now: &config::Endpoint, before: Option<&config::Endpoint>) {
    let changed = |is: fn(&config::Endpoint) -> u64| before.map(is) != Some(is(now));
    known.set_backup(now.backup);
    if changed(|e| u64::from(e.weight)) {
        known.set_weight(u32::from(now.weight));
    }
    if changed(|e| u64::from(e.max_in_flight.unwrap_or(0))) {
        known.places.limit(now.max_in_flight);
    }
    if changed(|e| admin(e.state) as u64) {
        known.set_admin(admin(now.state));
    }
    // A name is looked up first.
    if let Some(address) = now.address.socket_addr() {
        known.set_address(Some(address));
    }
}

const fn admin(state: config::State) -> Admin {
    match state {
        config::State::Up => Admin::Up,
        config::State::Drain => Admin::Drain,
        config::State::Maint => Admin::Maint,
    }
}

fn new_endpoint(pool: &config::Pool, endpoint: &config::Endpoint) -> Arc<Endpoint> {
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
    compiled.set_admin(admin(endpoint.state));
    know_eras(pool, &compiled, false);
    compiled
}

/// Takes for known what the configuration says of the eras.
fn know_eras(pool: &config::Pool, endpoint: &Endpoint, changed: bool) {
    if changed {
        endpoint.facts.forget();
    }
    match pool.eras {
        Eras::Auto | Eras::Both => {}
        Eras::Session => endpoint.facts.speaks_stateless_era.learn(false),
        Eras::Stateless => endpoint.facts.speaks_session_era.learn(false),
    }
}
