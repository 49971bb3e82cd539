//! How endpoints are watched, as the program sees it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::model::Transport;

/// How the endpoints of a pool are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is sent.
    pub check: Check,
    /// Pause between two checks of one endpoint (default 2s).
    pub interval: Duration,
    /// The same while its state is undecided or about to change; never above `interval` (default a
    /// quarter of it, at least 100ms).
    pub interval_fast: Duration,
    /// The same while it is down or unwell (default `interval`).
    pub interval_down: Duration,
    /// How long one check may take (default 1s).
    pub timeout: Duration,
    /// Good checks in a row until a lost endpoint is up again (default 2).
    pub rise: u32,
    /// Bad checks in a row until an endpoint is down, or unwell if it answers them (default 3).
    pub fall: u32,
    /// What becomes of what is open on an endpoint that is found down (default keep).
    pub on_down: OnDown,
}

/// What becomes of what is open on an endpoint that its checks find down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// It goes on for as long as its connection does something.
    Keep,
    /// Connections, streams and calls end at once; streams that can go elsewhere do.
    End,
}

/// What a health check sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An MCP question, over the transport that clients of the pool use.
    Mcp {
        /// The path to ask on.
        path: String,
        /// The transport spoken on that path.
        transport: Transport,
        /// What is asked. [`McpQuestion::Auto`] over [`Transport::Sse`].
        question: McpQuestion,
    },
    /// One HTTP request.
    Http(HttpCheck),
    /// A connection is opened and closed.
    Tcp,
    /// Nothing: the endpoints count as up until requests to them fail.
    None,
}

/// What an MCP check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum McpQuestion {
    /// What suits the server, as it is learned.
    Auto,
    /// `server/discover`, which only servers of the stateless era answer.
    Discover,
    /// `ping`, over a session that is opened once and kept.
    Ping,
    /// `initialize`, anew with every check; its session is deleted again.
    Initialize,
}

/// The check `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The method (default `GET`).
    pub method: HttpMethod,
    /// What is asked for: a path, which may have a query.
    pub path: String,
    /// The `Host` to ask for; `None` is the endpoint's address.
    pub host: Option<String>,
    /// The statuses that are good (default 200-399). Never empty.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What must stand in the first 64 KiB of the body, byte for byte. Never with `HEAD`.
    pub body: Option<String>,
}

/// How an HTTP check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// `GET`.
    Get,
    /// `HEAD`: the answer has no body.
    Head,
    /// `OPTIONS`.
    Options,
    /// `POST` with an empty body.
    Post,
}

impl HttpMethod {
    /// As it is sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
        }
    }
}
