//! What an endpoint's name stands for.

use super::host_port::HostPort;
use super::model::Endpoint;

/// What an endpoint's name stands for, where it has several addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolve {
    /// One server, which is reached at any of them.
    One,
    /// As many servers, each an endpoint of its own.
    All,
    /// The servers of a service, by its SRV records (RFC 2782).
    Service,
}

impl Endpoint {
    /// What a server there is asked for: the address as it was written, also for one of several that it
    /// stands for.
    pub fn asked_for(&self) -> &HostPort {
        self.found_by.as_ref().unwrap_or(&self.address)
    }

    /// Is it to be replaced by the endpoints that its name stands for? Those of it that were found are
    /// not.
    pub fn stands_for_several(&self) -> bool {
        self.resolve != Resolve::One && self.found_by.is_none()
    }
}
