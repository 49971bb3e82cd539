//! The cheap checks that every exchange passes first, whatever its transport, method or version:
//! who is asked for, from which page, how much, and which route that is.
//!
//! The order is fixed: header sizes, route, host, origin. Nothing here reads a body or touches an
//! endpoint.

use std::net::IpAddr;

use super::fault::Fault;
use super::forwarded;
use crate::config::{Config, Origins, PoolKind, Route, is_below};
use crate::mcp::headers::MCP_PARAM_PREFIX;
use crate::route::path::has_dot_segment;
use crate::route::{self, RouteId, host_of};
use crate::transport::fields::{
    LAST_EVENT_ID, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, ORIGIN,
};
use crate::transport::h1::head::is_authority;
use crate::transport::{ConnInfo, Http, RequestHead};

/// `Mcp-Param-*` fields that one request may carry.
const PARAM_FIELDS_MAX: usize = 64;

/// Answers of our own that need no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `/health`: the process is alive.
    Health,
    /// `/ready`: it serves.
    Ready,
}

/// Where an exchange goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// We answer.
    Builtin(Builtin),
    /// To a route.
    Route(RouteId),
}

/// How an exchange is carried, which has to be known before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// By the request path of this program.
    Mcp,
    /// By Pingora's HTTP proxy.
    Plain,
    /// The same as `Mcp`, and never as a WebSocket: its route gives the answer itself.
    Answer,
}

/// Finds the lane of a request. No policy: that is [`admit`], which every lane calls.
pub fn lane(config: &Config, head: &dyn RequestHead, info: &ConnInfo) -> Lane {
    if config.is_mcp_only {
        return Lane::Mcp;
    }
    let Some((_, route)) = find(config, head, info) else {
        return Lane::Mcp;
    };
    match kind(config, route) {
        Some(PoolKind::Http) => Lane::Plain,
        Some(PoolKind::Mcp) => Lane::Mcp,
        None => Lane::Answer,
    }
}

fn find<'a>(
    config: &'a Config,
    head: &dyn RequestHead,
    info: &ConnInfo,
) -> Option<(RouteId, &'a Route)> {
    let scheme = || forwarded::scheme(&config.proxies, head, info);
    route::find(config, scheme, head.authority(), head.path())
}

/// What the pool of a route speaks, if it has one.
fn kind(config: &Config, route: &Route) -> Option<PoolKind> {
    route.pool().map(|pool| config.pool(pool).kind)
}

/// Admits an exchange to its route, or says why not.
///
/// # Errors
/// [`Fault::Invalid`], [`Fault::HeadTooLarge`], [`Fault::NoRoute`], [`Fault::Host`],
/// [`Fault::Origin`].
pub fn admit(config: &Config, head: &dyn RequestHead, info: &ConnInfo) -> Result<Admitted, Fault> {
    let authority = head.authority();
    check_authority(head)?;
    if has_dot_segment(head.path()) {
        return Err(Fault::Invalid("dot segments in the path"));
    }
    let Some((id, route)) = find(config, head, info) else {
        check_host(None, authority, info)?;
        return builtin(head).map(Admitted::Builtin).ok_or(Fault::NoRoute);
    };
    let kind = kind(config, route);
    if kind != Some(PoolKind::Http) {
        check_fields(head, config.limits.headers, config.limits.header_block)?;
    }
    if kind == Some(PoolKind::Mcp) {
        check_host(Some(route), authority, info)?;
    }
    // What pages may ask of a website is the website's business, unless the route says otherwise.
    if kind == Some(PoolKind::Mcp) || route.origins != Origins::Unset {
        check_origin(route, head, info)?;
    }
    Ok(Admitted::Route(id))
}

fn builtin(head: &dyn RequestHead) -> Option<Builtin> {
    match head.path() {
        "/health" => Some(Builtin::Health),
        "/ready" => Some(Builtin::Ready),
        _ => None,
    }
}

/// The same for HTTP/2 as our parser of HTTP/1 has seen to: what is asked for becomes a `Host` on the
/// way to endpoints that speak HTTP/1.
fn check_authority(head: &dyn RequestHead) -> Result<(), Fault> {
    let good = |authority: &str| is_authority(authority.as_bytes());
    if head.version() == Http::V2 && !head.authority().is_some_and(good) {
        return Err(Fault::Invalid("malformed host"));
    }
    Ok(())
}

/// Bounds the header block again for HTTP/2, where no buffer of ours did.
fn check_fields(head: &dyn RequestHead, fields_max: usize, bytes_max: usize) -> Result<(), Fault> {
    let mut fields = 0;
    let mut bytes = head.target().len();
    let mut params = 0;
    head.each(&mut |name, value| {
        fields += 1;
        bytes += name.as_bytes().len() + value.len() + 4;
        params += usize::from(name.begins(MCP_PARAM_PREFIX));
    });
    if fields > fields_max || bytes > bytes_max || params > PARAM_FIELDS_MAX {
        return Err(Fault::HeadTooLarge);
    }
    Ok(())
}

/// Refuses a routing header that stands twice: servers disagree on which of the two counts. Asked
/// once the body was looked at, so that the answer can carry the request's id.
///
/// # Errors
/// [`Fault::HeaderMismatch`].
pub fn check_repeated(head: &dyn RequestHead) -> Result<(), Fault> {
    let routing = [
        MCP_SESSION_ID,
        MCP_PROTOCOL_VERSION,
        MCP_METHOD,
        MCP_NAME,
        LAST_EVENT_ID,
    ];
    if head.repeats(&routing) {
        return Err(Fault::HeaderMismatch("a routing header is repeated"));
    }
    Ok(())
}

/// On a loopback connection the name asked for must be a loopback name, or the route's own host:
/// a page that points a name of its own at 127.0.0.1 must not reach servers of this machine.
fn check_host(
    route: Option<&Route>,
    authority: Option<&str>,
    info: &ConnInfo,
) -> Result<(), Fault> {
    if !info.local.ip().to_canonical().is_loopback()
        || route.is_some_and(|route| route.host.is_some())
    {
        return Ok(());
    }
    match authority {
        Some(authority) if !is_loopback_name(host_of(authority)) => Err(Fault::Host),
        _ => Ok(()),
    }
}

/// Whether a request to the admin API may come from where it does: over loopback, asked for by a
/// loopback name, and by no web page but our own. A page that points a name of its own at 127.0.0.1, or
/// that posts there from elsewhere, must not operate this process through somebody's browser.
///
/// # Errors
/// [`Fault::Host`], [`Fault::Origin`].
pub fn check_operator(head: &dyn RequestHead, info: &ConnInfo) -> Result<(), Fault> {
    let is_ours = |authority: &str| is_loopback_name(host_of(authority));
    let authority = head.authority().filter(|authority| is_ours(authority));
    let is_here = info.local.ip().to_canonical().is_loopback();
    let authority = authority.filter(|_| is_here).ok_or(Fault::Host)?;
    let Some(origin) = head.known(ORIGIN) else {
        return Ok(());
    };
    let own = origin.strip_prefix(b"http://");
    match own.is_some_and(|own| own.eq_ignore_ascii_case(authority.as_bytes())) {
        true => Ok(()),
        false => Err(Fault::Origin),
    }
}

/// An `Origin` that is there must be allowed: listed by the route; or, without a list, the same
/// site as the route's own host, or a loopback page on a loopback connection.
fn check_origin(route: &Route, head: &dyn RequestHead, info: &ConnInfo) -> Result<(), Fault> {
    let Some(origin) = head.known(ORIGIN) else {
        return Ok(());
    };
    let Ok(origin) = std::str::from_utf8(origin) else {
        return Err(Fault::Origin);
    };
    let bytes = origin.as_bytes();
    if route.cors.as_ref().is_some_and(|cors| cors.lets_in(bytes)) {
        return Ok(());
    }
    let allowed = match &route.origins {
        listed @ (Origins::Any | Origins::List(_)) => listed.has(bytes),
        Origins::Unset => {
            let host = origin
                .split_once("://")
                .map_or("", |(_, authority)| host_of(authority));
            let same_site = route.host.as_ref().is_some_and(|rule| rule.matches(host))
                && head
                    .authority()
                    .is_some_and(|authority| host_of(authority).eq_ignore_ascii_case(host));
            same_site || (info.local.ip().to_canonical().is_loopback() && is_loopback_name(host))
        }
    };
    if allowed { Ok(()) } else { Err(Fault::Origin) }
}

fn is_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || is_below(host, "localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    fn config(route: &str) -> Config {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes:\n  - {{ path: /mcp, pool: a{route} }}\npools:\n  a: {{ endpoints: [127.0.0.1:1] }}\n"
        );
        crate::config::parse("test", &text).unwrap()
    }

    fn ask(config: &Config, local: &str, host: &str, fields: &str) -> Result<Admitted, Fault> {
        let text = format!("POST /mcp HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let head = Head::parse(text.as_bytes(), 256).unwrap();
        let info = ConnInfo {
            client: "192.0.2.1:5".parse().unwrap(),
            local: local.parse().unwrap(),
            listener: "t".into(),
            tls: None,
            place: None,
        };
        admit(config, &head, &info)
    }

    #[test]
    fn only_this_hosts_own_tools_reach_the_admin_api() {
        let ask = |local: &str, host: &str, fields: &str| {
            let text = format!("POST /v1/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
            let head = Head::parse(text.as_bytes(), 256).unwrap();
            let info = ConnInfo {
                client: "127.0.0.1:5".parse().unwrap(),
                local: local.parse().unwrap(),
                listener: "t".into(),
                tls: None,
                place: None,
            };
            check_operator(&head, &info)
        };
        let here = "127.0.0.1:9090";
        let from = |origin: &str| ask(here, here, &format!("Origin: {origin}\r\n"));
        assert_eq!(ask(here, here, ""), Ok(()));
        assert_eq!(ask(here, "localhost:9090", ""), Ok(()));
        assert_eq!(ask("[::1]:9090", "[::1]:9090", ""), Ok(()));
        assert_eq!(from("http://127.0.0.1:9090"), Ok(()), "a page of ours");
        assert_eq!(ask(here, "evil.example", ""), Err(Fault::Host));
        assert_eq!(ask(THERE, "127.0.0.1:9090", ""), Err(Fault::Host));
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:3000",
            "https://127.0.0.1:9090",
            "null",
        ] {
            assert_eq!(from(origin), Err(Fault::Origin), "{origin}");
        }
    }

    const HERE: &str = "127.0.0.1:8080";
    const THERE: &str = "192.0.2.9:8080";
    const OK: Result<Admitted, Fault> = Ok(Admitted::Route(RouteId(0)));

    #[test]
    fn a_rebound_name_does_not_reach_a_loopback_listener() {
        let config = config("");
        assert_eq!(
            ask(
                &config,
                HERE,
                "evil.example",
                "Origin: http://evil.example\r\n"
            ),
            Err(Fault::Host)
        );
        assert_eq!(
            ask(
                &config,
                HERE,
                "localhost:8080",
                "Origin: http://localhost:8080\r\n"
            ),
            OK
        );
        assert_eq!(ask(&config, HERE, "127.0.0.1", ""), OK);
        assert_eq!(ask(&config, HERE, "[::1]:8080", ""), OK);
        assert_eq!(ask(&config, THERE, "any.example", ""), OK);
    }

    #[test]
    fn an_origin_is_refused_unless_allowed() {
        let unset = config("");
        assert_eq!(
            ask(&unset, THERE, "a.example", "Origin: http://a.example\r\n"),
            Err(Fault::Origin)
        );
        assert_eq!(
            ask(&unset, THERE, "a.example", "Origin: http://localhost\r\n"),
            Err(Fault::Origin)
        );
        assert_eq!(
            ask(&unset, HERE, "localhost", "Origin: null\r\n"),
            Err(Fault::Origin)
        );
        let own = config(", host: a.example");
        assert_eq!(
            ask(&own, THERE, "a.example", "Origin: https://a.example\r\n"),
            OK
        );
        assert_eq!(
            ask(&own, THERE, "a.example", "Origin: https://b.example\r\n"),
            Err(Fault::Origin)
        );
        let list = config(", origins: [\"https://app.example\"]");
        assert_eq!(
            ask(&list, THERE, "a.example", "Origin: https://app.example\r\n"),
            OK
        );
        assert_eq!(
            ask(&list, THERE, "a.example", "Origin: http://app.example\r\n"),
            Err(Fault::Origin)
        );
    }

    #[test]
    fn a_repeated_routing_header_is_refused() {
        for name in [
            "Mcp-Method",
            "mcp-name",
            "MCP-Protocol-Version",
            "Mcp-Session-Id",
            "Last-Event-ID",
        ] {
            let text = format!("POST /mcp HTTP/1.1\r\nHost: h\r\n{name}: a\r\n{name}: a\r\n\r\n");
            let head = Head::parse(text.as_bytes(), 256).unwrap();
            let checked = check_repeated(&head);
            assert!(matches!(checked, Err(Fault::HeaderMismatch(_))), "{name}");
        }
    }

    #[test]
    fn too_many_parameter_headers_are_refused() {
        let config = config("");
        let fields: String = (0..65).map(|n| format!("Mcp-Param-{n}: 1\r\n")).collect();
        assert_eq!(ask(&config, THERE, "h", &fields), Err(Fault::HeadTooLarge));
    }
}
