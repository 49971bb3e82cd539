//! Routes that answer by themselves, and changes to heads.

use std::sync::Arc;

use http::HeaderName;

use super::super::edge::{Action, Field, HeaderEdits, Redirect, Return, Scheme};
use super::super::fields::Fields;
use super::super::model::{PathRule, PoolKind};
use super::super::node::Word;
use super::super::problem::quoted;
use super::super::rewrite::{self, Rewrite};
use super::super::template::{Part, Template, Variable, template};

/// Longest body of a `return`.
const BODY_MAX: usize = 64 * 1024;

/// Fields of one connection, of framing, and of what a request is: changing them from outside would
/// break a message or let two readers take it apart differently (RFC 9110 section 7.6.1).
const NEVER: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-key",
];

/// Fields by which MCP finds its session, its era and its events. Those that begin with `mcp-` belong
/// to them.
const OF_MCP: [&str; 4] = [
    "accept-encoding",
    "content-encoding",
    "content-type",
    "last-event-id",
];

/// Which heads are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Of requests, towards servers.
    Request,
    /// Of responses, towards clients.
    Response,
}

/// The action of a route without a pool.
pub(super) fn action(fields: &Fields<'_>) -> Option<Action> {
    if fields.written("return").is_some() {
        let returned = returned(&fields.section("return"))?;
        return Some(Action::Return(Arc::new(returned)));
    }
    if fields.written("redirect").is_some() {
        let redirect = redirect(&fields.section("redirect"))?;
        return Some(Action::Redirect(Arc::new(redirect)));
    }
    None
}

fn returned(fields: &Fields<'_>) -> Option<Return> {
    let status: u16 = fields.count("status").unwrap_or(200);
    if matches!(status, 300..=303 | 305..=308) {
        let at = fields.place_of("status");
        fields.error(at, format!("{status} redirects; write `redirect` instead"));
        return None;
    }
    let body = fields
        .text("body")
        .map(|word| word.text)
        .unwrap_or_default();
    let at = fields.place_of("body");
    if body.len() > BODY_MAX {
        fields.error(at, format!("this body is longer than {BODY_MAX} bytes"));
    }
    if !body.is_empty() && matches!(status, 204 | 205 | 304) {
        fields.error(at, format!("an answer with status {status} has no body"));
    }
    let mut headers = pairs(fields, "headers", Way::Response, None);
    let typed = headers.iter().any(|field| field.name == "content-type");
    if !body.is_empty() && !typed {
        headers.push(Field {
            name: http::header::CONTENT_TYPE,
            value: Template::fixed("text/plain; charset=utf-8"),
        });
    }
    Some(Return {
        status,
        body: body.to_owned(),
        headers,
    })
}

fn redirect(fields: &Fields<'_>) -> Option<Redirect> {
    let status: u16 = fields.count("status").unwrap_or(307);
    if !matches!(status, 301..=303 | 307 | 308) {
        let message = format!("{status} is no redirect; write 301, 302, 303, 307 or 308");
        fields.error(fields.place_of("status"), message);
    }
    let to = fields.text("to")?;
    let to = fields.parsed(to, target)?;
    Some(Redirect { to, status })
}

/// The target of a redirect: nothing that a client sends may decide on the host, but for the host that
/// it asks for.
fn target(text: &str) -> Result<Template, String> {
    let shown = quoted(text);
    let read = template(text)?;
    if text.contains([' ', '"', '<', '>', '\\', '^', '`', '|', '#']) {
        return Err(format!(
            "{shown}: write what may not stand in a URL percent-encoded"
        ));
    }
    let is_proof = |part: &Part| matches!(part, Part::Variable(variable) if variable.is_proof());
    if read.parts().iter().any(is_proof) {
        return Err(format!(
            "{shown}: who the client has proved to be does not belong in an address"
        ));
    }
    let mut parts = read.parts().iter();
    let first = match parts.next() {
        Some(Part::Text(first)) => first.as_str(),
        Some(Part::Variable(_)) | None => {
            return Err(format!(
                "{shown} begins with neither http:// nor https:// nor a path; a client could name any host"
            ));
        }
    };
    let behind = first
        .strip_prefix("https://")
        .or_else(|| first.strip_prefix("http://"));
    let Some(authority) = behind else {
        return on_this_host(first, read.parts().len() > 1, &shown).map(|()| read);
    };
    let (rest, next) = if authority.is_empty() {
        match parts.next() {
            Some(Part::Variable(Variable::Host | Variable::HttpHost)) => {}
            _ => return Err(format!("{shown}: behind :// stands a host or $host")),
        }
        match parts.next() {
            Some(Part::Text(rest)) => (rest.as_str(), parts.next()),
            next => ("", next),
        }
    } else {
        let end = authority.find(['/', ':', '?']).unwrap_or(authority.len());
        let (host, rest) = authority.split_at(end);
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if host.is_empty() || !host.bytes().all(good) {
            return Err(format!("{shown}: {} is not a host", quoted(host)));
        }
        (rest, parts.next())
    };
    let (port, rest) = match rest.strip_prefix(':') {
        None => (None, rest),
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (port, rest) = rest.split_at(end);
            (Some(port), rest)
        }
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("{shown}: the port must be a number up to 65535"));
    }
    let begins_path =
        |part: &Part| matches!(part, Part::Variable(Variable::Path | Variable::RequestUri));
    match (rest.chars().next(), next) {
        (Some('/' | '?'), _) | (None, None) => Ok(read),
        (None, Some(part)) if begins_path(part) => Ok(read),
        _ => Err(format!(
            "{shown}: behind the host stands a path, $path or $request_uri; a client could name any host"
        )),
    }
}

/// A target without a host: a path that no variable can turn into one.
fn on_this_host(path: &str, more: bool, shown: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.starts_with("//") || (path == "/" && more) {
        return Err(format!(
            "{shown} begins with neither http:// nor https:// nor a path; a client could name any host"
        ));
    }
    Ok(())
}

/// Reports a redirect whose target is a request that the same route takes.
pub(super) fn check_loop(
    fields: &Fields<'_>,
    to: &Template,
    path: &PathRule,
    scheme: Option<Scheme>,
) {
    use Variable::{Host, HttpHost, Path, RequestUri};
    let [Part::Text(first), rest @ ..] = to.parts() else {
        return;
    };
    let at = fields
        .written("redirect")
        .unwrap_or_else(|| fields.key_place("to"));
    let same_place = matches!(
        rest,
        [
            Part::Variable(Host | HttpHost),
            Part::Variable(Path | RequestUri),
            ..
        ]
    );
    let own = match first.as_str() {
        "https://" => Some((Scheme::Http, "http")),
        "http://" => Some((Scheme::Https, "https")),
        _ => None,
    };
    if let Some((from, word)) = own.filter(|_| same_place)
        && scheme != Some(from)
    {
        let message = format!(
            "this sends requests back to where they came from; add `scheme: {word}` to the route"
        );
        fields.error(at, message);
    }
    let end = first.find('?').unwrap_or(first.len());
    if first.starts_with('/') && path.matches(&first[..end]) {
        let shown = quoted(&first[..end]);
        fields.error(
            at,
            format!("this route takes {shown} itself, so the redirect would never end"),
        );
    }
}

/// What becomes of the path, if it is written.
pub(super) fn rewrite(fields: &Fields<'_>) -> Option<Rewrite> {
    let at = fields.written("rewrite")?;
    let fields = fields.section("rewrite");
    let regex = fields
        .text("regex")
        .map(|word| fields.parsed(word, rewrite::regex));
    let prefix = fields.text("prefix");
    let to = fields.text("to");
    match (prefix, regex, to) {
        (Some(word), None, None) => fields.parsed(word, rewrite::prefix),
        (None, Some(regex), Some(to)) => {
            let regex = regex?;
            fields.parsed(to, |to| rewrite::pattern(regex, to))
        }
        _ => {
            let message = "a rewrite has either `prefix`, or `regex` and `to`";
            fields.error(at, message);
            None
        }
    }
}

/// The changes under a key of a route, for requests to a pool of this kind or for all answers.
pub(super) fn edits(
    fields: &Fields<'_>,
    name: &str,
    way: Way,
    kind: Option<PoolKind>,
) -> HeaderEdits {
    if fields.written(name).is_none() {
        return HeaderEdits::default();
    }
    let fields = fields.section(name);
    let mut set = pairs(&fields, "set", way, kind);
    let host = set
        .iter()
        .position(|field| field.name == http::header::HOST);
    let host = host.map(|at| set.remove(at).value);
    let add = pairs(&fields, "add", way, kind);
    let mut remove: Vec<HeaderName> = Vec::new();
    for word in fields.texts("remove") {
        let Some(name) = fields.parsed(word, |text| field_name(text, way, kind)) else {
            continue;
        };
        if name == http::header::HOST {
            fields.error(word.span, "every request has a `Host`");
        }
        if set.iter().any(|field| field.name == name) {
            let shown = quoted(word.text);
            fields.error(
                word.span,
                format!("{shown} is set, which removes it as well"),
            );
        }
        remove.push(name);
    }
    if let Some(field) = add.iter().find(|field| field.name == http::header::HOST) {
        let at = fields.key_place("add");
        fields.error(at, format!("a request has one `{}`; set it", field.name));
    }
    HeaderEdits {
        set,
        add,
        remove,
        host,
    }
}

fn pairs(fields: &Fields<'_>, key: &str, way: Way, kind: Option<PoolKind>) -> Vec<Field> {
    let mut found: Vec<Field> = Vec::new();
    for (name, value) in fields.pairs(key) {
        let parsed = fields.parsed(name, |text| field_name(text, way, kind));
        let Some(value) = self::value(fields, value, parsed.as_ref()) else {
            continue;
        };
        let Some(name) = parsed.map(|parsed| (parsed, name)) else {
            continue;
        };
        let (name, at) = name;
        if found.iter().any(|field| field.name == name) {
            let shown = quoted(at.text);
            fields.error(at.span, format!("{shown} is here twice"));
        }
        found.push(Field { name, value });
    }
    found
}

fn value(fields: &Fields<'_>, word: Word<'_>, name: Option<&HeaderName>) -> Option<Template> {
    let read = fields.parsed(word, template)?;
    if word.text.trim() != word.text {
        let message = "a value has no spaces at its ends";
        fields.error(word.span, message);
    }
    if name != Some(&http::header::HOST) {
        return Some(read);
    }
    let good = match read.parts() {
        [Part::Variable(Variable::Host | Variable::HttpHost)] => true,
        _ => read.as_text().is_some_and(is_authority),
    };
    if !good {
        let shown = quoted(word.text);
        let message = format!("{shown} is not a host; write a name, $host or $http_host");
        fields.error(word.span, message);
    }
    Some(read)
}

fn is_authority(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "80"));
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(good) && port.parse::<u16>().is_ok()
}

/// The name of a field that may be changed.
fn field_name(text: &str, way: Way, kind: Option<PoolKind>) -> Result<HeaderName, String> {
    let shown = quoted(text);
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{shown} is not the name of a header field"))?;
    if NEVER.contains(&name.as_str()) || (way == Way::Response && name == http::header::HOST) {
        return Err(format!(
            "{shown} belongs to the connection or to the framing of a message, and is not changed"
        ));
    }
    let of_mcp = name.as_str().starts_with("mcp-") || OF_MCP.contains(&name.as_str());
    if kind == Some(PoolKind::Mcp) && of_mcp {
        return Err(format!(
            "{shown} is how MCP finds its session, its era or its events, and is not changed"
        ));
    }
    Ok(name)
}
