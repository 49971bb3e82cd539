//! Signals, and leaving without breaking anyone.
//!
//! TERM and QUIT: accept nothing new, let calls finish, then end the streams that would go on for
//! ever, each with the words its client needs. So that not all of their clients come back elsewhere
//! at once, the ends are spread over a window, which lies before the deadline; what is a call and
//! has not come to its end by then ends in it as well. A second TERM or QUIT brings the deadline
//! forward. INT leaves at once. HUP reads the configuration again. USR2 starts the program's file anew
//! and leaves once that process serves.
//!
//! Sessions stay on their servers: their ids are sealed, and another process may go on with them.

use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::notify;
use super::reload::Reloader;
use super::socket::Accepting;
use super::upgrade::{Program, UpgradeError};
use super::wish::{Haste, Wish};
use crate::pool::Parting;
use crate::proxy::state::{Phase, PhaseSender, Shared};

/// How long streams may take to say their last words.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);
/// What each stream adds to the window over which streams end: 100 a second come back elsewhere.
const STREAM_SPACE: Duration = Duration::from_millis(10);
/// How long a process that was replaced waits for the next request on connections that are kept: each
/// is answered, and told to go elsewhere with the one after.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How long whoever asks over the API that the process leaves at once has to be answered.
const LAST_ANSWER: Duration = Duration::from_millis(200);
/// How often the exchanges in flight are counted while draining.
const LOOK: Duration = Duration::from_millis(20);

/// Takes hold of the signals that would otherwise kill the process before it is ready for them.
/// One that comes meanwhile is kept and acted on as soon as the process serves.
///
/// # Errors
/// The operating system's.
pub(super) fn hold_signals() -> std::io::Result<Kinds> {
    // Any runtime will do to take hold; whichever runs later hears of them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { Kinds::new() })
}

/// Turns signals into the phases of the process.
pub(super) struct Signals {
    shared: Arc<Shared>,
    replacement: Arc<Replacement>,
    phase: PhaseSender,
    shutdown: watch::Sender<bool>,
    /// Only one watch is ever awaited.
    kinds: Mutex<(Kinds, Wishes)>,
}

/// What is asked for over the API.
struct Wishes(mpsc::Receiver<Wish>);

/// The signals that are held.
pub(super) struct Kinds {
    term: Signal,
    quit: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Kinds {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }
}

enum Asked {
    Leave,
    LeaveNow,
    /// Another process serves by now.
    GiveWay(u32),
}

/// What it takes to put another process in the place of this one.
pub(super) struct Replacement {
    /// What is to be started.
    pub program: Program,
    /// Has the sockets of the listeners, and reloads.
    pub reloader: Arc<Reloader>,
    /// The admin address's.
    pub admin: Mutex<Option<Accepting>>,
    /// Closes the admin address here.
    pub replaced: watch::Sender<bool>,
}

impl Replacement {
    /// Starts the other one and waits until it serves.
    async fn start(&self, shared: &Shared) -> Result<u32, UpgradeError> {
        if shared.phase() != Phase::Running {
            return Err(UpgradeError::Draining);
        }
        let mut sockets = self
            .reloader
            .sockets()
            .await
            .map_err(UpgradeError::Sockets)?;
        let admin = self.admin.lock().await.as_ref().map(Accepting::try_clone);
        sockets.extend(admin.transpose().map_err(UpgradeError::Sockets)?);
        self.program.replace(sockets).await
    }

    /// Lets go of the sockets, so that they are closed when nobody accepts from them.
    async fn let_go(&self) {
        self.reloader.let_go().await;
        self.admin.lock().await.take();
    }
}

impl Signals {
    /// `phase` is what everything else watches; `shutdown` tells Pingora's HTTP/2 connections.
    pub(super) fn new(
        shared: Arc<Shared>,
        replacement: Replacement,
        wishes: mpsc::Receiver<Wish>,
        phase: PhaseSender,
        shutdown: watch::Sender<bool>,
        kinds: Kinds,
    ) -> Self {
        Self {
            shared,
            replacement: Arc::new(replacement),
            phase,
            shutdown,
            kinds: Mutex::new((kinds, Wishes(wishes))),
        }
    }

    /// Serves the signals that do not end the process until one that does.
    async fn next(&self, (kinds, wishes): &mut (Kinds, Wishes)) -> Asked {
        let mut upgrading = JoinSet::new();
        let mut asked = Vec::new();
        loop {
            tokio::select! {
                _ = kinds.term.recv() => return Asked::Leave,
                _ = kinds.quit.recv() => return Asked::Leave,
                _ = kinds.int.recv() => return Asked::LeaveNow,
                _ = kinds.hup.recv() => {
                    // The log says what came of it.
                    let _ = self.replacement.reloader.reload_and_tell().await;
                }
                _ = kinds.usr1.recv() => {
                    self.shared.log.reopen();
                    log::info!("USR1: reopened the logs");
                }
                _ = kinds.usr2.recv() => self.begin_upgrade(&mut upgrading),
                // Whoever has asked may be gone before it is answered.
                Some(wish) = wishes.0.recv() => match wish {
                    Wish::Upgrade(answer) => {
                        asked.push(answer);
                        self.begin_upgrade(&mut upgrading);
                    }
                    Wish::Reopen(answer) => {
                        self.shared.log.reopen();
                        let _ = answer.send(());
                    }
                    Wish::Leave(Haste::Drain, answer) => {
                        let _ = answer.send(());
                        return Asked::Leave;
                    }
                    Wish::Leave(Haste::Now, answer) => {
                        let _ = answer.send(());
                        sleep(LAST_ANSWER).await;
                        return Asked::LeaveNow;
                    }
                },
                Some(started) = upgrading.join_next() => {
                    let started = started.map_err(|error| error.to_string());
                    let started = started.and_then(|started| started.map_err(|e| e.to_string()));
                    for answer in asked.drain(..) {
                        // Whoever has asked may be gone.
                        let _ = answer.send(started.clone());
                    }
                    match started {
                        Ok(process) => return Asked::GiveWay(process),
                        Err(why) => log::error!("not replaced, all goes on as it was: {why}"),
                    }
                }
            }
        }
    }

    /// Starts another process, unless one is being started.
    fn begin_upgrade(&self, upgrading: &mut JoinSet<Result<u32, UpgradeError>>) {
        if upgrading.is_empty() {
            let (replacement, shared) = (Arc::clone(&self.replacement), Arc::clone(&self.shared));
            upgrading.spawn(async move { replacement.start(&shared).await });
        }
    }

    /// Streams go on until the deadline where there is a successor: it serves whoever comes, so there is
    /// no hurry, unless it has ended. Elsewhere they end as soon as no call is left, because the machine
    /// may be waiting to be switched off.
    async fn drain(&self, kinds: &mut (Kinds, Wishes), successor: Option<u32>) {
        let (deadline, jitter) = {
            let config = &self.shared.snapshot.load().config;
            (Instant::now() + config.drain_timeout, config.drain_jitter)
        };
        let flight = &self.shared.flight;
        log::info!(
            "draining: {} calls and {} streams in flight",
            flight.calls(),
            flight.streams()
        );
        self.replacement.let_go().await;
        self.phase.enter(Phase::Draining);
        self.shutdown.send_replace(true);
        let spread = || spread(flight.calls() + flight.streams(), jitter);
        tokio::select! {
            () = async {
                let requests_over = Instant::now() + LAST_REQUESTS;
                let is_done = || match successor.is_some() {
                    true => flight.is_quiet() && flight.is_drained() && Instant::now() >= requests_over,
                    false => flight.is_drained(),
                };
                self.until(deadline, |_| is_done() || Instant::now() + spread() >= deadline).await;
                self.close(deadline, spread()).await;
            } => {}
            // Whoever asks twice is in a hurry.
            _ = self.next(kinds) => {}
            // It is a child of this process, so nobody else learns of its end, and nobody serves, until
            // this one has left.
            () = end_of(successor) => log::error!("the process that serves has ended; leaving"),
        }
        let left = flight.calls();
        if left > 0 {
            log::warn!(
                "the drain is over with {left} calls in flight; they are answered with an error"
            );
        }
        self.phase.enter(Phase::Ending);
        let over = Instant::now() + LAST_WORDS;
        self.until(over, |shared| shared.flight.is_over()).await;
        // Their last bytes are on the way to the kernel.
        sleep(LOOK).await;
    }

    /// Ends what is open, spread over a window, and waits for what may end by itself meanwhile.
    async fn close(&self, deadline: Instant, spread: Duration) {
        let now = Instant::now();
        let length = spread.min(deadline.saturating_duration_since(now));
        let from = now.into_std();
        log::info!(
            "{} calls and {} streams end within {length:?}",
            self.shared.flight.calls(),
            self.shared.flight.streams()
        );
        self.phase.close_over(Parting { from, length });
        self.until(deadline, |shared| shared.flight.is_quiet())
            .await;
    }

    async fn until(&self, deadline: Instant, done: impl Fn(&Shared) -> bool) {
        while !done(&self.shared) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

/// The window for so many streams: a few need no more than a moment.
pub(super) fn spread(open: usize, jitter: Duration) -> Duration {
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    STREAM_SPACE.saturating_mul(open).min(jitter)
}

/// Waits for the end of a child, and does not wait on it (`wait(2)`): whoever adopts it when this process
/// leaves is to learn how it has ended.
async fn end_of(child: Option<u32>) {
    let Some(child) = child else {
        return pending().await;
    };
    let file = format!("/proc/{child}/stat");
    while fs::read_to_string(&file).is_ok_and(|stat| is_running(&stat)) {
        sleep(LOOK).await;
    }
}

/// What `/proc/PID/stat` says: `PID (NAME) STATE …`. The name may hold brackets and blanks.
fn is_running(stat: &str) -> bool {
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut kinds = self.kinds.lock().await;
        match self.next(&mut kinds).await {
            Asked::Leave => {
                notify::stopping();
                self.drain(&mut kinds, None).await;
            }
            Asked::LeaveNow => {
                notify::stopping();
                log::info!("leaving now");
            }
            Asked::GiveWay(process) => {
                log::info!("process {process} serves from now on");
                notify::replaced_by(process);
                self.replacement.replaced.send_replace(true);
                self.drain(&mut kinds, Some(process)).await;
            }
        }
        // By now nothing is left to wait for, so Pingora may stop its runtimes at once.
        ShutdownSignal::FastShutdown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_told_from_one_that_runs() {
        for (stat, runs) in [
            ("17 (tidegate) S 1 17", true),
            ("17 (tidegate) T 1 17", true),
            ("17 (a) Z b) R 1 17", true),
            ("17 (a) S b) Z 1 17", false),
            ("17 (tidegate) X 1 17", false),
            ("", false),
        ] {
            assert_eq!(is_running(stat), runs, "{stat}");
        }
    }

    #[test]
    fn the_window_grows_with_the_streams_up_to_the_jitter() {
        let jitter = Duration::from_secs(10);
        for (open, expected) in [
            (0, 0),
            (1, 10),
            (200, 2000),
            (1000, 10_000),
            (usize::MAX, 10_000),
        ] {
            assert_eq!(
                spread(open, jitter),
                Duration::from_millis(expected),
                "{open}"
            );
        }
        assert_eq!(spread(5, Duration::ZERO), Duration::ZERO);
    }
}
