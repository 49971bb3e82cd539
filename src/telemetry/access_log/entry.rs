//! What is known of an exchange that is over, for its line in the log.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What one line says. Absent values (`None`, `""`) are left out of a line of JSON.
///
/// There is no field for arguments, tokens or ids of sessions, and none may be smuggled into
/// another: what a client sends as content does not reach the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request was over. Written as `timestamp`, ISO 8601 with milliseconds, in UTC.
    pub at: SystemTime,
    /// Name of the listener, or its address.
    pub listener: &'a str,
    /// The client, after PROXY protocol; none on a unix socket. Its address is written as `client`.
    pub client: Option<SocketAddr>,
    /// Our own address on the connection.
    pub local: Option<SocketAddr>,
    /// The version of TLS that is spoken, such as `1.3`.
    pub tls: Option<&'static str>,
    /// Who the client has proved to be.
    pub proved: Option<Proved<'a>>,
    /// HTTP version: `1.0`, `1.1` or `2`. Written as `http_version`.
    pub http_version: &'static str,
    /// The authority that was asked for. At most 128 bytes are written.
    pub host: Option<&'a str>,
    /// HTTP method.
    pub method: &'a str,
    /// Path; anything from `?` on is cut off. At most 512 bytes are written.
    pub path: &'a str,
    /// MCP method, when the request is MCP. At most 128 bytes are written.
    pub mcp_method: Option<&'a str>,
    /// Name of the tool as the client sent it, when the request is a tool call. At most 128 bytes.
    pub tool_name: Option<&'a str>,
    /// Era of the protocol: `session` or `stateless`; none when the request is not MCP.
    pub era: Option<&'static str>,
    /// Name of the pool.
    pub pool: Option<&'a str>,
    /// Name of the endpoint. Written as `server`.
    pub server: Option<&'a str>,
    /// Address of the endpoint. Written as `server_address`.
    pub server_address: Option<SocketAddr>,
    /// A short hash of the session's id.
    pub session: Option<SessionTag>,
    /// HTTP status; see `RequestRecord::status` for streams.
    pub status: u16,
    /// The code of the JSON-RPC error that was the answer. Written as `rpc_code`.
    pub rpc_code: Option<i64>,
    /// What the exchange took.
    pub times: Times,
    /// Attempts after the first.
    pub retries: u32,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the reply's body.
    pub response_bytes: u64,
    /// Id of the request for tracing, ours or a trusted front's. At most 64 bytes are written.
    pub request_id: &'a str,
    /// The trace that the request belongs to, 32 hex digits; none where nobody traces.
    pub trace_id: Option<&'a str>,
    /// Who ended the exchange and in which step: two letters as HAProxy's.
    pub termination: [u8; 2],
    /// Why the exchange ended, as a word from a closed set, such as `StreamEnd::as_str`.
    pub end_reason: &'static str,
    /// `User-Agent` as sent, valid UTF-8 or not. At most 128 bytes are written.
    pub user_agent: Option<&'a [u8]>,
    /// Further request headers, for a format of the operator's: its `TextFormat::headers`, in that order.
    /// Of each at most 128 bytes are written.
    pub headers: &'a [Option<&'a [u8]>],
}

/// Who a client has proved to be by its certificate.
#[derive(Clone, Copy, Debug)]
pub struct Proved<'a> {
    /// A short hash of it, the same in every process. Written as `principal`, 8 hex digits.
    pub tag: u32,
    /// The name that it goes by. Written as `client_name`, at most 128 bytes of it.
    pub name: &'a str,
    /// The subject of its certificate, as RFC 2253 writes it.
    pub subject: &'a str,
    /// The subject of who has signed that.
    pub issuer: &'a str,
    /// SHA-256 of its certificate in hex digits.
    pub fingerprint: &'a str,
}

/// What an exchange took. What it did not come to is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// To the end of the reply. Written as `duration_ms`.
    pub duration: Duration,
    /// Waiting for a place at an endpoint. Written as `queue_ms`.
    pub queue: Duration,
    /// When the last attempt began, from the start of the exchange. Not written by itself.
    pub asked: Option<Duration>,
    /// Making the connection to the endpoint; zero for one that was there. Written as `connect_ms`.
    pub connect: Option<Duration>,
    /// From the connection to the head of the endpoint's answer. Written as `header_ms`.
    pub header: Option<Duration>,
    /// To the first byte of the reply to the client. Written as `first_byte_ms`.
    pub first_byte: Option<Duration>,
}

/// Eight hex digits that tell sessions apart in the log without giving an id away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionTag(u32);

impl SessionTag {
    /// The tag of an id; the same in every process, so that logs of several hosts can be joined.
    ///
    /// [`spread`], cut to 32 bits. That is no cryptographic hash, and need not be one:
    /// 32 bits cannot hold an id that was hard to guess. Pass the id that the client sees.
    pub fn of(id: &str) -> Self {
        Self((spread(id.as_bytes()) >> 32) as u32)
    }

    /// The tag as a number; the log shows it as eight hex digits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// Spreads texts evenly over all numbers, the same in every process: FNV-1a, mixed.
pub fn spread(text: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in text {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^ (hash >> 33)
}
