//! How event streams are carried, as the program sees it.

use std::time::Duration;

/// How event streams are kept alive and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// A comment is sent on a stream that was silent for this long (default 15s).
    pub keep_alive: Duration,
    /// How long a client's standing stream is held open, and asked for again, when its server is
    /// lost (default 60s). `None`: it ends with the server's.
    pub reconnect: Option<Duration>,
    /// Longest single event in bytes (default 16MiB).
    pub max_event: usize,
    /// GET streams of one session at once (default 16).
    pub max_per_session: u32,
    /// Standing streams of one client at once; `None` is any number.
    pub max_per_client: Option<u32>,
    /// The same of one client that has proved who it is, from all its addresses.
    pub max_per_principal: Option<u32>,
    /// Resumability lent to servers that give no event ids (default off).
    pub resume: Option<Resume>,
}

/// How much is kept for clients that come back to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Events of one stream (default 256).
    pub events: usize,
    /// Bytes of the events of one stream (default 1MiB).
    pub bytes: usize,
    /// How long a stream waits for its client, and is kept when it has ended (default 60s).
    pub keep: Duration,
    /// Bytes for all streams (default 64MiB).
    pub memory: usize,
}
