//! From a checked configuration to the state that requests run on.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use crate::config::{self, Check, Config, Eras, SendProxy};
use crate::pool::{
    self, Admin, Budget, ENDPOINTS_MAX, Endpoint, EndpointSpec, HealthState, PoolError, Protection,
    breaker, ejection,
};
use crate::proxy::limits::Limits;
use crate::proxy::state::{Announces, DialFacts, PoolState, Snapshot};
use crate::session::NameHash;
use crate::telemetry::ToolNames;
use crate::transport::proxy_protocol::Version;
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

/// Compiles a configuration. What it has in common with the one before goes on: an endpoint of the same
/// pool and name is the same endpoint, with all that is known of it, and a pool of which nothing has
/// changed is the same pool. An endpoint that is no longer configured is kept as one that is leaving,
/// until it is in [`Admin::Maint`]. Nothing that goes on is changed yet: that is [`settle`].
///
/// # Errors
/// A pool with more endpoints than the balancer can hold, or rules of TLS that cannot be followed.
pub(super) fn compile(config: Config, before: Option<&Snapshot>) -> Result<Snapshot, CompileError> {
    for pool in before.into_iter().flat_map(Snapshot::all_pools) {
        // Before anything is changed.
        let count = endpoints_after(pool, &config);
        if count > ENDPOINTS_MAX {
            return Err(PoolError::TooMany(count).into());
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
    let old = before.map(|before| (&before.config, &*before.limits));
    let limits = Arc::new(Limits::new(&config, old, Instant::now()));
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

fn compile_pool(
    config: &config::Pool,
    before: Option<&Arc<PoolState>>,
) -> Result<Arc<PoolState>, CompileError> {
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
fn leaving_pool(before: &Arc<PoolState>) -> Result<Option<Arc<PoolState>>, CompileError> {
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
) -> Result<PoolState, CompileError> {
    let mut dial = HashMap::new();
    let mut rules = before.map_or_else(Vec::new, |before| known_rules(before));
    for (endpoint, as_written) in endpoints.iter().zip(&config.endpoints) {
        dial.insert(endpoint.id(), facts(config, as_written, &mut rules)?);
    }
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
        config::Balance::Random => pool::Balance::Random,
        config::Balance::RoundRobin => pool::Balance::RoundRobin,
        config::Balance::ConsistentHash(_) => pool::Balance::ConsistentHash,
    };
    let pool = pool::Pool::new(&config.name, balance, endpoints)?
        .with_protection(protection(config))
        .with_queue_max(config.queue.max);
    for endpoint in pool.endpoints() {
        pool.limit(endpoint, endpoint.places.max());
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

/// What dialing an endpoint needs beside its address.
fn facts<'a>(
    pool: &config::Pool,
    endpoint: &'a config::Endpoint,
    rules: &mut Vec<Known<'a>>,
) -> Result<DialFacts, CompileError> {
    let tls = endpoint.tls.as_ref().map(|tls| compile_tls(tls, rules));
    let tls = tls.transpose().map_err(|why| CompileError::Tls {
        endpoint: endpoint.name.clone(),
        why,
    })?;
    let unix = endpoint.address.unix();
    let place = unix.map_or_else(String::new, |path| path.display().to_string());
    let group = NameHash::of(&format!("{}/{}{place}", pool.name, endpoint.name)).get();
    let announces = pool.send_proxy.map(|version| Announces {
        version: match version {
            SendProxy::V1 => Version::V1,
            SendProxy::V2 => Version::V2,
        },
        by_client: RandomState::new(),
    });
    // Connections that were made by other rules are not to be used by these.
    let by_rules = tls.as_ref().map_or(0, |tls| spread(tls.rules().id()));
    Ok(DialFacts {
        authority: endpoint.asked_for().authority(),
        group: group ^ by_rules,
        http2: endpoint.http2,
        tls,
        unix: unix.map(Into::into),
        announces,
    })
}

/// A small number as one whose bits are all over.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Rules of a pool, with what they were made of.
type Known<'a> = (&'a config::Trust, Option<&'a config::Proof>, tls::Rules);

/// The rules of a pool that was compiled before.
fn known_rules(pool: &PoolState) -> Vec<Known<'_>> {
    let mut known: Vec<Known<'_>> = Vec::new();
    for endpoint in &pool.config.endpoints {
        let facts = pool.dial.get(&NameHash::of(&endpoint.name).get());
        if let (Some(config), Some(tls)) =
            (&endpoint.tls, facts.and_then(|facts| facts.tls.as_ref()))
        {
            let rules = tls.rules();
            if !known.iter().any(|(_, _, other)| other.id() == rules.id()) {
                known.push((&config.trust, config.proof.as_ref(), rules.clone()));
            }
        }
    }
    known
}

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

fn compile_endpoint(
    pool: &config::Pool,
    endpoint: &config::Endpoint,
    before: Option<&Arc<PoolState>>,
) -> Arc<Endpoint> {
    let id = NameHash::of(&endpoint.name).get();
    let known = before.and_then(|before| before.pool.find(id));
    match known {
        Some(known) => Arc::clone(known),
        None => {
            let new = new_endpoint(pool, endpoint);
            if endpoint.found_by.is_some() && before.is_some() {
                // It joins others, and the process is as ready as it was.
                new.note_checked();
            }
            new
        }
    }
}

/// Changes the endpoints that go on from the snapshot in force to what the next one says of them. It
/// cannot fail, so that a configuration is followed as a whole or not at all.
pub(super) fn settle(next: &Snapshot, before: &Snapshot) {
    next.limits.settle();
    for pool in &next.pools {
        let mut old = before.all_pools();
        let Some(old) = old.find(|old| old.config.name == pool.config.name) else {
            continue;
        };
        if Arc::ptr_eq(old, pool) {
            continue;
        }
        for endpoint in &pool.config.endpoints {
            if let Some(known) = old.pool.find(NameHash::of(&endpoint.name).get()) {
                go_on(known, endpoint, configured(&old.config, &endpoint.name));
                know_eras(&pool.config, known, old.config.eras != pool.config.eras);
                if pool.config.health.check == Check::None {
                    known.set_health(HealthState::Up);
                }
                pool.pool.limit(known, known.places.max());
            }
        }
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
        Check::Mcp { .. } | Check::Http(_) | Check::Tcp => HealthState::Unchecked,
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

/// Has the tools that the configuration names told apart in metrics, whatever servers say of theirs.
pub(super) fn learn_tools(tools: &ToolNames, config: &Config) {
    for pool in &config.pools {
        let names = pool.tools.iter().map(|tool| &*tool.name);
        tools.learn(&pool.name, names.filter(|name| !name.contains('*')));
    }
}
