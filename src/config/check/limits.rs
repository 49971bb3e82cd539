//! Rates, and how often tools may be called.

use super::super::fields::{Fields, Item};
use super::super::keys::TOOL_RETRIES;
use super::super::limit::{Queue, Rate, RouteRate, ToolLimit, ToolRetry};
use super::super::model::PoolKind;
use super::super::units;

fn rate_at(fields: &Fields<'_>, name: &str) -> Option<Rate> {
    let word = fields.text(name)?;
    let (count, per) = fields.parsed(word, units::rate)?;
    Some(Rate::new(count, per))
}

/// What a route takes.
pub(super) fn route_rate(route: &Fields<'_>) -> Option<RouteRate> {
    let at = route.written("rate")?;
    let fields = route.section("rate");
    let written = |name| fields.written(name).is_some();
    let of_one = written("per_client") || written("per_principal");
    if !of_one && !written("total") {
        let message = "`rate` has neither `per_client` nor `per_principal` nor `total`; write for \
                       example `per_client: 50/s`";
        fields.error(at, message);
    }
    let burst = fields.count("burst");
    if let Some(at) = fields.written("burst")
        && !of_one
    {
        fields.error(at, "`burst` needs `per_client` or `per_principal`");
    }
    let of_one = |name| {
        let rate = rate_at(&fields, name)?;
        Some(Rate {
            burst: burst.unwrap_or(rate.burst),
            ..rate
        })
    };
    Some(RouteRate {
        per_client: of_one("per_client"),
        per_principal: of_one("per_principal"),
        total: rate_at(&fields, "total"),
    })
}

/// What holds for the tools of a pool.
///
/// `retries` says that calls are tried again at all.
pub(super) fn tools(pool: &Fields<'_>, kind: PoolKind, retries: bool) -> Vec<ToolLimit> {
    let Some(at) = pool.written("tools") else {
        return Vec::new();
    };
    if kind == PoolKind::Http {
        pool.error(at, "`tools` is for MCP; this pool is of kind http");
    }
    let items = pool.items("tools").into_iter();
    let fields = items.filter_map(|item| match item {
        Item::Fields(fields) => Some(fields),
        Item::Text(_) => None,
    });
    fields.filter_map(|fields| tool(&fields, retries)).collect()
}

/// What can hold for a call that is let through.
const OF_CALLS: [&str; 6] = [
    "per_client",
    "per_principal",
    "total",
    "concurrent",
    "timeout",
    "retry",
];

fn tool(fields: &Fields<'_>, retries: bool) -> Option<ToolLimit> {
    let name = fields.text("name");
    let limit = ToolLimit {
        name: name.map_or_else(String::new, |word| word.text.to_owned()),
        per_client: rate_at(fields, "per_client"),
        per_principal: rate_at(fields, "per_principal"),
        total: rate_at(fields, "total"),
        concurrent: fields.count("concurrent"),
        deny: fields.flag("deny"),
        timeout: fields
            .written("timeout")
            .map(|_| fields.duration("timeout")),
        retry: fields.choice("retry", &TOOL_RETRIES).unwrap_or_default(),
    };
    let of_calls = OF_CALLS.iter().find_map(|name| fields.written(name));
    if of_calls.is_none() && fields.written("deny").is_none() {
        let message = "this tool has no limit; write for example `concurrent: 4`, `timeout: 30s` or \
                       `deny: true`";
        fields.error(fields.key_place("name"), message);
    }
    if limit.deny
        && let Some(at) = of_calls
    {
        fields.error(at, "this tool is denied, so nothing else can hold for it");
    }
    if limit.retry == ToolRetry::Always && !retries {
        let message = "`retry: always` does nothing while the pool's `retries` are off";
        fields.warning(fields.key_place("retry"), message);
    }
    let word = name?;
    if word.text.is_empty() {
        fields.error(word.span, "the name of a tool is not empty");
    }
    Some(limit)
}

/// What becomes of calls for which no endpoint has a place.
pub(super) fn queue(pool: &Fields<'_>) -> Queue {
    Queue {
        timeout: pool.duration("queue_timeout"),
        max: pool.count("queue_max").unwrap_or_default(),
    }
}
