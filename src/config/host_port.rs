//! Where an endpoint is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// A host, by name or by address, and a port that is not 0. Or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name in lower case or an IP address; IPv6 without brackets. Or the absolute path of a unix
    /// socket, which begins as no host does.
    pub host: String,
    /// The TCP port, never 0; 0 for a unix socket and the name of a service.
    pub port: u16,
}

impl HostPort {
    /// A unix socket.
    pub(super) fn socket(path: &Path) -> Self {
        Self {
            host: path.display().to_string(),
            port: 0,
        }
    }

    /// The file of a unix socket, if it is one.
    pub fn unix(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&self.host))
    }

    /// The address, when the host is one and needs no look-up. A unix socket has the unspecified one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.unix() {
            Some(_) => Some(Ipv4Addr::UNSPECIFIED.into()),
            None => self.host.parse().ok(),
        }
    }

    /// Address and port, when the host needs no look-up.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port))
    }

    /// What a server there is asked for, in a `Host` header.
    pub fn authority(&self) -> String {
        match self.unix() {
            Some(_) => "localhost".to_owned(),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for HostPort {
    /// `host:port`, with brackets around an IPv6 address; or `unix:` and a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unix().is_some() {
            write!(f, "unix:{}", self.host)
        } else if self.port == 0 {
            f.write_str(&self.host)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
