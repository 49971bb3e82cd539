//! What the API shows of the past: figures, ends and reloads.

use serde::{Deserialize, Serialize};

use super::view::Reloaded;

/// What a client calls itself in its `initialize`. It may say what it likes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// Its name, at most 64 characters.
    pub name: String,
    /// Its version, at most 32 characters; empty if it has told none.
    pub version: String,
}

/// How often something ended for a reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// The kind of a stream; none for sessions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Why, in the word that the metrics have.
    pub reason: String,
    /// How often since the start.
    pub count: u64,
}

/// The last five minutes, second by second, the oldest first. All lists have one length.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// When, in seconds since the epoch.
    pub time: Vec<u64>,
    /// Requests answered.
    pub requests_per_second: Vec<f64>,
    /// Those of them that were answered with a status from 500 on.
    pub failed_per_second: Vec<f64>,
    /// What half of the requests of the ten seconds before kept within; null if there were none.
    pub p50_seconds: Vec<Option<f64>>,
    /// What 99 in 100 of them kept within.
    pub p99_seconds: Vec<Option<f64>>,
}

/// The tools that are called most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    /// Tools that were ever called and are told apart.
    pub total: usize,
    /// Those called most in the last minute first, then those called most since the start.
    pub tools: Vec<Tool>,
}

/// One tool, over all endpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tool {
    /// Its name; `other` for all that no catalog names.
    pub name: String,
    /// Calls since the start.
    pub calls: u64,
    /// Those of them that came to nothing.
    pub errors: u64,
    /// Over the last minute.
    pub calls_per_second: f64,
    /// What half of the calls of the last minute kept within; null if there were none.
    pub p50_seconds: Option<f64>,
    /// What 99 in 100 of them kept within.
    pub p99_seconds: Option<f64>,
}

/// The last reloads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloads {
    /// At most 20, the newest first.
    pub reloads: Vec<Reload>,
}

/// One reload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reload {
    /// When it was over (RFC 3339).
    pub time: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// `ok`, or `failed`: everything goes on as it was.
    pub result: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What it has done.
    pub done: Option<Reloaded>,
}
