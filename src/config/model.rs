//! The configuration as the program sees it: checked, complete, with every default filled in.
//!
//! A value of these types has passed every rule of `check`, so the code that reads it asks no
//! questions: the pool of a route exists, a pool has an endpoint that is not a backup, a duration
//! lies within its bounds. What was written in the file, where, and how a default came about is
//! unknown here; that is the business of `load` and `table`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Problem;
use super::admin::Admin;
use super::bind::Bind;
use super::cors::Cors;
use super::dump::dump;
use super::edge::{Action, HeaderEdits, Scheme};
use super::health::Health;
use super::host_port::HostPort;
use super::limit::{Queue, RouteRate, ToolLimit};
use super::log::{Log, Share};
use super::protect::{Breaker, Ejection, Retries};
use super::proxies::{ClientHeaders, Proxies, SendProxy};
use super::resolve::Resolve;
use super::rewrite::Rewrite;
use super::secure::{EndpointTls, Tls};
use super::streams::Streams;
use super::tracing::Tracing;

pub use super::matching::{HostRule, Origins, PathRule, is_below};

/// One checked configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Addresses to accept on, in file order. Never empty, no two overlap.
    pub listeners: Vec<Listener>,
    /// Rules from a request to a pool, in file order; the first match wins. Never empty.
    pub routes: Vec<Route>,
    /// Every route has a pool of kind mcp, so that no request needs another lane.
    pub is_mcp_only: bool,
    /// The pools, in file order, with unique names. [`PoolId`] is an index into this list.
    pub pools: Vec<Pool>,
    /// Where session keys come from and how many sessions are kept.
    pub sessions: Sessions,
    /// How event streams are kept alive and bounded.
    pub streams: Streams,
    /// What one client may send at most, and how slowly.
    pub limits: Limits,
    /// Whose word is taken for who the client is.
    pub proxies: Proxies,
    /// The admin address and socket.
    pub admin: Admin,
    /// Where the access log goes and how much else is logged.
    pub log: Log,
    /// Whether requests are traced, and where spans are sent (default: not).
    pub tracing: Option<Tracing>,
    /// Directory for what must outlive a restart (absolute). `None`: the caller picks the place the
    /// platform has for it.
    pub state_dir: Option<PathBuf>,
    /// Where the id of the process that serves is written (absolute). `None`: nowhere.
    pub pid_file: Option<PathBuf>,
    /// How often it is looked whether a file of the configuration has changed; `None`: never (default).
    pub watch: Option<Duration>,
    /// Worker threads; `None` means one per core.
    pub threads: Option<NonZeroUsize>,
    /// How long a leaving process waits for exchanges and streams to end (default 30s).
    pub drain_timeout: Duration,
    /// The most time over which the ends of the streams that are still open are spread (default 10s,
    /// or a third of `drain_timeout` if that is less). Never above `drain_timeout`.
    pub drain_jitter: Duration,
    /// The file as it was understood, with every default filled in and without secrets, for people to
    /// look at. Not part of any decision.
    pub effective: serde_json::Value,
    /// The files that were read, in that order. Not part of any decision.
    pub files: Vec<PathBuf>,
    /// What is odd but not wrong, such as a pool that no route uses. Not part of any decision.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The pool with this id. Ids come from this configuration's own routes.
    ///
    /// # Panics
    /// If the id was made by another configuration and lies outside the list.
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[id.0]
    }

    /// The configuration as it was understood, as YAML under the names of its files. Values that are not
    /// to be shown are hidden.
    pub fn to_text(&self) -> String {
        let files = self.files.iter();
        let files = files.map(|file| format!("# configuration file {}\n", file.display()));
        files.collect::<String>() + &dump(&self.effective)
    }

    /// The id of the pool with this name.
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        let at = self.pools.iter().position(|pool| pool.name == name)?;
        Some(PoolId(at))
    }
}

/// Index of a pool in [`Config::pools`]. Only valid with the configuration it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub usize);

/// An address we accept on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique name for logs and metrics; the bind text unless given.
    pub name: String,
    /// Where it accepts.
    pub bind: Bind,
    /// Open connections at once (default 20000); one over it is closed at once.
    pub max_connections: usize,
    /// The same for one client; `None` is no limit of its own.
    pub max_connections_per_client: Option<u32>,
    /// TLS, if it is spoken here; then nothing else is.
    pub tls: Option<Tls>,
    /// Connections begin with a header of the PROXY protocol (default false).
    pub proxy_protocol: bool,
}

/// A rule from a request to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Hosts this route answers for; `None` means every host.
    pub host: Option<HostRule>,
    /// Paths this route answers for.
    pub path: PathRule,
    /// Whether it takes only what came over TLS, or only what did not; `None` takes both.
    pub scheme: Option<Scheme>,
    /// What becomes of its requests.
    pub action: Action,
    /// Which MCP transport clients speak here. Without meaning when the pool is plain HTTP.
    pub transport: Transport,
    /// Which values of the `Origin` header are let in.
    pub origins: Origins,
    /// How many requests it takes; `None` is any number.
    pub rate: Option<RouteRate>,
    /// Which of its requests are logged (default all).
    pub log: Share,
    /// Changes to the heads of requests on their way to a server.
    pub request: Option<Arc<HeaderEdits>>,
    /// Changes to the heads of responses, whoever gives them and whoever asks.
    pub response: Option<Arc<HeaderEdits>>,
    /// What becomes of the path on its way to a server.
    pub rewrite: Option<Rewrite>,
    /// CORS in the servers' place.
    pub cors: Option<Arc<Cors>>,
}

impl Route {
    /// Where its requests go, unless it answers them itself.
    pub fn pool(&self) -> Option<PoolId> {
        match self.action {
            Action::Pool(pool) => Some(pool),
            Action::Return(_) | Action::Redirect(_) => None,
        }
    }
}

/// Which MCP transport clients speak on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Streamable HTTP of 2025-03-26 and later, and WebSocket.
    Streamable,
    /// HTTP+SSE of 2024-11-05: a GET that stays open, and a second path for messages.
    Sse,
}

/// Endpoints that can serve one another's calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// What the endpoints speak.
    pub kind: PoolKind,
    /// How an endpoint is chosen when no session decides (default least load).
    pub balance: Balance,
    /// What a session hears when its endpoint is lost.
    pub on_endpoint_loss: OnEndpointLoss,
    /// Which eras of MCP the endpoints speak. `Auto` on a plain HTTP pool, where it means nothing.
    pub eras: Eras,
    /// The endpoints, in file order: at least one that is not a backup, names and addresses unique.
    pub endpoints: Vec<Endpoint>,
    /// How often DNS names are looked up again (default 30s).
    pub resolve_every: Duration,
    /// Where names are looked up; empty: the system's own way. At most 8.
    pub name_servers: Vec<SocketAddr>,
    /// How long endpoints keep their addresses when their name cannot be looked up any more; `None` is
    /// for ever (default).
    pub resolve_hold: Option<Duration>,
    /// How the endpoints are watched.
    pub health: Health,
    /// When endpoints are ejected; `None` is never.
    pub ejection: Option<Ejection>,
    /// When their breakers open; `None` is never.
    pub breaker: Option<Breaker>,
    /// When calls are tried again; `None`: only what never reached a server.
    pub retries: Option<Retries>,
    /// How long an endpoint that comes back takes to its full weight; zero is at once (default 10s).
    pub slow_start: Duration,
    /// How long the steps of an exchange may take.
    pub timeouts: Timeouts,
    /// Name of the cookie that keeps a browser on its endpoint. Only on plain HTTP pools.
    pub affinity_cookie: Option<String>,
    /// How long an unused connection to an endpoint is kept (default 4s, below the 5s after which
    /// many servers close it from their side).
    pub keep_alive: Duration,
    /// What becomes of calls for which no endpoint has a place.
    pub queue: Queue,
    /// What holds for its tools, in file order. Empty on a plain HTTP pool.
    pub tools: Vec<ToolLimit>,
    /// Which headers tell the endpoints who the client is (default `X-Forwarded-*`).
    pub client_headers: ClientHeaders,
    /// Connections to the endpoints begin with a header of the PROXY protocol (default: none).
    pub send_proxy: Option<SendProxy>,
}

/// What the endpoints of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// MCP, over any of its HTTP transports.
    Mcp,
    /// Plain HTTP.
    Http,
}

/// How an endpoint is chosen when no session decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    LeastLoad,
    /// The one of two drawn at random whose answers take less time for its load.
    PeakEwma,
    /// One drawn at random, by weight.
    Random,
    /// In turn, by weight.
    RoundRobin,
    /// By a hash, so that the same client meets the same endpoint.
    ConsistentHash(HashOn),
}

/// What consistent hashing looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address, without its port.
    ClientIp,
    /// The value of this request header.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this parameter in the query, as it was sent.
    Query(String),
    /// The path, as it was sent.
    Path,
}

/// What a session hears when its endpoint is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnEndpointLoss {
    /// Its next request gets 404, upon which a client begins a new session.
    NotFound,
    /// The session is begun again on another endpoint in the client's name, and goes on.
    Reinitialize,
}

/// Which eras of MCP the endpoints of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eras {
    /// Learned by the health check.
    Auto,
    /// Revisions with `initialize` and sessions, up to 2025-11-25.
    Session,
    /// Revisions without sessions, from 2026-07-28.
    Stateless,
    /// Both.
    Both,
}

/// One server address in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name within the pool, 1 to 64 visible characters; the address text unless given. Sessions
    /// are bound to it, so the address may change under it.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// What its name stands for (default one server). The port of a service is 0.
    pub resolve: Resolve,
    /// The name that it was found under, if it is one of several that this stands for. Never as written.
    pub found_by: Option<HostPort>,
    /// Its share against the other endpoints, 1 to 256 (default 1).
    pub weight: u16,
    /// Used only when no endpoint that is not a backup can be.
    pub backup: bool,
    /// What the operator wants of it at the start (default up).
    pub state: State,
    /// Speaks HTTP/2: without TLS as known beforehand (RFC 9113, section 3.3), with it by agreement.
    pub http2: bool,
    /// TLS, if it is spoken there.
    pub tls: Option<EndpointTls>,
    /// Calls in flight at once; `None` is any number.
    pub max_in_flight: Option<u32>,
}

/// What the operator wants of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It takes what comes.
    Up,
    /// It keeps the sessions it has and gets no new ones.
    Drain,
    /// It gets nothing.
    Maint,
}

/// How long the steps of an exchange with an endpoint may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands (default 1s).
    pub connect: Duration,
    /// From the end of the request to the head of the response (default 5m).
    pub header: Duration,
    /// Silence on an event stream or in a response body; `None` means no limit (default off).
    pub stream_idle: Option<Duration>,
    /// The whole exchange, streams included; `None` means no limit (default off).
    pub total: Option<Duration>,
    /// How long one write to a client or an endpoint may stand still (default 30s).
    pub write: Duration,
}

/// Where session keys come from and how many sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// Key files, absolute; the first seals, all open. Empty: one key is made and kept in the state
    /// directory. At most 16.
    pub key_files: Vec<PathBuf>,
    /// A session unused for this long is forgotten; an open stream counts as use (default 1h).
    pub idle_ttl: Duration,
    /// Sessions in the table at once (default 1000000).
    pub max: usize,
    /// Sessions of one pool in the table at once, never above `max` (default: the same as `max`).
    pub max_per_pool: usize,
    /// Sessions that one client has opened in this process and not ended; `None` is any number.
    pub max_per_client: Option<u32>,
    /// The same of one client that has proved who it is, from all its addresses.
    pub max_per_principal: Option<u32>,
    /// Bytes for what it takes to begin lost sessions again, over all pools (default 64MiB).
    pub recovery_memory: usize,
    /// Sessions that have a series each in `mcp_context_size_bytes`; 0 for none (default 0).
    pub context_sizes: usize,
}

/// What one client may send at most, and how slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body in bytes (default 4MiB).
    pub body: usize,
    /// Longest request head in bytes (default 32KiB).
    pub header_block: usize,
    /// Most header fields in a request (default 100).
    pub headers: usize,
    /// Until a request head that was begun is complete, or the next piece of a body is there (default
    /// 10s).
    pub head_timeout: Duration,
    /// Until the next request on a connection that was kept alive (default 75s).
    pub idle_timeout: Duration,
    /// How long one write to a client may stand still (default 30s).
    pub write_timeout: Duration,
    /// Most bytes of a body that are held to understand a call, never above `body` (default 64KiB).
    pub peek: usize,
}
