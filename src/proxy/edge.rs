//! What routes say of heads, and the answers that they give themselves: `request_headers`,
//! `response_headers`, `return`, `redirect`.
//!
//! All of it was compiled when the configuration was read. A request of a route that says nothing
//! looks at two empty options; one of a route that does puts two pointers into its exchange, and the
//! fields are written straight into the head that goes out.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::cors;
use super::ctx::{Ctx, principal};
use super::fault::Fault;
use super::forwarded;
use super::local;
use crate::config::{
    Action, Config, Field, HeaderEdits, Part, Redirect, Return, Route, Scheme, Template,
    TemplateVariable as Variable,
};
use crate::route::path::has_dot_segment;
use crate::route::{self, RouteId};
use crate::transport::dress::{Dress, Facts, Fields};
use crate::transport::fields::{Name, ORIGIN};
use crate::transport::tls::Peer;
use crate::transport::{ConnInfo, Downstream, RequestHead};

/// A value as it is put together; longer ones take an allocation.
type Value = SmallVec<[u8; 256]>;

impl Fields for HeaderEdits {
    fn leaves(&self, name: Name<'_>) -> bool {
        // Servers that write names as variables take a name with underscores for the one with hyphens.
        self.left_out().any(|other| name.may_be(other.as_str()))
    }

    fn each(&self, facts: &Facts<'_>, put: &mut dyn FnMut(&str, &[u8])) {
        for Field { name, value } in self.brought_in() {
            let is_fixed = value.as_text().is_some();
            with(value, facts, |value| {
                if is_fixed || !value.is_empty() {
                    put(name.as_str(), value);
                }
            });
        }
    }

    fn host(&self, facts: &Facts<'_>, put: &mut dyn FnMut(&[u8])) {
        if let Some(host) = &self.host {
            with(host, facts, put);
        }
    }
}

/// Calls `then` with what a text is for a request.
fn with(text: &Template, facts: &Facts<'_>, then: impl FnOnce(&[u8])) {
    if let Some(text) = text.as_text() {
        return then(text.as_bytes());
    }
    let mut value = Value::new();
    for part in text.parts() {
        match part {
            Part::Text(text) => value.extend_from_slice(text.as_bytes()),
            Part::Variable(variable) => put(*variable, facts, &mut value),
        }
    }
    then(&value);
}

fn put(variable: Variable, facts: &Facts<'_>, value: &mut Value) {
    let head = facts.head;
    let target = || match head.target() {
        // Only OPTIONS has another target, and that is none that could be shown.
        target if target.starts_with('/') => target,
        _ => "/",
    };
    let path = || {
        target()
            .split_once('?')
            .map_or_else(target, |(path, _)| path)
    };
    let text = match variable {
        Variable::RemoteAddr => {
            if let Some(client) = facts.client {
                let _ = write!(Text(value), "{client}");
            }
            return;
        }
        Variable::RequestId => {
            let _ = write!(Text(value), "{:016x}", facts.id);
            return;
        }
        Variable::Principal => {
            if let Some(peer) = facts.info.certificate() {
                let _ = write!(Text(value), "{:08x}", principal(peer).tag());
            }
            return;
        }
        Variable::SslClientVerify => match facts.info.certificate() {
            Some(_) => "SUCCESS",
            None => "NONE",
        },
        Variable::SslClientSDn => facts.info.certificate().map_or("", Peer::subject),
        Variable::SslClientIDn => facts.info.certificate().map_or("", Peer::issuer),
        Variable::ClientName => facts.info.certificate().map_or("", Peer::name),
        Variable::ClientFingerprint => facts.info.certificate().map_or("", Peer::fingerprint),
        Variable::Host => head.authority().map(without_port).unwrap_or_default(),
        Variable::HttpHost => head.authority().unwrap_or_default(),
        Variable::Scheme if facts.is_tls => "https",
        Variable::Scheme => "http",
        Variable::Path => path(),
        Variable::Query => head.query().unwrap_or_default(),
        Variable::RequestUri => target(),
        Variable::Origin => {
            return value.extend_from_slice(head.known(ORIGIN).unwrap_or_default());
        }
    };
    value.extend_from_slice(text.as_bytes());
}

/// A value that is written to as text.
struct Text<'a>(&'a mut Value);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The host of an authority as it stands in a URL: an IPv6 address keeps its brackets.
fn without_port(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(at) => at + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    &authority[..end]
}

/// What a route says about the heads of an exchange; nothing, of most.
pub fn dress(ctx: &Ctx, route: &Route, head: &dyn RequestHead, info: &ConnInfo) -> Option<Dress> {
    if route.request.is_none() && route.response.is_none() && route.cors.is_none() {
        return None;
    }
    let cors = route.cors.as_ref().filter(|cors| cors::lets_in(cors, head));
    let fields = |edits: &Option<Arc<HeaderEdits>>| {
        let edits = edits.as_ref()?;
        Some(Arc::clone(edits) as Arc<dyn Fields>)
    };
    Some(Dress {
        id: ctx.request_id,
        client: ctx.client,
        is_tls: is_tls(&ctx.snapshot.config, head, info),
        request: fields(&route.request),
        response: match cors {
            Some(cors) => Some(Arc::clone(&cors.response) as Arc<dyn Fields>),
            None => fields(&route.response),
        },
    })
}

/// Did the client speak TLS, with us or with the trusted proxy that it came by?
pub fn is_tls(config: &Config, head: &dyn RequestHead, info: &ConnInfo) -> bool {
    forwarded::scheme(&config.proxies, head, info) == Scheme::Https
}

/// The target that a server is asked for, where the route rewrites it.
///
/// # Errors
/// [`Fault::Invalid`] if that leads out of its path.
pub fn rewritten(route: &Route, target: &str) -> Result<Option<Box<str>>, Fault> {
    let Some(target) = route::rewritten(route, target) else {
        return Ok(None);
    };
    let path = target.split('?').next().unwrap_or_default();
    match has_dot_segment(path) {
        true => Err(Fault::Invalid("dot segments in the path")),
        false => Ok(Some(target.into_boxed_str())),
    }
}

/// Gives the answer of a route without a pool.
///
/// # Errors
/// [`Fault::Invalid`] for a redirect to the host that was asked for, if none was.
pub async fn answer<D: Downstream>(
    down: &mut D,
    ctx: &mut Ctx,
    route: RouteId,
) -> Result<(), Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    match &snapshot.config.routes[route.0].action {
        Action::Pool(_) => Ok(()),
        Action::Return(answer) => {
            returned(down, ctx, answer).await;
            Ok(())
        }
        Action::Redirect(redirect) => redirected(down, ctx, redirect).await,
    }
}

async fn returned<D: Downstream>(down: &mut D, ctx: &mut Ctx, answer: &Return) {
    let facts = facts(down.head(), down.info(), ctx);
    let mut values: Vec<Value> = Vec::with_capacity(answer.headers.len());
    for field in &answer.headers {
        with(&field.value, &facts, |value| values.push(value.into()));
    }
    let names = answer.headers.iter().map(|field| field.name.as_str());
    let set: Vec<(&str, &[u8])> = names.zip(values.iter().map(|value| &value[..])).collect();
    local::fixed(
        down,
        ctx,
        answer.status,
        &set,
        Bytes::copy_from_slice(answer.body.as_bytes()),
    )
    .await;
}

async fn redirected<D: Downstream>(
    down: &mut D,
    ctx: &mut Ctx,
    redirect: &Redirect,
) -> Result<(), Fault> {
    let wants_host = redirect.to.has(Variable::Host) || redirect.to.has(Variable::HttpHost);
    if wants_host && down.head().authority().is_none_or(str::is_empty) {
        return Err(Fault::Invalid("a request without a host"));
    }
    let mut to = Value::new();
    with(
        &redirect.to,
        &facts(down.head(), down.info(), ctx),
        |value| {
            to.extend_from_slice(value);
        },
    );
    local::fixed(
        down,
        ctx,
        redirect.status,
        &[("location", &to)],
        Bytes::new(),
    )
    .await;
    Ok(())
}

fn facts<'a>(head: &'a dyn RequestHead, info: &'a ConnInfo, ctx: &Ctx) -> Facts<'a> {
    Facts {
        head,
        info,
        id: ctx.request_id,
        client: ctx.client,
        is_tls: is_tls(&ctx.snapshot.config, head, info),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    fn shown(text: &str, request: &str) -> String {
        let config = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /x, return: {{ headers: {{ v: '{text}' }} }} }}]\npools: {{ p: {{ endpoints: [127.0.0.1:1] }} }}\n"
        );
        let config = crate::config::parse("test", &config).unwrap();
        let Action::Return(answer) = &config.routes[0].action else {
            panic!("it is a return");
        };
        let head = Head::parse(request.as_bytes(), 50).unwrap();
        let info = ConnInfo {
            client: "192.0.2.7:5".parse().unwrap(),
            local: "127.0.0.1:1".parse().unwrap(),
            listener: "t".into(),
            tls: None,
            place: None,
        };
        let facts = Facts {
            head: &head,
            info: &info,
            id: 0xab,
            client: info.peer(),
            is_tls: true,
        };
        let mut out = String::new();
        with(&answer.headers[0].value, &facts, |value| {
            out = String::from_utf8(value.to_vec()).unwrap();
        });
        out
    }

    #[test]
    fn variables_are_what_the_request_says() {
        let request = "GET /a%20b/c?d=e&f HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n";
        for (text, value) in [
            ("$scheme://$host$request_uri", "https://[::1]/a%20b/c?d=e&f"),
            ("$path|$query", "/a%20b/c|d=e&f"),
            ("$http_host", "[::1]:8080"),
            ("$remote_addr", "192.0.2.7"),
            ("$request_id", "00000000000000ab"),
        ] {
            assert_eq!(shown(text, request), value);
        }
        let request = "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(shown("$host$request_uri?$query", request), "h/?");
    }

    #[test]
    fn a_name_may_be_another_where_underscores_are_hyphens() {
        for (name, other, may_be) in [
            ("X-Client", "x-client", true),
            ("x_client", "x-client", true),
            ("X_CLIENT", "x-client", true),
            ("x-client", "x_client", true),
            ("x-client2", "x-client", false),
            ("xclient", "x-client", false),
            ("x.client", "x-client", false),
        ] {
            assert_eq!(Name::new(name.as_bytes()).may_be(other), may_be, "{name}");
        }
    }
}
