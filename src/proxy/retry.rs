//! May this call be sent again, and where?
//!
//! The answer depends on what the call does and on how far the failed attempt got. A connection
//! that was never made carried nothing. A request that was sent may have been carried out, even
//! where no answer came, so only calls that change nothing go out twice; a tool call never does.

use crate::mcp::Retry;

/// How far a failed attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No connection; no byte was sent.
    Connect,
    /// The request was sent, in part at least, and nothing came back.
    Sent {
        /// On a connection that had served before: servers close idle ones at any time.
        reused: bool,
    },
    /// The failure is final: an answer began, time ran out, or the client is the cause.
    Answered,
}

/// Attempts in all, the first included.
const ATTEMPTS_MAX: u32 = 3;

/// Whether to try again. `whole` says that the body is still here to be sent again, `bound` that
/// only one endpoint may serve the call.
pub fn may(retry: Retry, stage: Stage, whole: bool, bound: bool, attempts: u32) -> bool {
    // The owner of a session is tried twice; another try after a refusal so soon is no use.
    let attempts_max = if bound { 2 } else { ATTEMPTS_MAX };
    if !whole || attempts >= attempts_max {
        return false;
    }
    match (stage, retry) {
        (Stage::Answered, _) => false,
        (Stage::Connect, _) => true,
        (Stage::Sent { .. }, Retry::Always) => true,
        (Stage::Sent { reused }, Retry::SameEndpointOnce) => bound && reused,
        (Stage::Sent { .. }, _) => false,
    }
}

/// Is the attempt free, or charged to the pool's budget? A connection that was not made has cost the
/// server nothing; and servers close idle connections at any time, which a single further attempt
/// makes good.
pub fn is_free(stage: Stage, attempts: u32) -> bool {
    match stage {
        Stage::Connect => true,
        Stage::Sent { reused } => reused && attempts == 1,
        Stage::Answered => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_call_is_never_sent_twice() {
        for reused in [false, true] {
            assert!(!may(
                Retry::BeforeSend,
                Stage::Sent { reused },
                true,
                false,
                1
            ));
        }
        assert!(may(Retry::BeforeSend, Stage::Connect, true, false, 1));
    }

    #[test]
    fn a_read_goes_elsewhere_until_the_attempts_are_used_up() {
        assert!(may(
            Retry::Always,
            Stage::Sent { reused: true },
            true,
            false,
            2
        ));
        assert!(!may(
            Retry::Always,
            Stage::Sent { reused: true },
            true,
            false,
            3
        ));
        assert!(!may(Retry::Always, Stage::Answered, true, false, 1));
    }

    #[test]
    fn only_a_stale_connection_is_made_good_for_free() {
        assert!(is_free(Stage::Connect, 2));
        assert!(is_free(Stage::Sent { reused: true }, 1));
        assert!(!is_free(Stage::Sent { reused: true }, 2));
        assert!(!is_free(Stage::Sent { reused: false }, 1));
    }

    #[test]
    fn nothing_is_sent_again_that_is_no_longer_here() {
        assert!(!may(Retry::Always, Stage::Connect, false, false, 1));
    }
}
