//! Proxies in front of us: whose word is taken for who the client is, and how that is told to
//! endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose word is taken for who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// Networks of proxies, in file order. Empty: nobody is believed.
    pub nets: Vec<Net>,
    /// Whether whoever connects to one of our unix sockets is such a proxy.
    pub unix: bool,
    /// Which of their headers count.
    pub header: ProxyHeader,
}

impl Proxies {
    /// Is nobody believed?
    pub const fn is_empty(&self) -> bool {
        self.nets.is_empty() && !self.unix
    }

    /// Is the proxy at this address believed? `None` stands for a unix socket.
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        match address {
            None => self.unix,
            Some(address) => {
                let address = address.to_canonical();
                self.nets.iter().any(|net| net.has(address))
            }
        }
    }
}

/// Which headers of a trusted proxy say who the client is. Only one kind counts, because a proxy
/// that writes one passes on what a client has written into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Which headers tell an endpoint who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Real-IP`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both of these.
    Both,
    /// None.
    Off,
}

/// Which version of the PROXY protocol tells an endpoint who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxy {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    first: IpAddr,
    /// Leading bits that all of its addresses have in common.
    prefix: u8,
}

impl Net {
    /// Is the address one of them? An IPv4 address is never one of an IPv6 network.
    pub fn has(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                let rest = 128 - u32::from(self.prefix);
                differ.checked_shr(rest).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Is it every address of its family?
    pub const fn is_everybody(self) -> bool {
        self.prefix == 0
    }
}

/// A network in CIDR notation (RFC 4632, RFC 4291), or one address.
pub(super) fn net(text: &str) -> Result<Net, String> {
    let example = "write for example 10.0.0.0/8, 192.0.2.1 or \"2001:db8::/32\"";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let shown = super::problem::quoted(text);
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(format!("{shown} is not a network or `unix`; {example}"));
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => match prefix.parse::<u8>() {
            Ok(prefix) if prefix <= most => prefix,
            _ => return Err(format!("{shown}: the length is a number from 0 to {most}")),
        },
    };
    let first = first(address, prefix);
    if first != address {
        return Err(format!(
            "{shown} is an address within a network; write {first}/{prefix}"
        ));
    }
    if address.to_canonical() != address {
        return Err(format!(
            "{shown} is an IPv4 network in IPv6; write it as IPv4"
        ));
    }
    Ok(Net { first, prefix })
}

/// The first address of the network that `address` lies in.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(network: &str, address: &str) -> bool {
        net(network).unwrap().has(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            assert!(has(network, inside), "{network} {inside}");
            assert!(!has(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_on_a_socket_for_both() {
        let proxies = Proxies {
            nets: vec![net("10.0.0.0/8").unwrap()],
            ..Proxies::default()
        };
        assert!(proxies.has("::ffff:10.1.2.3".parse().ok()));
        assert!(!proxies.has("::ffff:11.1.2.3".parse().ok()) && !proxies.has(None));
    }

    #[test]
    fn what_is_no_network_is_told_with_what_to_write() {
        for (text, part) in [
            ("proxy.example.com", "is not a network"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.1.2.3/8", "write 10.0.0.0/8"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
            ("", "is not a network"),
        ] {
            let wrong = net(text).unwrap_err();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }
}
