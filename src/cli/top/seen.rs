//! What a look at the process has brought, and what two of them tell together.

use std::time::Instant;

use serde::Deserialize;

use crate::server::admin::view::{Session, Status};

/// One look.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// When the answer was there.
    pub(super) at: Instant,
    /// Pools, endpoints and totals.
    pub(super) status: Status,
    /// Some of the sessions, where they were asked for.
    pub(super) sessions: Option<Sessions>,
}

/// A page of sessions.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sessions {
    /// Sessions in the table.
    pub(super) total: usize,
    /// Those of the page.
    pub(super) sessions: Vec<Owned>,
}

/// A session, and whose it is. A process of another version may not say that.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Owned {
    /// The session.
    #[serde(flatten)]
    pub(super) session: Session,
    /// The era of the protocol; empty for unknown.
    #[serde(default)]
    pub(super) era: String,
    client: Option<Client>,
}

/// What a client calls itself. It may say anything.
#[derive(Debug, Clone, Deserialize)]
struct Client {
    name: String,
    #[serde(default)]
    version: String,
}

impl Owned {
    /// Name and version of the client in one text; empty where it is not known.
    pub(super) fn client(&self) -> String {
        let text = |client: &Client| format!("{} {}", client.name, client.version);
        let text = self.client.as_ref().map(text).unwrap_or_default();
        text.trim_end().to_owned()
    }
}

impl Seen {
    /// Requests per second since an earlier look at the same process; none where they tell nothing.
    pub(super) fn rate_since(&self, earlier: &Self) -> Option<f64> {
        let (own, before) = (&self.status, &earlier.status);
        let requests = own.totals.requests.checked_sub(before.totals.requests)?;
        let passed = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        (own.process.pid == before.process.pid && passed > 0.0).then(|| requests as f64 / passed)
    }
}
