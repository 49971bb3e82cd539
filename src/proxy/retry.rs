//! May this call be sent again, and where?
//!
//! The answer depends on what the call does and on how far the failed attempt got. A connection
//! that was never made carried nothing. A request that was sent may have been carried out, even
//! where no answer came, so only calls that change nothing, or give the same state, go out twice; a tool
//! call never does.

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

/// What was tried by now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tries {
    /// Attempts, but for those on connections that were stale.
    pub attempts: u32,
    /// Those on which the request was sent, in part at least, stale connections included.
    pub sent: u32,
}

/// Whether to try again. `whole` says that the body is still here to be sent again, `bound` that
/// only one endpoint may serve the call.
pub fn may(retry: Retry, stage: Stage, whole: bool, bound: bool, tries: Tries) -> bool {
    // The owner of a session is tried twice; another try after a refusal so soon is no use.
    let attempts_max = if bound { 2 } else { ATTEMPTS_MAX };
    if !whole || tries.attempts >= attempts_max {
        return false;
    }
    match (stage, retry) {
        (Stage::Answered, _) => false,
        (Stage::Connect, Retry::SameEndpointOnce) => bound || tries.sent == 0,
        (Stage::Connect, _) => true,
        (Stage::Sent { .. }, Retry::Always) => true,
        (Stage::Sent { .. }, Retry::SameEndpointOnce) => tries.sent == 1,
        (Stage::Sent { .. }, _) => false,
    }
}

/// Does the next attempt go to the same endpoint, although another one could serve the call?
pub fn stays(retry: Retry, stage: Stage) -> bool {
    retry == Retry::SameEndpointOnce && matches!(stage, Stage::Sent { .. })
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

    const STALE: Stage = Stage::Sent { reused: true };
    const BROKEN: Stage = Stage::Sent { reused: false };

    fn tries(attempts: u32, sent: u32) -> Tries {
        Tries { attempts, sent }
    }

    #[test]
    fn a_tool_call_is_never_sent_twice() {
        for stage in [STALE, BROKEN] {
            assert!(!may(Retry::BeforeSend, stage, true, false, tries(1, 1)));
        }
        let before = Retry::BeforeSend;
        assert!(may(before, Stage::Connect, true, false, tries(1, 0)));
    }

    #[test]
    fn a_read_goes_elsewhere_until_the_attempts_are_used_up() {
        assert!(may(Retry::Always, STALE, true, false, tries(2, 2)));
        assert!(!may(Retry::Always, STALE, true, false, tries(3, 3)));
        let answered = Stage::Answered;
        assert!(!may(Retry::Always, answered, true, false, tries(1, 1)));
        assert!(!stays(Retry::Always, BROKEN));
    }

    #[test]
    fn what_gives_the_same_state_is_sent_once_more_and_to_the_same_endpoint() {
        let once = Retry::SameEndpointOnce;
        for bound in [true, false] {
            assert!(may(once, BROKEN, true, bound, tries(1, 1)));
            assert!(may(once, STALE, true, bound, tries(0, 1)));
            assert!(!may(once, BROKEN, true, bound, tries(1, 2)));
            assert!(may(once, Stage::Connect, true, bound, tries(1, 0)));
        }
        assert!(stays(once, BROKEN) && stays(once, STALE));
        assert!(!stays(once, Stage::Connect), "nobody has seen it");
        // The endpoint that has seen it is gone, and no other one is to see it.
        assert!(!may(once, Stage::Connect, true, false, tries(1, 1)));
    }

    #[test]
    fn only_a_stale_connection_is_made_good_for_free() {
        assert!(is_free(Stage::Connect, 2));
        assert!(is_free(STALE, 1));
        assert!(!is_free(STALE, 2));
        assert!(!is_free(BROKEN, 1));
    }

    #[test]
    fn nothing_is_sent_again_that_is_no_longer_here() {
        assert!(!may(
            Retry::Always,
            Stage::Connect,
            false,
            false,
            tries(1, 0)
        ));
    }
}
