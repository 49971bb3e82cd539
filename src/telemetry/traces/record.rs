//! What is recorded of one request.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::super::access_log::{Entry, Times};

/// Longest text that is copied, in bytes, but for paths.
const TEXT_BYTES_MAX: usize = 128;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// A request's place in its trace, and what a log line does not say.
#[derive(Debug, Default)]
pub struct Traced {
    /// The trace.
    pub trace: [u8; 16],
    /// The span of the request.
    pub span: [u8; 8],
    /// Its parent's, if a trace came with the request.
    pub parent: Option<[u8; 8]>,
    /// `tracestate`, as it came.
    pub state: Box<str>,
    /// The revision of MCP that it names.
    pub version: Option<Box<str>>,
    /// The id of its JSON-RPC request, without quotes.
    pub rpc_id: Option<Box<str>>,
    /// The path or the prefix of its route.
    pub route: Option<Box<str>>,
    /// What kind of failure it was (`error.type`), if it was one.
    pub error: Option<Box<str>>,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
    /// Attempts after the first, some of which may not be in the list.
    pub retries: u32,
}

/// One attempt at an endpoint. Times are from the start of the request.
#[derive(Debug, Default, Clone)]
pub struct Attempt {
    /// Its span, which the endpoint was told as its parent.
    pub span: [u8; 8],
    /// How many were before it.
    pub number: u32,
    /// When it began.
    pub asked: Duration,
    /// What making a connection took; zero for one that was there.
    pub connect: Option<Duration>,
    /// From that connection to the head of the answer.
    pub header: Option<Duration>,
    /// When it was over.
    pub until: Duration,
    /// Name of the endpoint.
    pub endpoint: Option<Box<str>>,
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Why it failed, if it did.
    pub error: Option<Box<str>>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
}

impl Attempt {
    /// Was a connection made for it?
    pub(super) fn has_connected(&self) -> Option<Duration> {
        self.connect.filter(|took| !took.is_zero())
    }
}

/// All that is recorded of one request: a copy, since it outlives the request.
#[derive(Debug)]
pub struct Record {
    pub(super) traced: Traced,
    pub(super) at: SystemTime,
    pub(super) times: Times,
    pub(super) listener: Box<str>,
    pub(super) client: Option<SocketAddr>,
    pub(super) is_tls: bool,
    pub(super) http_version: &'static str,
    pub(super) host: Option<Box<str>>,
    pub(super) method: Box<str>,
    pub(super) path: Box<str>,
    pub(super) mcp_method: Option<Box<str>>,
    pub(super) tool: Option<Box<str>>,
    pub(super) era: Option<&'static str>,
    pub(super) pool: Option<Box<str>>,
    pub(super) endpoint: Option<Box<str>>,
    pub(super) session: Option<u32>,
    pub(super) status: u16,
    pub(super) rpc_code: Option<i64>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) request_id: Box<str>,
    pub(super) end_reason: &'static str,
    pub(super) user_agent: Option<Box<str>>,
}

impl Record {
    /// A copy of what the log would say.
    pub fn new(entry: &Entry<'_>, traced: Traced) -> Self {
        let text = |text: &str| cut(text, TEXT_BYTES_MAX);
        let path = entry.path.split_once('?');
        let path = path.map_or(entry.path, |(path, _)| path);
        Self {
            traced,
            at: entry.at,
            times: entry.times,
            listener: text(entry.listener),
            client: entry.client,
            is_tls: entry.tls.is_some(),
            http_version: entry.http_version,
            host: entry.host.map(text),
            method: text(entry.method),
            path: cut(path, PATH_BYTES_MAX),
            mcp_method: entry.mcp_method.map(text),
            tool: entry.tool_name.map(text),
            era: entry.era,
            pool: entry.pool.map(text),
            endpoint: entry.server.map(text),
            session: entry.session.map(|session| session.bits()),
            status: entry.status,
            rpc_code: entry.rpc_code,
            request_bytes: entry.request_bytes,
            response_bytes: entry.response_bytes,
            request_id: text(entry.request_id),
            end_reason: entry.end_reason,
            user_agent: entry
                .user_agent
                .map(|value| text(&String::from_utf8_lossy(value))),
        }
    }

    /// How many spans it is.
    pub fn spans(&self) -> usize {
        let attempts = self.traced.attempts.iter();
        let below = attempts.map(|one| 1 + usize::from(one.has_connected().is_some()));
        1 + usize::from(self.has_queued()) + below.sum::<usize>()
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.times.queue.is_zero()
    }
}

/// A copy of the beginning of a text.
fn cut(text: &str, max: usize) -> Box<str> {
    let mut places = (0..=max.min(text.len())).rev();
    let end = places.find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or_default()].into()
}
