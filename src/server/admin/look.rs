//! From the state of the process to what the API shows of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::view;
use crate::config::{AdminLevel, Balance, PoolKind};
use crate::pool::breaker::State;
use crate::pool::{Admin, Fact, FactCell, FailureKind, HealthState};
use crate::proxy::local;
use crate::proxy::open::Open;
use crate::proxy::state::{Held, Phase, PoolState};
use crate::server::operator::{Found, Operator};
use crate::server::reload::Reloader;
use crate::session::{Key, Live, Table};
use crate::telemetry::feed::rfc3339;
use crate::telemetry::metrics::{self, Ending};

/// Sessions on a page, unless asked otherwise.
pub(super) const PAGE: usize = 100;
/// Sessions on a page at most.
pub(super) const PAGE_MAX: usize = 1000;

/// The process, as seen over a connection of this level.
pub(super) fn info(operator: &Operator, level: AdminLevel) -> view::Info {
    let shared = &operator.shared;
    let phase = match shared.phase() {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Closing => "closing",
        Phase::Ending => "ending",
    };
    view::Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        phase: phase.to_owned(),
        ready: local::readiness(shared).1.trim_end().to_owned(),
        level: level.as_str().to_owned(),
    }
}

/// Everything at once.
pub(super) fn status(operator: &Operator, level: AdminLevel) -> view::Status {
    view::Status {
        process: info(operator, level),
        totals: totals(operator),
        pools: pools(operator).pools,
    }
}

/// How much there is of what, over all pools.
pub(super) fn totals(operator: &Operator) -> view::Totals {
    let flight = &operator.shared.flight;
    view::Totals {
        sessions: operator.shared.sessions.len(),
        streams: flight.streams(),
        calls: flight.calls(),
        requests: metrics::requests(),
    }
}

/// The last reloads, the newest first.
pub(super) fn reloads(reloader: &Reloader) -> view::Reloads {
    let entries = reloader.history.newest_first();
    let reloads = entries.into_iter().map(|entry| view::Reload {
        time: rfc3339(entry.at),
        took_ms: u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX),
        result: if entry.result.is_ok() { "ok" } else { "failed" }.to_owned(),
        error: entry.result.as_ref().err().cloned(),
        done: entry.result.ok().as_ref().map(view::Reloaded::of),
    });
    view::Reloads {
        reloads: reloads.collect(),
    }
}

/// Why things ended so far.
fn endings(endings: Vec<Ending>) -> Vec<view::Ending> {
    let shown = |ending: Ending| view::Ending {
        kind: (!ending.kind.is_empty()).then(|| ending.kind.to_owned()),
        reason: ending.reason.to_owned(),
        count: ending.count,
    };
    endings.into_iter().map(shown).collect()
}

/// Streams and calls, and some of what is open.
pub(super) fn streams(operator: &Operator, wanted: &Wanted<'_>) -> view::Streams {
    let now = Instant::now();
    let is = |wanted: Option<&str>, name: &str| wanted.is_none_or(|wanted| wanted == name);
    let open = operator.shared.open.some(wanted.max, |open| {
        is(wanted.pool, open.pool.pool.name()) && is(wanted.endpoint, open.endpoint.name())
    });
    let shown = |open: &Open| view::Stream {
        pool: open.pool.pool.name().to_owned(),
        endpoint: open.endpoint.name().to_owned(),
        kind: open.kind.to_owned(),
        age_seconds: now.saturating_duration_since(open.since).as_secs(),
        session: open.session.map(|tag| format!("{:08x}", tag.bits())),
    };
    view::Streams {
        streams: operator.shared.flight.streams(),
        calls: operator.shared.flight.calls(),
        open: open.iter().map(shown).collect(),
        ended: endings(metrics::streams_ended()),
    }
}

/// All pools.
pub(super) fn pools(operator: &Operator) -> view::Pools {
    let snapshot = operator.shared.snapshot.load();
    let pools = snapshot.all_pools();
    view::Pools {
        pools: pools.map(|state| pool(operator, state)).collect(),
    }
}

/// One pool.
pub(super) fn pool(operator: &Operator, state: &Arc<PoolState>) -> view::Pool {
    let endpoints = state.pool.endpoints().iter().enumerate();
    let endpoints: Vec<view::Endpoint> = endpoints
        .map(|(at, one)| {
            let found = Found {
                pool: Arc::clone(state),
                endpoint: Arc::clone(one),
                at,
            };
            endpoint(operator, &found)
        })
        .collect();
    let kind = match state.config.kind {
        PoolKind::Mcp => "mcp",
        PoolKind::Http => "http",
    };
    let balance = match state.config.balance {
        Balance::LeastLoad => "least_load",
        Balance::PeakEwma => "peak_ewma",
        Balance::Random => "random",
        Balance::RoundRobin => "round_robin",
        Balance::ConsistentHash(_) => "consistent_hash",
    };
    view::Pool {
        name: state.pool.name().to_owned(),
        kind: kind.to_owned(),
        balance: balance.to_owned(),
        usable: state.is_usable(),
        sessions: operator.shared.sessions.pool_len(state.hash),
        in_flight: endpoints.iter().map(|e| u64::from(e.in_flight)).sum(),
        waiting: state.pool.queue().map_or(0, |queue| queue.waiting()),
        endpoints,
    }
}

/// One endpoint.
pub(super) fn endpoint(operator: &Operator, found: &Found) -> view::Endpoint {
    let (one, config) = (&found.endpoint, found.config());
    let instant = Instant::now();
    let now = operator.shared.moment(instant);
    let told = one.verdict.told();
    let out_by = operator.out_by(found);
    let out_in = out_by.filter(|_| one.admin() == Admin::Drain);
    let set_by = match operator.has_set(found) {
        true => "operator",
        false => "config",
    };
    let breaker = one.guard.breaker(now);
    let first_bytes = one.timings.lately();
    let failures = FailureKind::ALL.iter().map(|kind| one.failures.of(*kind));
    view::Endpoint {
        name: one.name().to_owned(),
        address: found.pool.place(one.id()),
        resolved: one
            .address()
            .filter(|address| !address.ip().is_unspecified())
            .map(|address| address.to_string()),
        configured: config.is_some(),
        backup: one.is_backup(),
        state: state(found, breaker, one.guard.is_ejected(now)).to_owned(),
        health: view::Health {
            state: one.health().label().to_owned(),
            reason: told.wrong.map(|wrong| wrong.trim().to_owned()),
            for_seconds: told.since.map(|since| now.since(since).as_secs()),
        },
        admin: view::Admin {
            state: one.admin().label().to_owned(),
            set_by: set_by.to_owned(),
            out_in_seconds: out_in.map(|at| ceil(at.saturating_duration_since(instant))),
        },
        weight: one.weight(),
        weight_configured: config.map(|config| config.weight.into()),
        max_in_flight: one.places.max(),
        max_in_flight_configured: config.and_then(|config| config.max_in_flight),
        sessions: one.sessions(),
        in_flight: one.in_flight(),
        first_byte_p50_seconds: first_bytes.quantile(0.5),
        first_byte_p99_seconds: first_bytes.quantile(0.99),
        ejected: one.guard.is_ejected(now),
        ejections: one.guard.ejections(),
        failures_in_row: one.guard.streak(),
        failures: failures.sum(),
        breaker: view::Breaker {
            state: breaker.label().to_owned(),
            openings: one.guard.openings(),
        },
        facts: view::Facts {
            issues_sessions: known(&one.facts.issues_sessions),
            session_era: known(&one.facts.speaks_session_era),
            stateless_era: known(&one.facts.speaks_stateless_era),
        },
    }
}

/// The state in one word: of all that keeps calls away, what the operator would want to know first.
fn state(found: &Found, breaker: State, is_ejected: bool) -> &'static str {
    let one = &found.endpoint;
    match (one.admin(), one.health()) {
        (Admin::Maint, _) => "maint",
        (Admin::Drain, _) => "drain",
        (Admin::Up, health @ (HealthState::Down | HealthState::Unwell)) => health.label(),
        (Admin::Up, _) if one.address().is_none() => "unresolved",
        (Admin::Up, _) if breaker == State::Open => "open",
        (Admin::Up, _) if is_ejected => "ejected",
        (Admin::Up, _) if breaker == State::HalfOpen => "half-open",
        (Admin::Up, health) => health.label(),
    }
}

fn known(fact: &FactCell) -> Option<bool> {
    match fact.get() {
        Fact::Unknown => None,
        Fact::Yes => Some(true),
        Fact::No => Some(false),
    }
}

fn ceil(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Which sessions or streams are asked for.
pub(super) struct Wanted<'a> {
    pub(super) pool: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
    pub(super) max: usize,
    pub(super) after: Option<Key>,
    /// What the client's name, the pool, the endpoint or the id has to have in it.
    pub(super) search: Option<&'a str>,
}

/// A page of sessions.
pub(super) fn sessions(operator: &Operator, wanted: &Wanted<'_>) -> view::Sessions {
    let table = &operator.shared.sessions;
    let now = Instant::now();
    // One more than wanted tells whether there is another page.
    let mut page = table.page(wanted.after, wanted.max + 1, |live| {
        wanted.has(live).then(|| (live.key, session(live, now)))
    });
    let has_more = page.len() > wanted.max;
    page.truncate(wanted.max);
    let last = page.last().map(|(key, _)| format!("{:032x}", key.number()));
    view::Sessions {
        total: table.len(),
        next: last.filter(|_| has_more),
        sessions: page.into_iter().map(|(_, shown)| shown).collect(),
        ended: endings(metrics::sessions_ended()),
    }
}

impl Wanted<'_> {
    /// Is it one of these? Asked of every session of the table, so nothing is made for it.
    fn has(&self, live: &Live<Held>) -> bool {
        let (pool, endpoint) = (live.guard.pool.pool.name(), live.guard.endpoint.name());
        let is = |wanted: Option<&str>, name: &str| wanted.is_none_or(|wanted| wanted == name);
        is(self.pool, pool)
            && is(self.endpoint, endpoint)
            && self.search.is_none_or(|text| {
                let client = live.guard.client.as_ref();
                let client = client.map_or("", |client| &*client.name);
                let mut names = [client, pool, endpoint].into_iter();
                names.any(|name| is_in(text, name)) || (is_of_id(text) && is_in(text, &id_of(live)))
            })
    }
}

/// Does this text stand in the other, in capitals or not?
fn is_in(text: &str, other: &str) -> bool {
    let mut pieces = other.as_bytes().windows(text.len().max(1));
    pieces.any(|piece| piece.eq_ignore_ascii_case(text.as_bytes()))
}

/// Can it be a piece of an id?
fn is_of_id(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// One session.
pub(super) fn session(live: &Live<Held>, now: Instant) -> view::Session {
    let idle = match live.open_streams {
        0 => now.saturating_duration_since(live.last_used()).as_secs(),
        _ => 0,
    };
    view::Session {
        id: id_of(live),
        pool: live.guard.pool.pool.name().to_owned(),
        endpoint: live.guard.endpoint.name().to_owned(),
        revision: live.revision.as_str().to_owned(),
        era: "session".to_owned(),
        client: live.guard.client.as_ref().map(|client| view::Client {
            name: client.name.to_string(),
            version: client.version.to_string(),
        }),
        age_seconds: now.saturating_duration_since(live.created).as_secs(),
        idle_seconds: idle,
        open_streams: live.open_streams,
    }
}

/// The session's tag in the log, and enough of its key to tell it from others with the same tag.
fn id_of(live: &Live<Held>) -> String {
    let tag = live.guard.tag.map_or(0, |tag| tag.bits());
    format!("{tag:08x}-{:08x}", (live.key.number() >> 96) as u32)
}

/// Why a session was not found by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is none.
    None,
    /// There are several.
    Several,
}

/// The session of this id, or of this tag if no other has it.
pub(super) fn find_session(table: &Table<Held>, id: &str) -> Result<Key, Missing> {
    let is_it = |live: &Live<Held>| {
        let own = id_of(live);
        own == id || (id.len() == 8 && own.starts_with(id))
    };
    let found = table.list(2, is_it);
    match found.as_slice() {
        [] => Err(Missing::None),
        [one] => Ok(one.key),
        _ => Err(Missing::Several),
    }
}
