//! CORS of a route, put together as what its answers need.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::super::cors::Cors;
use super::super::edge::{Field, HeaderEdits};
use super::super::fields::Fields;
use super::super::model::{Origins, PoolKind};
use super::super::problem::quoted;
use super::super::template::{Template, Variable};
use super::routes::origins;

/// What every MCP client in a browser sends, reads and does.
const MCP_HEADERS: [&str; 8] = [
    "content-type",
    "authorization",
    "accept",
    "mcp-session-id",
    "mcp-protocol-version",
    "last-event-id",
    "mcp-method",
    "mcp-name",
];
const MCP_EXPOSED: [&str; 4] = [
    "mcp-session-id",
    "mcp-protocol-version",
    "www-authenticate",
    "retry-after",
];
const MCP_METHODS: [&str; 4] = ["GET", "POST", "DELETE", "OPTIONS"];
const PLAIN_HEADERS: [&str; 2] = ["content-type", "authorization"];
const PLAIN_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What only we say, whatever a server has to say about it.
const OURS: [HeaderName; 6] = [
    http::header::ACCESS_CONTROL_ALLOW_ORIGIN,
    http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    http::header::ACCESS_CONTROL_ALLOW_METHODS,
    http::header::ACCESS_CONTROL_ALLOW_HEADERS,
    http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
    http::header::ACCESS_CONTROL_MAX_AGE,
];

/// CORS as it was written, and the changes to answers for everybody else. `edits` are the route's own.
pub(super) fn cors(
    fields: &Fields<'_>,
    kind: PoolKind,
    edits: &HeaderEdits,
) -> (Cors, HeaderEdits) {
    let at = fields.key_place("origins");
    let origins = match fields.written("origins") {
        Some(_) => origins(fields),
        // Says that there must be some.
        None => Origins::List(
            fields
                .texts("origins")
                .iter()
                .map(|w| w.text.into())
                .collect(),
        ),
    };
    let is_mcp = kind == PoolKind::Mcp;
    let credentials = fields.flag("credentials");
    if credentials && origins == Origins::Any {
        let message = "no browser sends credentials where every origin is let in; list the origins";
        fields.error(at, message);
    }
    let standing: &[&str] = if is_mcp { &MCP_METHODS } else { &PLAIN_METHODS };
    let methods = methods(fields, standing, is_mcp);
    let standing: &[&str] = if is_mcp { &MCP_HEADERS } else { &PLAIN_HEADERS };
    let (headers, any_header) = names(fields, "headers", standing);
    let standing: &[&str] = if is_mcp { &MCP_EXPOSED } else { &[] };
    let (mut exposed, any_exposed) = names(fields, "expose", standing);
    if any_exposed && credentials {
        let at = fields.place_of("expose");
        fields.error(
            at,
            "with `credentials` browsers take \"*\" for a name; list the names",
        );
    }
    if any_exposed {
        exposed = "*".to_owned();
    }
    let max_age = fields.duration("max_age").as_secs().to_string();

    let mut told = Vec::new();
    let mut tell = |name: HeaderName, value: Template| told.push(Field { name, value });
    tell(
        http::header::ACCESS_CONTROL_ALLOW_ORIGIN,
        match origins {
            Origins::Any => Template::fixed("*"),
            Origins::List(_) | Origins::Unset => Template::variable(Variable::Origin),
        },
    );
    if credentials {
        let name = http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
        tell(name, Template::fixed("true"));
    }
    let varies = |more: &str| Field {
        name: http::header::VARY,
        value: Template::fixed(format!("Origin{more}")),
    };
    let mut preflight = edits.clone();
    preflight.set.extend(told.iter().cloned());
    preflight.set.push(Field {
        name: http::header::ACCESS_CONTROL_ALLOW_METHODS,
        value: Template::fixed(methods),
    });
    preflight.set.push(Field {
        name: http::header::ACCESS_CONTROL_MAX_AGE,
        value: Template::fixed(max_age),
    });
    let asked = ", Access-Control-Request-Method, Access-Control-Request-Headers";
    preflight.add.push(varies(asked));
    let mut denied = edits.clone();
    denied.remove.extend(OURS);
    if origins != Origins::Any {
        denied.add.push(varies(""));
    }
    let mut response = denied.clone();
    if !exposed.is_empty() {
        told.push(Field {
            name: http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
            value: Template::fixed(exposed),
        });
    }
    response.set.extend(told);
    let everybody = match origins {
        Origins::Any => response.clone(),
        Origins::List(_) | Origins::Unset => denied,
    };
    let cors = Cors {
        origins,
        headers,
        any_header,
        mcp: is_mcp,
        response: Arc::new(response),
        preflight: Arc::new(preflight),
    };
    (cors, everybody)
}

/// Reports fields of CORS among the changes that a route makes by itself.
pub(super) fn check_edits(fields: &Fields<'_>, edits: &HeaderEdits) {
    let named = edits.brought_in().map(|field| &field.name);
    let mut named = named.chain(&edits.remove);
    if let Some(name) = named.find(|name| name.as_str().starts_with("access-control-")) {
        let at = fields.key_place("response_headers");
        fields.error(at, format!("`cors` says what `{name}` is; change it there"));
    }
}

fn methods(fields: &Fields<'_>, standing: &[&str], is_mcp: bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for word in fields.texts("methods") {
        let shown = quoted(word.text);
        if word.text == "*" {
            fields.error(word.span, "\"*\" is no method; list the methods");
        } else if Method::from_bytes(word.text.as_bytes()).is_err() {
            fields.error(word.span, format!("{shown} is not a method"));
        } else if matches!(word.text, "CONNECT" | "TRACE" | "TRACK") {
            fields.error(word.span, format!("no browser sends {shown}"));
        }
        all.push(word.text.to_owned());
    }
    if all.is_empty() || is_mcp {
        let missing = standing
            .iter()
            .filter(|name| !all.iter().any(|other| other == *name));
        let missing: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
        all.extend(missing);
    }
    all.join(", ")
}

/// The names under a key behind those that stand always, and whether `*` is among them.
fn names(fields: &Fields<'_>, key: &str, standing: &[&str]) -> (String, bool) {
    let mut all: Vec<String> = standing.iter().map(|name| (*name).to_owned()).collect();
    let mut any = false;
    for word in fields.texts(key) {
        if word.text == "*" {
            any = true;
            continue;
        }
        match HeaderName::from_bytes(word.text.as_bytes()) {
            Ok(name) if all.iter().any(|other| other == name.as_str()) => {}
            Ok(name) => all.push(name.as_str().to_owned()),
            Err(_) => {
                let shown = quoted(word.text);
                fields.error(
                    word.span,
                    format!("{shown} is not the name of a header field"),
                );
            }
        }
    }
    (all.join(", "), any)
}
