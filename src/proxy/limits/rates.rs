//! The rates of a configuration, and the tokens that are left.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::super::ctx::Ctx;
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
    pub(super) buckets: Option<Buckets>,
    /// When the clock of the buckets began to run.
    pub(super) base: Instant,
}

/// Rates of one rule.
pub(super) struct Rates {
    /// Tells the rule's buckets from those of others.
    rule: u32,
    per_client: Option<Rate>,
    per_principal: Option<Rate>,
    total: Option<Bucket>,
}

/// The limits of some tools of a pool.
pub(super) struct Tool {
    pub(super) name: Pattern,
    pub(super) rates: Rates,
    pub(super) concurrent: Option<Arc<Cap>>,
}

impl Limits {
    /// The limits of `config`. The clock of the rates begins at `now`.
    pub fn new(config: &Config, now: Instant) -> Self {
        // 0 is what an empty slot of the table looks like.
        let mut rule = 0;
        let mut rates = |[per_client, per_principal, total]: [Option<config::Rate>; 3]| {
            rule += 1;
            let rate = |rate: config::Rate| Rate::new(rate.count, rate.per, rate.burst);
            Rates {
                rule,
                per_client: per_client.map(rate),
                per_principal: per_principal.map(rate),
                total: total.map(|total| Bucket::new(rate(total))),
            }
        };
        let routes: Box<[Option<Rates>]> = config
            .routes
            .iter()
            .map(|route| {
                let rate = route.rate.as_ref()?;
                Some(rates([rate.per_client, rate.per_principal, rate.total]))
            })
            .collect();
        let mut tool = |tool: &config::ToolLimit| Tool {
            name: Pattern::new(&tool.name),
            rates: rates([tool.per_client, tool.per_principal, tool.total]),
            concurrent: tool.concurrent.map(Cap::new),
        };
        let tools: Box<[Box<[Tool]>]> = config
            .pools
            .iter()
            .map(|pool| pool.tools.iter().map(&mut tool).collect())
            .collect();
        let of_one = |rates: &Rates| rates.per_client.or(rates.per_principal).is_some();
        let any = routes.iter().flatten().any(of_one)
            || tools.iter().flatten().any(|tool| of_one(&tool.rates));
        Self {
            routes,
            tools,
            buckets: any.then(|| Buckets::new(BUCKETS_MAX, [fastrand::u64(..), fastrand::u64(..)])),
            base: now,
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

impl Rates {
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
