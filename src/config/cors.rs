//! CORS: which pages a route answers, and what it tells browsers (the Fetch standard, section 3.2).

use std::sync::Arc;

use super::edge::HeaderEdits;
use super::model::Origins;

/// CORS as a route does it in its servers' place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Pages that are let in: a list, or any.
    pub origins: Origins,
    /// Field names that any such page may send, as they stand in `Access-Control-Allow-Headers`.
    pub headers: String,
    /// Whatever else it asks for is allowed as well.
    pub any_header: bool,
    /// It may send `Mcp-Param-*`.
    pub mcp: bool,
    /// Changes to the answers to such a page.
    pub response: Arc<HeaderEdits>,
    /// The fields of an answer to a preflight, but for the names of fields.
    pub preflight: Arc<HeaderEdits>,
}

impl Cors {
    /// May a page of this origin read the answers?
    pub fn lets_in(&self, origin: &[u8]) -> bool {
        self.origins.has(origin)
    }
}
