//! What was learned about the server behind an endpoint.
//!
//! Nobody configures these: replies and checks tell, and what was learned may be wrong once the
//! server was replaced. So a fact is three-valued, and an unknown one never rules an endpoint out.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Something about a server that only talking to it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Not seen yet.
    Unknown,
    /// Seen.
    Yes,
    /// Seen to be otherwise.
    No,
}

/// A [`Fact`] that any thread may learn.
#[derive(Default)]
pub struct FactCell(AtomicU8);

impl FactCell {
    /// What is known.
    pub fn get(&self) -> Fact {
        match self.0.load(Relaxed) {
            1 => Fact::Yes,
            2 => Fact::No,
            _ => Fact::Unknown,
        }
    }

    /// Learns it. The latest observation counts.
    pub fn learn(&self, yes: bool) {
        let value = if yes { 1 } else { 2 };
        // Learned anew with every reply, and nearly always the same: do not dirty a line that all
        // threads read.
        if self.0.load(Relaxed) != value {
            self.0.store(value, Relaxed);
        }
    }

    /// Unlearns it.
    pub fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

impl fmt::Debug for FactCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What was learned about the server behind an address. Forgotten when the endpoint goes down or
/// gets another address, because what comes back may be another version.
#[derive(Debug, Default)]
pub struct Facts {
    /// Does its answer to `initialize` carry a session id? If not, any endpoint of the pool may
    /// serve the next call.
    pub issues_sessions: FactCell,
    /// Does it speak a revision of the session era?
    pub speaks_session_era: FactCell,
    /// Does it speak a revision of the stateless era?
    pub speaks_stateless_era: FactCell,
}

impl Facts {
    /// Unlearns everything.
    pub fn forget(&self) {
        self.issues_sessions.forget();
        self.speaks_session_era.forget();
        self.speaks_stateless_era.forget();
    }
}
