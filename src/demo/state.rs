//! All that one copy remembers, and the one place where a call meets it.

use std::time::Instant;

use super::reply::Reply;
use super::request::{Call, Said};
use super::session::{Lease, SESSIONS_MAX, Sessions};
use super::{session_era, stateless_era};

/// The memory of one copy. Pure: it is told the time and gives replies as values.
#[derive(Debug)]
pub(super) struct State {
    /// The copy's name, which `whoami` tells.
    pub(super) name: String,
    pub(super) sessions: Sessions,
    /// How often `counter` was called outside of any session.
    pub(super) calls: u64,
}

impl State {
    /// The memory of a copy that has seen nothing.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sessions: Sessions::new(SESSIONS_MAX),
            calls: 0,
        }
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, call: Call, now: Instant) -> Reply {
        match call {
            Call::Initialize(ask) => session_era::initialize(self, &ask, now).into(),
            Call::Session { session, said } => session_era::message(self, session, said, now),
            Call::Open(session) => session_era::open(self, session, now),
            Call::End(session) => session_era::end(self, session, now).into(),
            Call::Stateless(Said::Request(ask)) => stateless_era::request(self, ask),
            Call::Stateless(Said::Notification { .. } | Said::Response { .. }) => {
                stateless_era::unasked().into()
            }
        }
    }

    /// A stream that was opened with a lease is over.
    pub(super) fn close_stream(&mut self, lease: &Lease, now: Instant) {
        self.sessions
            .close_stream(&lease.session, lease.number, now);
    }
}
