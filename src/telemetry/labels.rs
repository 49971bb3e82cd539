//! The values a label may take.
//!
//! Every distinct combination of label values is a time series that lives, here and in Prometheus,
//! for as long as the process does. So a label is either a closed set, written out in this file as
//! an enum, or it is drawn from something bounded: endpoint and pool names come from the
//! configuration, and tool names from the catalogs that servers advertise ([`ToolNames`]). What a
//! client merely claims is never a label value.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::metrics;

/// Defines an enum that is the closed set of values of one label.
macro_rules! closed_set {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label value, as it stands in the exposition and in the access log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

mod acme;
mod doors;
mod reload;
mod traces;

pub use acme::AcmeResult;
pub use doors::{HandshakeFailure, HeaderFailure};
pub use reload::ReloadResult;
pub use traces::SpanLoss;

closed_set! {
    /// How a tool call ended, in the two words that dashboards know.
    pub enum ToolOutcome {
        /// The server answered with a result that is not marked as a failure.
        Success = "success",
        /// A JSON-RPC error, a result with `isError`, or no answer at all.
        Error = "error",
    }
}

closed_set! {
    /// Why a session left the table of live sessions.
    pub enum SessionEnd {
        /// The client sent DELETE.
        Deleted = "deleted",
        /// No activity for the idle lifetime; an open stream counts as activity.
        Idle = "idle",
        /// Its endpoint is gone and the session could not be moved.
        Lost = "lost",
        /// The server said that it no longer knows the session.
        Forgotten = "forgotten",
        /// Its endpoint was drained to its deadline.
        Drained = "drained",
        /// An operator ended it.
        Operator = "operator",
        /// The connection closed that was it (WebSocket, HTTP+SSE), or on which it was to be told.
        Closed = "closed",
    }
}

closed_set! {
    /// What carries a stream.
    pub enum StreamKind {
        /// The event stream that answers a POST.
        Post = "post",
        /// The session era's standalone GET stream.
        Get = "get",
        /// The stateless era's `subscriptions/listen`.
        Listen = "listen",
        /// The GET stream of HTTP+SSE (2024-11-05).
        Sse = "sse",
        /// A WebSocket.
        Websocket = "websocket",
    }
}

closed_set! {
    /// Why a stream ended.
    pub enum StreamEnd {
        /// The final response was delivered, or the server ended the stream as the protocol allows.
        Complete = "complete",
        /// The client went away or cancelled.
        ClientClosed = "client_closed",
        /// The connection to the server broke, or the server died.
        UpstreamLost = "upstream_lost",
        /// The server closed cleanly, but before the stream was complete.
        UpstreamClosed = "upstream_closed",
        /// The endpoint or this process is draining.
        Drain = "drain",
        /// A configured limit of time passed.
        Timeout = "timeout",
        /// The client read too slowly for the bounded buffer.
        SlowReader = "slow_reader",
        /// A configured limit other than time was passed, such as the size of an event.
        Limit = "limit",
        /// Nobody said: the task that carried the stream was dropped, as in a forced exit.
        Aborted = "aborted",
    }
}

closed_set! {
    /// Why an id of a session, as sent by a client, was treated as unknown.
    pub enum RefusedId {
        /// Not of our form: length, alphabet, version.
        Malformed = "malformed",
        /// Sealed under a key that is not, or no longer, configured.
        UnknownKey = "unknown_key",
        /// Of our form, but it does not open: altered or invented.
        Forged = "forged",
        /// Names a pool that the configuration no longer has.
        UnknownPool = "unknown_pool",
        /// Names an endpoint that the pool no longer has.
        UnknownEndpoint = "unknown_endpoint",
        /// Presented by another principal than the one it was minted for.
        Principal = "principal",
        /// The session ended before: deleted, or lost with its endpoint.
        Ended = "ended",
    }
}

closed_set! {
    /// The limit that refused or cut something.
    pub enum Limit {
        /// Connections per listener.
        Connections = "connections",
        /// Connections of one client to a listener.
        ConnectionsPerClient = "connections_per_client",
        /// Requests of one client per unit of time.
        Rate = "rate",
        /// Requests of all clients per unit of time.
        RateTotal = "rate_total",
        /// Requests of one principal per unit of time.
        RatePrincipal = "rate_principal",
        /// Calls of a tool per unit of time.
        ToolRate = "tool_rate",
        /// Calls of a tool at once.
        ToolConcurrency = "tool_concurrency",
        /// Tools that are not called, and WebSockets to pools that have some.
        ToolDenied = "tool_denied",
        /// Clients whose use is remembered: one was forgotten before its time.
        RateClients = "rate_clients",
        /// Calls in flight on an endpoint, with no queue to wait in.
        InFlight = "in_flight",
        /// The queue before a pool was full.
        QueueFull = "queue_full",
        /// The wait in the queue was over before a place came free.
        QueueTimeout = "queue_timeout",
        /// Size of a request's head.
        HeadBytes = "head_bytes",
        /// Time of a request's head.
        HeadTime = "head_time",
        /// Size of a body.
        BodyBytes = "body_bytes",
        /// Time of a body.
        BodyTime = "body_time",
        /// Time of a write that made no progress.
        WriteTime = "write_time",
        /// What a message may hold: depth, members, batch, id and method.
        Message = "message",
        /// What an HTTP/2 connection may ask for.
        Http2 = "http2",
        /// Size of one event of a stream.
        EventBytes = "event_bytes",
        /// Live sessions of the process.
        Sessions = "sessions",
        /// Live sessions of one client's address.
        SessionsPerClient = "sessions_per_client",
        /// Live sessions of one principal.
        SessionsPerPrincipal = "sessions_per_principal",
        /// Live sessions of one pool.
        SessionsPerPool = "sessions_per_pool",
        /// Open streams of one session.
        StreamsPerSession = "streams_per_session",
        /// Open streams of one client's address.
        StreamsPerClient = "streams_per_client",
        /// Open streams of one principal.
        StreamsPerPrincipal = "streams_per_principal",
        /// Memory for what it takes to begin lost sessions again.
        Origins = "origins",
        /// A client came back for events of which some were no longer kept.
        ResumeEvents = "resume_events",
        /// Memory for the events of streams that clients may come back to.
        ResumeMemory = "resume_memory",
        /// Time for which a stream waits for its client to come back.
        ResumeTime = "resume_time",
        /// Background work waiting to be done, such as deleting sessions that no one uses.
        Chores = "chores",
        /// Listeners to the events of the admin API.
        EventListeners = "event_listeners",
        /// A listener to the events took nothing, and was let go.
        SlowListeners = "slow_listeners",
        /// Endpoints of a pool ejected at once.
        Ejections = "ejections",
        /// Ports of this host towards an endpoint.
        LocalPorts = "local_ports",
        /// Open files of the process, or of the host.
        OpenFiles = "open_files",
        /// Memory of this host for sockets.
        SocketMemory = "socket_memory",
    }
}

closed_set! {
    /// What a client that came back to a stream has found.
    pub enum Resumed {
        /// The stream, open.
        Live = "live",
        /// The rest of a stream that has ended.
        Ended = "ended",
        /// Nothing.
        Gone = "nothing",
    }
}

closed_set! {
    /// What came of beginning a lost session again.
    pub enum RecoveryOutcome {
        /// It goes on at another endpoint.
        Success = "success",
        /// No endpoint took it, or the client has to begin anew.
        Failed = "failed",
    }
}

closed_set! {
    /// What came of wanting to try a call again.
    pub enum RetryOutcome {
        /// The second attempt was answered.
        Success = "success",
        /// The second attempt failed as well.
        Failed = "failed",
        /// The retry budget was used up, so no attempt was made.
        OverBudget = "over_budget",
    }
}

/// The most tool names that can ever become label values in the life of a [`ToolNames`].
pub const TOOL_NAMES_MAX: usize = 500;
/// The longest tool name, in bytes, that can become a label value.
pub const TOOL_NAME_BYTES_MAX: usize = 128;

/// The value of a `tool_name` label: empty, a name from a catalog, or `other`.
///
/// It can only be made by [`ToolNames`], which is what keeps the label bounded. Copying it is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ToolLabel(&'static str);

impl ToolLabel {
    /// The request is not a tool call.
    pub const NONE: Self = Self("");
    /// A tool call whose name is in no catalog, or came after the table was full.
    pub const OTHER: Self = Self("other");

    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// The tool names that may be label values: those that servers advertised, up to a cap.
///
/// Names are only ever added. A series once exposed stays in Prometheus anyway, so making room by
/// forgetting names would unbound the very thing this type bounds. For the same reason the text of
/// a name is leaked when it is learned: at most [`TOOL_NAMES_MAX`] times [`TOOL_NAME_BYTES_MAX`],
/// 64 kB, per `ToolNames`, of which a process needs one.
#[derive(Debug, Default)]
pub struct ToolNames {
    /// Read on every tool call without a lock; replaced whole by `learn`.
    known: ArcSwap<HashMap<&'static str, ToolLabel>>,
    /// Serialises writers, and remembers which pools were already warned about.
    warned: Mutex<HashSet<String>>,
}

impl ToolNames {
    /// An empty table: until a catalog is learned every name is `other`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the tools that the servers of `pool` advertise, and returns how many were refused.
    ///
    /// A name is refused when it is empty, longer than [`TOOL_NAME_BYTES_MAX`], holds a control
    /// character, or when the table is full. The first refusal of a pool is logged. Meant for the
    /// answer to `tools/list`, as often as it is seen: when nothing is new, nothing is locked.
    pub fn learn<'a>(&self, pool: &str, names: impl IntoIterator<Item = &'a str>) -> usize {
        let mut refused = 0;
        let mut fresh = Vec::new();
        {
            let known = self.known.load();
            for name in names {
                if known.contains_key(name) {
                    continue;
                }
                // `fresh` may hold a name twice; `add` is where that no longer matters.
                if is_label(name) && fresh.len() < TOOL_NAMES_MAX {
                    fresh.push(name);
                } else {
                    refused += 1;
                }
            }
        }
        if !fresh.is_empty() {
            refused += self.add(&fresh);
        }
        if refused > 0 {
            self.warn_once(pool, refused);
        }
        refused
    }

    /// The label for a tool name as a client sent it.
    ///
    /// Counts every `other` it hands out in `tidegate_label_overflow_total`.
    pub fn label(&self, name: &str) -> ToolLabel {
        if name.len() <= TOOL_NAME_BYTES_MAX
            && let Some(label) = self.known.load().get(name)
        {
            return *label;
        }
        metrics::label_overflowed();
        ToolLabel::OTHER
    }

    /// How many names are known; at most [`TOOL_NAMES_MAX`].
    pub fn len(&self) -> usize {
        self.known.load().len()
    }

    /// Whether no catalog was learned yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds names under the writers' lock; returns how many found no room.
    fn add(&self, names: &[&str]) -> usize {
        let _writer = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::clone(&self.known.load());
        let mut refused = 0;
        for name in names {
            if known.contains_key(name) {
                continue;
            }
            if known.len() >= TOOL_NAMES_MAX {
                refused += 1;
                continue;
            }
            let name: &'static str = Box::leak(Box::from(*name));
            known.insert(name, ToolLabel(name));
        }
        self.known.store(Arc::new(known));
        refused
    }

    fn warn_once(&self, pool: &str, refused: usize) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        // Pools come from the configuration, but reloads may rename them for ever.
        if warned.len() >= TOOL_NAMES_MAX || !warned.insert(pool.to_owned()) {
            return;
        }
        log::warn!(
            "pool {pool}: {refused} tool names are counted as \"other\" in metrics (at most \
             {TOOL_NAMES_MAX} names of {TOOL_NAME_BYTES_MAX} bytes are told apart)"
        );
    }
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && name.len() <= TOOL_NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// The value of a `status` label.
///
/// The status comes from a server, which may send any three digits, so it is brought back to the
/// registered codes (and 499, "the client closed", as nginx logs it). RFC 9110 section 15 says that
/// an unknown code means the same as the x00 of its class.
pub(crate) fn status_label(status: u16) -> u16 {
    match status {
        100..=103
        | 200..=208
        | 226
        | 300..=305
        | 307
        | 308
        | 400..=418
        | 421..=426
        | 428
        | 429
        | 431
        | 451
        | 499
        | 500..=508
        | 510
        | 511 => status,
        100..=199 => 100,
        200..=299 => 200,
        300..=399 => 300,
        400..=499 => 400,
        // Outside of any class: the answer was not HTTP, which is the server's fault.
        _ => 500,
    }
}

#[cfg(test)]
mod tests;
