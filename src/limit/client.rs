//! Who counts as one client.

use std::net::IpAddr;

/// A client as limits know it: an IPv4 address, or the 64 bits of an IPv6 address that name a
/// network, since whoever has one of its addresses has all of them (RFC 6177); or one that has
/// proved who it is, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(u128);

impl Client {
    /// The client at this address.
    pub fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() & !u128::from(u64::MAX)),
        }
    }

    /// The client that has proved to be the principal of this number. No address is the same.
    pub const fn proved(principal: u64) -> Self {
        Self(((principal as u128) << 64) | u64::MAX as u128)
    }

    /// The client as a number that no other client has.
    pub const fn number(self) -> u128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Client {
        Client::at(text.parse().expect("an address"))
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:2::1"));
    }

    #[test]
    fn no_address_is_a_principal() {
        for principal in [1, 0xffff, 0x2001_0db8_0000_0001, u64::MAX] {
            assert_ne!(Client::proved(principal), Client::proved(principal - 1));
            let text = std::net::Ipv6Addr::from_bits(Client::proved(principal).number());
            assert_ne!(Client::proved(principal), Client::at(text.into()), "{text}");
        }
        assert_ne!(Client::proved(0), at("255.255.255.255"));
    }
}
