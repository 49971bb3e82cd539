//! Pools: their endpoints, how these are balanced and watched, and which keys go together.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::address::{self, Scheme};
use super::super::fields::{Fields, Item};
use super::super::host_port::HostPort;
use super::super::keys::{
    BALANCES, BalanceChoice, CLIENT_HEADERS, ERAS, LOSSES, POOL_KINDS, RESOLVES, SEND_PROXY, STATES,
};
use super::super::model::{
    Balance, Endpoint, Eras, HashOn, OnEndpointLoss, Pool, PoolId, PoolKind, Route, State, Timeouts,
};
use super::super::node::{Span, Word};
use super::super::problem::{Report, quoted};
use super::super::protect::{Breaker, Ejection, Retries};
use super::super::resolve::Resolve;
use super::endpoint_tls::{self, Said, System};
use super::health::health;
use super::limits;

/// What routes must know of a pool before the pools, which want to know the routes, are read.
pub(super) struct Head<'a> {
    pub(super) name: Word<'a>,
    pub(super) kind: PoolKind,
    fields: Fields<'a>,
}

/// The name and kind of every pool, in the order of their ids.
pub(super) fn heads<'a>(root: &Fields<'a>) -> Vec<Head<'a>> {
    let head = |(name, fields): (Word<'a>, Fields<'a>)| Head {
        name,
        kind: fields.choice("kind", &POOL_KINDS).unwrap_or(PoolKind::Mcp),
        fields,
    };
    root.named("pools").into_iter().map(head).collect()
}

/// The pools, and a warning for each that no route uses.
pub(super) fn pools(heads: &[Head<'_>], routes: &[Route], report: &Report) -> Vec<Pool> {
    let mut pools = Vec::new();
    let system = System::default();
    for (at, head) in heads.iter().enumerate() {
        let id = PoolId(at);
        let uses: Vec<&Route> = routes
            .iter()
            .filter(|route| route.pool() == Some(id))
            .collect();
        if uses.is_empty() {
            let name = quoted(head.name.text);
            let message = format!("no route uses the pool {name}; nothing is ever sent to it");
            report.warning(head.name.span, message);
        }
        pools.push(pool(head, &uses, &system, report));
    }
    pools
}

fn pool(head: &Head<'_>, routes: &[&Route], system: &System, report: &Report) -> Pool {
    let Head { name, kind, fields } = head;
    let name = fields.parsed(*name, address::pool_name);
    let eras = fields.choice("eras", &ERAS).unwrap_or(Eras::Auto);
    let on_endpoint_loss = fields.choice("on_endpoint_loss", &LOSSES);
    if *kind == PoolKind::Http {
        for key in ["eras", "on_endpoint_loss"] {
            if let Some(at) = fields.written(key) {
                let message = format!("`{key}` is for MCP; this pool is of kind http");
                fields.error(at, message);
            }
        }
    }
    let retries = fields.section_or_off("retries").as_ref().map(retries);
    Pool {
        name: name.unwrap_or_default(),
        kind: *kind,
        balance: balance(fields),
        on_endpoint_loss: on_endpoint_loss.unwrap_or(OnEndpointLoss::NotFound),
        eras,
        endpoints: endpoints(fields, system, report),
        resolve_every: fields.duration("resolve_every"),
        resolve_hold: fields.duration_or_off("resolve_hold"),
        name_servers: name_servers(fields),
        health: health(&fields.section("health"), *kind, eras, routes),
        ejection: fields.section_or_off("ejection").as_ref().map(ejection),
        breaker: fields.section_or_off("breaker").as_ref().map(breaker),
        tools: limits::tools(fields, *kind, retries.is_some()),
        retries,
        slow_start: fields.duration_or_off("slow_start").unwrap_or_default(),
        timeouts: timeouts(&fields.section("timeouts")),
        affinity_cookie: affinity(fields, *kind),
        keep_alive: fields.duration("keep_alive"),
        queue: limits::queue(fields),
        send_proxy: fields.choice("send_proxy", &SEND_PROXY).unwrap_or(None),
        client_headers: fields
            .choice("client_headers", &CLIENT_HEADERS)
            .unwrap_or_default(),
    }
}

fn balance(fields: &Fields<'_>) -> Balance {
    let choice = fields.choice("balance", &BALANCES);
    let hash_on = fields.text("hash_on");
    let hash_on = hash_on.and_then(|word| fields.parsed(word, address::hash_on));
    let hashes = choice == Some(BalanceChoice::ConsistentHash);
    if let Some(at) = fields
        .written("hash_on")
        .filter(|_| !hashes && choice.is_some())
    {
        fields.error(at, "`hash_on` needs `balance: consistent_hash`");
    }
    match choice {
        Some(BalanceChoice::ConsistentHash) => {
            Balance::ConsistentHash(hash_on.unwrap_or(HashOn::ClientIp))
        }
        Some(BalanceChoice::PeakEwma) => Balance::PeakEwma,
        Some(BalanceChoice::Random) => Balance::Random,
        Some(BalanceChoice::RoundRobin) => Balance::RoundRobin,
        Some(BalanceChoice::LeastLoad) | None => Balance::LeastLoad,
    }
}

/// An endpoint, and what to point at when its address or its name collides with another.
struct Placed {
    endpoint: Endpoint,
    address_at: Span,
    name_at: Span,
}

fn endpoints(fields: &Fields<'_>, system: &System, report: &Report) -> Vec<Endpoint> {
    let said = endpoint_tls::said(fields);
    let items = fields.items("endpoints");
    let count = items.len();
    let mut placed: Vec<Placed> = Vec::new();
    // Sets, because a thousand endpoints would need half a million comparisons.
    let mut addresses: HashMap<HostPort, Span> = HashMap::new();
    let mut names: HashMap<String, Span> = HashMap::new();
    for item in items {
        let new = match item {
            Item::Text(word) => plain_endpoint(fields, word, (said.as_ref(), system)),
            Item::Fields(fields) => full_endpoint(&fields, (said.as_ref(), system)),
        };
        let Some(new) = new else { continue };
        let Endpoint { name, address, .. } = &new.endpoint;
        if let Some(at) = addresses.insert(address.clone(), new.address_at) {
            let line = report.line(at);
            let message = format!("{address} is here twice; the first is on line {line}");
            report.error(new.address_at, message);
        } else if let Some(at) = names.insert(name.clone(), new.name_at) {
            let line = report.line(at);
            let name = quoted(name);
            let message = format!("the endpoint on line {line} is named {name} as well");
            report.error(new.name_at, message);
        }
        placed.push(new);
    }
    let endpoints: Vec<Endpoint> = placed.into_iter().map(|placed| placed.endpoint).collect();
    let complete = !endpoints.is_empty() && endpoints.len() == count;
    if complete && endpoints.iter().all(|endpoint| endpoint.backup) {
        let message = "every endpoint is a backup, and there is nothing to back up; remove \
                       `backup` from one";
        fields.error(fields.key_place("endpoints"), message);
    }
    endpoints
}

/// An endpoint written as its address alone.
fn plain_endpoint(
    pool: &Fields<'_>,
    word: Word<'_>,
    (said, system): (Option<&Said>, &System),
) -> Option<Placed> {
    let (address, scheme) = pool.parsed(word, address::endpoint)?;
    let place = (&address, scheme, word.span);
    let endpoint = Endpoint {
        name: default_name(pool, &address, word.span)?,
        tls: endpoint_tls::of_endpoint(pool, place, None, said, system),
        address,
        resolve: Resolve::One,
        found_by: None,
        weight: 1,
        backup: false,
        state: State::Up,
        http2: false,
        max_in_flight: None,
    };
    Some(Placed {
        endpoint,
        address_at: word.span,
        name_at: word.span,
    })
}

/// An endpoint written as a map.
fn full_endpoint(fields: &Fields<'_>, (said, system): (Option<&Said>, &System)) -> Option<Placed> {
    let weight = fields.count("weight").unwrap_or(1);
    let backup = fields.flag("backup");
    let state = fields.choice("state", &STATES).unwrap_or(State::Up);
    let mut resolve = fields.choice("resolve", &RESOLVES).unwrap_or(Resolve::One);
    let http2 = fields.flag("http2");
    let max_in_flight = fields.count("max_in_flight");
    let own = endpoint_tls::said(fields);
    let bare = fields.written("tls").is_some() && own.is_none();
    let name_word = fields.text("name");
    let name = name_word.map(|word| fields.parsed(word, address::address_name));
    fields.missing_all(&["address", "srv"], "address: 10.0.0.1:8080");
    let (word, (address, mut scheme)) = match fields.text("srv") {
        None => {
            let word = fields.text("address")?;
            (word, fields.parsed(word, address::endpoint)?)
        }
        Some(word) => {
            refuse_with_srv(fields);
            resolve = Resolve::Service;
            let name = fields.parsed(word, address::service)?;
            (word, (name, Scheme::Unsaid))
        }
    };
    if resolve == Resolve::All && address.ip().is_some() {
        let message = format!("{address} is one address; `resolve: all` needs a name");
        fields.error(fields.place_of("resolve"), message);
    }
    if bare && scheme == Scheme::Https {
        fields.error(
            word.span,
            "`https://` is TLS, and `tls: off` is written as well",
        );
    } else if bare {
        scheme = Scheme::Http;
    }
    let place = (&address, scheme, word.span);
    let tls = endpoint_tls::of_endpoint(fields, place, own.as_ref(), said, system);
    let name = match name {
        Some(name) => name?,
        None => default_name(fields, &address, word.span)?,
    };
    let endpoint = Endpoint {
        name,
        address,
        resolve,
        found_by: None,
        weight,
        backup,
        state,
        http2,
        tls,
        max_in_flight,
    };
    Some(Placed {
        endpoint,
        address_at: word.span,
        name_at: name_word.unwrap_or(word).span,
    })
}

/// Keys that say what a service's records say.
fn refuse_with_srv(fields: &Fields<'_>) {
    for key in ["address", "resolve", "weight"] {
        if let Some(at) = fields.written(key) {
            let message =
                format!("`{key}` is what the records of `srv` say; leave one of them out");
            fields.error(at, message);
        }
    }
}

fn name_servers(fields: &Fields<'_>) -> Vec<SocketAddr> {
    let words = fields.texts("name_servers").into_iter();
    words
        .filter_map(|word| fields.parsed(word, address::name_server))
        .collect()
}

/// The address as a name, if it can be one.
fn default_name(fields: &Fields<'_>, address: &HostPort, span: Span) -> Option<String> {
    let text = address.to_string();
    let word = Word { text: &text, span };
    match address.unix() {
        Some(_) => fields.parsed(word, address::socket_name),
        None => fields.parsed(word, address::address_name),
    }
}

fn ejection(fields: &Fields<'_>) -> Ejection {
    let ejection = Ejection {
        failures: fields.count("failures").unwrap_or_default(),
        base_time: fields.duration("base_time"),
        max_time: fields.duration("max_time"),
        max_share: fields.percent("max_share"),
    };
    let written = fields
        .written("max_time")
        .or_else(|| fields.written("base_time"));
    let shorter = ejection.max_time < ejection.base_time && !ejection.max_time.is_zero();
    if let Some(at) = written.filter(|_| shorter) {
        fields.error(at, "`max_time` is shorter than `base_time`");
    }
    ejection
}

fn breaker(fields: &Fields<'_>) -> Breaker {
    Breaker {
        failure_ratio: fields.percent("failure_ratio"),
        min_calls: fields.count("min_calls").unwrap_or_default(),
        window: fields.duration("window"),
        open_time: fields.duration("open_time"),
        trials: fields.count("trials").unwrap_or_default(),
    }
}

fn retries(fields: &Fields<'_>) -> Retries {
    Retries {
        ratio: fields.percent("ratio"),
        floor: fields.count("floor").unwrap_or_default(),
        trust_annotations: fields.flag("trust_annotations"),
        hedge_after: fields.duration_or_off("hedge_after"),
    }
}

fn timeouts(fields: &Fields<'_>) -> Timeouts {
    Timeouts {
        connect: fields.duration("connect"),
        header: fields.duration("header"),
        stream_idle: fields.duration_or_off("stream_idle"),
        total: fields.duration_or_off("total"),
        write: fields.duration("write"),
    }
}

fn affinity(pool: &Fields<'_>, kind: PoolKind) -> Option<String> {
    let at = pool.written("affinity")?;
    if kind == PoolKind::Mcp {
        let message =
            "`affinity` needs `kind: http`; MCP sessions are always kept on their endpoint";
        pool.error(at, message);
    }
    let fields = pool.section("affinity");
    let cookie = fields.text("cookie")?;
    fields.parsed(cookie, address::cookie_name)
}
