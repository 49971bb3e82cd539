//! Who a request comes from, by which proxies, and how endpoints are told.
//!
//! The client is the first address, counted from us, that is no trusted proxy's. What stands behind
//! it in a list was written by the client, so nobody is believed about it and it is not sent on: the
//! list that an endpoint gets begins with the client, whatever the client has sent.
//!
//! Nothing here allocates where the chain is short.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::config::{ClientHeaders, Proxies, ProxyHeader, Scheme};
use crate::transport::fields::{
    FORWARDED, Known, Names, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT,
    X_FORWARDED_PREFIX, X_FORWARDED_PROTO, X_FORWARDED_SSL, X_REAL_IP,
};
use crate::transport::h1::head::is_authority;
use crate::transport::proxy_protocol::Header;
use crate::transport::{ConnInfo, RequestHead};

mod node;

use node::{Element, Elements, elements};

/// Proxies in a row that are looked at; the next one counts as the client.
const HOPS_MAX: usize = 32;

/// What is never sent on as it came.
const TOLD: Names = Names::of(&[
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_REAL_IP,
]);
/// What is sent on from trusted proxies alone: servers build addresses of it.
const BELIEVED: Names = Names::of(&[X_FORWARDED_PORT, X_FORWARDED_PREFIX, X_FORWARDED_SSL]);

/// A field to set.
pub type Set<'a> = SmallVec<[(&'static str, &'a [u8]); 6]>;

/// The client's address, if it is known: on a unix socket it is not, unless a trusted proxy tells it.
pub fn client(proxies: &Proxies, head: &dyn RequestHead, info: &ConnInfo) -> Option<IpAddr> {
    let peer = info.peer();
    if !proxies.has(peer) {
        return peer;
    }
    Way::of(proxies, head, info).hops.last().copied()
}

/// What the client speaks with the first trusted proxy, or with us.
pub fn scheme(proxies: &Proxies, head: &dyn RequestHead, info: &ConnInfo) -> Scheme {
    let is_tls = match proxies.has(info.peer()) {
        true => Way::of(proxies, head, info).tls,
        false => info.tls.is_some(),
    };
    match is_tls {
        true => Scheme::Https,
        false => Scheme::Http,
    }
}

/// What the PROXY protocol tells an endpoint of the client: its address, and its port where it is the
/// connection's.
pub fn announced(client: Option<IpAddr>, info: &ConnInfo) -> Header {
    let source = address(client, info);
    source.map_or(Header::Itself, |source| Header::between(source, info.local))
}

/// The client's address, with its port where it is the connection's, else 0.
pub fn address(client: Option<IpAddr>, info: &ConnInfo) -> Option<SocketAddr> {
    let client = client?;
    let port = match info.peer() == Some(client) {
        true => info.client.port(),
        false => 0,
    };
    Some(SocketAddr::new(client, port))
}

/// The way a request has come, as far as it is believed.
struct Way<'a> {
    /// Addresses from the one next to us back to the client. Empty if there is none.
    hops: SmallVec<[IpAddr; 4]>,
    /// The client speaks TLS with the first proxy, or with us.
    tls: bool,
    /// The host that the client has asked for.
    host: Option<&'a str>,
    /// A trusted proxy is next to us.
    trusted: bool,
}

impl<'a> Way<'a> {
    fn of(proxies: &Proxies, head: &'a dyn RequestHead, info: &ConnInfo) -> Self {
        let peer = info.peer();
        let mut way = Self {
            hops: peer.into_iter().collect(),
            tls: info.tls.is_some(),
            host: head.authority(),
            trusted: proxies.has(peer),
        };
        if way.trusted {
            match proxies.header {
                ProxyHeader::XForwarded => way.follow_x_forwarded(proxies, head),
                ProxyHeader::Forwarded => way.follow_forwarded(proxies, head),
            }
        }
        way
    }

    /// Goes back along addresses from right to left; how many of them were followed.
    fn follow(
        &mut self,
        proxies: &Proxies,
        addresses: impl Iterator<Item = Option<IpAddr>>,
    ) -> usize {
        let mut followed = 0;
        for address in addresses {
            // What is no address ends what is known.
            let Some(address) = address.filter(|_| followed < HOPS_MAX) else {
                break;
            };
            followed += 1;
            self.hops.push(address);
            if !proxies.has(Some(address)) {
                break;
            }
        }
        followed
    }

    fn follow_x_forwarded(&mut self, proxies: &Proxies, head: &'a dyn RequestHead) {
        let lines = Lines::of(head, X_FORWARDED_FOR);
        let followed = self.follow(proxies, lines.backwards().map(node::address));
        // Where a proxy appends to these as well, what belongs to the client stands as far from the
        // end as the client does; where each replaces it, there is one.
        let at = followed.saturating_sub(1);
        let proto = Lines::of(head, X_FORWARDED_PROTO);
        let host = Lines::of(head, X_FORWARDED_HOST);
        let proto = proto.backwards().take(at + 1).last();
        let host = host.backwards().take(at + 1).last();
        self.learn(proto, host);
    }

    fn follow_forwarded(&mut self, proxies: &Proxies, head: &'a dyn RequestHead) {
        let mut found = Elements::new();
        for line in &Lines::of(head, FORWARDED).0 {
            if elements(line, &mut found).is_none() {
                return;
            }
        }
        let clients = found
            .iter()
            .rev()
            .map(|element| node::address(element.client?));
        let followed = self.follow(proxies, clients);
        let element = found.iter().rev().nth(followed.saturating_sub(1));
        if let Some(Element { proto, host, .. }) = element {
            self.learn(*proto, *host);
        }
    }

    fn learn(&mut self, proto: Option<&[u8]>, host: Option<&'a [u8]>) {
        let is = |proto: &[u8], words: [&str; 2]| {
            let mut words = words.iter();
            words.any(|word| proto.eq_ignore_ascii_case(word.as_bytes()))
        };
        match proto {
            Some(proto) if is(proto, ["https", "wss"]) => self.tls = true,
            Some(proto) if is(proto, ["http", "ws"]) => self.tls = false,
            Some(_) | None => {}
        }
        let host = host.filter(|host| is_authority(host));
        if let Some(host) = host.and_then(|host| str::from_utf8(host).ok()) {
            self.host = Some(host);
        }
    }
}

/// The values of the lines of one field.
struct Lines<'a>(SmallVec<[&'a [u8]; 2]>);

impl<'a> Lines<'a> {
    fn of(head: &'a dyn RequestHead, name: Known) -> Self {
        let mut lines = Self(SmallVec::new());
        match head.count(name.as_str()) {
            0 => {}
            1 => lines.0.extend(head.known(name)),
            _ => head.each(&mut |field, value| {
                if field.is(name.as_str()) {
                    lines.0.push(value);
                }
            }),
        }
        lines
    }

    /// The items of the list that the lines are together (RFC 9110 section 5.3), from its end, without
    /// the empty ones.
    fn backwards(&self) -> impl Iterator<Item = &'a [u8]> + use<'a, '_> {
        let items = self.0.iter().rev();
        items
            .flat_map(|line| line.rsplit(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }
}

/// A short text that is put together.
#[derive(Debug, Clone, Default)]
struct Text<const N: usize>(SmallVec<[u8; N]>)
where
    [u8; N]: smallvec::Array<Item = u8>;

impl<const N: usize> Write for Text<N>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl<const N: usize> Text<N>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    /// Writes an address. By hand where it is one of version 4, for every call tells one: the library
    /// takes a thousand instructions for it, this takes a tenth.
    fn put_address(&mut self, address: IpAddr) {
        let IpAddr::V4(address) = address else {
            // Writing into memory does not fail.
            let _ = write!(self, "{address}");
            return;
        };
        let (mut text, mut at) = ([b'.'; 15], 0);
        for octet in address.octets() {
            for (unit, from) in [(100, 100), (10, 10), (1, 0)] {
                if octet >= from {
                    text[at] = b'0' + octet / unit % 10;
                    at += 1;
                }
            }
            at += 1;
        }
        self.0.extend_from_slice(&text[..at - 1]);
    }
}

/// What an endpoint is told of the client.
pub struct Told<'a> {
    how: ClientHeaders,
    /// The value of `X-Forwarded-For`, beginning with the client. Empty if nobody is known.
    list: Text<64>,
    /// Length of the client's address, with which the list begins.
    client: usize,
    proto: &'static str,
    host: Option<&'a str>,
    /// The value of `Forwarded`.
    forwarded: Text<128>,
    drop: Names,
}

impl<'a> Told<'a> {
    /// What an endpoint of a pool that wants to know it in this way is told of a request.
    pub fn of(
        proxies: &Proxies,
        how: ClientHeaders,
        head: &'a dyn RequestHead,
        info: &ConnInfo,
    ) -> Self {
        let way = Way::of(proxies, head, info);
        let mut told = Self {
            how,
            list: Text::default(),
            client: 0,
            proto: if way.tls { "https" } else { "http" },
            host: way.host,
            forwarded: Text::default(),
            drop: if way.trusted {
                TOLD
            } else {
                TOLD.and(BELIEVED)
            },
        };
        if matches!(how, ClientHeaders::XForwarded | ClientHeaders::Both) {
            told.write_list(&way);
        }
        if matches!(how, ClientHeaders::Forwarded | ClientHeaders::Both) {
            told.write_forwarded(&way);
        }
        told
    }

    fn write_list(&mut self, way: &Way<'_>) {
        for hop in way.hops.iter().rev() {
            if self.client > 0 {
                self.list.0.extend_from_slice(b", ");
            }
            self.list.put_address(*hop);
            if self.client == 0 {
                self.client = self.list.0.len();
            }
        }
    }

    fn write_forwarded(&mut self, way: &Way<'_>) {
        let out = &mut self.forwarded;
        let _ = match way.hops.last() {
            None => out.write_str("for=unknown"),
            Some(client) => write_node(out, *client),
        };
        if let Some(host) = way.host {
            let _ = write!(out, ";host=\"{host}\"");
        }
        let _ = write!(out, ";proto={}", self.proto);
        for hop in way.hops.iter().rev().skip(1) {
            let _ = out.write_str(", ").and_then(|()| write_node(out, *hop));
        }
    }

    /// The fields of a client's request that stay behind.
    pub fn drop(&self) -> Names {
        self.drop
    }

    /// Appends the fields that say it.
    pub fn set<'b>(&'b self, set: &mut Set<'b>) {
        if matches!(self.how, ClientHeaders::XForwarded | ClientHeaders::Both) {
            let list = &self.list.0;
            if !list.is_empty() {
                set.push((X_FORWARDED_FOR.as_str(), list));
                set.push((X_REAL_IP.as_str(), &list[..self.client]));
            }
            set.push((X_FORWARDED_PROTO.as_str(), self.proto.as_bytes()));
            if let Some(host) = self.host {
                set.push((X_FORWARDED_HOST.as_str(), host.as_bytes()));
            }
        }
        if !self.forwarded.0.is_empty() {
            set.push((FORWARDED.as_str(), &self.forwarded.0));
        }
    }
}

/// `for=` with an address (RFC 7239 section 6).
fn write_node(out: &mut impl Write, address: IpAddr) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(out, "for={address}"),
        IpAddr::V6(address) => write!(out, "for=\"[{address}]\""),
    }
}

#[cfg(test)]
mod tests;
