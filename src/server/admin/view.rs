//! What the API shows, as the JSON that it is; `docs/admin-api.md` says the same in prose.
//!
//! Whoever asks reads it back into the same types. Fields may be added in later versions, and are to be
//! passed over by whoever does not know them; none changes its meaning.

use serde::{Deserialize, Serialize};

pub use super::figures::{Client, Ending, History, Reload, Reloads, Tool, Tools};
pub use super::refused::{Errors, Shown};

/// The process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// The version of Tidegate.
    pub version: String,
    /// The process's id.
    pub pid: u32,
    /// How long it has been running, in whole seconds.
    pub uptime_seconds: u64,
    /// `running`, `draining`, `closing` or `ending`.
    pub phase: String,
    /// What `/ready` would answer: `ready`, or why not.
    pub ready: String,
    /// What may be done over the connection that asks: `read` or `operate`.
    pub level: String,
}

/// How much there is of what, over all pools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Totals {
    /// Sessions in the table.
    pub sessions: usize,
    /// Standing streams: GET, `subscriptions/listen`, HTTP+SSE, WebSocket.
    pub streams: usize,
    /// Calls in flight, without the streams.
    pub calls: usize,
    /// Requests that were answered since the start, whatever they were.
    #[serde(default)]
    pub requests: u64,
}

/// Everything that `tidegate status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub process: Info,
    /// How much there is of what.
    pub totals: Totals,
    /// The pools, in the order of the configuration.
    pub pools: Vec<Pool>,
}

/// All pools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pools {
    /// In the order of the configuration.
    pub pools: Vec<Pool>,
}

/// One pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `mcp` or `http`.
    pub kind: String,
    /// How it balances, in the word of the configuration.
    pub balance: String,
    /// Can any endpoint take new work?
    pub usable: bool,
    /// Sessions on its endpoints.
    pub sessions: usize,
    /// Calls and streams in flight.
    pub in_flight: u64,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Host and port as configured.
    pub address: String,
    /// The address that the host has at the moment; none while it does not resolve.
    pub resolved: Option<String>,
    /// Is it in the configuration? One that is not is drained, and then forgotten.
    pub configured: bool,
    /// Is it used only while no other can be?
    pub backup: bool,
    /// All of what follows in one word: `maint`, `drain`, `down`, `unresolved`, `open` (its breaker),
    /// `ejected`, `half-open`, `unchecked`, `unwell` or `up`, the first of them that is so.
    pub state: String,
    /// What the checks say.
    pub health: Health,
    /// What the operator wants.
    pub admin: Admin,
    /// Its share of the traffic.
    pub weight: u32,
    /// What the configuration says that should be.
    pub weight_configured: Option<u32>,
    /// Calls it may have in flight; none for any number.
    pub max_in_flight: Option<u32>,
    /// What the configuration says that should be.
    pub max_in_flight_configured: Option<u32>,
    /// Live sessions.
    pub sessions: u32,
    /// Calls and streams in flight.
    pub in_flight: u32,
    /// What half of the calls of about the last minute took at most to the first byte of the answer;
    /// none if there were none.
    #[serde(default)]
    pub first_byte_p50_seconds: Option<f64>,
    /// The same for 99 of 100 calls.
    #[serde(default)]
    pub first_byte_p99_seconds: Option<f64>,
    /// Is it ejected for failing calls?
    pub ejected: bool,
    /// How often it was.
    pub ejections: u64,
    /// Failures in a row, as far as is known.
    pub failures_in_row: u32,
    /// Calls that have failed because of it, as far as this process has sent them.
    #[serde(default)]
    pub failures: u64,
    /// Its breaker.
    pub breaker: Breaker,
    /// What was learned about its server.
    pub facts: Facts,
}

/// What the checks of an endpoint say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `up`, `unwell`, `down` or `unchecked`.
    pub state: String,
    /// What was wrong at the last check, if it failed.
    pub reason: Option<String>,
    /// How long ago it became so, in whole seconds; none if it never changed.
    pub for_seconds: Option<u64>,
}

/// What the operator wants of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admin {
    /// `up`, `drain` or `maint`.
    pub state: String,
    /// `operator` if it was set through the API; `config` if the configuration says so, or has it no
    /// more.
    pub set_by: String,
    /// Whole seconds until it is out, where it drains with a limit.
    pub out_in_seconds: Option<u64>,
}

/// The breaker of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Breaker {
    /// `closed`, `half-open` or `open`.
    pub state: String,
    /// How often it has opened.
    pub openings: u64,
}

/// What was learned about a server; none of what is not known yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// Does it issue session ids?
    pub issues_sessions: Option<bool>,
    /// Does it speak the session era?
    pub session_era: Option<bool>,
    /// Does it speak the stateless era?
    pub stateless_era: Option<bool>,
}

/// A page of sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sessions {
    /// Sessions in the table, whatever was asked for.
    pub total: usize,
    /// Those of this page, in no meaningful order.
    pub sessions: Vec<Session>,
    /// What to ask with as `after` for the next page; none if there is no other.
    pub next: Option<String>,
    /// Why sessions ended so far.
    #[serde(default)]
    pub ended: Vec<Ending>,
}

/// One session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// A hash of its id. The first eight digits are what the access log calls `session`.
    pub id: String,
    /// The name of its pool.
    pub pool: String,
    /// The name of its endpoint.
    pub endpoint: String,
    /// The protocol's revision; empty if it is not known.
    pub revision: String,
    /// `session`: the stateless era has none.
    #[serde(default)]
    pub era: String,
    /// What its client calls itself, where that is known.
    #[serde(default)]
    pub client: Option<Client>,
    /// Since this process knows it, in whole seconds.
    pub age_seconds: u64,
    /// Since its last request or the end of its last stream, in whole seconds; 0 while one is open.
    pub idle_seconds: u64,
    /// Open streams.
    pub open_streams: u32,
}

/// Standing streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Streams {
    /// Streams that end only when told to.
    pub streams: usize,
    /// Calls in flight.
    pub calls: usize,
    /// Some of what is open, as many as were asked for; answers to calls that go on as streams are
    /// among them.
    #[serde(default)]
    pub open: Vec<Stream>,
    /// Why streams ended so far.
    #[serde(default)]
    pub ended: Vec<Ending>,
}

/// Something that is open and lasts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// The name of its pool.
    pub pool: String,
    /// The name of the endpoint where it is open now.
    pub endpoint: String,
    /// `get`, `listen`, `sse`, `post` or `websocket`; `http` for an event stream on a plain route.
    pub kind: String,
    /// How long ago its request came.
    pub age_seconds: u64,
    /// What the access log calls `session`; none where there is none.
    pub session: Option<String>,
}

/// The configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The file as it was understood, with its defaults and without secrets.
    pub config: serde_json::Value,
}

/// What came of an operation at an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// The endpoint's pool.
    pub pool: String,
    /// The endpoint as it is now.
    pub endpoint: Endpoint,
    /// What there is to know, such as that it will not outlive the process.
    pub warning: Option<String>,
}

/// The configuration was read again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Listeners that were opened.
    pub listeners_opened: usize,
    /// Listeners that were closed.
    pub listeners_closed: usize,
    /// Pools that are new or changed.
    pub pools_changed: usize,
    /// Endpoints that are no longer configured, and are drained.
    pub endpoints_leaving: usize,
    /// Keys whose changes take effect when the process is replaced.
    pub kept: Vec<String>,
    /// What is odd about the configuration.
    pub warnings: Vec<String>,
}

impl Reloaded {
    pub(super) fn of(reloaded: &crate::server::reload::Reloaded) -> Self {
        Self {
            took_ms: u64::try_from(reloaded.took.as_millis()).unwrap_or(u64::MAX),
            listeners_opened: reloaded.opened,
            listeners_closed: reloaded.closed,
            pools_changed: reloaded.pools,
            endpoints_leaving: reloaded.leaving,
            kept: reloaded.kept.iter().map(|key| (*key).to_owned()).collect(),
            warnings: reloaded.warnings.clone(),
        }
    }
}

/// Another process serves in the place of this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its id.
    pub process: u32,
}

/// The files of logs are open anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reopened {
    /// The id of the process whose they are.
    pub process: u32,
}

/// A process has begun to leave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leaving {
    /// Its id.
    pub process: u32,
}

/// A session was ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// Its hashed id.
    pub ended: String,
}

/// Many sessions were ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cleared {
    /// How many.
    pub ended: usize,
}

/// Why there is no such answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The error.
    pub error: Problem,
}

/// An error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// A word for programs; `docs/admin-api.md` lists them.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}
