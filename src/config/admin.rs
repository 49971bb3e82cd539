//! How an operator reaches the process while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The admin address and the admin socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where health, readiness, metrics and the API are answered (default 127.0.0.1:9090); `None` is
    /// off.
    pub bind: Option<SocketAddr>,
    /// What may be done there, over loopback alone (default read).
    pub level: AdminLevel,
    /// The unix socket; `None` is off.
    pub socket: Option<AdminSocket>,
}

/// The unix socket on which the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// Where it is (absolute). `None`: `admin.sock` in the state directory, and if it cannot be made
    /// there the process does without.
    pub path: Option<PathBuf>,
    /// Its permission bits (default 0600).
    pub mode: u32,
    /// What may be done there (default operate).
    pub level: AdminLevel,
}

/// What may be done through the API. Whoever may operate may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminLevel {
    /// Look.
    Read,
    /// Look, and change what endpoints and sessions do.
    Operate,
}

impl AdminLevel {
    /// The word of the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}
