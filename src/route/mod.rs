//! Which route serves a request: the first whose host and path match, in the order of the file.
//!
//! A pure lookup in the checked configuration. It knows nothing of pools' health or of sessions,
//! and it is the same for every kind of exchange, so that policy cannot be walked around by
//! choosing another protocol version or transport.

use crate::config::{Config, Route, Scheme};

pub mod path;

/// Position of a route in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteId(pub usize);

/// Finds the first route for what came with an authority (`host[:port]`, or none) and a path without
/// its query. The scheme is only asked for where a route wants one.
pub fn find<'a>(
    config: &'a Config,
    scheme: impl Fn() -> Scheme,
    authority: Option<&str>,
    path: &str,
) -> Option<(RouteId, &'a Route)> {
    let host = authority.map(host_of);
    let path = path::canonical(path);
    config
        .routes
        .iter()
        .enumerate()
        .find(|(_, route)| {
            let host_fits = match (&route.host, host) {
                (None, _) => true,
                (Some(rule), Some(host)) => rule.matches(host),
                (Some(_), None) => false,
            };
            let scheme_fits = || {
                let wanted = route.scheme;
                wanted.is_none_or(|wanted| wanted == scheme())
            };
            host_fits && route.path.matches(&path) && scheme_fits()
        })
        .map(|(index, route)| (RouteId(index), route))
}

/// What a request to a route is for a server: its target with the path rewritten, the query as it
/// came. `None` is the target as it came.
pub fn rewritten(route: &Route, target: &str) -> Option<String> {
    let rewrite = route.rewrite.as_ref()?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    // A path that is only taken in its plain spelling is rewritten in that.
    let mut rewritten = match route.path.matches(path) {
        true => rewrite.apply(&route.path, path),
        false => rewrite.apply(&route.path, &path::canonical(path)),
    };
    if let Some(query) = query {
        rewritten.push('?');
        rewritten.push_str(query);
    }
    Some(rewritten)
}

/// The host part of an authority: without port, with the brackets of an IPv6 address removed.
pub fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &str) -> Config {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes:\n{routes}\npools:\n  a: {{ endpoints: [127.0.0.1:1] }}\n  b: {{ endpoints: [127.0.0.1:2] }}\n"
        );
        crate::config::parse("test", &text).unwrap()
    }

    #[test]
    fn the_first_match_wins() {
        let config = config(
            "  - { host: x.example, path: /mcp, pool: a }\n  - { path: /mcp, pool: b }\n  - { path_prefix: /t, pool: a }",
        );
        let never = || unreachable!("no route wants a scheme");
        let at = |host: Option<&str>, path| find(&config, never, host, path).map(|(id, _)| id.0);
        assert_eq!(at(Some("X.example:80"), "/mcp"), Some(0));
        assert_eq!(at(Some("y.example"), "/mcp"), Some(1));
        assert_eq!(at(None, "/mcp"), Some(1));
        assert_eq!(at(None, "/t/deep"), Some(2));
        assert_eq!(at(None, "/tt"), None);
        assert_eq!(at(None, "/mcp/"), None);
        assert_eq!(at(None, "/%6dcp"), Some(1));
        assert_eq!(at(None, "//t//deep"), Some(2));
    }

    #[test]
    fn a_route_may_want_a_scheme() {
        let config = config(
            "  - { scheme: https, path: /a, pool: a }\n  - { scheme: http, path: /a, pool: b }",
        );
        let at = |scheme| find(&config, || scheme, None, "/a").map(|(id, _)| id.0);
        assert_eq!(at(Scheme::Https), Some(0));
        assert_eq!(at(Scheme::Http), Some(1));
    }

    #[test]
    fn a_host_is_read_without_its_port() {
        for (authority, host) in [
            ("a:1", "a"),
            ("a", "a"),
            ("[::1]:8", "::1"),
            ("[::1]", "::1"),
            ("1.2.3.4:5", "1.2.3.4"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
