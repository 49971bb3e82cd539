//! Routes: the pool each names, the transport it speaks, and whether it can ever match.

use std::sync::Arc;

use super::super::address;
use super::super::cors::Cors;
use super::super::edge::{Action, HeaderEdits, Scheme};
use super::super::fields::{Fields, Item};
use super::super::keys::{SCHEMES, TRANSPORTS, TransportChoice};
use super::super::model::{HostRule, Origins, PathRule, PoolId, PoolKind, Route, Transport};
use super::super::node::{Span, Word};
use super::super::problem::{Report, quoted};
use super::super::suggest;
use super::cors;
use super::edge::{self, Way};
use super::limits;
use super::log;
use super::pools::Head;

/// What a route takes, and where it says so.
struct Reach {
    host: Option<HostRule>,
    path: PathRule,
    scheme: Option<Scheme>,
    at: Span,
}

/// The routes of the file that are complete.
pub(super) fn routes(root: &Fields<'_>, pools: &[Head<'_>], report: &Report) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut reaches: Vec<Reach> = Vec::new();
    for item in root.items("routes") {
        let Item::Fields(fields) = item else { continue };
        let reach = reach(&fields);
        let action = action(&fields, pools);
        let pool = action.as_ref().and_then(pool_of);
        let transport = fields.choice("transport", &TRANSPORTS);
        let kind = pool.map(|id| pools[id.0].kind);
        if let Some(at) = fields
            .written("transport")
            .filter(|_| kind != Some(PoolKind::Mcp))
        {
            match (kind, &action) {
                (Some(_), _) => {
                    let message = "`transport` is for MCP; the pool of this route is of kind http";
                    fields.error(at, message);
                }
                (None, Some(_)) => fields.error(at, "`transport` is for routes with a pool"),
                (None, None) => {}
            }
        }
        let request = edge::edits(&fields, "request_headers", Way::Request, kind);
        let response = edge::edits(&fields, "response_headers", Way::Response, kind);
        for key in ["request_headers", "rewrite", "cors"] {
            if let (Some(at), None, Some(_)) = (fields.written(key), kind, &action) {
                fields.error(at, format!("`{key}` is for routes with a pool"));
            }
        }
        let rewrite = edge::rewrite(&fields);
        let (cors, response) = cors(&fields, kind, response);
        let origins = origins(&fields);
        let rate = limits::route_rate(&fields);
        let log = log::of_route(&fields);
        let Some(reach) = reach else { continue };
        if let Some(Action::Redirect(redirect)) = &action {
            edge::check_loop(&fields, &redirect.to, &reach.path, reach.scheme);
        }
        if let Some(earlier) = reaches.iter().find(|earlier| earlier.covers(&reach)) {
            let line = report.line(earlier.at);
            let message = format!(
                "no request can reach this route: the one on line {line} takes {} before it",
                earlier.describe()
            );
            report.error(reach.at, message);
        }
        if let Some(action) = action {
            routes.push(Route {
                host: reach.host.clone(),
                path: reach.path.clone(),
                scheme: reach.scheme,
                action,
                transport: resolve(transport, reach.path.as_str()),
                origins,
                rate,
                log,
                request: (!request.is_empty()).then(|| Arc::new(request)),
                response: (!response.is_empty()).then(|| Arc::new(response)),
                rewrite,
                cors: cors.map(Arc::new),
            });
        }
        reaches.push(reach);
    }
    routes
}

impl Reach {
    /// Does everything that `later` wants match this already?
    fn covers(&self, later: &Self) -> bool {
        let host = match (&self.host, &later.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(HostRule::Exact(theirs))) => ours.matches(theirs),
            (Some(HostRule::Exact(_)), Some(HostRule::Below(_))) => false,
            (Some(ours @ HostRule::Below(parent)), Some(HostRule::Below(theirs))) => {
                parent == theirs || ours.matches(theirs)
            }
        };
        let path = match (&self.path, &later.path) {
            (ours, PathRule::Exact(theirs)) => ours.matches(theirs),
            (PathRule::Exact(_), PathRule::Prefix(_)) => false,
            (ours @ PathRule::Prefix(_), PathRule::Prefix(theirs)) => ours.matches(theirs),
        };
        let scheme = self.scheme.is_none() || self.scheme == later.scheme;
        host && path && scheme
    }

    fn describe(&self) -> String {
        match &self.path {
            PathRule::Prefix(path) if path == "/" => "every path".to_owned(),
            PathRule::Prefix(path) => format!("{path} and everything below it"),
            PathRule::Exact(path) => path.clone(),
        }
    }
}

fn reach(fields: &Fields<'_>) -> Option<Reach> {
    let host = fields.text("host");
    let host = host.map(|word| fields.parsed(word, address::host_rule));
    let scheme = fields.choice("scheme", &SCHEMES);
    let exact = fields.text("path");
    let prefix = fields.text("path_prefix");
    let (word, path) = match (exact, prefix) {
        (Some(word), None) => (word, fields.parsed(word, address::exact_path)),
        (None, Some(word)) => (word, fields.parsed(word, address::prefix_path)),
        (Some(_), Some(_)) => {
            let message = "a route has `path` or `path_prefix`, not both; remove one";
            fields.error(fields.key_place("path_prefix"), message);
            return None;
        }
        (None, None) => {
            fields.missing_all(&["path", "path_prefix"], "path: /mcp");
            return None;
        }
    };
    let host = match host {
        None => None,
        Some(rule) => Some(rule?),
    };
    Some(Reach {
        host,
        path: path?,
        scheme,
        at: word.span,
    })
}

/// What becomes of the route's requests: exactly one thing.
fn action(fields: &Fields<'_>, pools: &[Head<'_>]) -> Option<Action> {
    const ACTIONS: [&str; 3] = ["pool", "return", "redirect"];
    let mut written = ACTIONS.iter().filter(|key| fields.written(key).is_some());
    let Some(first) = written.next() else {
        fields.missing_all(&["pool"], "pool: NAME");
        return None;
    };
    if let Some(second) = written.next() {
        let message = format!("a route has `{first}` or `{second}`, not both; remove one");
        fields.error(fields.key_place(second), message);
        return None;
    }
    match *first {
        "pool" => pool(fields, pools).map(Action::Pool),
        _ => edge::action(fields),
    }
}

fn pool_of(action: &Action) -> Option<PoolId> {
    match action {
        Action::Pool(pool) => Some(*pool),
        Action::Return(_) | Action::Redirect(_) => None,
    }
}

fn pool(fields: &Fields<'_>, pools: &[Head<'_>]) -> Option<PoolId> {
    let word = fields.text("pool")?;
    let found = pools.iter().position(|pool| pool.name.text == word.text);
    if found.is_none() {
        fields.error(word.span, no_such_pool(word, pools));
    }
    found.map(PoolId)
}

fn no_such_pool(word: Word<'_>, pools: &[Head<'_>]) -> String {
    let shown = quoted(word.text);
    let names = || pools.iter().map(|pool| pool.name.text);
    if let Some(name) = suggest::nearest(word.text, names()) {
        return format!("there is no pool {shown}; did you mean {}?", quoted(name));
    }
    let names: Vec<String> = names().take(8).map(quoted).collect();
    if names.is_empty() {
        return format!("there is no pool {shown}; define it under `pools`");
    }
    format!(
        "there is no pool {shown}; the pools are {}",
        names.join(", ")
    )
}

/// What `auto` means, given a path: HTTP+SSE servers have always been found at a path ending in
/// `sse`, and servers of later revisions nowhere in particular.
pub(super) fn resolve(choice: Option<TransportChoice>, path: &str) -> Transport {
    match choice {
        Some(TransportChoice::Sse) => Transport::Sse,
        Some(TransportChoice::Streamable) => Transport::Streamable,
        Some(TransportChoice::Auto) | None if path.ends_with("/sse") => Transport::Sse,
        Some(TransportChoice::Auto) | None => Transport::Streamable,
    }
}

/// CORS, if it is written, and the changes to answers for pages that it does not let in.
fn cors(
    fields: &Fields<'_>,
    kind: Option<PoolKind>,
    response: HeaderEdits,
) -> (Option<Cors>, HeaderEdits) {
    let Some((_, kind)) = fields.written("cors").zip(kind) else {
        return (None, response);
    };
    cors::check_edits(fields, &response);
    let (cors, response) = cors::cors(&fields.section("cors"), kind, &response);
    (Some(cors), response)
}

/// The pages under a key of that name, of a route or of its CORS.
pub(super) fn origins(fields: &Fields<'_>) -> Origins {
    let Some(at) = fields.written("origins") else {
        return Origins::Unset;
    };
    let words = fields.texts("origins");
    if words.iter().any(|word| word.text == "*") {
        if words.len() > 1 {
            let message = "\"*\" lets every origin in; write it alone, or leave it out";
            fields.error(at, message);
        }
        return Origins::Any;
    }
    let mut origins: Vec<String> = Vec::new();
    for word in words {
        let Some(origin) = fields.parsed(word, address::origin) else {
            continue;
        };
        if origins.contains(&origin) {
            let message = format!("the origin {} is here twice", quoted(word.text));
            fields.error(word.span, message);
        }
        origins.push(origin);
    }
    Origins::List(origins)
}
