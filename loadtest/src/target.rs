//! The address a run is aimed at. Only this machine: the tool sends as much as it can, and a typo
//! must not send that to anyone else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A loopback address, and what to say in the request line and in `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// With the query, if there is one.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!("{url}: only http:// is spoken, as in http://127.0.0.1:8080/mcp")
        })?;
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) if rest.as_bytes()[at] == b'/' => rest.split_at(at),
            Some(_) => return Err(format!("{url}: a path is needed before ? and #")),
            None => (rest, "/"),
        };
        if authority.contains('@')
            || !path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(format!(
                "{url}: no user, no fragment, and only visible ASCII in the path"
            ));
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| format!("{url}: the port is no number"))?;
        let ip = loopback(host).ok_or_else(|| {
            format!("{host}: only loopback addresses are loaded (127.0.0.0/8, [::1], localhost)")
        })?;
        Ok(Self {
            address: SocketAddr::new(ip, port),
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Reads an address to listen on; loopback only, too.
pub(crate) fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text}: not ADDRESS:PORT"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{text}: the mock answers anyone, so it listens on loopback addresses only"
        ));
    }
    Ok(address)
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    // The colons of an IPv6 address stand inside brackets.
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_host..].find(':') {
        Some(at) => Some((
            &authority[..after_host + at],
            authority[after_host + at + 1..].parse().ok()?,
        )),
        None => Some((authority, 80)),
    }
}

/// `localhost` is not looked up: what it means must not depend on a resolver.
fn loopback(host: &str) -> Option<IpAddr> {
    let ip = match host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
        None if host.eq_ignore_ascii_case("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => IpAddr::V4(host.parse().ok()?),
    };
    ip.is_loopback().then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_urls_are_read() {
        for (url, address, path) in [
            ("http://127.0.0.1:8080/mcp", "127.0.0.1:8080", "/mcp"),
            ("http://127.9.9.9/a/b?c=d", "127.9.9.9:80", "/a/b?c=d"),
            ("http://localhost:1", "127.0.0.1:1", "/"),
            ("http://[::1]:9/x", "[::1]:9", "/x"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(
                (target.address.to_string().as_str(), target.path.as_str()),
                (address, path),
                "{url}"
            );
        }
    }

    #[test]
    fn every_other_address_is_refused() {
        for url in [
            "http://10.0.0.1/mcp",
            "http://0.0.0.0:80/",
            "http://example.com/mcp",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "http://[2001:db8::1]/",
            "https://127.0.0.1/mcp",
            "127.0.0.1:80",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1?x",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
        assert!(
            "http://10.0.0.1/"
                .parse::<Target>()
                .unwrap_err()
                .contains("only loopback")
        );
        assert!(bind_address("0.0.0.0:80").is_err());
        assert!(bind_address("127.0.0.1:0").is_ok());
    }
}
