//! What is kept of a request's head for as long as its stream lasts, in case the stream has to be
//! asked for again.
//!
//! Most fields say something about the client's connection, or nothing that a server goes by; of
//! most requests only the revision and the credentials are left. A stream may last for hours and
//! there may be tens of thousands of them.

use super::forwarded::{Set, Told, announced, client};
use super::state::PoolState;
use crate::config::Config;
use crate::transport::dress::{Dress, More};
use crate::transport::fields::{Known, Name, Names};
use crate::transport::proxy_protocol::Header;
use crate::transport::{ConnInfo, Headers, Http, RequestHead};

/// Fields that are not kept: they are of this one exchange, written anew, or of no use.
const LEFT: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-session-id",
    "origin",
    "pragma",
    "priority",
    "referer",
    "user-agent",
];

/// Fields of a head, each as its name, a colon, its value and a line end. A known name is one byte, its
/// number with the highest bit set, and has no colon.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    lines: Box<[u8]>,
    /// Who the client is, where endpoints are told by the PROXY protocol.
    client: Option<Box<Header>>,
}

/// No name begins with a byte that has this bit.
const IS_KNOWN: u8 = 0x80;

impl Kept {
    /// What has to be kept of `head` for the endpoints of a pool, with what its route wants changed,
    /// and who its client is.
    pub fn of(
        config: &Config,
        pool: &PoolState,
        head: &dyn RequestHead,
        info: &ConnInfo,
        dress: &Dress,
    ) -> Self {
        let how = pool.config.client_headers;
        let told = Told::of(&config.proxies, how, head, info);
        let mut set = Set::new();
        told.set(&mut set);
        let client = pool.config.send_proxy.map(|_| {
            let client = client(&config.proxies, head, info);
            Box::new(announced(client, info))
        });
        Self {
            client,
            ..Self::fields_of(head, told.drop(), &set, dress.request(head, info))
        }
    }

    /// For whom an endpoint is asked with these fields.
    pub fn client(&self) -> Header {
        self.client.as_deref().copied().unwrap_or(Header::Itself)
    }

    fn fields_of(
        head: &dyn RequestHead,
        drop: Names,
        set: &Set<'_>,
        more: Option<More<'_>>,
    ) -> Self {
        let nominated = head.get("connection").map(<[u8]>::to_vec);
        let is_nominated = |name: Name<'_>| {
            nominated.as_deref().is_some_and(|list| {
                list.split(|byte| *byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
            })
        };
        let mut lines = Vec::new();
        let mut keep = |name: &[u8], value: &[u8]| {
            // As where heads are written: nothing of ours splits a line.
            if memchr::memchr2(b'\r', b'\n', value).is_some() {
                return;
            }
            match Known::find(name) {
                Some(known) => lines.push(IS_KNOWN | known.index() as u8),
                None => {
                    lines.extend_from_slice(name);
                    lines.push(b':');
                }
            }
            lines.extend_from_slice(value);
            lines.push(b'\n');
        };
        head.each(&mut |name, value| {
            let left = drop.has(name)
                || LEFT.iter().any(|other| name.is(other))
                || more.is_some_and(|more| more.fields.leaves(name));
            if !left && !name.is_hop_by_hop() && !name.begins("sec-") && !is_nominated(name) {
                keep(name.as_bytes(), value);
            }
        });
        for (name, value) in set {
            if !more.is_some_and(|more| more.fields.leaves(Name::new(name.as_bytes()))) {
                keep(name.as_bytes(), value);
            }
        }
        if let Some(more) = more {
            more.each(&mut |name, value| keep(name.as_bytes(), value));
            more.host(&mut |host| keep(b"host", host));
        }
        Self {
            lines: lines.into_boxed_slice(),
            ..Self::default()
        }
    }

    /// What the server is to be asked for as its host, where the route says so.
    pub fn host(&self) -> Option<&str> {
        self.get("host").and_then(|host| str::from_utf8(host).ok())
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let (first, value) = line.split_first()?;
            if first & IS_KNOWN != 0 {
                let known = Known::at(usize::from(first & !IS_KNOWN))?;
                return Some((known.as_str().as_bytes(), value));
            }
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }
}

impl Headers for Kept {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields();
        let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(found.1)
    }

    fn count(&self, name: &str) -> usize {
        let same = |(other, _): &(&[u8], &[u8])| other.eq_ignore_ascii_case(name.as_bytes());
        self.fields().filter(same).count()
    }

    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        for (name, value) in self.fields() {
            f(Name::new(name), value);
        }
    }
}

impl RequestHead for Kept {
    fn method(&self) -> &str {
        "GET"
    }
    fn target(&self) -> &str {
        "/"
    }
    fn authority(&self) -> Option<&str> {
        None
    }
    fn version(&self) -> Http {
        Http::V11
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::fields::X_FORWARDED_FOR;
    use crate::transport::h1::head::Head;

    #[test]
    fn what_a_server_goes_by_is_kept() {
        let text = "GET /mcp HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nUser-Agent: u\r\n\
                    Mcp-Session-Id: s\r\nAuthorization: Bearer a:b\r\nX-Api-Key: k\r\nX-Hop: 1\r\n\
                    Connection: keep-alive, x-hop\r\nSec-Fetch-Mode: cors\r\n\
                    MCP-Protocol-Version: 2025-11-25\r\nCookie: a=1\r\nCookie: b=2\r\n\
                    X-Forwarded-For: 1.1.1.1\r\n\r\n";
        let head = Head::parse(text.as_bytes(), 100).unwrap();
        let set = Set::from_slice(&[("x-forwarded-for", b"192.0.2.1")]);
        let kept = Kept::fields_of(&head, Names::of(&[X_FORWARDED_FOR]), &set, None);
        assert_eq!(kept.get("authorization"), Some(&b"Bearer a:b"[..]));
        assert_eq!(kept.get("mcp-protocol-version"), Some(&b"2025-11-25"[..]));
        assert_eq!(kept.count("cookie"), 2);
        let mut names = Vec::new();
        kept.each(&mut |name, _| names.push(name.as_bytes().to_ascii_lowercase()));
        let names: Vec<_> = names
            .iter()
            .map(|name| str::from_utf8(name).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "authorization",
                "x-api-key",
                "mcp-protocol-version",
                "cookie",
                "cookie",
                "x-forwarded-for"
            ]
        );
    }

    #[test]
    fn of_an_ordinary_stream_nearly_nothing_is_kept() {
        let text = "GET /mcp HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n";
        let head = Head::parse(text.as_bytes(), 100).unwrap();
        let kept = Kept::fields_of(&head, Names::NONE, &Set::new(), None);
        assert!(kept.lines.is_empty());
    }
}
