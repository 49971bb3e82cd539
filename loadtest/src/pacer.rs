//! Waiting until a moment, to within some tens of microseconds.
//!
//! The timers of the runtime round up to a millisecond. Latency counts from the moment a call is
//! due, so a late wake-up would be charged to the server: at two thousand calls a second it would
//! be most of what is measured. A kernel timer is exact, and waiting for it leaves the CPU to others.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

/// A timer; each waiting task needs one of its own.
pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// Fails when no more files can be opened.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe code; an owned descriptor cannot do what it guards against"
        )]
        let timer = AsyncFd::new(fd)?;
        Ok(Self { timer })
    }

    /// Returns at once when `at` has passed.
    pub(crate) async fn until(&self, at: Instant) -> io::Result<()> {
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let it_value = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value,
        };
        rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let expired = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            match expired {
                Ok(read) => return read.map(drop),
                // Readiness left over from an earlier wait.
                Err(_would_block) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waiting_never_ends_early() {
        let pacer = Pacer::new().unwrap();
        for micros in [1, 200, 3_000] {
            let at = Instant::now() + Duration::from_micros(micros);
            pacer.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_is_not_waited_for() {
        let pacer = Pacer::new().unwrap();
        pacer.until(Instant::now()).await.unwrap();
    }
}
