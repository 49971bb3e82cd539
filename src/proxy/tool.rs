//! What the operator says of a tool beside how often it may be called: that it is not called at all, how
//! long a call may take, and whether it is sent again.
//!
//! It is looked up once, where the call is admitted ([`super::limits`]), and goes along with the call.

use std::time::{Duration, Instant};

use super::call::Call;
use super::ctx::Ctx;
use super::state::{PoolState, Snapshot};
use crate::config::{ToolRetry, Transport};
use crate::mcp::{Class, Retry};
use crate::route::RouteId;

/// What holds for a call that is let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// From its end to the end of its answer, in place of what the pool's timeouts say of it.
    pub timeout: Option<Duration>,
    /// Whether it may be sent again when a server may have had it.
    pub retry: ToolRetry,
}

/// What holds for an array of calls: it is answered as one.
#[derive(Debug, Default)]
pub struct OfBatch {
    /// The longest time of its requests, unless some have none of their own.
    longest: Option<Option<Duration>>,
}

impl OfBatch {
    /// One more of its requests.
    pub fn add(&mut self, of: Policy) {
        let longest = self.longest.unwrap_or(of.timeout);
        self.longest = Some(longest.zip(of.timeout).map(|(one, other)| one.max(other)));
    }

    /// What holds for all of them. It is never sent again.
    pub fn together(self) -> Policy {
        Policy {
            timeout: self.longest.flatten(),
            retry: ToolRetry::Never,
        }
    }
}

/// The status by which it is told that a tool is not called. An answer to a request is one like any other,
/// as servers give it for a tool that they do not have. But with HTTP+SSE the answer would come on the
/// stream, and to a notification there is none.
pub fn status_of_denial(snapshot: &Snapshot, route: RouteId, call: &Call) -> u16 {
    let peek = &call.body.peek;
    let is_read = call.body.ended || peek.settled();
    let is_note = is_read && peek.message().class() == Class::Notification;
    match snapshot.config.routes[route.0].transport {
        Transport::Streamable if !is_note => 200,
        Transport::Streamable | Transport::Sse => 400,
    }
}

/// Is the call safe to be sent twice? A tool is, if the operator says so, or if it says so and is believed.
pub fn safety(pool: &PoolState, call: &Call, ctx: &Ctx) -> Retry {
    let known = call.retry();
    let tool = ctx.tool.as_deref().filter(|_| call.is("tools/call"));
    let is_repeatable = tool.is_some_and(|tool| match call.policy.retry {
        ToolRetry::Never => false,
        ToolRetry::Safe => pool.is_repeatable(tool),
        ToolRetry::Always => true,
    });
    match is_repeatable {
        true => Retry::Always,
        false => known,
    }
}

impl Call {
    /// All of it has been sent: from now on its tool's time runs.
    pub fn was_sent(&mut self) {
        let timeout = self.policy.timeout;
        self.due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    /// How long its answer may still take, if its tool has a time of its own.
    pub fn time_left(&self) -> Option<Duration> {
        let due = self.due?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// How long the head of its answer may take, or a body that is held, where the pool allows `header`.
    pub fn answer_limit(&self, header: Duration) -> Duration {
        self.time_left().unwrap_or(header).min(self.answer_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_the_longest_time_if_all_of_it_has_one() {
        let second = Duration::from_secs(1);
        let with = |timeout| Policy {
            timeout,
            retry: ToolRetry::Always,
        };
        for (timeouts, together) in [
            (&[][..], None),
            (&[Some(second)], Some(second)),
            (&[Some(second), Some(3 * second)], Some(3 * second)),
            (&[Some(second), None], None),
            (&[None, Some(second)], None),
            (&[None, Some(second), Some(second)], None),
        ] {
            let mut batch = OfBatch::default();
            timeouts.iter().for_each(|one| batch.add(with(*one)));
            let policy = batch.together();
            assert_eq!(policy.timeout, together, "{timeouts:?}");
            assert_eq!(policy.retry, ToolRetry::Never);
        }
    }
}
