//! One thread's part of `hold`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

use super::Totals;
use crate::caller::{CallStats, Caller, Failures, Plan, locked};
use crate::conn::{Conn, Failure};
use crate::hist::Histogram;
use crate::http::Framing;
use crate::line::Line;
use crate::mcp::Session;
use crate::pacer::Pacer;
use crate::schedule::Slots;
use crate::stream::{Delays, Ending, follow};
use crate::track::{Standing, Tally};

/// Connections per thread over which sessions are opened, and ended, side by side.
pub(super) const OPENERS: u64 = 16;
/// What opening may take beyond what its rate demands, and what ending all sessions may take.
const GRACE: Duration = Duration::from_secs(60);

/// What the threads share.
pub(super) struct Shared {
    pub(super) plan: Arc<Plan>,
    openings: Slots,
    /// For calls, over all threads; zero when there are none.
    connections: u64,
    pub(super) threads: u64,
    /// Everyone, and whoever leads.
    pub(super) barrier: Barrier,
}

impl Shared {
    pub(super) fn new(plan: Plan, openings: Slots, connections: u64, threads: u64) -> Self {
        let barrier = Barrier::new(threads as usize + 1);
        Self {
            plan: Arc::new(plan),
            openings,
            connections,
            threads,
            barrier,
        }
    }

    /// Finds out whether there is a server with sessions and event streams, before any load.
    pub(super) async fn greet(&self) -> Result<(), Failure> {
        let mut conn = self.plan.conn();
        let (session, stream) = self.open(&mut conn).await?;
        drop(stream);
        self.plan.close_session(&mut conn, &session).await
    }

    /// Opens a session over `conn`, and its stream over another connection.
    async fn open(&self, conn: &mut Conn) -> Result<(Session, Stream), Failure> {
        let session = self.plan.open_session(conn).await?;
        match self.open_stream(&session).await {
            Ok(stream) => Ok((session, stream)),
            Err(failure) => {
                // Without its stream the session is of no use here, and is not left behind.
                let _ = self.plan.close_session(conn, &session).await;
                Err(failure)
            }
        }
    }

    async fn open_stream(&self, session: &Session) -> Result<Stream, Failure> {
        let speaker = &self.plan.speaker;
        let (head, rest, stream) = self
            .plan
            .conn()
            .open_stream(&speaker.open_stream(session), self.plan.timeout)
            .await?;
        match (head.status, head.event_stream) {
            (200, true) => Ok(Stream {
                framing: head.framing,
                rest,
                stream,
            }),
            (200, false) => Err(Failure::Wrong),
            (status, _) => Err(Failure::Status(status)),
        }
    }
}

/// An event stream whose head has been read.
struct Stream {
    framing: Framing,
    /// What came together with the head.
    rest: Vec<u8>,
    stream: TcpStream,
}

/// What the openers of a thread leave behind.
struct Opened {
    sessions: Vec<Session>,
    streams: JoinSet<(Tally, Ending)>,
    opening: Histogram,
    failures: Failures,
}

pub(super) struct Shard {
    shared: Arc<Shared>,
    index: u64,
    delays: Arc<Delays>,
    stop: watch::Sender<bool>,
    opened: Mutex<Opened>,
}

impl Shard {
    pub(super) fn new(shared: Arc<Shared>, index: u64) -> Self {
        let opened = Opened {
            sessions: Vec::new(),
            streams: JoinSet::new(),
            opening: Histogram::new(),
            failures: Failures::new(),
        };
        Self {
            shared,
            index,
            delays: Arc::new(Delays {
                histogram: Mutex::new(Histogram::new()),
                counting: AtomicBool::new(false),
            }),
            stop: watch::Sender::new(false),
            opened: Mutex::new(opened),
        }
    }

    /// Goes through the phases; `hold` leads through the same ones.
    pub(super) async fn run(self) -> Totals {
        let shard = Arc::new(self);
        shard.open().await;
        let callers = shard.callers().await;
        let stats = Arc::new(Mutex::new(CallStats::new()));
        shard.shared.barrier.wait().await;
        shard.shared.barrier.wait().await;
        shard.delays.counting.store(true, Ordering::Relaxed);
        let calling = shard.call(callers, &stats);
        shard.shared.barrier.wait().await;
        shard.delays.counting.store(false, Ordering::Relaxed);
        // Calls that are late are still owed an answer; the streams wait for them.
        calling.join_all().await;
        let mut totals = Totals::new();
        shard.stop_streams(&mut totals).await;
        shard.end_sessions(&mut totals).await;
        totals.calls.merge(&locked(&stats));
        totals.delay.merge(&locked(&shard.delays.histogram));
        totals
    }

    async fn open(self: &Arc<Self>) {
        let start = Instant::now();
        let openings = &self.shared.openings;
        let deadline = start + openings.span() + GRACE;
        let mut openers = JoinSet::new();
        for _ in 0..OPENERS {
            openers.spawn(self.clone().opener(start, deadline));
        }
        openers.join_all().await;
    }

    async fn opener(self: Arc<Self>, start: Instant, deadline: Instant) {
        let mut conn = self.shared.plan.conn();
        let Ok(pacer) = Pacer::new() else { return };
        while let Some((_, due)) = self.shared.openings.take() {
            let _ = pacer.until(start + due).await;
            let begun = Instant::now();
            let outcome = if begun < deadline {
                self.shared.open(&mut conn).await
            } else {
                Err(Failure::Timeout)
            };
            let mut opened = locked(&self.opened);
            match outcome {
                Ok((
                    session,
                    Stream {
                        framing,
                        rest,
                        stream,
                    },
                )) => {
                    opened.opening.record(begun.elapsed().as_micros() as u64);
                    opened.sessions.push(session);
                    opened.streams.spawn(follow(
                        stream,
                        framing,
                        rest,
                        self.delays.clone(),
                        self.stop.subscribe(),
                    ));
                }
                Err(failure) => {
                    *opened.failures.entry(failure).or_default() += 1;
                }
            }
        }
    }

    /// Connections for calls, opened before the clock starts.
    async fn callers(&self) -> Vec<Conn> {
        let Shared {
            connections,
            threads,
            ..
        } = *self.shared;
        let share = connections / threads + u64::from(self.index < connections % threads);
        let mut callers = Vec::new();
        for _ in 0..share {
            let mut conn = self.shared.plan.conn();
            // If that fails, the first call tries again and has the failure.
            let _ = conn.connect().await;
            callers.push(conn);
        }
        callers
    }

    fn call(&self, conns: Vec<Conn>, stats: &Arc<Mutex<CallStats>>) -> JoinSet<()> {
        let sessions: Arc<[Session]> = locked(&self.opened).sessions.as_slice().into();
        let mut calling = JoinSet::new();
        for conn in conns {
            // Without sessions these would be calls of the stateless era.
            if sessions.is_empty() {
                break;
            }
            let Ok(caller) = Caller::new(
                self.shared.plan.clone(),
                sessions.clone(),
                stats.clone(),
                Line::Kept(conn),
            ) else {
                break;
            };
            calling.spawn(async move { drop(caller.run().await) });
        }
        calling
    }

    async fn stop_streams(&self, totals: &mut Totals) {
        let _ = self.stop.send(true);
        let (streams, failures) = {
            let mut opened = locked(&self.opened);
            totals.opening.merge(&opened.opening);
            (
                std::mem::take(&mut opened.streams),
                std::mem::take(&mut opened.failures),
            )
        };
        totals.open_failures = failures;
        totals.opened = streams.len() as u64;
        for (tally, ending) in streams.join_all().await {
            totals.tally.add(&tally);
            match ending {
                Ending::Early => totals.closed_early += 1,
                Ending::Ours(Standing::Silent) => totals.silent += 1,
                Ending::Ours(Standing::Stalled) => totals.stalled += 1,
                Ending::Ours(Standing::Alive) => (),
            }
        }
    }

    async fn end_sessions(self: &Arc<Self>, totals: &mut Totals) {
        let left: VecDeque<_> = std::mem::take(&mut locked(&self.opened).sessions).into();
        let left = Arc::new(Mutex::new(left));
        let failures = Arc::new(Mutex::new(Failures::new()));
        let deadline = Instant::now() + GRACE;
        let mut closers = JoinSet::new();
        for _ in 0..OPENERS {
            let (shard, left, failures) = (self.clone(), left.clone(), failures.clone());
            closers.spawn(async move {
                let mut conn = shard.shared.plan.conn();
                while let Some(session) = pop(&left) {
                    let late = Instant::now() > deadline;
                    let closed = if late {
                        Err(Failure::Timeout)
                    } else {
                        shard.shared.plan.close_session(&mut conn, &session).await
                    };
                    if let Err(failure) = closed {
                        *locked(&failures).entry(failure).or_default() += 1;
                    }
                }
            });
        }
        closers.join_all().await;
        totals.close_failures = std::mem::take(&mut locked(&failures));
    }
}

/// A statement of its own: the lock must not be held while the session is closed.
fn pop(left: &Mutex<VecDeque<Session>>) -> Option<Session> {
    locked(left).pop_front()
}
