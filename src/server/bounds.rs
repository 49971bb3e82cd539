//! What a connection may take, in bytes and in time.

use std::time::Duration;

/// Bounds on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A whole head must arrive within this time from its first byte; the first head of a
    /// connection from the accept.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Size of a head, in bytes.
    pub head_max: usize,
    /// Header fields in a head.
    pub fields_max: usize,
    /// A write must make progress within this time.
    pub write_timeout: Duration,
}
