//! A caller: one connection that takes calls from the plan, sends each when it is due, and judges
//! the answer. `calls` and `hold` run many of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::conn::{Conn, Failure};
use crate::hist::Histogram;
use crate::line::Line;
use crate::mcp::{Session, Speaker, session};
use crate::pacer::Pacer;
use crate::schedule::Slots;
use crate::socket::Socket;

/// How long after the end a backlog is still sent. What is left then counts as not sent.
const OVERTIME: Duration = Duration::from_secs(1);
/// Pause after a failure on the connection, when nothing else sets the pace.
const BREATH: Duration = Duration::from_millis(10);

/// Failures by kind.
pub(crate) type Failures = BTreeMap<Failure, u64>;

/// What all callers of a run share.
pub(crate) struct Plan {
    pub(crate) speaker: Speaker,
    pub(crate) timeout: Duration,
    /// Which call is due when; `None` to send the next call as soon as the last is answered.
    pub(crate) slots: Option<Slots>,
    /// Calls due before this are sent and judged like all others, but not counted.
    pub(crate) warmup: Duration,
    /// From the start to the end, warm-up included.
    pub(crate) span: Duration,
    start: OnceLock<Instant>,
    next_id: AtomicU64,
}

impl Plan {
    pub(crate) fn new(
        speaker: Speaker,
        timeout: Duration,
        slots: Option<Slots>,
        warmup: Duration,
        span: Duration,
    ) -> Self {
        Self {
            speaker,
            timeout,
            slots,
            warmup,
            span,
            start: OnceLock::new(),
            next_id: AtomicU64::new(1),
        }
    }

    /// Sets the start to now, at the first call of this; the time since then counts.
    pub(crate) fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// A connection to the target, not opened yet.
    pub(crate) fn conn(&self) -> Conn {
        Conn::new(self.speaker.target().address)
    }

    /// A WebSocket to the target, not opened yet.
    pub(crate) fn socket(&self) -> Socket {
        Socket::new(self.speaker.target().address)
    }

    /// Opens a session over `conn`.
    pub(crate) async fn open_session(&self, conn: &mut Conn) -> Result<Session, Failure> {
        let reply = conn
            .exchange(&self.speaker.initialize(), self.timeout)
            .await?;
        let session = session(&reply)?;
        let accepted = conn
            .exchange(&self.speaker.initialized(&session), self.timeout)
            .await?;
        match accepted.head.status {
            200..=299 => Ok(session),
            status => Err(Failure::Status(status)),
        }
    }

    /// Ends a session; a server need not support that (405).
    pub(crate) async fn close_session(
        &self,
        conn: &mut Conn,
        session: &Session,
    ) -> Result<(), Failure> {
        let reply = conn
            .exchange(&self.speaker.delete(session), self.timeout)
            .await?;
        match reply.head.status {
            200..=299 | 405 => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }
}

/// What came of the calls.
pub(crate) struct CallStats {
    /// From when a call was due to the end of its reply, in microseconds. Of calls that were
    /// answered rightly, and of those that timed out, so that a stall cannot improve it.
    pub(crate) latency: Histogram,
    /// From when a call was due to when it was sent: waiting for a free connection, and the tool's
    /// own lateness.
    pub(crate) lag: Histogram,
    pub(crate) sent: u64,
    pub(crate) failures: Failures,
    /// Connections opened for a call, because the server had closed the last or a failure broke it.
    pub(crate) reconnects: u64,
    pub(crate) last_done: Option<Instant>,
}

impl CallStats {
    pub(crate) fn new() -> Self {
        Self {
            latency: Histogram::new(),
            lag: Histogram::new(),
            sent: 0,
            failures: Failures::new(),
            reconnects: 0,
            last_done: None,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.lag.merge(&other.lag);
        self.sent += other.sent;
        self.reconnects += other.reconnects;
        self.last_done = self.last_done.max(other.last_done);
        add(&mut self.failures, &other.failures);
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

pub(crate) fn add(failures: &mut Failures, more: &Failures) {
    for (failure, count) in more {
        *failures.entry(*failure).or_default() += count;
    }
}

/// A lock whose holders never leave a value half changed, so a panic elsewhere does not matter.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line at work.
pub(crate) struct Caller {
    plan: Arc<Plan>,
    /// Calls go round these; none means the stateless era, or that the line has its own.
    sessions: Arc<[Session]>,
    stats: Arc<Mutex<CallStats>>,
    line: Line,
    pacer: Pacer,
}

impl Caller {
    pub(crate) fn new(
        plan: Arc<Plan>,
        sessions: Arc<[Session]>,
        stats: Arc<Mutex<CallStats>>,
        line: Line,
    ) -> std::io::Result<Self> {
        Ok(Self {
            plan,
            sessions,
            stats,
            line,
            pacer: Pacer::new()?,
        })
    }

    /// Works until the plan is done. Returns the line.
    pub(crate) async fn run(mut self) -> Line {
        let start = self.plan.start();
        let mut calls = 0;
        while let Some((id, due)) = self.next(start) {
            // The timer cannot fail once it exists; if it did, the call would only be early.
            let _ = self.pacer.until(start + due).await;
            let sent = Instant::now();
            let before = self.line.reconnects(calls);
            calls += 1;
            let outcome = self.call(id).await;
            let done = Instant::now();
            if due >= self.plan.warmup {
                self.count(start + due, sent, done, outcome);
                locked(&self.stats).reconnects +=
                    self.line.reconnects(calls).saturating_sub(before);
            }
            if self.plan.slots.is_none() && outcome.is_err_and(Failure::breaks) {
                tokio::time::sleep(BREATH).await;
            }
        }
        self.line
    }

    /// The next call's id, and when it is due.
    fn next(&self, start: Instant) -> Option<(u64, Duration)> {
        let now = start.elapsed();
        match &self.plan.slots {
            Some(_) if now >= self.plan.span + OVERTIME => None,
            Some(slots) => slots.take().map(|(slot, due)| (slot + 1, due)),
            None if now >= self.plan.span => None,
            None => Some((self.plan.next_id.fetch_add(1, Ordering::Relaxed), now)),
        }
    }

    async fn call(&mut self, id: u64) -> Result<(), Failure> {
        let session = match self.sessions.len() as u64 {
            0 => None,
            count => self.sessions.get((id % count) as usize),
        };
        self.line.call(&self.plan, session, id).await
    }

    fn count(&self, due: Instant, sent: Instant, done: Instant, outcome: Result<(), Failure>) {
        let micros = |span: Duration| span.as_micros() as u64;
        let mut stats = locked(&self.stats);
        stats.sent += 1;
        stats
            .lag
            .record(micros(sent.saturating_duration_since(due)));
        stats.last_done = stats.last_done.max(Some(done));
        if let Err(failure) = outcome {
            *stats.failures.entry(failure).or_default() += 1;
        }
        if matches!(outcome, Ok(()) | Err(Failure::Timeout)) {
            stats
                .latency
                .record(micros(done.saturating_duration_since(due)));
        }
    }
}
