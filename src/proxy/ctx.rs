//! Everything known about one request, in the order it is learned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limits::Holds;
use super::state::Snapshot;
use crate::config::PoolId;
use crate::mcp::text::{Name, Word};
use crate::mcp::{Era, RawId};
use crate::session::PrincipalHash;
use crate::telemetry::{SessionTag, StreamEnd};
use crate::transport::fields::USER_AGENT;
use crate::transport::{ConnInfo, Error, RequestHead};

/// Why an exchange ended, for the log and the metrics. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The response was sent to its end.
    Complete,
    /// We answered ourselves.
    Local,
    /// The client went away first.
    ClientGone,
    /// The client read too slowly.
    ClientWrite,
    /// The server ended a stream on purpose before the response (2025-11-25, section 5.4 of the
    /// transport: the client resumes with GET).
    Resumable,
    /// The server was lost in the middle; the client was told in the stream.
    UpstreamLost,
    /// The server was lost in the middle of a body that could not be mended.
    Truncated,
    /// A time limit of the stream was reached.
    Timeout,
    /// An event over the size limit.
    TooLarge,
    /// Ended because the process is shutting down.
    Drain,
    /// Ended because the operator takes the endpoint out.
    Withdrawn,
    /// The client came back for it on another connection.
    TakenOver,
}

impl End {
    /// How it ended if the client could not be written to.
    pub const fn of_write(error: &Error) -> Self {
        match error {
            Error::WriteTimeout => Self::ClientWrite,
            _ => Self::ClientGone,
        }
    }

    /// Is there nobody to be told anything?
    pub const fn is_of_client(self) -> bool {
        matches!(self, Self::ClientGone | Self::ClientWrite | Self::TakenOver)
    }

    /// The word in the log and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Local => "local",
            Self::ClientGone => "client_gone",
            Self::ClientWrite => "client_write",
            Self::Resumable => "resumable",
            Self::UpstreamLost => "upstream_lost",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Drain => "drain",
            Self::Withdrawn => "withdrawn",
            Self::TakenOver => "taken_over",
        }
    }

    /// The same as the label of an ended stream.
    pub const fn of_stream(self) -> StreamEnd {
        match self {
            Self::Complete | Self::Local => StreamEnd::Complete,
            Self::ClientGone | Self::TakenOver => StreamEnd::ClientClosed,
            Self::ClientWrite => StreamEnd::SlowReader,
            Self::Resumable => StreamEnd::UpstreamClosed,
            Self::UpstreamLost | Self::Truncated => StreamEnd::UpstreamLost,
            Self::Timeout => StreamEnd::Timeout,
            Self::TooLarge => StreamEnd::Limit,
            Self::Drain | Self::Withdrawn => StreamEnd::Drain,
        }
    }
}

/// What the log says of a request head.
pub struct Noted {
    /// HTTP method.
    pub method: Box<str>,
    /// Request path without its query.
    pub path: Box<str>,
    /// `User-Agent`, as sent.
    pub user_agent: Option<Box<[u8]>>,
}

/// One request, from first byte to log line.
pub struct Ctx {
    /// When its head was complete.
    pub started: Instant,
    /// The rules it runs under, kept to its end.
    pub snapshot: Arc<Snapshot>,
    /// A random id for the log, 16 hex digits.
    pub request_id: u64,
    /// The caller, as far as authenticated; bound into session ids.
    pub principal: PrincipalHash,
    /// What the log will say of a request head that is let go before the end.
    pub noted: Option<Box<Noted>>,
    /// HTTP version.
    pub http: &'static str,
    /// The pool, once routed.
    pub pool: Option<PoolId>,
    /// Which rules the request follows, once known.
    pub era: Option<Era>,
    /// The MCP method as a bounded label; empty until known.
    pub mcp_method: &'static str,
    /// The tool's name for a tool call.
    pub tool: Option<Name>,
    /// The protocol version that an `initialize` asks for, should it be one that is not served.
    pub requested: Option<Word>,
    /// The JSON-RPC id, once read: every answer of ours carries it.
    pub id: Option<RawId>,
    /// The ids of a batch's requests: an answer of ours to it answers each of them.
    pub batch: Vec<RawId>,
    /// Hash of the session, for the log.
    pub session: Option<SessionTag>,
    /// The id of the endpoint that served it.
    pub endpoint: Option<u64>,
    /// The status sent; 0 until then.
    pub status: u16,
    /// When the response head was sent.
    pub first_byte: Option<Duration>,
    /// The reply is a stream: its duration counts to the first byte only.
    pub streamed: bool,
    /// Request body bytes read.
    pub bytes_in: u64,
    /// Response body bytes sent.
    pub bytes_out: u64,
    /// How it ended.
    pub end: End,
    /// Label of the fault, if one was answered.
    pub fault: Option<&'static str>,
    /// For a tool call that was answered: whether the answer was an error.
    pub tool_failed: Option<bool>,
    /// What it has of what is limited; given back with it.
    pub held: Option<Box<Holds>>,
}

impl Ctx {
    /// The request comes on this connection, whose client may have proved who it is.
    ///
    /// A client stays the same one with another certificate for the same name from the same authority.
    pub fn comes_on(&mut self, info: &ConnInfo) {
        let Some(peer) = info.certificate() else {
            return;
        };
        // None of these texts has a line end in it.
        let principal = format_args!("{}\n{}\n{}", peer.issuer(), peer.subject(), peer.name());
        self.principal = PrincipalHash::of(principal.to_string().as_bytes());
    }

    /// Begins with what the head alone tells.
    pub fn begin(snapshot: Arc<Snapshot>, head: &impl RequestHead, now: Instant) -> Self {
        Self {
            started: now,
            snapshot,
            request_id: fastrand::u64(..),
            principal: PrincipalHash::ANONYMOUS,
            noted: None,
            http: head.version().as_str(),
            pool: None,
            era: None,
            mcp_method: "",
            tool: None,
            requested: None,
            id: None,
            batch: Vec::new(),
            session: None,
            endpoint: None,
            status: 0,
            first_byte: None,
            streamed: false,
            bytes_in: 0,
            bytes_out: 0,
            end: End::Complete,
            fault: None,
            tool_failed: None,
            held: None,
        }
    }

    /// What it has of what is limited.
    pub fn holds(&mut self) -> &mut Holds {
        self.held.get_or_insert_default()
    }

    /// Keeps what the log says of a request head that is about to be let go.
    pub fn note(&mut self, head: &(impl RequestHead + ?Sized)) {
        self.noted = Some(Box::new(Noted {
            method: head.method().into(),
            path: head.path().into(),
            user_agent: head.known(USER_AGENT).map(Into::into),
        }));
    }

    /// Notes that the response head goes out with `status`.
    pub fn answered(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.first_byte = Some(now.saturating_duration_since(self.started));
    }
}
