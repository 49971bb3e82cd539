//! The rates of a configuration, and the tokens that are left.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::super::ctx::Ctx;
use super::super::tool::Policy;
use crate::config::{self, Config};
use crate::limit::buckets::BUCKETS_MAX;
use crate::limit::{Bucket, Buckets, Cap, Client, Pattern, Rate, Taken};
use crate::session::PrincipalHash;
use crate::telemetry::{Limit, limit_hit};

/// The limits of a configuration, ready to be asked.
pub struct Limits {
    /// In the order of the configuration's routes.
    pub(super) routes: Box<[Option<Rates>]>,
    /// In the order of the configuration's pools.
    pub(super) tools: Box<[Box<[Tool]>]>,
    /// Only where some rate is of one client or principal.
    pub(super) buckets: Option<Arc<Buckets>>,
    /// When the clock of the buckets began to run.
    pub(super) base: Instant,
    /// The highest number of a rule so far: a number is never given to another rule.
    rules: u32,
}

/// Rates of one rule.
pub(super) struct Rates {
    /// Tells the rule's buckets from those of others.
    rule: u32,
    per_client: Option<Rate>,
    per_principal: Option<Rate>,
    total: Option<Arc<Bucket>>,
}

/// What holds for some tools of a pool.
pub(super) struct Tool {
    pub(super) name: Pattern,
    pub(super) rates: Rates,
    pub(super) concurrent: Option<Arc<Cap>>,
    /// How many that are.
    max: u32,
    /// They are not called.
    pub(super) deny: bool,
    /// What holds for a call that is let through.
    pub(super) policy: Policy,
}

impl Limits {
    /// The limits of `config`. What it limits as the configuration before did, by the same matchers of a
    /// route or the same tools of a pool, goes on with what has been used of it, also where the numbers
    /// are others. The clock of the rates begins at `now`, if there were none before.
    pub fn new(config: &Config, before: Option<(&Config, &Self)>, now: Instant) -> Self {
        let mut rules = before.map_or(0, |(_, before)| before.rules);
        let routes: Box<[Option<Rates>]> = config
            .routes
            .iter()
            .enumerate()
            .map(|(at, route)| {
                let rate = route.rate.as_ref()?;
                let old = before.and_then(|before| old_route(before, at, route));
                let rates = [rate.per_client, rate.per_principal, rate.total];
                Some(Rates::new(rates, old, &mut rules))
            })
            .collect();
        let tools: Box<[Box<[Tool]>]> = config
            .pools
            .iter()
            .map(|pool| {
                let tools = pool.tools.iter().map(|tool| {
                    let old = before.and_then(|before| old_tool(before, &pool.name, &tool.name));
                    Tool::new(tool, old, &mut rules)
                });
                tools.collect()
            })
            .collect();
        let of_one = |rates: &Rates| rates.per_client.or(rates.per_principal).is_some();
        let any = routes.iter().flatten().any(of_one)
            || tools.iter().flatten().any(|tool| of_one(&tool.rates));
        let new = || {
            let seeds = [fastrand::u64(..), fastrand::u64(..)];
            Arc::new(Buckets::new(BUCKETS_MAX, seeds))
        };
        let old = before.and_then(|(_, before)| before.buckets.clone());
        Self {
            routes,
            tools,
            buckets: any.then(|| old.unwrap_or_else(new)),
            base: before.map_or(now, |(_, before)| before.base),
            rules,
        }
    }

    /// Puts the numbers in force of what goes on from the configuration before.
    pub fn settle(&self) {
        for tool in self.tools.iter().flatten() {
            if let Some(cap) = &tool.concurrent {
                cap.limit(tool.max);
            }
        }
    }

    /// Takes tokens of all that limit who asks; of none, if some has too few.
    pub(super) fn take(
        &self,
        rates: &Rates,
        asker: Asker,
        tokens: u32,
        now: Instant,
    ) -> Result<(), Short> {
        let now = nanos(self.base, now);
        let own = rates.of(asker);
        for (at, (of, client, rate)) in own.iter().enumerate() {
            if let Err(wait) = self.take_own(rates.rule, *client, *rate, tokens, now) {
                self.give_back(rates.rule, &own[..at], tokens);
                return Err(Short::new(*of, wait));
            }
        }
        let Some(total) = &rates.total else {
            return Ok(());
        };
        total.take(tokens, now).map_err(|wait| {
            // It was not the client that has used up what there is.
            self.give_back(rates.rule, &own, tokens);
            Short::new(Of::All, wait)
        })
    }

    fn take_own(
        &self,
        rule: u32,
        client: Client,
        rate: Rate,
        tokens: u32,
        now: u64,
    ) -> Result<(), Duration> {
        let buckets = self.buckets.as_ref();
        let taken = buckets.map(|buckets| buckets.take(rule, client, rate, tokens, now));
        match taken {
            Some(Taken::NotFor(wait)) => Err(wait),
            Some(Taken::Forgetting) => {
                limit_hit(Limit::RateClients);
                Ok(())
            }
            Some(Taken::Yes) | None => Ok(()),
        }
    }

    fn give_back(&self, rule: u32, own: &[(Of, Client, Rate)], tokens: u32) {
        for (_, client, rate) in own {
            if let Some(buckets) = &self.buckets {
                buckets.give_back(rule, *client, *rate, tokens);
            }
        }
    }
}

/// The rates that stood at a route of the same matchers, most often in the same place.
fn old_route<'a>(
    (config, limits): (&Config, &'a Limits),
    at: usize,
    route: &config::Route,
) -> Option<&'a Rates> {
    let is_same = |other: &config::Route| {
        other.path == route.path && other.host == route.host && other.scheme == route.scheme
    };
    let at = match config.routes.get(at) {
        Some(other) if is_same(other) => at,
        _ => config.routes.iter().position(is_same)?,
    };
    limits.routes[at].as_ref()
}

/// What stood at the same tools of a pool of this name.
fn old_tool<'a>(
    (config, limits): (&Config, &'a Limits),
    pool: &str,
    tools: &str,
) -> Option<&'a Tool> {
    let pool = config.pools.iter().position(|other| other.name == pool)?;
    let names = &config.pools[pool].tools;
    let at = names.iter().position(|other| other.name == tools)?;
    Some(&limits.tools[pool][at])
}

impl Tool {
    fn new(config: &config::ToolLimit, old: Option<&Self>, rules: &mut u32) -> Self {
        let rates = [config.per_client, config.per_principal, config.total];
        let running = old.and_then(|old| old.concurrent.clone());
        Self {
            name: Pattern::new(&config.name),
            rates: Rates::new(rates, old.map(|old| &old.rates), rules),
            concurrent: config
                .concurrent
                .map(|max| running.unwrap_or_else(|| Cap::new(max))),
            max: config.concurrent.unwrap_or_default(),
            deny: config.deny,
            policy: Policy {
                timeout: config.timeout,
                retry: config.retry,
            },
        }
    }
}

impl Rates {
    fn new(
        [per_client, per_principal, total]: [Option<config::Rate>; 3],
        old: Option<&Self>,
        rules: &mut u32,
    ) -> Self {
        let rate = |rate: config::Rate| Rate::new(rate.count, rate.per, rate.burst);
        let total = total.map(|total| {
            let old = old.and_then(|old| old.total.as_ref());
            match old.filter(|old| old.rate() == rate(total)) {
                Some(old) => Arc::clone(old),
                None => Arc::new(Bucket::new(rate(total))),
            }
        });
        Self {
            rule: old.map_or_else(
                || {
                    // 0 is what an empty slot of the table looks like.
                    *rules += 1;
                    *rules
                },
                |old| old.rule,
            ),
            per_client: per_client.map(rate),
            per_principal: per_principal.map(rate),
            total,
        }
    }

    /// What one client has of its own of them.
    fn of(&self, asker: Asker) -> SmallVec<[(Of, Client, Rate); 2]> {
        let address = self
            .per_client
            .map(|rate| (Of::Client, asker.address, rate));
        let principal = asker.principal.zip(self.per_principal);
        let principal = principal.map(|(client, rate)| (Of::Principal, client, rate));
        address.into_iter().chain(principal).collect()
    }
}

/// Who asks, as limits count it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// All whose address is not known are one.
    pub(super) address: Client,
    /// Who it has proved to be.
    pub(super) principal: Option<Client>,
}

impl Asker {
    pub(super) fn of(ctx: &Ctx) -> Self {
        let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let proved = ctx.principal != PrincipalHash::ANONYMOUS;
        Self {
            address: Client::at(ctx.client.unwrap_or(nowhere)),
            principal: proved.then(|| Client::proved(ctx.principal.0)),
        }
    }
}

/// Whose tokens are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Client,
    Principal,
    All,
}

/// There are no tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) of: Of,
    /// Whole seconds until there are.
    pub(super) seconds: u32,
}

impl Short {
    fn new(of: Of, wait: Duration) -> Self {
        Self {
            of,
            seconds: seconds(wait),
        }
    }
}

fn nanos(base: Instant, now: Instant) -> u64 {
    let nanos = now.saturating_duration_since(base).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

pub(super) fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    u32::try_from(whole).unwrap_or(u32::MAX)
}
