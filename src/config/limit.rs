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

/// What holds for some tools of a pool, on whatever route they are called. Something of it is set.
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
    /// They are not called at all (default false). Then nothing else is set.
    pub deny: bool,
    /// From the end of a call to the end of its answer, in place of what the pool's timeouts say of
    /// header and total.
    pub timeout: Option<Duration>,
    /// Whether a call may be sent again that has reached a server.
    pub retry: ToolRetry,
}

/// Whether a call of a tool may be sent again that has reached a server, as a read is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolRetry {
    /// Not even if its server calls that harmless.
    Never,
    /// If its server calls that harmless and is believed.
    #[default]
    Safe,
    /// Whatever its server says.
    Always,
}

/// What becomes of calls for which no endpoint has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How long one waits (default 5s).
    pub timeout: Duration,
    /// How many wait at once (default 1024); 0 is none.
    pub max: usize,
}
