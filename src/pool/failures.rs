//! How often calls to an endpoint have failed, by how they did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a call failed by its endpoint's own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection could be made.
    Connect,
    /// The connection was lost before the answer.
    Closed,
    /// The answer was none of HTTP.
    Malformed,
    /// There was no answer, or no end of it, in time.
    Timeout,
    /// The status says that the server failed.
    Status,
    /// The answer was an internal error of JSON-RPC.
    Error,
    /// A reply stream was lost before its answer.
    Stream,
}

impl FailureKind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Closed,
        Self::Malformed,
        Self::Timeout,
        Self::Status,
        Self::Error,
        Self::Stream,
    ];

    /// The kind in a word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Error => "error",
            Self::Stream => "stream",
        }
    }
}

/// The failures of one endpoint since it is known. Rare enough that all threads count in one place.
#[derive(Debug, Default)]
pub struct Failures([AtomicU64; FailureKind::COUNT]);

impl Failures {
    /// Counts one.
    pub fn count(&self, kind: FailureKind) {
        self.0[kind as usize].fetch_add(1, Relaxed);
    }

    /// How many there were of a kind.
    pub fn of(&self, kind: FailureKind) -> u64 {
        self.0[kind as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        let failures = Failures::default();
        for (at, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind:?}");
            (0..=at).for_each(|_| failures.count(kind));
        }
        for (at, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(failures.of(kind), at as u64 + 1, "{kind:?}");
        }
    }
}
