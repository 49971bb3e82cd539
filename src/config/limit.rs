//! How much clients may have of something, as the program sees it.

use std::time::Duration;

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many, 1 to 1000000.
    pub count: u32,
    /// In which time: a second, a minute or an hour.
    pub per: Duration,
    /// How many at once; as many as in one second unless said, and at least 1.
    pub burst: u32,
}

impl Rate {
    /// A rate whose burst is what it gives in a second.
    pub(super) fn new(count: u32, per: Duration) -> Self {
        let seconds = u32::try_from(per.as_secs()).unwrap_or(u32::MAX).max(1);
        Self {
            count,
            per,
            burst: (count / seconds).max(1),
        }
    }
}

/// How many requests a route takes. At least one of these is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRate {
    /// From each address of clients.
    pub per_client: Option<Rate>,
    /// From each client that has proved who it is, from all its addresses.
    pub per_principal: Option<Rate>,
    /// From all of them.
    pub total: Option<Rate>,
}

/// How often the tools of a pool may be called. At least one of its limits is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolLimit {
    /// Which tools: a name in which `*` stands for any characters. The first that takes a tool counts.
    pub name: String,
    /// By each address of clients.
    pub per_client: Option<Rate>,
    /// By each client that has proved who it is, from all its addresses.
    pub per_principal: Option<Rate>,
    /// By all of them.
    pub total: Option<Rate>,
    /// Calls in flight at once, over all endpoints.
    pub concurrent: Option<u32>,
}

/// What becomes of calls for which no endpoint has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How long one waits (default 5s).
    pub timeout: Duration,
    /// How many wait at once (default 1024); 0 is none.
    pub max: usize,
}
