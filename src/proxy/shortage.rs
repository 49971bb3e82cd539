//! Telling the operator that this host has run out of something: in a counter every time, and in a
//! message now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::{Limit, limit_hit};
use crate::transport::Error;
use crate::transport::lack::Lack;

/// A shortage fails everything that is tried while it lasts; one message of each kind in this time is
/// enough.
const EVERY: Duration = Duration::from_secs(10);

/// When each kind was last told of. One for the whole process, as standard error is.
static TOLD: [Seldom; 4] = [const { Seldom::new() }; 4];

/// Tells of the failure of a connection, if it is one that this host has brought about.
pub fn tell(error: &Error) {
    if let Error::Lacking(lack) = error {
        note(*lack);
    }
}

/// Tells what has run out, and what to raise.
pub fn note(lack: Lack) {
    let (kind, limit, what_to_do) = match lack {
        Lack::Ports(_) => (
            0,
            Limit::LocalPorts,
            "widen net.ipv4.ip_local_port_range, use http2 to the endpoints, or list more of them",
        ),
        Lack::Files => (
            1,
            Limit::OpenFiles,
            "raise LimitNOFILE of the unit (ulimit -n), or lower max_connections of the listeners",
        ),
        Lack::HostFiles => (2, Limit::OpenFiles, "raise fs.file-max"),
        Lack::Memory => (
            3,
            Limit::SocketMemory,
            "raise net.ipv4.tcp_mem, or give the host or the container more memory",
        ),
    };
    limit_hit(limit);
    if TOLD[kind].is_due(Instant::now()) {
        log::warn!("no connection can be made, for {lack}: {what_to_do}");
    }
}

/// What is told once in [`EVERY`], however often it happens.
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| now.saturating_duration_since(told) >= EVERY);
        if is_due {
            *told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_told_now_and_then() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let mut told = 0;
        for tenth in 0..250 {
            told += u32::from(seldom.is_due(start + Duration::from_millis(100) * tenth));
        }
        assert_eq!(told, 3, "at 0, 10 and 20 s");
    }
}
