//! A line in the log for every operation: who, what, and what came of it.

use std::fmt;
use std::net::SocketAddr;

use super::api::Refusal;
use crate::telemetry::feed::{Topic, Weight, tell};
use crate::telemetry::messages::AUDIT;

/// The action of a request that is refused before anybody has looked what it wants.
pub(super) const REQUEST: &str = "request";

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
            target: AUDIT, who:% = peer, action = *action, outcome = "done";
            "{action} {object:?}{space}{details}: done{but}"
        );
        let text = format!("{action} {object}{space}{details}, by {peer}{but}");
        self.tell(Weight::Note, text);
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
            target: AUDIT, who:% = peer, action = *action, outcome = code;
            "{action} {object:?}: refused: {message}"
        );
        let text = format!("{action} {object} refused, by {peer}: {message}");
        self.tell(Weight::Bad, text);
        refusal
    }

    /// The same to whoever follows the events, with the endpoint apart where it is about one.
    fn tell(&self, weight: Weight, text: String) {
        // Any web page can have somebody's browser ask what is refused: it is not to fill the feed.
        if self.action == REQUEST {
            return;
        }
        let (pool, endpoint) = self.object.split_once('/').unwrap_or_default();
        tell(Topic::Operator, weight, pool, endpoint, text);
    }
}
