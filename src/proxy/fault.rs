//! Every way a request can fail, and what the client is told.
//!
//! This is the one place where a failure becomes a status, a JSON-RPC code, extra header fields
//! and a label for logs and metrics. The text for the client names nothing of the inside: no
//! address, no pool, no parser state; what the operator needs goes to the log with the fault.

use crate::mcp::answer as code;
use crate::pool::{NoEndpoint, Tripped};
use crate::session::{Cap, Refused};
use crate::telemetry::{Limit, limit_hit};

/// A failure as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The body is not JSON.
    Parse,
    /// The message or the request is not valid; the text says what is wrong.
    Invalid(&'static str),
    /// Header and body contradict each other, or a routing header is repeated or missing.
    HeaderMismatch(&'static str),
    /// A protocol version that nobody knows, asked for by the rules of the stateless era.
    UnsupportedVersion,
    /// The same in a request of the session era.
    UnsupportedVersionLegacy,
    /// `Origin` is not one that the route allows.
    Origin,
    /// `Host` is not a name that this listener may be called by.
    Host,
    /// No route matches.
    NoRoute,
    /// The HTTP method is not served here; the text is the `Allow` field.
    Method(&'static str),
    /// The content type of a POST is not JSON.
    MediaType,
    /// The request body is longer than the limit.
    BodyTooLarge,
    /// The header block, or the number of its fields, is over the limit.
    HeadTooLarge,
    /// The request head did not arrive in time.
    SlowHead,
    /// The request body did not arrive in time.
    SlowBody,
    /// The message has more of something than a message may: depth, members, a long id.
    TooMuch(&'static str),
    /// A session-era request that carries no session id, to servers that issue them.
    SessionRequired,
    /// The session is not, or no longer, one of ours.
    SessionUnknown,
    /// A stateless-era request to servers that only speak the session era.
    OnlySessionEra,
    /// `initialize` to servers that only speak the stateless era.
    OnlyStatelessEra,
    /// No endpoint of the pool can take the request now.
    NoEndpoint,
    /// Every endpoint that could take the call has as many in flight as it may, and none may wait.
    InFlight,
    /// As many calls wait for a place as may.
    QueueFull,
    /// No place came free in time.
    QueueTimeout,
    /// The client, or all of them, have as much of something as they may. Holds the seconds after
    /// which there will be some, or 0 where nobody knows.
    Limited(Capped, u32),
    /// The tool is one that is not called. Holds the status, by which clients of some transports alone
    /// know that there is no answer to come.
    ToolDenied(u16),
    /// A WebSocket to a pool of which some tools are not called: what is said in it is not looked at.
    UnwatchedCalls,
    /// There are as many sessions as there may be, of all clients together.
    SessionsFull(Cap),
    /// The breaker of the endpoint, or of every one that could take the request, is open. The
    /// session lives on. Holds the seconds after which it may be worth trying again.
    Tripped(u16),
    /// No connection to the endpoint could be made.
    Connect,
    /// This host has run out of what it takes to make one: ports, files or memory. It says nothing of
    /// the endpoint.
    Exhausted,
    /// The endpoint closed the connection before it answered.
    UpstreamClosed,
    /// The endpoint answered with something that is not HTTP.
    UpstreamMalformed,
    /// The endpoint answered with a status of failure and without a message. The client gets that
    /// status.
    UpstreamFailed,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// This process is shutting down.
    Draining,
    /// The client is gone; there is nobody to tell.
    ClientGone,
}

/// What there is no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capped {
    /// Requests of the client on a route.
    Rate,
    /// Requests on a route of the client that it has proved to be.
    RatePrincipal,
    /// Requests of all clients on a route.
    RateTotal,
    /// Calls of a tool in some time.
    ToolRate,
    /// Calls of a tool at once.
    ToolConcurrency,
    /// Sessions of the client.
    SessionsPerClient,
    /// Sessions of the client that it has proved to be.
    SessionsPerPrincipal,
    /// Standing streams of the client.
    StreamsPerClient,
    /// Standing streams of the client that it has proved to be.
    StreamsPerPrincipal,
    /// GET streams of the session.
    StreamsPerSession,
}

impl Capped {
    /// The limit as it is counted.
    const fn limit(self) -> Limit {
        match self {
            Self::Rate => Limit::Rate,
            Self::RatePrincipal => Limit::RatePrincipal,
            Self::RateTotal => Limit::RateTotal,
            Self::ToolRate => Limit::ToolRate,
            Self::ToolConcurrency => Limit::ToolConcurrency,
            Self::SessionsPerClient => Limit::SessionsPerClient,
            Self::SessionsPerPrincipal => Limit::SessionsPerPrincipal,
            Self::StreamsPerClient => Limit::StreamsPerClient,
            Self::StreamsPerPrincipal => Limit::StreamsPerPrincipal,
            Self::StreamsPerSession => Limit::StreamsPerSession,
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::Rate | Self::RatePrincipal | Self::RateTotal => "too many requests",
            Self::ToolRate => "this tool is called too often",
            Self::ToolConcurrency => "too many calls of this tool are running",
            Self::SessionsPerClient | Self::SessionsPerPrincipal => "too many sessions are open",
            Self::StreamsPerClient | Self::StreamsPerPrincipal | Self::StreamsPerSession => {
                "too many streams are open"
            }
        }
    }
}

/// A cap on sessions as it is counted.
const fn limit_of(cap: Cap) -> Limit {
    match cap {
        Cap::Total => Limit::Sessions,
        Cap::Pool => Limit::SessionsPerPool,
        Cap::Principal => Limit::SessionsPerPrincipal,
    }
}

/// What a fault becomes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// HTTP status.
    pub status: u16,
    /// JSON-RPC error code.
    pub code: i64,
    /// JSON-RPC error message; holds nothing from the inside.
    pub message: &'static str,
    /// The error's `data` names the versions that are served, and the one asked for.
    pub names_versions: bool,
    /// One more response header field.
    pub field: Option<(&'static str, &'static str)>,
    /// The closed-set label for logs and metrics.
    pub label: &'static str,
}

impl From<Tripped> for Fault {
    fn from(tripped: Tripped) -> Self {
        let seconds = tripped.retry_in.as_millis().div_ceil(1000);
        Self::Tripped(u16::try_from(seconds).unwrap_or(u16::MAX))
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::SessionsFull(refused.cap)
    }
}

impl From<NoEndpoint> for Fault {
    fn from(reason: NoEndpoint) -> Self {
        match reason {
            // Trials are let through, so the next one that comes may be one of them.
            NoEndpoint::AllTripped => Self::Tripped(1),
            NoEndpoint::AllDown
            | NoEndpoint::AllDraining
            | NoEndpoint::NoneResolved
            | NoEndpoint::WrongEra => Self::NoEndpoint,
        }
    }
}

impl Fault {
    /// Counts the limit that was reached, if it was one.
    pub fn count(self) {
        let limit = match self {
            Self::HeadTooLarge => Limit::HeadBytes,
            Self::SlowHead => Limit::HeadTime,
            Self::BodyTooLarge => Limit::BodyBytes,
            Self::SlowBody => Limit::BodyTime,
            Self::TooMuch(_) => Limit::Message,
            Self::InFlight => Limit::InFlight,
            Self::QueueFull => Limit::QueueFull,
            Self::QueueTimeout => Limit::QueueTimeout,
            Self::Limited(capped, _) => capped.limit(),
            Self::ToolDenied(_) | Self::UnwatchedCalls => Limit::ToolDenied,
            Self::SessionsFull(cap) => limit_of(cap),
            _ => return,
        };
        limit_hit(limit);
    }

    /// Whole seconds after which it may be worth coming again, where they depend on more than the
    /// fault; for `Retry-After`.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Limited(_, seconds) if seconds > 0 => Some(seconds),
            _ => None,
        }
    }

    /// The row of the table for this fault.
    pub const fn row(self) -> Row {
        match self {
            Self::Parse => row(
                400,
                code::PARSE_ERROR,
                "the body is not valid JSON",
                "parse",
            ),
            Self::Invalid(why) => row(400, code::INVALID_REQUEST, why, "invalid"),
            Self::HeaderMismatch(why) => row(400, code::HEADER_MISMATCH, why, "header_mismatch"),
            Self::UnsupportedVersion => Row {
                names_versions: true,
                ..row(
                    400,
                    code::UNSUPPORTED_VERSION,
                    "unsupported protocol version",
                    "version",
                )
            },
            Self::UnsupportedVersionLegacy => row(
                400,
                code::INVALID_REQUEST,
                "unsupported protocol version",
                "version",
            ),
            Self::Origin => row(403, code::INVALID_REQUEST, "origin not allowed", "origin"),
            Self::Host => row(403, code::INVALID_REQUEST, "host not allowed", "host"),
            Self::NoRoute => row(
                404,
                code::INVALID_REQUEST,
                "nothing is served at this path",
                "no_route",
            ),
            Self::Method(allow) => Row {
                field: Some(("allow", allow)),
                ..row(405, code::INVALID_REQUEST, "method not allowed", "method")
            },
            Self::MediaType => row(
                415,
                code::INVALID_REQUEST,
                "content type must be application/json",
                "media_type",
            ),
            Self::BodyTooLarge => row(
                413,
                code::INVALID_REQUEST,
                "request body too large",
                "body_size",
            ),
            Self::HeadTooLarge => row(
                431,
                code::INVALID_REQUEST,
                "request header too large",
                "head_size",
            ),
            Self::SlowHead => row(
                408,
                code::INVALID_REQUEST,
                "request head did not arrive in time",
                "slow_head",
            ),
            Self::TooMuch(why) => row(400, code::INVALID_REQUEST, why, "message"),
            Self::SlowBody => row(
                408,
                code::INVALID_REQUEST,
                "request body did not arrive in time",
                "slow_body",
            ),
            Self::SessionRequired => row(
                400,
                code::INVALID_REQUEST,
                "Mcp-Session-Id header is required",
                "no_session",
            ),
            Self::SessionUnknown => row(
                404,
                code::SESSION_NOT_FOUND,
                "Session not found",
                "unknown_session",
            ),
            // Clients of every SDK read exactly this answer to a probe as "speak the session era".
            Self::OnlySessionEra => row(
                400,
                code::METHOD_NOT_FOUND,
                "this server speaks the session era only",
                "era",
            ),
            Self::OnlyStatelessEra => Row {
                names_versions: true,
                ..row(
                    400,
                    code::UNSUPPORTED_VERSION,
                    "this server speaks protocol version 2026-07-28 only",
                    "era",
                )
            },
            Self::NoEndpoint => Row {
                field: Some(("retry-after", "2")),
                ..row(503, code::INTERNAL, "no server is available", "no_endpoint")
            },
            Self::InFlight | Self::QueueFull | Self::QueueTimeout => Row {
                field: Some(("retry-after", "2")),
                ..row(
                    503,
                    code::INTERNAL,
                    "every server is busy",
                    match self {
                        Self::InFlight => "in_flight",
                        Self::QueueFull => "queue_full",
                        _ => "queue_timeout",
                    },
                )
            },
            Self::Limited(capped, _) => row(
                429,
                code::INTERNAL,
                capped.message(),
                capped.limit().as_str(),
            ),
            Self::ToolDenied(status) => row(
                status,
                code::INVALID_PARAMS,
                "this tool may not be called here",
                "tool_denied",
            ),
            Self::UnwatchedCalls => row(
                403,
                code::INVALID_REQUEST,
                "WebSockets are not served here",
                "websocket_denied",
            ),
            // Sessions end when clients delete them or leave them idle, which is no matter of seconds.
            Self::SessionsFull(cap) => Row {
                field: Some(("retry-after", "10")),
                ..row(
                    503,
                    code::INTERNAL,
                    "too many sessions are open",
                    limit_of(cap).as_str(),
                )
            },
            Self::Tripped(seconds) => Row {
                field: Some(("retry-after", whole(seconds))),
                ..row(
                    503,
                    code::INTERNAL,
                    "the server has failed too often and is given time to recover",
                    "breaker_open",
                )
            },
            Self::Connect => row(
                502,
                code::INTERNAL,
                "the server cannot be reached",
                "connect",
            ),
            Self::Exhausted => Row {
                field: Some(("retry-after", "2")),
                ..row(
                    503,
                    code::INTERNAL,
                    "this proxy has no resources left for another connection",
                    "exhausted",
                )
            },
            Self::UpstreamClosed => row(
                502,
                code::INTERNAL,
                "upstream connection lost",
                "upstream_closed",
            ),
            Self::UpstreamMalformed => row(
                502,
                code::INTERNAL,
                "the server sent an invalid answer",
                "upstream_malformed",
            ),
            Self::UpstreamFailed => {
                row(502, code::INTERNAL, "the server failed", "upstream_failed")
            }
            Self::UpstreamTimeout => row(
                504,
                code::INTERNAL,
                "the server did not answer in time",
                "upstream_timeout",
            ),
            Self::Draining => Row {
                field: Some(("retry-after", "1")),
                ..row(503, code::INTERNAL, "shutting down", "draining")
            },
            // 499 is nginx's word for it in the log; it never goes out.
            Self::ClientGone => row(499, code::INTERNAL, "client gone", "client_gone"),
        }
    }
}

/// Seconds as text, rounded up to one of a few numbers.
const fn whole(seconds: u16) -> &'static str {
    match seconds {
        0 | 1 => "1",
        2 => "2",
        3..=5 => "5",
        6..=10 => "10",
        11..=30 => "30",
        31..=60 => "60",
        _ => "300",
    }
}

const fn row(status: u16, code: i64, message: &'static str, label: &'static str) -> Row {
    Row {
        status,
        code,
        message,
        names_versions: false,
        field: None,
        label,
    }
}

#[cfg(test)]
mod tests;
