//! Signals, and leaving without breaking anyone.
//!
//! TERM and QUIT: accept nothing new, let calls finish, then end the streams that would go on for
//! ever, each with the words its client needs; at the deadline end everything so. A second TERM or
//! QUIT brings the deadline forward. INT leaves at once. HUP must not kill the process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

use crate::proxy::state::{Phase, Shared};

/// How long streams may take to say their last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often the exchanges in flight are counted while draining.
const LOOK: Duration = Duration::from_millis(20);

/// Takes hold of the signals that would otherwise kill the process before it is ready for them.
/// The handlers stay for the life of the process.
///
/// # Errors
/// The operating system's.
pub(super) fn hold_signals() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for kind in [
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ] {
            let _ = signal(kind)?;
        }
        Ok(())
    })
}

/// Turns signals into the phases of the process.
pub(super) struct Signals {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    shutdown: watch::Sender<bool>,
    /// Only one watch is ever awaited.
    watching: Mutex<()>,
}

struct Kinds {
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
}

impl Signals {
    /// `phase` is what everything else watches; `shutdown` tells Pingora's HTTP/2 connections.
    pub(super) fn new(
        shared: Arc<Shared>,
        phase: watch::Sender<Phase>,
        shutdown: watch::Sender<bool>,
    ) -> Self {
        Self {
            shared,
            phase,
            shutdown,
            watching: Mutex::new(()),
        }
    }

    /// Serves the signals that do not end the process until one that does.
    async fn next(&self, kinds: &mut Kinds) -> Asked {
        loop {
            tokio::select! {
                _ = kinds.term.recv() => return Asked::Leave,
                _ = kinds.quit.recv() => return Asked::Leave,
                _ = kinds.int.recv() => return Asked::LeaveNow,
                _ = kinds.hup.recv() => log::warn!("HUP: this version cannot reload; restart to apply a new configuration"),
                _ = kinds.usr1.recv() => {
                    self.shared.log.reopen();
                    log::info!("USR1: reopened the logs");
                }
                _ = kinds.usr2.recv() => log::warn!("USR2: this version cannot replace its binary; restart instead"),
            }
        }
    }

    async fn drain(&self, kinds: &mut Kinds) {
        let deadline = Instant::now() + self.shared.snapshot.load().config.drain_timeout;
        log::info!(
            "draining: {} calls and {} streams in flight",
            self.shared.flight.calls(),
            self.shared.flight.streams()
        );
        self.phase.send_replace(Phase::Draining);
        self.shutdown.send_replace(true);
        tokio::select! {
            () = self.until(deadline, |shared| shared.flight.calls() == 0) => {}
            // Whoever asks twice is in a hurry.
            _ = self.next(kinds) => {}
        }
        let left = self.shared.flight.calls();
        if left > 0 {
            log::warn!(
                "the drain is over with {left} calls in flight; they are answered with an error"
            );
        }
        self.phase.send_replace(Phase::Ending);
        let over = Instant::now() + LAST_WORDS;
        self.until(over, |shared| {
            shared.flight.calls() + shared.flight.streams() == 0
        })
        .await;
        // Their last bytes are on the way to the kernel.
        sleep(LOOK).await;
    }

    async fn until(&self, deadline: Instant, done: impl Fn(&Shared) -> bool) {
        while !done(&self.shared) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let _only = self.watching.lock().await;
        let mut kinds = match Kinds::new() {
            Ok(kinds) => kinds,
            Err(error) => {
                log::error!("cannot watch for signals: {error}");
                return ShutdownSignal::FastShutdown;
            }
        };
        match self.next(&mut kinds).await {
            Asked::Leave => self.drain(&mut kinds).await,
            Asked::LeaveNow => log::info!("leaving now"),
        }
        // By now nothing is left to wait for, so Pingora may stop its runtimes at once.
        ShutdownSignal::FastShutdown
    }
}
