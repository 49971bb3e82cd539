//! What is kept of a request's head for as long as its stream lasts, in case the stream has to be
//! asked for again.
//!
//! Most fields say something about the client's connection, or nothing that a server goes by; of
//! most requests only the revision and the credentials are left. A stream may last for hours and
//! there may be tens of thousands of them.

use crate::transport::dress::More;
use crate::transport::fields::Name;
use crate::transport::{Headers, Http, RequestHead};

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

/// Fields of a head, as lines.
#[derive(Debug, Clone, Default)]
pub struct Kept(Box<[u8]>);

impl Kept {
    /// What has to be kept of `head`, with what its route wants changed.
    pub fn of(head: &(impl RequestHead + ?Sized), more: Option<More<'_>>) -> Self {
        let nominated = head.get("connection").map(<[u8]>::to_vec);
        let is_nominated = |name: Name<'_>| {
            nominated.as_deref().is_some_and(|list| {
                list.split(|byte| *byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
            })
        };
        let mut lines = Vec::new();
        head.each(&mut |name, value| {
            let left = LEFT.iter().any(|other| name.is(other))
                || more.is_some_and(|more| more.fields.leaves(name));
            if !left && !name.is_hop_by_hop() && !name.begins("sec-") && !is_nominated(name) {
                lines.extend_from_slice(name.as_bytes());
                lines.push(b':');
                lines.extend_from_slice(value);
                lines.push(b'\n');
            }
        });
        if let Some(more) = more {
            let mut put = |name: &str, value: &[u8]| {
                let parts = [name.as_bytes(), b":", value, b"\n"];
                parts.iter().for_each(|part| lines.extend_from_slice(part));
            };
            more.each(&mut put);
            more.host(&mut |host| put("host", host));
        }
        Self(lines.into_boxed_slice())
    }

    /// What the server is to be asked for as its host, where the route says so.
    pub fn host(&self) -> Option<&str> {
        self.get("host").and_then(|host| str::from_utf8(host).ok())
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
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
    use crate::transport::h1::head::Head;

    #[test]
    fn what_a_server_goes_by_is_kept() {
        let text = "GET /mcp HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nUser-Agent: u\r\n\
                    Mcp-Session-Id: s\r\nAuthorization: Bearer a:b\r\nX-Api-Key: k\r\nX-Hop: 1\r\n\
                    Connection: keep-alive, x-hop\r\nSec-Fetch-Mode: cors\r\n\
                    MCP-Protocol-Version: 2025-11-25\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n";
        let kept = Kept::of(&Head::parse(text.as_bytes(), 100).unwrap(), None);
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
                "cookie"
            ]
        );
    }

    #[test]
    fn of_an_ordinary_stream_nearly_nothing_is_kept() {
        let text = "GET /mcp HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n";
        let kept = Kept::of(&Head::parse(text.as_bytes(), 100).unwrap(), None);
        assert!(kept.0.is_empty());
    }
}
