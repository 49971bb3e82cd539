//! Health checks: what is asked, how often, and which keys go together.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::address;
use super::super::fields::Fields;
use super::super::health::{Check, Health, HttpCheck, HttpMethod, McpQuestion, OnDown};
use super::super::keys::{CHECK_METHODS, CHECKS, CheckChoice, MethodChoice, ON_DOWN};
use super::super::model::{Eras, PathRule, PoolKind, Route, Transport};
use super::super::problem::quoted;
use super::routes::resolve;

/// Where MCP is asked for when no route says it better.
const MCP_PATH: &str = "/mcp";
/// Where a plain HTTP server is asked for its health.
const HTTP_PATH: &str = "/health";
/// Longest query, in bytes.
const QUERY_MAX: usize = 1024;
/// Longest text that is looked for in a body, in bytes.
const BODY_MAX: usize = 4096;
/// What the fast interval is unless it is written: this part of the usual one, and at least so much.
const FAST_SHARE: u32 = 4;
const FAST_MIN: Duration = Duration::from_millis(100);

pub(super) fn health(fields: &Fields<'_>, kind: PoolKind, eras: Eras, routes: &[&Route]) -> Health {
    let choice = fields.choice("check", &CHECKS);
    let at = fields.place_of("check");
    let check = match (choice, kind) {
        (Some(CheckChoice::Mcp), PoolKind::Http) => {
            let message = "`check: mcp` needs a pool of kind mcp; write http, tcp or none";
            fields.error(at, message);
            Check::None
        }
        (Some(CheckChoice::Mcp) | None, PoolKind::Mcp) => mcp_check(fields, eras, routes),
        (Some(CheckChoice::Http), _) => Check::Http(http_check(fields)),
        (Some(CheckChoice::Tcp), _) | (None, PoolKind::Http) => Check::Tcp,
        (Some(CheckChoice::None), _) => Check::None,
    };
    // One problem at a time: with the wrong check, its keys say nothing.
    let is_refused = choice == Some(CheckChoice::Mcp) && kind == PoolKind::Http;
    if !is_refused {
        refuse_idle_keys(fields, &check);
    }
    let interval = fields.duration("interval");
    Health {
        check,
        interval,
        interval_fast: interval_fast(fields, interval),
        interval_down: written(fields, "interval_down").unwrap_or(interval),
        timeout: fields.duration("timeout"),
        rise: fields.count("rise").unwrap_or_default(),
        fall: fields.count("fall").unwrap_or_default(),
        on_down: fields.choice("on_down", &ON_DOWN).unwrap_or(OnDown::Keep),
    }
}

/// Keys that mean nothing to the check there is.
fn refuse_idle_keys(fields: &Fields<'_>, check: &Check) {
    let is_http = matches!(check, Check::Http(_));
    let asks = is_http || matches!(check, Check::Mcp { .. });
    for key in ["path", "method"] {
        if let Some(at) = fields.written(key).filter(|_| !asks) {
            let message = format!("`{key}` needs `check: mcp` or `check: http`");
            fields.error(at, message);
        }
    }
    if let Some(at) = fields.written("on_down").filter(|_| *check == Check::None) {
        fields.error(at, "without checks nothing is found down");
    }
    for key in ["host", "expect"] {
        if let Some(at) = fields.written(key).filter(|_| !is_http) {
            fields.error(at, format!("`{key}` needs `check: http`"));
        }
    }
}

/// A duration without a default, if it was written.
fn written(fields: &Fields<'_>, key: &str) -> Option<Duration> {
    fields.written(key).map(|_| fields.duration(key))
}

fn interval_fast(fields: &Fields<'_>, interval: Duration) -> Duration {
    let Some(fast) = written(fields, "interval_fast") else {
        return (interval / FAST_SHARE).max(FAST_MIN);
    };
    if fast > interval && !interval.is_zero() {
        let at = fields.place_of("interval_fast");
        fields.error(at, "`interval_fast` is longer than `interval`");
    }
    fast
}

fn path(fields: &Fields<'_>) -> Option<String> {
    fields.parsed(fields.text("path")?, address::path)
}

/// An MCP check asks as a client would: on the path of the first route, unless another is written,
/// and over the transport of the route that has this path.
fn mcp_check(fields: &Fields<'_>, eras: Eras, routes: &[&Route]) -> Check {
    let asked = |route: &&Route| {
        let path = match &route.path {
            PathRule::Prefix(path) if path == "/" => MCP_PATH,
            PathRule::Prefix(path) | PathRule::Exact(path) => path,
        };
        let rewritten = route.rewrite.as_ref();
        rewritten.map_or_else(|| path.to_owned(), |to| to.apply(&route.path, path))
    };
    let path = path(fields).or_else(|| routes.first().map(asked));
    let path = path.unwrap_or_else(|| MCP_PATH.to_owned());
    let route = routes.iter().find(|route| asked(route) == path);
    let transport: Transport = match route {
        Some(route) => route.transport,
        None => resolve(None, &path),
    };
    let question = match fields.choice("method", &CHECK_METHODS) {
        None => McpQuestion::Auto,
        Some(MethodChoice::Mcp(question)) => question,
        Some(MethodChoice::Http(_)) => {
            let at = fields.place_of("method");
            let message = "with `check: mcp`, `method` is auto | discover | ping | initialize";
            fields.error(at, message);
            McpQuestion::Auto
        }
    };
    if let Some(wrong) = unanswered(question, eras, transport) {
        fields.error(fields.place_of("method"), wrong);
    }
    Check::Mcp {
        path,
        transport,
        question,
    }
}

/// Why no server of the pool could answer.
fn unanswered(question: McpQuestion, eras: Eras, transport: Transport) -> Option<&'static str> {
    match (question, eras) {
        (McpQuestion::Auto, _) => None,
        _ if transport == Transport::Sse => {
            Some("over HTTP+SSE a check opens a stream and asks nothing; leave `method` out")
        }
        (McpQuestion::Discover, Eras::Session) => {
            Some("servers with `eras: session` do not know server/discover")
        }
        (McpQuestion::Ping | McpQuestion::Initialize, Eras::Stateless) => {
            Some("servers with `eras: stateless` have no sessions; write discover")
        }
        _ => None,
    }
}

fn http_check(fields: &Fields<'_>) -> HttpCheck {
    let method = match fields.choice("method", &CHECK_METHODS) {
        None => HttpMethod::Get,
        Some(MethodChoice::Http(method)) => method,
        Some(MethodChoice::Mcp(_)) => {
            let at = fields.place_of("method");
            fields.error(
                at,
                "with `check: http`, `method` is GET | HEAD | OPTIONS | POST",
            );
            HttpMethod::Get
        }
    };
    let host = fields.text("host");
    let expect = fields.section("expect");
    let body = expect.text("body");
    if let Some(word) = body.filter(|_| method == HttpMethod::Head) {
        expect.error(word.span, "an answer to HEAD has no body");
    }
    let statuses = expect.text("status");
    let statuses = statuses.and_then(|word| expect.parsed(word, statuses_of));
    let path = fields.text("path");
    let path = path.and_then(|word| fields.parsed(word, target));
    HttpCheck {
        method,
        path: path.unwrap_or_else(|| HTTP_PATH.to_owned()),
        host: host.and_then(|word| fields.parsed(word, authority)),
        statuses: statuses.unwrap_or_default(),
        body: body.and_then(|word| expect.parsed(word, wanted_body)),
    }
}

/// A path, with or without a query.
fn target(text: &str) -> Result<String, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    address::path(path)?;
    let is_plain = query.len() <= QUERY_MAX && query.bytes().all(|b| b.is_ascii_graphic());
    match is_plain && !query.contains('#') {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{}: a query is at most {QUERY_MAX} bytes of ASCII without spaces or #",
            quoted(text)
        )),
    }
}

/// A host, with or without a port.
fn authority(text: &str) -> Result<String, String> {
    let wrong = || format!("{} is not a host such as www.example.com", quoted(text));
    let parsed: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    let is_plain = !text.contains('@') && !parsed.host().is_empty();
    is_plain.then(|| text.to_owned()).ok_or_else(wrong)
}

fn wanted_body(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("an empty text is in every body".to_owned()),
        1..=BODY_MAX => Ok(text.to_owned()),
        _ => Err(format!("at most {BODY_MAX} bytes can be looked for")),
    }
}

/// Statuses and ranges of them, with commas between.
fn statuses_of(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    text.split(',').map(|part| statuses(part.trim())).collect()
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let number: Option<u16> = text.trim().parse().ok();
        number.filter(|number| (200..=599).contains(number))
    };
    let range = status(from).zip(status(to)).map(|(from, to)| from..=to);
    range.filter(|range| !range.is_empty()).ok_or_else(|| {
        let shown = quoted(text);
        format!("{shown} is not a status from 200 to 599, or a range such as 200-399")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges_with_commas() {
        assert_eq!(statuses_of("200-399"), Ok(vec![200..=399]));
        let several = statuses_of("204, 300 - 304,599");
        assert_eq!(several, Ok(vec![204..=204, 300..=304, 599..=599]));
        for wrong in ["", "199", "600", "2xx", "399-200", "200,,204", "200-", "-1"] {
            assert!(statuses_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_may_have_a_port_and_no_user() {
        for right in ["www.example.com", "10.0.0.1:8080", "[::1]:80"] {
            assert!(authority(right).is_ok(), "{right}");
        }
        for wrong in ["", "a b", "me@here", "http://x", "/x"] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
    }
}
