//! Everything known about one request, in the order it is learned.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::forwarded;
use super::limits::Holds;
use super::sampling;
use super::state::Snapshot;
use super::termination::Step;
use super::trace::{self, Trace};
use crate::config::{LogFormat, PoolId, Share};
use crate::mcp::text::{Name, Word};
use crate::mcp::{Era, RawId};
use crate::pool::Endpoint;
use crate::route::RouteId;
use crate::session::{PrincipalHash, Pulse};
use crate::telemetry::{SessionTag, StreamEnd};
use crate::transport::fields::USER_AGENT;
use crate::transport::nanos::Nanos;
use crate::transport::tls::Peer;
use crate::transport::{ConnInfo, Error, Http, RequestHead};

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

/// What is kept of a request's field for the log, in bytes: as much as it shows.
const NOTED_MAX: usize = 128;

/// What the log says of a request head.
pub struct Noted {
    /// HTTP method.
    pub method: Box<str>,
    /// Request path without its query.
    pub path: Box<str>,
    /// `User-Agent`, as sent, cut to what is logged.
    pub user_agent: Option<Box<[u8]>>,
    /// The authority that was asked for.
    pub host: Option<Box<str>>,
    /// The trace that it has told.
    pub trace: Option<[u8; 16]>,
    /// Its lot, by which a part of a route's requests is logged.
    pub lot: u64,
    /// Further fields that the format of the log asks for, in its order, each cut to what is logged.
    pub headers: Box<[Option<Box<[u8]>>]>,
}

/// What the steps of an exchange took, as far as it came to them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timers {
    /// Waiting for a place at an endpoint, all attempts together.
    pub queue: Nanos,
    /// When the last attempt began, from the start of the exchange.
    pub asked: Option<Nanos>,
    /// Making the connection of the last attempt; zero for one that was there.
    pub connect: Option<Nanos>,
    /// From that connection to the head of the endpoint's answer.
    pub header: Option<Nanos>,
    /// When the request was with the endpoint, from the start of the exchange, if it was not as soon as
    /// there was a connection: its client had not sent all of it.
    pub sent: Option<Nanos>,
}

/// One request, from first byte to log line.
pub struct Ctx {
    /// When its head was complete.
    pub started: Instant,
    /// The rules it runs under, kept to its end.
    pub snapshot: Arc<Snapshot>,
    /// Who asks, as far as that is known and believed.
    pub client: Option<IpAddr>,
    /// A random id for the log, 16 hex digits.
    pub request_id: u64,
    /// The caller, as far as authenticated; bound into session ids.
    pub principal: PrincipalHash,
    /// Its place in its trace, where requests are traced.
    pub trace: Option<Box<Trace>>,
    /// What the log will say of a request head that is let go before the end.
    pub noted: Option<Box<Noted>>,
    /// HTTP version.
    pub http: Http,
    /// The route, once it has let the request in.
    pub route: Option<RouteId>,
    /// The pool, once routed.
    pub pool: Option<PoolId>,
    /// Which rules the request follows, once known.
    pub era: Option<Era>,
    /// The MCP method as a bounded label; empty until known.
    pub mcp_method: &'static str,
    /// The tool's name for a tool call.
    pub tool: Option<Name>,
    /// The protocol version that an `initialize` asks for, should it be one that is not served.
    pub requested: Option<Box<Word>>,
    /// The JSON-RPC id, once read: every answer of ours carries it.
    pub id: Option<RawId>,
    /// The ids of a batch's requests: an answer of ours to it answers each of them.
    pub batch: Box<[RawId]>,
    /// Hash of the session, for the log.
    pub session: Option<SessionTag>,
    /// The id of the endpoint that served it.
    pub endpoint: Option<u64>,
    /// The status sent; 0 until then.
    pub status: u16,
    /// When the response head was sent.
    pub first_byte: Option<Nanos>,
    /// The reply is a stream: its duration counts to the first byte only.
    pub streamed: bool,
    /// Request body bytes read.
    pub bytes_in: u64,
    /// Response body bytes sent.
    pub bytes_out: u64,
    /// How it ended.
    pub end: End,
    /// How far it has come.
    pub step: Step,
    /// What its steps took.
    pub timers: Timers,
    /// Attempts after the first.
    pub retries: u32,
    /// The fault, if one was answered.
    pub fault: Option<Fault>,
    /// The code of the JSON-RPC error that it was answered with, ours or the endpoint's.
    pub rpc_code: Option<i64>,
    /// For a tool call that was answered: whether the answer was an error.
    pub tool_failed: Option<bool>,
    /// Where what has passed is counted for the session, if that is wanted.
    pub context: Option<Arc<Pulse>>,
    /// What it has of what is limited; given back with it.
    pub held: Option<Box<Holds>>,
}

/// Who a client has proved to be, as sessions and limits know it.
pub fn principal(peer: &Peer) -> PrincipalHash {
    PrincipalHash::of(peer.principal())
}

impl Ctx {
    /// Begins with what the head and the connection alone tell.
    pub fn begin(
        snapshot: Arc<Snapshot>,
        head: &impl RequestHead,
        info: &ConnInfo,
        now: Instant,
    ) -> Self {
        Self {
            started: now,
            trace: Trace::begin(snapshot.config.tracing.as_ref(), head),
            client: forwarded::client(&snapshot.config.proxies, head, info),
            snapshot,
            request_id: fastrand::u64(..),
            principal: info
                .certificate()
                .map_or(PrincipalHash::ANONYMOUS, principal),
            noted: None,
            http: head.version(),
            route: None,
            pool: None,
            era: None,
            mcp_method: "",
            tool: None,
            requested: None,
            id: None,
            batch: Box::default(),
            session: None,
            endpoint: None,
            status: 0,
            first_byte: None,
            streamed: false,
            bytes_in: 0,
            bytes_out: 0,
            end: End::Complete,
            step: Step::Request,
            timers: Timers::default(),
            retries: 0,
            fault: None,
            rpc_code: None,
            tool_failed: None,
            context: None,
            held: None,
        }
    }

    /// What it has of what is limited.
    pub fn holds(&mut self) -> &mut Holds {
        self.held.get_or_insert_default()
    }

    /// The part of such requests that is logged.
    pub fn share(&self) -> Share {
        let route = self.route;
        route.map_or(Share::ALL, |id| self.snapshot.config.routes[id.0].log)
    }

    /// Keeps what the log says of a request head that is about to be let go.
    pub fn note(&mut self, head: &(impl RequestHead + ?Sized)) {
        let share = self.share();
        if share == Share::NONE && !self.is_traced() {
            return;
        }
        let headers = match &self.snapshot.config.log.access.format {
            LogFormat::Text(format) => format.headers.as_slice(),
            LogFormat::Json => &[],
        };
        let kept = |value: &[u8]| value[..value.len().min(NOTED_MAX)].into();
        let noted = |name: &String| head.get(name).map(kept);
        self.noted = Some(Box::new(Noted {
            method: head.method().into(),
            path: head.path().into(),
            user_agent: head.known(USER_AGENT).map(kept),
            host: head.authority().map(Into::into),
            trace: trace::told(head).map(|told| told.trace),
            lot: match share {
                Share::ALL | Share::NONE => 0,
                _ => sampling::lot(head, self.request_id),
            },
            headers: headers.iter().map(noted).collect(),
        }));
    }

    /// Notes that an attempt begins.
    pub fn asks(&mut self, now: Instant) {
        self.retries += u32::from(self.timers.asked.is_some());
        self.step = Step::Connect;
        self.timers = Timers {
            queue: self.timers.queue,
            asked: Some(self.after(now)),
            connect: None,
            header: None,
            sent: None,
        };
    }

    /// Notes that the attempt has its connection, which `endpoint` took its time for unless it was
    /// there before.
    pub fn connected(&mut self, endpoint: &Endpoint, reused: bool, now: impl FnOnce() -> Instant) {
        let mut took = Duration::ZERO;
        if !reused {
            let asked = self.timers.asked.unwrap_or_default().get();
            took = self.after(now()).get().saturating_sub(asked);
            endpoint.timings.connected(took);
        }
        self.timers.connect = Some(took.into());
    }

    /// Notes that the head of the endpoint's answer is there.
    pub fn replied(&mut self, now: Instant) {
        self.step = Step::Data;
        if let Timers {
            asked: Some(asked),
            connect: Some(connect),
            ..
        } = self.timers
        {
            let before = asked.get() + connect.get();
            let took = self.after(now).get().saturating_sub(before);
            self.timers.header = Some(took.into());
        }
    }

    /// Notes that a request that came in pieces is with the endpoint.
    pub fn sent(&mut self, now: Instant) {
        self.timers.sent = Some(self.after(now));
    }

    /// How long the endpoint took from the request to the first byte of its answer, once it is there.
    pub fn answer_time(&self) -> Option<Duration> {
        let Timers {
            asked: Some(asked),
            connect: Some(connect),
            header: Some(header),
            ..
        } = self.timers
        else {
            return None;
        };
        match self.timers.sent {
            None => Some(header.get()),
            // None for an answer that came before the request was sent.
            Some(sent) => {
                let replied = asked.get() + connect.get() + header.get();
                Some(replied.saturating_sub(sent.get()))
            }
        }
    }

    /// Notes that it has waited for a place for so long.
    pub fn queued(&mut self, time: Duration) {
        self.timers.queue = (self.timers.queue.get() + time).into();
    }

    /// Notes that the response head goes out with `status`.
    pub fn answered(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.first_byte = Some(self.after(now));
    }

    /// How long after its start that is.
    fn after(&self, now: Instant) -> Nanos {
        now.saturating_duration_since(self.started).into()
    }
}
