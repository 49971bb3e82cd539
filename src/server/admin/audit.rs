//! A line in the log for every operation: who, what, and what came of it.

use std::fmt;
use std::net::SocketAddr;

use super::api::Refusal;

/// The log's target, which is logged whatever `log.level` says.
pub(in crate::server) const TARGET: &str = "audit";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody over HTTP.
    Address(SocketAddr),
    /// A process of this host over the socket, as the kernel tells it.
    Process {
        /// Its user.
        uid: u32,
        /// Its id, where it is known.
        pid: Option<i32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Process {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid} pid {pid}"),
        }
    }
}

/// An operation of which something is to be said.
pub(super) struct Audit<'a> {
    peer: &'a Peer,
    action: &'static str,
    object: String,
}

impl<'a> Audit<'a> {
    pub(super) fn new(peer: &'a Peer, action: &'static str, object: String) -> Self {
        Self {
            peer,
            action,
            object,
        }
    }

    /// It was done.
    pub(super) fn done(&self, details: &str, warning: Option<&str>) {
        let Self {
            peer,
            action,
            object,
        } = self;
        let space = if details.is_empty() { "" } else { " " };
        let but = warning.map(|warning| format!(", but {warning}"));
        let but = but.unwrap_or_default();
        log::info!(
            target: TARGET, who:% = peer, action = *action, outcome = "done";
            "{action} {object:?}{space}{details}: done{but}"
        );
    }

    /// It was refused; what the client is told.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        let Self {
            peer,
            action,
            object,
        } = self;
        let (_, code, message) = refusal.parts();
        log::warn!(
            target: TARGET, who:% = peer, action = *action, outcome = code;
            "{action} {object:?}: refused: {message}"
        );
        refusal
    }
}
