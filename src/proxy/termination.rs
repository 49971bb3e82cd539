//! Who ended an exchange, and how far it had come: two letters, as HAProxy logs them.
//!
//! The first letter says who: `-` nobody, all went well; `C` the client, `S` the server, `P` Tidegate,
//! by a rule or a bound; `c` and `s` a time limit of that side; `K` the operator; `L` nobody was asked,
//! for we answered. The second says in which step: see [`Step`].
//!
//! The letters are for the eye and for counting; the word beside them in the log has the reason.

use super::ctx::{Ctx, End};
use super::fault::Fault;

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The request is on its way to us, or is looked at: `R`.
    Request,
    /// It waits for a place at an endpoint: `Q`.
    Queue,
    /// A connection to an endpoint is being made: `C`.
    Connect,
    /// The endpoint has the request, and its answer has no head yet: `H`.
    Header,
    /// The answer is on its way, or the stream goes on: `D`.
    Data,
    /// The endpoint has said everything, and the client has not read all of it: `L`.
    Last,
}

impl Step {
    const fn letter(self) -> u8 {
        match self {
            Self::Request => b'R',
            Self::Queue => b'Q',
            Self::Connect => b'C',
            Self::Header => b'H',
            Self::Data => b'D',
            Self::Last => b'L',
        }
    }
}

/// Both letters for an exchange that is over.
pub fn flags(ctx: &Ctx) -> [u8; 2] {
    let (who, step) = match ctx.fault {
        Some(fault) => of_fault(fault),
        None => of_end(ctx.end),
    };
    let step = match (who, step) {
        (b'-', _) => b'-',
        (_, Some(step)) => step.letter(),
        (_, None) => ctx.step.letter(),
    };
    [who, step]
}

/// Who is behind a fault, and its step where that is not the one that the exchange had come to.
const fn of_fault(fault: Fault) -> (u8, Option<Step>) {
    match fault {
        Fault::Parse
        | Fault::Invalid(_)
        | Fault::HeaderMismatch(_)
        | Fault::UnsupportedVersion
        | Fault::UnsupportedVersionLegacy
        | Fault::Origin
        | Fault::Host
        | Fault::NoRoute
        | Fault::Method(_)
        | Fault::MediaType
        | Fault::BodyTooLarge
        | Fault::HeadTooLarge
        | Fault::TooMuch(_)
        | Fault::SessionRequired
        | Fault::SessionUnknown
        | Fault::OnlySessionEra
        | Fault::OnlyStatelessEra
        | Fault::Limited(..)
        | Fault::ToolDenied(_)
        | Fault::UnwatchedCalls
        | Fault::SessionsFull(_) => (b'P', Some(Step::Request)),
        Fault::SlowHead | Fault::SlowBody => (b'c', Some(Step::Request)),
        Fault::InFlight | Fault::QueueFull => (b'P', Some(Step::Queue)),
        Fault::QueueTimeout => (b's', Some(Step::Queue)),
        Fault::Tripped(_) | Fault::Exhausted => (b'P', Some(Step::Connect)),
        Fault::NoEndpoint | Fault::Connect => (b'S', Some(Step::Connect)),
        Fault::UpstreamClosed | Fault::UpstreamMalformed | Fault::UpstreamFailed => (b'S', None),
        Fault::UpstreamTimeout => (b's', None),
        Fault::Draining => (b'K', None),
        Fault::ClientGone => (b'C', None),
    }
}

/// The same for an exchange that has come further than a fault could.
const fn of_end(end: End) -> (u8, Option<Step>) {
    match end {
        End::Complete | End::Resumable => (b'-', None),
        End::Local => (b'L', Some(Step::Request)),
        End::ClientGone | End::TakenOver => (b'C', None),
        End::ClientWrite => (b'c', None),
        End::UpstreamLost | End::Truncated => (b'S', None),
        End::Timeout => (b's', None),
        End::TooLarge => (b'P', None),
        End::Drain | End::Withdrawn => (b'K', None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_ended_it_has_a_letter_in_every_step() {
        for (end, who) in [
            (End::ClientGone, b'C'),
            (End::ClientWrite, b'c'),
            (End::UpstreamLost, b'S'),
            (End::Timeout, b's'),
            (End::TooLarge, b'P'),
            (End::Withdrawn, b'K'),
        ] {
            assert_eq!(of_end(end), (who, None), "{end:?}");
        }
    }

    #[test]
    fn what_never_left_is_told_from_what_a_server_failed() {
        assert_eq!(of_fault(Fault::NoRoute), (b'P', Some(Step::Request)));
        assert_eq!(of_fault(Fault::Connect), (b'S', Some(Step::Connect)));
        assert_eq!(of_fault(Fault::QueueTimeout), (b's', Some(Step::Queue)));
        assert_eq!(of_fault(Fault::UpstreamTimeout), (b's', None));
    }
}
