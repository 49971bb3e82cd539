//! What a listener accepts on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where a listener accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// An address and port.
    Ip {
        /// Address and port. Port 0 lets the system choose one.
        address: SocketAddr,
        /// An IPv6 address takes no IPv4 connections, which `[::]` otherwise does (default false).
        only_v6: bool,
    },
    /// A unix socket.
    Unix {
        /// Its file (absolute).
        path: PathBuf,
        /// Who may connect: the permissions of the file (default 0660).
        mode: u32,
    },
}

impl Bind {
    /// An address and port; one of IPv6 takes IPv4 as well where it can.
    pub const fn at(address: SocketAddr) -> Self {
        Self::Ip {
            address,
            only_v6: false,
        }
    }

    /// Can a socket that was made for one go on for the other?
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            _ => self == other,
        }
    }

    /// Would one socket take what the other wants? A wildcard address takes every address of its family,
    /// and `[::]` takes IPv4 as well, unless it is told not to. Port 0 is never the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            (
                Self::Ip { address, only_v6 },
                Self::Ip {
                    address: other,
                    only_v6: other_only_v6,
                },
            ) => {
                let port = address.port();
                let ips = (address.ip().to_canonical(), other.ip().to_canonical());
                let same = takes(ips.0, *only_v6, ips.1) || takes(ips.1, *other_only_v6, ips.0);
                port != 0 && port == other.port() && same
            }
            (Self::Ip { .. }, Self::Unix { .. }) | (Self::Unix { .. }, Self::Ip { .. }) => false,
        }
    }
}

/// Does a socket on this address take connections to the other?
fn takes(ip: IpAddr, only_v6: bool, other: IpAddr) -> bool {
    let everything = ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !only_v6;
    let all_of_family = ip.is_unspecified() && ip.is_ipv4() == other.is_ipv4();
    ip == other || everything || all_of_family
}

impl fmt::Display for Bind {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { address, .. } => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str, only_v6: bool) -> Bind {
        let address = address.parse().unwrap();
        Bind::Ip { address, only_v6 }
    }

    #[test]
    fn two_listeners_overlap_where_one_would_take_the_others_connections() {
        let unix = |path: &str| Bind::Unix {
            path: path.into(),
            mode: 0o660,
        };
        for (a, b, expected) in [
            (ip("0.0.0.0:80", false), ip("127.0.0.1:80", false), true),
            (ip("0.0.0.0:80", false), ip("127.0.0.1:81", false), false),
            (ip("[::]:80", false), ip("0.0.0.0:80", false), true),
            (ip("[::]:80", false), ip("127.0.0.1:80", false), true),
            (ip("[::]:80", true), ip("0.0.0.0:80", false), false),
            (ip("[::]:80", true), ip("127.0.0.1:80", false), false),
            (ip("[::]:80", true), ip("[::1]:80", false), true),
            (ip("[::1]:80", false), ip("127.0.0.1:80", false), false),
            (ip("127.0.0.1:0", false), ip("127.0.0.1:0", false), false),
            (unix("/a"), unix("/a"), true),
            (unix("/a"), unix("/b"), false),
            (unix("/a"), ip("[::]:80", false), false),
        ] {
            assert_eq!(a.overlaps(&b), expected, "{a} {b}");
            assert_eq!(b.overlaps(&a), expected, "{b} {a}");
        }
    }
}
