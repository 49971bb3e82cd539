//! The revisions of the protocol and the two eras they fall into.
//!
//! A revision is named by its date. What matters for forwarding is less the date than the era: in
//! the session era a client begins with `initialize` and may own a session on one server; in the
//! stateless era every request carries all that a server needs.

/// The two ways in which the protocol has carried a conversation over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// Revisions up to 2025-11-25: `initialize` first, then perhaps a session.
    Session,
    /// Revisions from 2026-07-28 on: each request stands alone.
    Stateless,
}

/// A published revision of the protocol, in order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// HTTP with a separate event stream.
    V2024_11_05,
    /// Streamable HTTP, and the only revision with batches on it.
    V2025_03_26,
    /// Adds the `MCP-Protocol-Version` header.
    V2025_06_18,
    /// Adds polling of streams and experimental tasks.
    V2025_11_25,
    /// The first stateless revision.
    V2026_07_28,
}

impl Revision {
    /// Every known revision, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// What a server must assume when a session-era request names no revision.
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The revision with exactly this name, as it stands in a header or in a body.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|revision| revision.as_str().as_bytes() == name)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era whose rules the revision follows.
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Session
            }
            Self::V2026_07_28 => Era::Stateless,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_revision_parses_from_its_own_name_and_order_is_by_date() {
        for revision in Revision::ALL {
            assert_eq!(
                Revision::parse(revision.as_str().as_bytes()),
                Some(revision)
            );
        }
        assert!(
            Revision::ALL
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[0].as_str() < pair[1].as_str())
        );
    }

    #[test]
    fn names_that_are_not_exact_are_unknown() {
        for name in [
            "",
            "2025-06-18 ",
            " 2025-06-18",
            "2025-06-1",
            "2027-01-01",
            "DRAFT-2026-v1",
        ] {
            assert_eq!(Revision::parse(name.as_bytes()), None, "{name:?}");
        }
    }

    #[test]
    fn only_the_revisions_with_initialize_have_sessions() {
        assert_eq!(Revision::V2025_11_25.era(), Era::Session);
        assert_eq!(Revision::V2026_07_28.era(), Era::Stateless);
    }
}
