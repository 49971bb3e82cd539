//! What an endpoint does wrong, and to which requests.
//!
//! A fault is a rule in the endpoint's [`Script`]: it holds for every request, for the next few, or
//! for those a closure picks, until it is used up or [`Script::heal`] takes everything back. For one
//! request at most one *main* fault applies, the oldest rule that matches, so that a sequence of
//! `fault_next` plays in order; modifiers ([`Fault::is_modifier`]) come on top of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::Request;

/// One way to misbehave. Sizes are in bytes of the body as the client would see it, without
/// transfer coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Reads the request and closes in good order without a byte.
    CloseBeforeHead,
    /// Reads the request and resets the connection.
    ResetBeforeHead,
    /// Reads the request and says nothing until healed; then it answers.
    StallBeforeHead,
    /// Sends bytes that are not HTTP and closes.
    GarbageHead,
    /// Answers with this status and body; the request is not acted on.
    Status(u16, String),
    /// Sends the head of the right answer, then nothing until healed.
    StallAfterHead,
    /// Sends this much of the body, then nothing until healed.
    StallMidEvent(usize),
    /// Closes after this much of the body. A shorter body is sent whole, and a stream then still
    /// lacks its last chunk.
    CloseMidEvent(usize),
    /// Resets after this much of the body; see [`Fault::CloseMidEvent`].
    ResetMidEvent(usize),
    /// Ends an event stream in good order, but the response message is never on it.
    CloseCleanWithoutResponse,
    /// Announces so many bytes more than it sends, then closes. JSON replies only.
    LengthTooLong(usize),
    /// Announces so many bytes fewer than it sends. JSON replies only.
    LengthTooShort(usize),
    /// Sends a chunk whose size is no number, then closes. Event streams only.
    BadChunk,
    /// Sends a notification with this much text before anything else; makes the reply a stream.
    HugeEvent(usize),
    /// Sends every byte of head and body by itself, with this pause before each. HTTP/1.1 only.
    Trickle(Duration),
    /// Sends a `103 Early Hints` head before the real one. HTTP/1.1 only.
    EarlyHints,
    /// Adds this header line to the reply.
    ExtraHeader(String, String),
    /// Closes the connection when it has been idle this long after the reply, without having said
    /// `connection: close`. HTTP/1.1 only.
    CloseIdleAfter(Duration),
}

impl Fault {
    /// Whether this changes the way of an answer rather than taking its place.
    pub(crate) fn is_modifier(&self) -> bool {
        matches!(
            self,
            Self::Trickle(_) | Self::EarlyHints | Self::ExtraHeader(..) | Self::CloseIdleAfter(_)
        )
    }
}

/// Tells whether a rule is for this request.
type When = Box<dyn Fn(&Request) -> bool + Send + Sync>;

struct Rule {
    fault: Fault,
    /// How often the rule may still apply; `None` is without end.
    left: Option<usize>,
    when: When,
}

/// The faults an endpoint has been told to show.
pub(crate) struct Script {
    rules: Mutex<Vec<Rule>>,
    /// Counts the calls of `heal`; stalled replies wait for it to change.
    heals: watch::Sender<u64>,
    fired: AtomicUsize,
}

impl Script {
    pub(super) fn new() -> Self {
        Self {
            rules: Mutex::default(),
            heals: watch::Sender::new(0),
            fired: AtomicUsize::new(0),
        }
    }

    /// Adds a rule behind those already there.
    pub(super) fn add(&self, fault: Fault, left: Option<usize>, when: When) {
        self.lock().push(Rule { fault, left, when });
    }

    /// Forgets every rule and lets every stalled reply go on.
    pub(super) fn heal(&self) {
        self.lock().clear();
        self.heals.send_modify(|count| *count += 1);
    }

    /// How many requests met a fault.
    pub(super) fn fired(&self) -> usize {
        self.fired.load(Ordering::SeqCst)
    }

    /// The faults for this request; rules for a number of requests are used up by it.
    pub(super) fn take(&self, request: &Request) -> Vec<Fault> {
        let mut main = false;
        let mut faults = Vec::new();
        self.lock().retain_mut(|rule| {
            if (main && !rule.fault.is_modifier()) || !(rule.when)(request) {
                return true;
            }
            main |= !rule.fault.is_modifier();
            faults.push(rule.fault.clone());
            rule.left = rule.left.map(|left| left.saturating_sub(1));
            rule.left != Some(0)
        });
        if !faults.is_empty() {
            self.fired.fetch_add(1, Ordering::SeqCst);
        }
        faults
    }

    /// Sees every [`Script::heal`] from now on. Taken before the faults of a request, so that no heal
    /// falls between the two.
    pub(super) fn heals(&self) -> watch::Receiver<u64> {
        self.heals.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().expect("no rule's closure panics")
    }
}
